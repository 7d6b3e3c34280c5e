"""What the decoders make of their learned queries before any image is worked out once, and nothing changes by it."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from segvit.config import Structure
from segvit.models.decoder import DecoderLayer, LearnedQueries, folding
from segvit.models.segvit import SegViT, evaluating
from tests.helpers.tiny import tiny_config

STRUCTURES: tuple[Structure, ...] = ("plain", "shrunk", "naive_shrunk")
SIZES = ((96, 96), (64, 32), (32, 64), (70, 96))
"""Two of them have as many patches, on other grids."""


def model_of(structure: Structure) -> SegViT:
    torch.manual_seed(0)
    return SegViT(tiny_config("vit", structure), num_classes=5).eval()


def logits(model: SegViT, images: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        output = model(images)
    return output.class_logits, output.mask_logits


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """The shapes of queries that layers have prepared."""
    shapes: list[torch.Size] = []
    prepare: Callable[..., object] = DecoderLayer.prepare

    def count(layer: DecoderLayer, queries: Tensor) -> object:
        shapes.append(queries.shape)
        return prepare(layer, queries)

    monkeypatch.setattr(DecoderLayer, "prepare", count)
    return shapes


@pytest.mark.parametrize("structure", STRUCTURES)
def test_the_answer_is_the_same(structure: Structure) -> None:
    model = model_of(structure)
    images = [torch.rand(batch, 3, *size) for size in SIZES for batch in (1, 3)]
    expected = [logits(model, image) for image in images]
    with folding(model):
        for _ in range(2):
            for image, wanted in zip(images, expected, strict=True):
                for ours, theirs in zip(logits(model, image), wanted, strict=True):
                    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize("structure, learned", [("plain", 1), ("naive_shrunk", 1), ("shrunk", 2)])
def test_once_for_all_images(structure: Structure, learned: int, prepared: list[torch.Size]) -> None:
    """Of a shrunk model it is the first layer of the up-sampling, and that of the head."""
    model, images = model_of(structure), torch.rand(2, 3, 64, 64)
    logits(model, images)
    layers = len(prepared)
    assert sum(shape[0] == 1 for shape in prepared) == learned  # for the batch, not for each image
    with folding(model):
        logits(model, images)
        prepared.clear()
        logits(model, images)
        assert len(prepared) == layers - learned
        with folding(model):  # as evaluate, and in it each image
            pass
        prepared.clear()
        logits(model, images)
        assert len(prepared) == layers - learned


def test_precisions_are_kept_apart() -> None:
    model, images = model_of("shrunk"), torch.rand(1, 3, 64, 64)

    def in_bfloat16() -> tuple[Tensor, Tensor]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return logits(model, images)

    wanted = [logits(model, images), in_bfloat16()]
    with folding(model):
        for run, expected in [(in_bfloat16, wanted[1]), (lambda: logits(model, images), wanted[0])]:
            for ours, theirs in zip(run(), expected, strict=True):
                torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_new_weights_are_seen_after_the_block(structure: Structure) -> None:
    model, images = model_of(structure), torch.rand(1, 3, 64, 64)
    with evaluating(model):
        before = logits(model, images)
    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, LearnedQueries):
                assert part.held is None
        model.head.class_tokens.data.mul_(2)
    with evaluating(model):
        after = logits(model, images)
    torch.testing.assert_close(after, logits(model, images), rtol=0, atol=0)
    assert not torch.equal(before[0], after[0])


def test_dropout_is_each_images_own(prepared: list[torch.Size]) -> None:
    model = model_of("plain").train()
    with torch.no_grad():
        output = model(torch.rand(1, 3, 64, 64).expand(2, -1, -1, -1))
    assert prepared[0][0] == 2
    assert not torch.equal(output.class_logits[:, 0], output.class_logits[:, 1])

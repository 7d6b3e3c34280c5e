"""What the decoders make of their learned queries before any image is worked out once, and nothing changes by it."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from segvit.config import Structure, Upsampling
from segvit.models.create import create_model
from segvit.models.decoder import DecoderLayer
from segvit.models.modes import evaluating
from segvit.models.query_cache import QueryCache, cached_queries
from segvit.models.segvit import SegViT
from tests.helpers.tiny import tiny_config

CASES: list[tuple[Structure, Upsampling]] = [
    ("plain", "tap"),
    ("shrunk", "tap"),
    ("shrunk", "paper"),
    ("naive_shrunk", "tap"),
]
SIZES = ((96, 96), (64, 32), (32, 64), (70, 96))
"""Two of them have as many patches, on other grids."""


def model_of(structure: Structure, upsampling: Upsampling = "tap") -> SegViT:
    torch.manual_seed(0)
    return create_model(config=tiny_config("vit", structure, upsampling), num_classes=5).eval()


def logits(model: SegViT, images: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        output = model(images)
    return output.class_logits, output.mask_logits


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """The shapes of queries that layers have compared."""
    shapes: list[torch.Size] = []
    compare: Callable[..., object] = DecoderLayer.compare

    def count(layer: DecoderLayer, queries: Tensor) -> object:
        shapes.append(queries.shape)
        return compare(layer, queries)

    monkeypatch.setattr(DecoderLayer, "compare", count)
    return shapes


@pytest.mark.parametrize("structure, upsampling", CASES)
def test_the_answer_is_the_same(structure: Structure, upsampling: Upsampling) -> None:
    model = model_of(structure, upsampling)
    images = [torch.rand(batch, 3, *size) for size in SIZES for batch in (1, 3)]
    expected = [logits(model, image) for image in images]
    with cached_queries(model):
        for _ in range(2):
            for image, wanted in zip(images, expected, strict=True):
                for ours, theirs in zip(logits(model, image), wanted, strict=True):
                    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize("structure, upsampling", CASES)
def test_once_for_all_images(structure: Structure, upsampling: Upsampling, compared: list[torch.Size]) -> None:
    """The paper's up-sampling has a first layer of its own; all models have the head's."""
    model, images = model_of(structure, upsampling), torch.rand(2, 3, 64, 64)
    learned = 2 if upsampling == "paper" else 1
    logits(model, images)
    layers = len(compared)
    assert sum(shape[0] == 1 for shape in compared) == learned  # for the batch, not for each image
    with cached_queries(model):
        logits(model, images)
        compared.clear()
        logits(model, images)
        assert len(compared) == layers - learned
        with cached_queries(model):  # as evaluate, and in it each image
            pass
        compared.clear()
        logits(model, images)
        assert len(compared) == layers - learned


def test_precisions_are_kept_apart() -> None:
    model, images = model_of("shrunk", "paper"), torch.rand(1, 3, 64, 64)

    def in_bfloat16() -> tuple[Tensor, Tensor]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return logits(model, images)

    wanted = [logits(model, images), in_bfloat16()]
    with cached_queries(model):
        for run, expected in [(in_bfloat16, wanted[1]), (lambda: logits(model, images), wanted[0])]:
            for ours, theirs in zip(run(), expected, strict=True):
                torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize("structure, upsampling", CASES)
def test_new_weights_are_seen_after_the_block(structure: Structure, upsampling: Upsampling) -> None:
    model, images = model_of(structure, upsampling), torch.rand(1, 3, 64, 64)
    with evaluating(model):
        before = logits(model, images)
    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, QueryCache):
                assert part.held is None
        model.head.class_tokens.data.mul_(2)
    with evaluating(model):
        after = logits(model, images)
    torch.testing.assert_close(after, logits(model, images), rtol=0, atol=0)
    assert not torch.equal(before[0], after[0])


def test_dropout_is_each_images_own(compared: list[torch.Size]) -> None:
    model = model_of("plain").train()
    with torch.no_grad():
        output = model(torch.rand(1, 3, 64, 64).expand(2, -1, -1, -1))
    assert compared[0][0] == 2
    assert not torch.equal(output.class_logits[:, 0], output.class_logits[:, 1])

"""The inside of a model: numbers that a slow reference gives too."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import segvit
from segvit import pictures
from segvit.config import Structure, Upsampling
from segvit.data.palette import default_palette
from segvit.errors import UserError
from segvit.models import decoder
from segvit.models.downsampling import Kept, keep
from segvit.pictures.inside.canvas import Canvas
from tests.helpers.looked_at import REGISTERS, SLIDE, WHOLE, as_batch, make, photo_of
from tests.helpers.one_file import slow_scores
from tests.helpers.tiny import PRESENCE

CASES: list[tuple[str, Structure, Upsampling]] = [
    ("vit without class token", "plain", "tap"),
    (REGISTERS, "plain", "tap"),
    (REGISTERS, "shrunk", "tap"),
    (REGISTERS, "shrunk", "paper"),
    (REGISTERS, "naive_shrunk", "tap"),
    ("beitv2", "shrunk", "tap"),
    ("dinov3", "naive_shrunk", "tap"),
    (PRESENCE, "plain", "tap"),
]


@pytest.fixture
def attended(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, Tensor]]:
    """Queries and keys (1, A, ., head width) of every attention of the decoders, in the order in which it ran."""
    seen: list[tuple[Tensor, Tensor]] = []
    attention = decoder.attention

    def keep(q: Tensor, k: Tensor, v: Tensor, *, dropout: float = 0.0) -> Tensor:
        seen.append((q, k))
        return attention(q, k, v, dropout=dropout)

    monkeypatch.setattr(decoder, "attention", keep)
    return seen


@pytest.mark.parametrize("variant, structure, upsampling", CASES)
def test_what_is_kept_is_what_the_model_computed(
    variant: str, structure: Structure, upsampling: Upsampling, attended: list[tuple[Tensor, Tensor]]
) -> None:
    model, photo = make(variant, structure, upsampling), photo_of(100, 70)  # 7 x 5 patches of 16, 8 x 5 of 14
    inside = pictures.look(model, photo, classes=[3, "class 1"])
    heads = list(attended)
    with torch.no_grad():
        output = model(as_batch(photo))
    num_outputs, grid = len(output.mask_logits), tuple(output.mask_logits.shape[3:])
    assert inside.classes == (3, 1) and inside.size == (100, 70) and len(inside.outputs) == num_outputs
    assert inside.padded_size == output.padded_size
    np.testing.assert_allclose(inside.masks, output.mask_logits[:, 0, [3, 1]], atol=1e-5)

    found = inside.similarity.cumsum(axis=0) if inside.summed else inside.similarity
    np.testing.assert_allclose(found, inside.masks, rtol=1e-4, atol=1e-4)
    assert inside.summed == (upsampling == "tap")
    # Cross-attentions of the head have as many queries as classes; those of masks are the last of each stage.
    crossed = [(q, k) for q, k in heads if q.shape[2] == 5 and k.shape[2] == grid[0] * grid[1] != 5]
    crossed = crossed if upsampling == "paper" else crossed[1::2]
    assert len(crossed) == num_outputs
    for ours, (q, k) in zip(inside.attention, crossed, strict=True):
        for head in range(q.shape[1]):
            for place, k_class in enumerate(inside.classes):
                logits = (k[0, head] @ q[0, head, k_class]) / q.shape[3] ** 0.5
                np.testing.assert_allclose(ours[head, place].ravel(), logits.softmax(0), rtol=1e-3, atol=1e-6)

    for index in range(num_outputs):
        slow = slow_scores(output, index)[0].argmax(dim=0)
        assert (inside.labels[index] != slow.numpy()).mean() < 1e-3, "but for ties"
    assert (inside.labels[-1] == model.predict(as_batch(photo))[0].numpy()).all()
    assert (inside.labels[-1] == segvit.predict(model, photo).labels).all()
    assert len(np.unique(inside.labels[-1])) > 1, "labels of one class would test nothing"


@pytest.mark.parametrize("variant, structure", [case[:2] for case in CASES if case[2] == "tap"])
@pytest.mark.parametrize("size", [(100, 70), (64, 64), (33, 97)])
def test_kept_tokens_are_the_model_s(variant: str, structure: Structure, size: tuple[int, int]) -> None:
    model = make(variant, structure)
    tokens = pictures.look(model, photo_of(*size)).tokens
    patch, prefix = model.backbone.patch_size, model.backbone.num_prefix_tokens
    assert tokens.grid == (-(-size[0] // patch), -(-size[1] // patch)) and tokens.num_prefix == prefix
    assert tokens.restored == (structure == "shrunk")
    if structure == "plain":
        assert tokens.kept.all() and tokens.shrink_at is None and tokens.shrunk == tokens.grid
        return
    seen: dict[str, Tensor] = {}

    def numbered(part: Any, inputs: tuple[Any, ...], output: Kept) -> None:
        """Let the part that shrinks choose among tokens that hold their own number."""
        numbers = torch.arange(prefix + inputs[0].shape[1], dtype=torch.float32)[None, :, None]
        seen["going on"] = keep(numbers, output.indices, prefix)[0, :, 0].long()

    hook = model.backbone.downsampling.register_forward_hook(numbered)
    with torch.no_grad():
        features = model.backbone(model.pad(model.normalise(as_batch(photo_of(*size)))))
    hook.remove()
    going_on = seen["going on"].tolist()
    assert going_on[:prefix] == list(range(prefix))
    assert [number - prefix for number in going_on[prefix:]] == np.flatnonzero(tokens.kept).tolist()
    assert tokens.shrunk == tuple(features[-1].shape[2:])


def test_gazes_are_the_attention_of_learned_tokens(attended: list[tuple[Tensor, Tensor]]) -> None:
    model, photo = make(REGISTERS, "shrunk", "paper"), photo_of(100, 70)
    inside = pictures.look(model, photo)
    rows, columns = inside.tokens.grid
    before, last = inside.gazes
    assert before.attention.shape[1:] == (8, 5) and last.attention.shape[1:] == (4, 3)
    assert (before.cell, last.cell) == (14, 28) and (before.block, last.block) == model.backbone.taps
    from_queries = [(q, k) for q, k in attended if q.shape[2] == rows * columns]
    for gaze, num_keys in ((before, 40), (last, 12)):
        # The last layer over this map; where the map is as large as the tokens are many, cross follows self-attention.
        q, k = [(q, k) for q, k in from_queries if k.shape[2] == num_keys][3 if num_keys == 40 else 1]
        for place, ours in zip(gaze.places, gaze.attention, strict=True):
            number = place[0] * columns + place[1]
            weights = [((k[0, head] @ q[0, head, number]) / q.shape[3] ** 0.5).softmax(0) for head in range(q.shape[1])]
            np.testing.assert_allclose(ours.ravel(), torch.stack(weights).mean(dim=0), rtol=1e-3, atol=1e-6)


def test_the_size_at_which_a_photo_is_looked_at() -> None:
    slide = make("vit", "plain", protocol=SLIDE)  # crops of 64
    assert pictures.look(slide, photo_of(90, 120)).size == (64, 85)
    assert pictures.look(slide, photo_of(30, 40)).size == (64, 85)
    assert pictures.look(slide, photo_of(20, 400)).size == (13, 256), "at most four crops long"
    assert pictures.look(slide, photo_of(90, 120), size=32).size == (32, 43)
    whole = make("vit", "plain", protocol=replace(WHOLE, resize_short=48))
    inside = pictures.look(whole, photo_of(90, 120))
    assert inside.size == (48, 64) and inside.labels.shape == (3, 90, 120)
    assert (inside.labels[-1] == segvit.predict(whole, photo_of(90, 120)).labels).all()
    assert pictures.look(slide, photo_of(40, 2100)).labels.shape == (3, 20, 1024), "label maps stay small"


def test_a_look_leaves_no_trace() -> None:
    model = make(REGISTERS, "shrunk", "paper").train()
    photo = photo_of(70, 56)
    first, second = (pictures.look(model, photo) for _ in range(2))
    assert model.training and not any(part._forward_hooks for part in model.modules())
    for name in ("masks", "heads", "labels"):
        assert (getattr(first, name) == getattr(second, name)).all()
    with pytest.raises(UserError, match="cannot be shrunk"):
        pictures.look(model, photo_of(8, 8))
    assert model.training and not any(part._forward_hooks for part in model.modules())


def test_classes_by_name_and_number() -> None:
    model, photo = make("vit", "plain"), photo_of(64, 64)
    default = pictures.look(model, photo)
    fractions = default.shares()
    assert default.classes == tuple(np.argsort(-fractions, kind="stable")[: min(3, np.count_nonzero(fractions))])
    assert default.palette == default_palette(5), "a model without a spec has colours too"
    assert pictures.look(model, photo, classes=["2", 0, "class 2", 2]).classes == (2, 0)
    assert pictures.look(model, photo, classes="class 4").classes == (4,)
    for wrong, text in [
        (["clas 3"], "did you mean 'class 3'"),
        ([5], r"a number 0\.\.4"),
        ([-1], "no class '-1'"),
        ([], "no classes"),
    ]:
        with pytest.raises(UserError, match=text):
            pictures.look(model, photo, classes=wrong)
    with pytest.raises(UserError, match="size 0"):
        pictures.look(model, photo, size=0)
    with pytest.raises(UserError, match="1 was not recorded, only 0"):
        pictures.attention_figure(pictures.look(model, photo, classes=[0]), 1)
    for tokenless in (default, pictures.look(make("vit", "shrunk"), photo)):
        with pytest.raises(UserError, match=r"no learned tokens.*only the structure shrunk with the up-sampling paper"):
            pictures.queries_figure(tokenless)


def test_outputs_of_shrunk_are_named_for_the_blocks_they_read() -> None:
    photo = photo_of(64, 64)
    inside = pictures.look(make("vit", "shrunk"), photo)
    assert inside.outputs == ("stage 1, block 3", "stage 2, block 0") and not inside.gazes
    assert pictures.look(make("vit", "shrunk", "paper"), photo).outputs == ("layer 1", "layer 2")


def test_exported_models_do_not_show_their_inside() -> None:
    class Exported:
        path = Path("model.onnx")

    with pytest.raises(UserError, match=r"model\.onnx is an exported model.*give the \.safetensors file"):
        pictures.look(Exported(), photo_of(64, 64))  # type: ignore[arg-type]


@pytest.mark.parametrize("structure", ["plain", "naive_shrunk"])
def test_maps_lie_where_the_model_has_them(structure: Structure) -> None:
    inside = pictures.look(make(REGISTERS, structure), photo_of(330, 402), classes=[0])
    canvas = Canvas(inside)
    assert canvas.photo.shape[:2] == inside.size, "neither enlarged nor shrunk"
    logits = torch.from_numpy(inside.masks[-1])[None]
    slow = F.interpolate(logits, size=inside.padded_size, mode="bilinear", align_corners=False)[0, 0, :330, :402]
    np.testing.assert_allclose(canvas.probability(inside.masks[-1, 0]), slow.sigmoid(), atol=2e-5)
    cell = model_cell = inside.padded_size[0] // inside.masks.shape[2]
    cells = canvas.cells(inside.masks[-1, 0])
    for y, x in [(0, 0), (13, 13), (14, 27), (29, 30), (329, 401)]:
        assert cells[y, x] == inside.masks[-1, 0, y // cell, x // cell]
    assert model_cell == (14 if structure == "plain" else 28)

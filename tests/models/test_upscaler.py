"""The upscaler of the masks: by loops, without effect at the start, and wherever masks are read."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import segvit
import segvit.data.dataset as dataset_module
from segvit.config import ModelConfig
from segvit.data.spec import DatasetSpec
from segvit.errors import UserError
from segvit.inference.label_map import label_map
from segvit.losses import CRITERIA
from segvit.models.create import create_model
from segvit.models.output import SegOutput
from segvit.models.scores import scores
from segvit.models.segvit import SegViT
from segvit.pictures.inside.look import look
from segvit.profiling.info import describe
from segvit.profiling.multiply_adds import profile
from segvit.training.train import train
from segvit.weights.finetune import with_classes
from tests.helpers.tiny import random_images, run_records, stir, tiny_config, tiny_run

CASES: dict[str, dict[str, Any]] = {
    "plain, patch 16": {"variant": "vit"},
    "plain, patch 14": {"variant": "dinov2, registers"},
    "shrunk": {"variant": "vit", "structure": "shrunk"},
    "shrunk, QU": {"variant": "vit", "structure": "shrunk", "upsampling": "paper"},
    "edges": {"variant": "vit", "structure": "shrunk", "downsampling": "edge"},
    "naive, edges": {"variant": "vit", "structure": "naive_shrunk", "downsampling": "edge"},
    "linear": {"variant": "vit", "head": "linear"},
}
COLORS = ((1, 2, 3), (4, 5, 6), (7, 8, 9))


def config_of(name: str, upscaler: str = "conv") -> ModelConfig:
    case = dict(CASES[name])
    changes: dict[str, Any] = {"upscaler": upscaler}
    if "head" in case:
        changes |= {"head": case.pop("head"), "head_num_layers": 3}
    return replace(tiny_config(case.pop("variant"), **case), **changes)


def upscaled(name: str, *, num_classes: int = 3, fresh: bool = False) -> SegViT:
    torch.manual_seed(0)
    model = create_model(config=config_of(name), num_classes=num_classes)
    stir(model)
    if not fresh:
        torch.nn.init.normal_(model.upscaler.coefficients)
    return model.eval()


def slow_upscaler(part: Any, masks: Tensor, image: Tensor, feature: Tensor) -> Tensor:
    """One image and output: masks (K, h, w), image (N, H, W), map (D, h, w) -> (K, 4 h, 4 w), cell by cell."""
    fine = (4 * masks.shape[1], 4 * masks.shape[2])
    image = F.interpolate(image[None], size=(4 * fine[0], 4 * fine[1]), mode="bilinear")[0]
    normed = torch.zeros_like(feature)
    for y in range(masks.shape[1]):
        for x in range(masks.shape[2]):
            normed[:, y, x] = part.norm(feature[:, y, x])
    first, _, second = part.tokens
    pixels = part.stem(image[None])[0]
    mixed_in = torch.zeros(pixels.shape)
    for y in range(fine[0]):
        for x in range(fine[1]):
            token = normed[:, y // 4, x // 4]
            hidden = F.gelu(token @ first.weight[:, :, y // 2 % 2, x // 2 % 2] + first.bias)
            mixed_in[:, y, x] = hidden @ second.weight[:, :, y % 2, x % 2] + second.bias
    features = F.gelu(F.conv2d(F.gelu(pixels + mixed_in)[None], part.mix.weight, part.mix.bias, padding=1))[0]
    result = F.interpolate(masks[None], size=fine, mode="bilinear")[0]
    for k in range(len(masks)):
        for c in range(len(features)):
            result[k] += part.coefficients[k, c] * features[c]
    return result


@torch.no_grad()
@pytest.mark.parametrize("name", ["plain, patch 16", "plain, patch 14"])
def test_the_upscaler_by_loops(name: str) -> None:
    model, generator = upscaled(name), torch.Generator().manual_seed(2)
    patch, dim = model.backbone.patch_size, model.backbone.embed_dim
    masks, feature = (torch.randn(*shape, generator=generator) for shape in ((2, 2, 3, 2, 5), (2, dim, 2, 5)))
    images = torch.randn(2, 3, 2 * patch, 5 * patch, generator=generator)
    ours = model.upscaler(masks, images, feature)
    assert ours.shape == (2, 2, 3, 8, 20) and ours.dtype == torch.float32
    for output in range(2):
        for image in range(2):
            slow = slow_upscaler(model.upscaler, masks[output, image], images[image], feature[image])
            torch.testing.assert_close(ours[output, image], slow, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("name", CASES)
def test_a_new_upscaler_changes_nothing(name: str) -> None:
    """Masks up-sampled in two steps are not those up-sampled in one, but their cells are."""
    model = upscaled(name, fresh=True)
    without = create_model(config=config_of(name, "none"), num_classes=3).eval()
    without.load_state_dict({key: value for key, value in model.state_dict().items() if not key.startswith("upscaler")})
    images = random_images(2, (50, 77))
    ours, theirs = model(images), without(images)
    assert torch.equal(ours.class_logits, theirs.class_logits) and ours.padded_size == theirs.padded_size
    assert ours.mask_logits.shape[3:] == tuple(4 * side for side in theirs.mask_logits.shape[3:])
    expected = F.interpolate(theirs.mask_logits.flatten(0, 1), scale_factor=4.0, mode="bilinear")
    torch.testing.assert_close(ours.mask_logits.flatten(0, 1), expected)
    assert model.mask_cell == without.mask_cell / 4 and type(without.mask_cell) is int


@torch.no_grad()
@pytest.mark.parametrize("size", [(50, 77), (33, 40), (70, 20)], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_any_image_size(name: str, size: tuple[int, int]) -> None:
    model, images = upscaled(name), random_images(2, size)
    output = model(images)
    patch = model.backbone.patch_size
    grid = tuple(-(-side // patch) for side in size)
    assert output.mask_logits.shape[3:] == (4 * grid[0], 4 * grid[1])
    assert output.padded_size == (grid[0] * patch, grid[1] * patch)
    assert torch.equal(output.mask_logits[-1:], model(images, deep=False).mask_logits)
    labels, best = model.predict(images), model.scores(images).argmax(dim=1)
    assert labels.shape == (2, *size) and (labels != best).float().mean() < 1e-3
    alone = torch.cat([model(image[None]).mask_logits for image in images], dim=1)
    torch.testing.assert_close(alone, output.mask_logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    model = upscaled(name).train()
    labels = torch.arange(2 * 64 * 80).reshape(2, 64, 80) // 97 % 3
    head = model.config.head if model.config else "atm"
    CRITERIA[head](model(random_images(2, (64, 80))), labels).total.backward()  # type: ignore[call-arg]
    for key, parameter in model.upscaler.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, key


@torch.no_grad()
def test_bounds_hold_for_cells_of_four_pixels() -> None:
    """Many classes, so that the label map goes by bounds."""
    generator = torch.Generator().manual_seed(3)
    coarse = 3 * torch.randn(1, 40, 6, 9, generator=generator)
    masks = F.interpolate(coarse, size=(24, 36), mode="bilinear") + torch.randn(1, 40, 24, 36, generator=generator)
    output = SegOutput(torch.randn(1, 1, 40, 41, generator=generator) * 3, masks[None], (93, 141), (96, 144))
    assert (label_map(output) != scores(output).argmax(dim=1)).sum() == 0


def test_naive_shrunk_is_refused() -> None:
    config = replace(tiny_config("vit", "naive_shrunk"), upscaler="conv")
    with pytest.raises(UserError, match=r"model\.upscaler conv with model\.structure naive_shrunk.*plain or shrunk"):
        create_model(config=config, num_classes=3)
    with pytest.raises(UserError, match=r"model\.upscaler 'deconv': give none or conv"):
        create_model(config=replace(config, upscaler="deconv"), num_classes=3)  # type: ignore[arg-type]


def test_a_file_and_what_it_costs(tmp_path: Path) -> None:
    model, path = upscaled("shrunk"), tmp_path / "model.safetensors"
    model.save(path)
    images = random_images(1, (50, 77))
    assert torch.equal(segvit.load_model(path).predict(images), model.predict(images))
    assert describe(str(path)).to_dict()["upscaler"] == "conv"
    part = next(part for part in profile(model, 64).parts if part.name == "mask upscaler")
    tokens = 16 * (32 * 32 * 4 + 4 * 32 * 16 * 4)  # a map of width 32
    stem = 32 * 32 * 16 * 3 * 16 + 16 * 16 * 16 * 16 * 16
    assert part.multiply_adds == stem + tokens + 16 * 16 * (16 * 16 * 9 + 3 * 16)


def test_fine_tuning_moves_rows_and_may_add_one() -> None:
    old = DatasetSpec(name="three", classes=("a", "b", "c"), palette=COLORS, raw_ids=(0, 1, 2))
    new = DatasetSpec(name="two", classes=("c", "d"), palette=COLORS[:2], raw_ids=(0, 1))
    model = upscaled("shrunk")
    model.spec = old
    moved = with_classes(model, new)
    assert torch.equal(moved.upscaler.coefficients[0], model.upscaler.coefficients[2])
    assert not moved.upscaler.coefficients[1].any()
    assert torch.equal(moved.upscaler.mix.weight, model.upscaler.mix.weight)
    without = create_model(config=config_of("shrunk", "none"), num_classes=3)
    without.spec = old
    added = with_classes(without, old, config=config_of("shrunk"))
    assert not added.upscaler.coefficients.any()
    with pytest.raises(UserError, match=r"model\.upscaler: conv in .*, none in the settings"):
        with_classes(model, old, config=config_of("shrunk", "none"))


def test_a_run_and_a_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset_module, "SHAPES_LENGTH", {"train": 4, "val": 1})
    config = tiny_run(tmp_path / "run")
    run = train(replace(config, model=replace(config.model, upscaler="conv")))
    assert all(record["loss"] > 0 for record in run_records(config.output) if "loss" in record)
    model = segvit.load_model(run.path)
    assert model.upscaler.coefficients.abs().max() > 0
    inside = look(model, random_images(1, (40, 56))[0].permute(1, 2, 0).numpy(), classes=[0, 1], size=40)
    assert inside.masks.shape[2:] == tuple(4 * side for side in inside.heads.shape[3:])
    data = replace(config.data, cache_features=tmp_path / "cache")
    cached = replace(
        config,
        model=replace(config.model, upscaler="conv"),
        data=data,
        augment=replace(config.augment, views=1),
        optim=replace(config.optim, freeze=1),
        output=tmp_path / "cached",
    )
    with pytest.raises(UserError, match=r"cache_features: the upscaler MaskUpscaler reads the pixels"):
        train(cached)

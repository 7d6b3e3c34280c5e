"""Pretrained weights at another crop or patch than theirs.

Resized at load they are what timm itself loads there. Kept, their positions are resized for each image.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

import segvit.data.dataset as dataset_module
from segvit.config import ModelConfig, Structure
from segvit.data.palette import default_palette
from segvit.data.spec import DatasetSpec, load_spec
from segvit.errors import UserError
from segvit.models.create import create_backbone, create_model
from segvit.training.checkpoint import checkpoint_path, load_checkpoint
from segvit.training.train import train
from segvit.weights.finetune import network_of, with_classes
from segvit.weights.load import load_model
from segvit.weights.model_file import network_settings, read_header
from tests.helpers.tiny import TINY, random_images, relative_difference, stir, tiny_run

OTHER = ("flexivit_small", "vit_base_patch16_radio_v3", "vit_large_patch16_radio_v3")
"""Families whose positions timm does not resize bicubic with antialias."""


def tiny_timm(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let timm make tiny models, and read their weights from a file at timm's own size and patch."""
    torch.manual_seed(5)
    create = timm.create_model
    donor = create(name, num_classes=0, **TINY)
    stir(donor)
    if donor.pos_embed is not None:
        nn.init.normal_(donor.pos_embed)
    torch.save(donor.state_dict(), tmp_path / "weights.pth")

    def create_from_file(name: str, *, pretrained: bool = False, **arguments: Any) -> nn.Module:
        if pretrained:
            file = str(tmp_path / "weights.pth")
            arguments.setdefault("pretrained_cfg_overlay", {"file": file, "custom_load": False, "num_classes": 0})
        made: nn.Module = create(name, pretrained=pretrained, **{**TINY, **arguments})
        return made

    monkeypatch.setattr(timm, "create_model", create_from_file)


@torch.no_grad()
def check_taps(config: ModelConfig, **settings: Any) -> None:
    """Check the blocks of the pretrained backbone of `config` against those of timm's model with `settings`."""
    ours, _ = create_backbone(config)
    theirs = timm.create_model(config.backbone, pretrained=True, num_classes=0, **settings)
    assert torch.equal(ours.patch_embed.proj.weight, theirs.patch_embed.proj.weight)
    images = torch.randn(1, 3, config.image_size, config.image_size)
    expected = theirs.eval().forward_intermediates(images, indices=[3], norm=False, intermediates_only=True)
    assert relative_difference(ours.eval()(images)[-1], expected[-1]) < 1e-5


@pytest.mark.parametrize("size", [96, 320])
@pytest.mark.parametrize("name", OTHER)
def test_positions_of_flexivit_and_radio_are_resized_as_timm_does(
    name: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_timm(name, tmp_path, monkeypatch)
    check_taps(ModelConfig(backbone=name, image_size=size, pretrained=True, **TINY), img_size=size)


@pytest.mark.filterwarnings("ignore::UserWarning:timm")  # its resizing of BEiT's tables
@pytest.mark.parametrize(
    "name, size, patch",
    [
        ("vit_tiny_patch16_224", 64, 8),
        ("vit_small_patch14_dinov2", 64, 16),
        ("flexivit_small", 96, 24),
        ("beitv2_base_patch16_224", 56, 8),
        ("eva02_tiny_patch14_224", 64, 16),
        ("vit_small_patch16_dinov3", 64, 8),
    ],
)
def test_another_patch_has_the_weights_that_timm_resamples(
    name: str, size: int, patch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_timm(name, tmp_path, monkeypatch)
    config = ModelConfig(
        backbone=name, image_size=size, patch_size=patch, pretrained=True, position_grid="crop", **TINY
    )
    check_taps(config, img_size=size, patch_size=patch)
    file = create_backbone(replace(config, pretrained=False, pretrained_file=tmp_path / "weights.pth"))[0].state_dict()
    assert all(torch.equal(value, file[key]) for key, value in create_backbone(config)[0].state_dict().items())


# Positions that keep the grid of the weights -------------------------------------------------------------------------

DINOV2 = ModelConfig(
    backbone="vit_small_patch14_dinov2",
    image_size=56,
    pretrained=True,
    head_num_layers=1,
    upsampling_num_layers=1,
    **TINY,
)
SPEC = DatasetSpec(name="two", classes=("cat", "dog"), palette=default_palette(2), raw_ids=(0, 1))


@torch.no_grad()
def test_kept_positions_are_timms_at_the_size_of_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the crop is. At other sizes timm resizes with antialias, whose cubic kernel is another."""
    tiny_timm(DINOV2.backbone, tmp_path, monkeypatch)
    ours, _ = create_backbone(DINOV2)
    assert ours.native_grid == (37, 37)
    theirs = timm.create_model(DINOV2.backbone, pretrained=True, num_classes=0, dynamic_img_size=True).eval()
    images = torch.randn(1, 3, 518, 518)
    expected = theirs.forward_intermediates(images, indices=[3], norm=False, intermediates_only=True)
    assert relative_difference(ours.eval()(images)[-1], expected[-1]) < 1e-5


@pytest.mark.parametrize("structure", ["plain", "shrunk"])
def test_crop_and_grid_of_the_positions_are_two_facts(
    structure: Structure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a new model, one loaded from its file, and one fine-tuned at another crop."""
    tiny_timm(DINOV2.backbone, tmp_path, monkeypatch)
    config = replace(DINOV2, structure=structure, upsampling="paper" if structure == "shrunk" else "tap")
    model = create_model(config=config, num_classes=2, spec=SPEC)
    assert (model.image_size, model.backbone.native_grid) == (56, (37, 37))
    model.save(tmp_path / "model.safetensors")
    header = read_header(tmp_path / "model.safetensors")
    del header["model"]["position_grid"]
    assert network_settings(header, "older.safetensors").position_grid == "crop"
    again = load_model(tmp_path / "model.safetensors")
    images = random_images(1, (70, 45))
    assert torch.equal(again.predict(images), model.predict(images))
    config = replace(network_of(str(tmp_path / "model.safetensors")), image_size=84)
    for grid, side in (("pretrained", 37), ("crop", 6)):
        larger = with_classes(again, SPEC, config=replace(config, position_grid=grid))
        assert (larger.image_size, larger.backbone.native_grid) == (84, (side, side))
        if structure == "shrunk":
            assert (model.upsampling.native_grid, larger.upsampling.native_grid) == ((4, 4), (6, 6))
    kept = with_classes(again, SPEC, config=config)
    assert torch.equal(kept.backbone.pos_embed, model.backbone.pos_embed)


@pytest.mark.parametrize(
    "name, pretrained, choice, grid",
    [
        ("vit_small_patch14_dinov2", True, None, 37),
        ("vit_small_patch14_dinov2", True, "crop", 4),
        ("vit_small_patch14_dinov2", False, None, 4),
        ("vit_small_patch14_dinov2", False, "pretrained", 37),
        ("flexivit_small", True, None, 4),  # timm resizes their positions in a way of its own
        ("vit_base_patch16_radio_v3", True, None, 4),
        ("vit_small_patch16_dinov3", True, None, 4),  # has no absolute positions
    ],
)
def test_grid_of_the_positions(
    name: str, pretrained: bool, choice: Any, grid: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_timm(name, tmp_path, monkeypatch)
    side = 4 * (14 if "14" in name else 16)
    config = ModelConfig(backbone=name, image_size=side, pretrained=pretrained, position_grid=choice, **TINY)
    assert create_backbone(config)[0].native_grid == (grid, grid)
    assert create_backbone(config.without_weights())[0].native_grid == (grid, grid)


@pytest.mark.parametrize(
    "name, why",
    [
        ("flexivit_small", "timm resizes its positions in another way"),
        ("vit_base_patch16_radio_v3", "timm resizes its positions in another way"),
        ("vit_small_patch16_dinov3", "it has no absolute positions"),
        ("beitv2_base_patch16_224", "it has no absolute positions"),
    ],
)
def test_a_grid_that_cannot_be_kept_is_refused(name: str, why: str) -> None:
    config = ModelConfig(backbone=name, image_size=64, pretrained=True, position_grid="pretrained", **TINY)
    told = rf"model\.position_grid pretrained with the backbone '{name}': {why}.*leave model\.position_grid out"
    with pytest.raises(UserError, match=told):
        create_backbone(config)
    assert create_backbone(config.without_weights())[0].native_grid == (4, 4)


def test_kept_positions_of_another_patch_are_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_timm(DINOV2.backbone, tmp_path, monkeypatch)
    ours, _ = create_backbone(replace(DINOV2, patch_size=16))
    donor = torch.load(tmp_path / "weights.pth")
    assert ours.native_grid == (37, 37) and torch.equal(ours.pos_embed, donor["pos_embed"])
    resampled = timm.layers.resample_patch_embed(donor["patch_embed.proj.weight"], [16, 16])
    assert torch.allclose(ours.patch_embed.proj.weight, resampled, atol=1e-6)


@pytest.mark.parametrize("start", ["pretrained", "init"])
def test_a_run_from_before_the_setting_resumes_at_the_grid_of_its_crop(
    start: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_timm("vit_tiny_patch16_224", tmp_path, monkeypatch)
    monkeypatch.setattr(dataset_module, "SHAPES_LENGTH", {"train": 2, "val": 1})
    model = ModelConfig(
        backbone="vit_tiny_patch16_224", image_size=64, pretrained=True, position_grid="crop", head_num_layers=1, **TINY
    )
    config = tiny_run(tmp_path / "run", model=model, steps=1, eval_every=1)
    if start == "init":
        created = create_model(config=model, num_classes=8, spec=load_spec("shapes"))
        created.save(tmp_path / "older.safetensors")
        network = network_of(str(tmp_path / "older.safetensors"))
        config = replace(config, init=tmp_path / "older.safetensors", model=network)
    run = train(config)
    path = checkpoint_path(config.output, 1)
    state = load_checkpoint(path)
    del state["config"]["model"]["position_grid"]
    torch.save(state, path)
    assert train(config, resume=True).miou == run.miou
    if start == "pretrained":
        told = r"model\.position_grid: 'crop' in the run, 'pretrained' now; type --model\.position-grid crop"
        with pytest.raises(UserError, match=told):
            train(replace(config, model=replace(model, position_grid=None)), resume=True)

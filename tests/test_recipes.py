"""Every shipped recipe builds, and the paper's hold its values (docs/method.md section 5, docs/reproduce.md)."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from segvit.config import AugmentConfig, EvalConfig, LossConfig, OptimConfig, TrainConfig
from segvit.data.folder_spec import resolve_spec
from segvit.models.create import create_model
from segvit.models.segvit import SegViT

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = sorted((ROOT / "configs").rglob("*.yaml"))
LARGE = "vit_large_patch16_384.augreg_in21k_ft_in1k"
# classes, crop, steps, weight decay, power, lr, window's stride
PAPER = {
    "ade20k/large": (150, 640, 160_000, 0.01, 1.0, 2e-5, 608),
    "ade20k/base": (150, 512, 160_000, 0.01, 1.0, 2e-5, 341),
    "coco_stuff_10k/large": (171, 512, 80_000, 0.02, 2.0, 2e-5, 341),
    "pascal_context_60/large": (60, 480, 80_000, 0.03, 1.0, 2e-5, 320),
    "pascal_context_59/large": (59, 480, 80_000, 0.02, 2.0, 5e-6, 320),
}


def build(config: TrainConfig) -> SegViT:
    """The recipe's model without memory, its classes from the dataset where it names one."""
    spec = resolve_spec(config.data) if config.data.spec else None
    with torch.device("meta"):
        return create_model(
            config=replace(config.model, pretrained=False), num_classes=spec.num_classes if spec else 2, spec=spec
        )


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.relative_to(ROOT / "configs").as_posix())
def test_every_recipe_builds(path: Path) -> None:
    config = TrainConfig.load(path)
    model = build(config)
    assert model.config.structure == config.model.structure


@pytest.mark.parametrize("name", PAPER)
def test_recipes_hold_the_papers_values(name: str) -> None:
    classes, crop, steps, weight_decay, power, lr, stride = PAPER[name]
    config = TrainConfig.load(name)
    large, dataset = name.endswith("large"), name.split("/")[0]
    model = build(config)
    assert config.data.spec == dataset and model.num_classes == classes
    assert config.model.backbone == (LARGE if large else "vit_base_patch16_384.orig_in21k_ft_in1k")
    assert (config.model.pretrained, config.model.class_token) == (True, False)
    assert config.model.drop_path == (0.3 if large else 0.1)
    assert (config.model.drop_path_branches, config.model.position_grid) == ("mlp", "crop")
    assert model.backbone.taps == ((7, 15, 23) if large else (5, 7, 11))
    assert model.mean.shape == (3,)
    if not large:
        assert config.model.mean == (0.485, 0.456, 0.406) and config.model.std == (0.229, 0.224, 0.225)
    assert (config.model.image_size, config.steps, config.batch_size) == (crop, steps, 16)
    assert config.optim == OptimConfig(
        lr=lr, head_lr_factor=10, weight_decay=weight_decay, betas=(0.9, 0.999), warmup_steps=1500,
        warmup_factor=1e-6, power=power, clip_norm=35,
    )  # fmt: skip
    assert config.loss == LossConfig(
        class_coefficient=1, focal_coefficient=20, dice_coefficient=1, no_object_weight=0.1, ignore_as_negative=True
    )
    pascal = dataset.startswith("pascal")
    fit = (520, 520) if pascal else (2048, None)  # None: the crop
    assert config.augment == AugmentConfig(
        resize_long=fit[0], resize_short=fit[1], scale=(0.5, 2.0), max_class_share=0.75, flip=0.5,
        brightness=32, contrast=0.5, saturation=0.5, hue=18,
    )  # fmt: skip
    short = {"ade20k": crop, "coco_stuff_10k": 512}.get(dataset, 520)
    least = {"ade20k": None, "coco_stuff_10k": 512}.get(dataset, 480)
    assert config.eval == EvalConfig(
        mode="slide", window=None, stride=stride, scales=(1.0,), flip=False,
        resize_long=2048 if dataset == "ade20k" else None, resize_short=short, resize_short_min=least,
    )  # fmt: skip


@pytest.mark.parametrize("name", PAPER)
def test_shrunk_recipes_are_their_plain_ones_shrunk(name: str) -> None:
    plain, shrunk = TrainConfig.load(name), TrainConfig.load(f"{name}_shrunk")
    assert shrunk.model.structure == "shrunk" and shrunk.model.upsampling == "paper"
    unshrunk = replace(shrunk.model, structure="plain", upsampling="tap")
    assert replace(shrunk, model=unshrunk, output=plain.output) == plain
    depth = 24 if name.endswith("large") else 12
    assert build(shrunk).backbone.shrink_at == {24: 8, 12: 6}[depth]
    naive = TrainConfig.load(f"{name}_shrunk", ["--model.structure", "naive_shrunk"])
    assert build(naive).upsampling is None


def ablations() -> Iterator[Any]:
    """The flags of each row of the ablations in docs/reproduce.md."""
    text = (ROOT / "docs" / "reproduce.md").read_text(encoding="utf-8")
    for what, flags in re.findall(r"^\| ([^|]+) \| `(--config [^`]+)` \|", text, re.MULTILINE):
        yield pytest.param(flags, id=what)


@pytest.mark.parametrize("flags", ablations())
def test_every_ablation_of_the_page_builds(flags: str) -> None:
    _, recipe, *overrides = shlex.split(flags)
    spread = [word for word in overrides if not word.isdigit()]
    taps = tuple(int(word) for word in overrides if word.isdigit())
    if taps:  # the command line takes several after one flag
        spread = [word for tap in taps for word in (spread[0], str(tap))]
    model = build(TrainConfig.load(recipe, spread))
    if taps:
        assert model.backbone.taps == taps
    elif overrides:
        assert overrides[1] in (model.config.structure, model.config.downsampling)


def test_the_page_names_the_recipes_and_all_ablations() -> None:
    text = (ROOT / "docs" / "reproduce.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| `([a-z0-9_/]+)` \|", text, re.MULTILINE))
    assert named == set(PAPER) | {f"{name}_shrunk" for name in PAPER} - {"ade20k/base_shrunk"}
    assert len(list(ablations())) == 9

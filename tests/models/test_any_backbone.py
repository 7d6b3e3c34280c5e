"""Every backbone that docs/any-backbone.md names: its blocks are timm's, and it can be shrunk."""

import copy
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from segvit.config import ModelConfig
from segvit.models.create import create_model, create_vit, weightless
from segvit.models.families import adapt
from segvit.profiling.info import describe
from tests.helpers.tiny import TINY, random_images, relative_difference, stir

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "any-backbone.md").read_text(encoding="utf-8")
FAMILIES, COSTS = (
    re.findall(rf"^\| {first}.*?\n\n", PAGE, re.MULTILINE | re.DOTALL)[0] for first in ("family", "backbone")
)
NAMES = re.findall(r"`(\w+)`", FAMILIES)
AS_IT_IS = ("vit_base_patch16_sapiens2",)
"""Takes no other depth."""


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_named_backbone_is_timms_and_shrinks(name: str) -> None:
    patch = int(weightless(name).patch_embed.patch_size[0])
    overrides = {} if name in AS_IT_IS else TINY
    config = ModelConfig(backbone=name, image_size=4 * patch, head_num_layers=1, **overrides)
    torch.manual_seed(0)
    vit = create_vit(config).eval()
    stir(vit)
    reference, depth = copy.deepcopy(vit), len(vit.blocks)
    images = torch.randn(1, 3, 4 * patch, 4 * patch)
    with torch.no_grad():
        ours = adapt(vit, taps=range(depth)).eval()(images)
        theirs = reference.forward_intermediates(
            images, indices=list(range(depth)), norm=False, intermediates_only=True
        )
    for feature, expected in zip(ours, theirs, strict=True):
        assert relative_difference(feature, expected) < 1e-5
    shrunk = create_model(config=replace(config, structure="shrunk"), num_classes=3)
    size = (5 * patch + 3, 3 * patch)
    assert shrunk.predict(random_images(1, size)).shape == (1, *size)


def test_the_page_names_a_backbone_of_every_family() -> None:
    assert len(NAMES) > 25 and len(set(NAMES)) == len(NAMES)
    assert {type(weightless(name)).__name__ for name in NAMES[::6]} >= {"VisionTransformer", "Eva"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "row", re.findall(r"^\| `(\w+)` \| (\d+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", COSTS, re.M)
)
def test_costs_are_those_of_the_page(row: tuple[str, ...]) -> None:
    name, crop, parameters, plain, shrunk = row
    seen = describe(name, image_size=int(crop)).profile
    assert f"{seen.parameters / 1e6:.1f}" == parameters
    assert f"{seen.multiply_adds / 1e9:.1f}" == plain
    assert f"{describe(name, image_size=int(crop), structure='shrunk').profile.multiply_adds / 1e9:.1f}" == shrunk

"""The guide to backbones: its table against timm and `segvit.profile`, its filters, and the command."""

import contextlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm

from segvit.cli import main as cli
from segvit.config import TrainConfig
from segvit.errors import UserError
from segvit.profiling.info import describe
from segvit.recipes.backbones import GATED, costs, find_backbones, reference_size, size_of

MODULES = ("vision_transformer", "deit", "beit", "eva")
SAMPLE = ["vit_tiny_patch16_224", "beitv2_base_patch16_224", "eva02_small_patch14_224", "vit_small_patch16_dinov3"]


def test_the_table_holds_every_plain_vit_of_timm() -> None:
    names = {name for module in MODULES for name in timm.list_models(module=module)}
    known = {cost.name for cost in costs()}
    assert known <= names, known - names
    assert len(known) >= 240
    assert f"{len(known)} of the models in timm" in (Path(__file__).parents[2] / "docs/any-backbone.md").read_text()


@pytest.mark.parametrize("name", [SAMPLE[0], *(pytest.param(name, marks=pytest.mark.slow) for name in SAMPLE[1:])])
def test_costs_are_those_that_info_counts(name: str) -> None:
    cost = next(cost for cost in costs() if cost.name == name)
    found = describe(name, image_size=reference_size(cost.patch))
    part = next(part for part in found.profile.parts if part.name == "backbone")
    backbone = found.model.backbone
    assert (cost.patch, cost.width, cost.blocks) == (backbone.patch_size, backbone.embed_dim, len(backbone.blocks))
    assert cost.multiply_adds == pytest.approx(part.multiply_adds, rel=2e-3)
    assert cost.parameters == pytest.approx(part.parameters, rel=0.1)  # positions of another grid


def test_filters_narrow_the_list() -> None:
    everything = find_backbones()
    assert len(everything) > 400
    free = find_backbones(licence="permissive")
    assert {backbone.licence for backbone in free} == {"apache-2.0", "mit"} and len(free) < len(everything)
    assert {backbone.licence for backbone in find_backbones(licence="mit")} == {"mit"}
    small = find_backbones("DINOv2", size="small")
    assert all("dinov2" in backbone.name and backbone.size == "small" for backbone in small) and len(small) >= 2
    trained = find_backbones(pretrained=True)
    assert len(trained) < len(everything) and all(backbone.licence for backbone in trained)
    asked = [backbone for backbone in everything if backbone.gated]
    assert asked and {backbone.licence for backbone in asked} <= set(GATED)
    assert not any(backbone.permissive for backbone in asked)


def test_the_recommended_ones_come_first_and_are_the_recipes() -> None:
    first, second, third = find_backbones()[:3]
    assert first.name == TrainConfig.load("finetune_cpu").model.backbone and first.advice == "default on a CPU"
    assert second.name == TrainConfig.load("finetune").model.backbone and second.advice == "default on a GPU"
    assert not third.advice and first.permissive and second.permissive
    assert (first.size, second.size, first.pretrained_size) == ("small", "base", 518)


def test_sizes_are_those_of_the_names() -> None:
    by_name = {cost.name: size_of(cost.parameters) for cost in costs()}
    for size in ("tiny", "small", "base", "large"):
        plain = [name for name in by_name if re.match(rf"(vit|deit3?|beit|beitv2)_{size}_patch16_(224|384)$", name)]
        assert len(plain) >= 1 and {by_name[name] for name in plain} == {size}, size
    assert by_name["vit_huge_patch14_224"] == "huge" and by_name["vit_giant_patch14_dinov2"] == "giant"


@pytest.mark.parametrize(
    "filters, text",
    [
        ({"licence": "apache"}, r"licence 'apache' \(did you mean 'apache-2\.0'\?\): give permissive, or one of"),
        ({"name": "dinov2_smal"}, r"no backbone fits.*segvit backbones"),
        ({"size": "giant", "licence": "mit", "name": "dinov2"}, r"leave a filter out"),
    ],
)
def test_a_filter_that_nothing_fits_is_refused(filters: dict[str, Any], text: str) -> None:
    with pytest.raises(UserError, match=text):
        find_backbones(**filters)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def run(*words: Any) -> str:
        monkeypatch.setenv("COLUMNS", "160")
        monkeypatch.setattr("sys.argv", ["segvit", "backbones", *map(str, words)])
        with contextlib.suppress(SystemExit):
            cli.main()
        seen = capsys.readouterr()
        return seen.out + seen.err

    return run


def test_the_command_prints_a_table_and_writes_json(command: Callable[..., str], tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    said = command("dinov2", "--size", "small", "--licence", "permissive", "--json", file)
    assert re.search(r"vit_small_patch14_dinov2\.lvd142m +2\d\.\d +\d+ +14 +518 +apache-2\.0", said)
    assert "vit_small_patch14_dinov2.lvd142m is the default on a CPU" in " ".join(said.split())
    content = json.loads(file.read_text())
    assert content == json.loads(command("dinov2", "--size", "small", "--licence", "permissive", "--json", "-"))
    assert content["backbones"][0]["permissive"] and content["backbones"][0]["cost"]["patch"] == 14
    assert "dinov3-license *" in command("small_patch16_dinov3")
    assert '"tiny", "small", "base"' in command("--size", "medium")

"""A section of settings as a flag, such as `--model NAME` or `--eval slide`: nothing that the file gives is reset."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segvit.cli import main as cli
from segvit.config import TrainConfig
from segvit.errors import UserError

FILLED = """
model: {backbone: vit_tiny_patch16_224, image_size: 64, depth: 3, pretrained: false}
data: {spec: shapes, workers: 0, skip_unreadable: 3}
augment: {scale: [0.9, 1.1], flip: 0.25, views: 7}
loss: {class_weights: [1, 2, 3, 4, 5, 6, 7, 8]}
optim: {lr: 0.002, warmup_steps: 7, layer_decay: 0.9}
eval: {mode: whole, resize_short: 96, flip: true}
"""
SECTIONS = ("model", "data", "augment", "loss", "optim", "eval")
Parse = Callable[..., TrainConfig | str]


@pytest.fixture
def parse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Parse:
    """The settings that `segvit train` would run over the filled file, or the text of its error."""
    (tmp_path / "own.yaml").write_text(FILLED)
    monkeypatch.chdir(tmp_path)
    seen: list[TrainConfig] = []

    def note(config: TrainConfig, **_: Any) -> None:
        seen.append(config)
        raise UserError("that is enough")

    monkeypatch.setattr("segvit.training.train.train", note)

    def run(*words: str) -> TrainConfig | str:
        monkeypatch.setattr("sys.argv", ["segvit", "train", "--config", "own.yaml", *words])
        with pytest.raises(SystemExit):
            cli.main()
        text = capsys.readouterr().err
        return seen.pop() if "that is enough" in text else " ".join(text.replace("│", " ").split())

    return run


@pytest.mark.parametrize("section", SECTIONS)
def test_no_section_resets_what_the_file_gives(parse: Parse, section: str) -> None:
    before = parse()
    assert isinstance(before, TrainConfig)
    for value in ("vit_small_patch16_224", "0.01", "slide", "none"):
        found = parse(f"--{section}", value)
        if isinstance(found, str):
            refused = f"--{section} " in found and f"--{section}." in found
            assert refused or (section == "data" and f"no dataset spec '{value}'" in found), found
            continue
        for other in SECTIONS:
            ours, theirs = (dict(vars(getattr(each, other))) for each in (found, before))
            given = {"model": "backbone", "data": "spec"}[section] if other == section else None
            assert {key for key in ours if ours[key] != theirs[key]} <= {given}


def test_model_and_data_are_short_for_one_setting(parse: Parse) -> None:
    found = parse("--model", "vit_small_patch16_224", "--data", "camvid")
    assert isinstance(found, TrainConfig)
    assert (found.model.backbone, found.model.image_size, found.model.depth) == ("vit_small_patch16_224", 64, 3)
    assert (found.data.spec, found.data.workers, found.data.skip_unreadable) == ("camvid", 0, 3)
    twice = parse("--model", "vit_small_patch16_224", "--model.backbone", "vit_base_patch16_224")
    assert twice == (
        "error: --model vit_small_patch16_224 is short for --model.backbone, which is given as well: leave one out"
    )


@pytest.mark.parametrize(
    "words, told",
    [
        (("--eval", "slide"), "type --eval.mode slide"),
        (("--optim", "0.01"), "type --optim.lr 0.01"),
        (("--eval", "512"), "type --eval.window 512"),
        (("--augment", "none"), "give one of them: --augment.preset, --augment.resize-long"),
        (("--data", "."), "as in `segvit train PHOTOS MASKS`"),
    ],
)
def test_other_values_are_refused_with_what_to_type(parse: Parse, words: tuple[str, ...], told: str) -> None:
    text = parse(*words)
    assert isinstance(text, str) and told in text


def test_a_section_as_json_keeps_the_rest(parse: Parse) -> None:
    found = parse("--model", '{"image_size": 80}')
    assert isinstance(found, TrainConfig)
    assert (found.model.image_size, found.model.backbone, found.model.depth) == (80, "vit_tiny_patch16_224", 3)


def test_a_short_flag_gives_one_setting_and_leaves_the_others_to_be_chosen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[dict[str, Any]] = []

    def note(given: dict[str, Any]) -> None:
        seen.append(given)
        raise UserError("that is enough")

    monkeypatch.setattr("segvit.recipes.choose.choose_for", note)
    monkeypatch.setattr("sys.argv", ["segvit", "train", "--model", "vit_small_patch16_224", "--data", "shapes"])
    with pytest.raises(SystemExit):
        cli.main()
    assert "that is enough" in capsys.readouterr().err
    assert seen == [{"model.backbone": "vit_small_patch16_224", "data.spec": "shapes"}]

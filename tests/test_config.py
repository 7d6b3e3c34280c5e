"""Settings: defaults, YAML and flags say the same, and what cannot be meant is told with its name."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from segvit.cli.main import main
from segvit.config import (
    AugmentConfig,
    DataConfig,
    EvalConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
    TrainConfig,
)
from segvit.config_files import CONFIG_DIRS
from segvit.errors import UserError
from segvit.training.settings import check_settings

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
SHIPPED = sorted(CONFIGS.rglob("*.yaml"))
EVERYTHING = TrainConfig(
    model=ModelConfig(
        backbone="vit_tiny_patch16_224",
        image_size=96,
        pretrained=True,
        taps=(1, 3),
        patch_size=8,
        class_token=False,
        drop_path=0.1,
        head_dropout=0.0,
        mean=(0.1, 0.2, 0.3),
        std=(1.0, 1.0, 1.0),
    ),
    data=DataConfig(root=Path("some folder/with, comma"), classes=("no", "null", "1", "a, b=3", "é"), ignore=()),
    augment=AugmentConfig(resize_long=None, scale=(1.0, 1.25)),
    loss=LossConfig(ignore_as_negative=True),
    optim=OptimConfig(lr=3e-4, betas=(0.9, 0.95), warmup_steps=0),
    eval=EvalConfig(mode="whole", resize_short=512),
    steps=7,
    precision="bf16",
    device="cpu",
    output=Path("runs/a b"),
)


@pytest.mark.parametrize("config", [TrainConfig(), EVERYTHING], ids=["defaults", "everything"])
def test_yaml_gives_the_config_back(config: TrainConfig, tmp_path: Path) -> None:
    config.save(tmp_path / "config.yaml")
    assert TrainConfig.load(tmp_path / "config.yaml") == config
    assert yaml.safe_load((tmp_path / "config.yaml").read_text()) == config.to_dict()


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


def test_a_file_holds_differences_and_flags_go_over_it(tmp_path: Path) -> None:
    path = write(tmp_path, "steps: 3\noptim: {lr: 1e-3, power: 2}\naugment: {resize_long: null}\n")
    config = TrainConfig.load(path)
    assert config == TrainConfig(
        steps=3, optim=OptimConfig(lr=1e-3, power=2.0), augment=AugmentConfig(resize_long=None)
    )
    flags = ["--optim.lr", "0.5", "--model.taps", "1", "--model.taps", "2", "--model.class-token"]
    changed = TrainConfig.load(path, flags)
    expected = replace(config, optim=OptimConfig(lr=0.5, power=2.0), model=ModelConfig(taps=(1, 2), class_token=True))
    assert changed == expected


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}"])
def test_an_empty_file_is_the_defaults(text: str, tmp_path: Path) -> None:
    assert TrainConfig.load(write(tmp_path, text)) == TrainConfig()


def refusals() -> Iterator[Any]:
    """A file, flags over it, and what the error says beside the file's name."""
    yield pytest.param("optim:\n  lrr: 1", [], r"`optim\.lrr` \(did you mean 'optim\.lr'\?\)", id="typo in a key")
    yield pytest.param("stepz: 1", [], r"stepz.*steps", id="typo in a top key")
    yield pytest.param("optin:\n  lr: 1", [], r"optin.*did you mean 'optim'", id="typo in a section")
    yield pytest.param("model:\n  clas_token: false", [], r"clas_token.*class.token", id="typo in a two-word key")
    yield pytest.param("learning_rate_of_the_whole: 1", [], r"learning_rate_of_the_whole", id="like no key")
    yield pytest.param("lr: 1", [], r"\blr\b.*optim", id="a section's key at the top")
    yield pytest.param("1: 2", [], r"\b1\b", id="a number as key")
    yield pytest.param("steps: 3", ["--optim.lrr", "1"], r"--optim\.lrr.*--optim\.lr\b", id="typo in a flag")
    yield pytest.param("steps: 3", ["--step", "1"], r"--step\b.*--steps\b", id="typo in a top flag")
    yield pytest.param("steps: 3", ["--steps"], r"--steps", id="a flag without its value")
    yield pytest.param("steps: 3", ["7"], r"7", id="a value without its flag")
    yield pytest.param("steps: many", [], r"steps.*many.*int", id="text for a number")
    yield pytest.param("steps: 1.5", [], r"steps.*1\.5", id="a fraction for a whole number")
    yield pytest.param("steps: null", [], r"steps", id="nothing for a number")
    yield pytest.param("optim: {lr: fast}", [], r"lr.*fast.*float", id="text for a float")
    yield pytest.param("model: {class_token: maybe}", [], r"class_token.*maybe.*bool", id="text for a truth value")
    yield pytest.param("device: gpu", [], r"device.*gpu|gpu.*device", id="not one of the choices")
    yield pytest.param("augment: {scale: [1, 2, 3]}", [], r"scale.*2.*3", id="three for two")
    yield pytest.param("augment: {scale: 1}", [], r"scale.*2.*1", id="one for two")
    yield pytest.param("model: {backbone: {name: vit}}", [], r"backbone", id="a section for a value")
    yield pytest.param("optim: 3", [], r"`optim` is a section.*3", id="a value for a section")
    yield pytest.param("optim:", [], r"`optim` is a section", id="an empty section")
    yield pytest.param("- steps", [], r"expected settings.*list", id="a list")
    yield pytest.param("steps", [], r"expected settings.*str", id="a word")
    yield pytest.param("steps: [", [], r"not a YAML file", id="not YAML")
    yield pytest.param("steps: 3\nsteps : \x01", [], r"not a YAML file", id="binary")


@pytest.mark.parametrize("text, flags, message", refusals())
def test_what_cannot_be_meant_is_told(text: str, flags: list[str], message: str, tmp_path: Path) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UserError, match=rf"(?s)mine\.yaml.*({message})"):
        TrainConfig.load(path, flags)


def test_bytes_that_are_no_text_are_told(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xff\xd8\xff\xe0 a photo")
    with pytest.raises(UserError, match=r"mine\.yaml: not a YAML file"):
        TrainConfig.load(path)


def test_a_missing_file_lists_the_shipped_recipes() -> None:
    with pytest.raises(UserError, match=r"no config file 'shapes/demoo'") as caught:
        TrainConfig.load("shapes/demoo")
    for recipe in SHIPPED:
        assert recipe.relative_to(CONFIGS).with_suffix("").as_posix() in str(caught.value)


def test_a_shipped_recipe_goes_by_its_name() -> None:
    by_path = TrainConfig.load(CONFIGS / "shapes" / "demo.yaml")
    for name in ("shapes/demo", "configs/shapes/demo.yaml", "shapes/demo.yaml"):
        assert TrainConfig.load(name) == by_path


def test_a_file_tells_the_differences_to_its_base(tmp_path: Path) -> None:
    (tmp_path / "deeper").mkdir()
    (tmp_path / "lowest.yaml").write_text("steps: 3\noptim: {lr: 1e-3, power: 2}\noutput: low\n")
    (tmp_path / "middle.yaml").write_text("base: lowest.yaml\noptim: {lr: 5e-3}\naugment: {flip: 0}\n")
    top = tmp_path / "deeper" / "mine.yaml"
    top.write_text("base: ../middle.yaml\nsteps: 4\noptim: {weight_decay: 0}\n")
    assert TrainConfig.load(top) == TrainConfig(
        steps=4,
        optim=OptimConfig(lr=5e-3, power=2.0, weight_decay=0.0),
        augment=AugmentConfig(flip=0.0),
        output=Path("low"),
    )
    shipped = TrainConfig.load(write(tmp_path, "base: camvid/vit_tiny\nmodel: {structure: shrunk}\n"))
    plain = TrainConfig.load("camvid/vit_tiny")
    assert shipped == replace(plain, model=replace(plain.model, structure="shrunk"))


def test_bases_in_a_circle_or_missing_are_told(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text("base: mine.yaml\n")
    with pytest.raises(UserError, match=r"other\.yaml: its base 'mine\.yaml' is based on it in turn"):
        TrainConfig.load(write(tmp_path, "base: other.yaml"))
    with pytest.raises(UserError, match=r"mine\.yaml: its base 'mine\.yaml' is based on it"):
        TrainConfig.load(write(tmp_path, "base: mine.yaml"))
    with pytest.raises(UserError, match=r"mine\.yaml: its base: no config file 'nowhere'.*camvid/vit_tiny"):
        TrainConfig.load(write(tmp_path, "base: nowhere"))
    with pytest.raises(UserError, match=r"mine\.yaml: `base` is a config file or.*found 3"):
        TrainConfig.load(write(tmp_path, "base: 3"))


@pytest.mark.parametrize(
    "text, told",
    [
        ("optim: {lr: fast}", r"base\.yaml: .*\[optim\]\[lr\]"),
        ("device: gpu", r"base\.yaml: .*\[device\]"),
        ("optim: {lrr: 1}", r"base\.yaml: unknown setting `optim\.lrr`"),
    ],
)
def test_a_mistake_in_a_base_names_the_base(
    text: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "base.yaml").write_text(text)
    mine = write(tmp_path, "base: base.yaml\nsteps: 3\noptim: {power: 2}\n")
    with pytest.raises(UserError, match=told) as caught:
        TrainConfig.load(mine)
    assert "mine.yaml" not in str(caught.value)
    monkeypatch.setattr("sys.argv", ["segvit", "train", "--config", str(mine)])
    monkeypatch.setenv("COLUMNS", "500")  # else the box of an error breaks paths
    with pytest.raises(SystemExit):
        main()
    seen = capsys.readouterr().err
    assert "base.yaml" in seen and "mine.yaml" not in seen


def test_a_mistake_over_a_base_names_the_file_over_it(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("optim: {lr: 1e-3, power: 1}\n")
    with pytest.raises(UserError, match=r"^[^ ]*mine\.yaml: .*\[optim\]\[lr\] from [^ ]*mine\.yaml"):
        TrainConfig.load(write(tmp_path, "base: base.yaml\noptim: {lr: fast}\n"))


def test_text_does_for_a_path() -> None:
    assert DataConfig(root="camvid", val_list="val.txt") == DataConfig(root=Path("camvid"), val_list=Path("val.txt"))
    assert TrainConfig(output="runs/a").output == Path("runs/a")
    assert ModelConfig(pretrained_file="vit.pth").pretrained_file == Path("vit.pth")
    assert DataConfig(spec="camvid").spec == "camvid" and DataConfig().root is None


def repeated(settings: dict[str, Any], defaults: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Keys whose value is the default."""
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from repeated(value, defaults[key], f"{prefix}{key}.")
        elif value == defaults[key]:
            yield f"{prefix}{key}"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.relative_to(CONFIGS).as_posix())
def test_every_shipped_recipe_parses_and_repeats_no_default(path: Path) -> None:
    config = TrainConfig.load(path)
    settings = yaml.safe_load(path.read_text())
    base = settings.pop("base", None)
    below = TrainConfig.load(base) if base else TrainConfig()
    assert not list(repeated(settings, below.to_dict()))
    assert {section: set(value) for section, value in settings.items() if isinstance(value, dict)}.keys() <= set(
        config.to_dict()
    )


def test_recipes_are_shipped() -> None:
    assert CONFIGS in CONFIG_DIRS
    assert {"shapes", "camvid"} <= {path.parent.name for path in SHIPPED}


@pytest.mark.parametrize("spelling", ["no", "'no'", "float32", "half"])
def test_only_one_spelling_of_a_precision_is_taken(tmp_path: Path, spelling: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(f"precision: {spelling}\n")
    with pytest.raises(UserError, match=r'Choose from: "fp32", "bf16", "fp16"'):
        TrainConfig.load(file)
    with pytest.raises(UserError, match=r'Choose from: "fp32", "bf16", "fp16"'):
        TrainConfig.load("shapes/demo", ["--precision", spelling])
    with pytest.raises(UserError, match=r"precision .*: give fp32, bf16, fp16"):
        check_settings(replace(TrainConfig(), precision=spelling))  # type: ignore[arg-type]

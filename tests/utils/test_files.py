"""Paths and settings files: `~` in every path, a look whether one can be written, no key of a YAML file twice."""

from pathlib import Path

import pytest
from PIL import Image

from segvit.cli import main as cli
from segvit.config import DataConfig, ModelConfig, TrainConfig
from segvit.data.spec import load_spec
from segvit.errors import UserError
from segvit.utils.files import check_writable, expanded
from segvit.utils.yaml_text import load_yaml
from segvit.weights.load import find_model

SPEC = """
name: my
classes: [a, b]
splits:
  train: {images: ~/photos, labels: ~/masks}
val_fraction: 0.5
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder, and another folder to be in."""
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


# --- ~ ---------------------------------------------------------------------------------------------------------------


def test_a_tilde_is_the_home_folder(home: Path) -> None:
    assert expanded("~") == str(home) and expanded("~/a/b") == str(home / "a" / "b")
    for text in ("photos", "a/~/b", "user/repo@1", "~draft.png", "name~1"):
        assert expanded(text) == text
    with pytest.raises(UserError, match=r"~nobody-of-that-name/x: there is no home folder ~nobody-of-that-name; write"):
        expanded("~nobody-of-that-name/x")
    Path("~odd").mkdir()
    Path("~odd/x").write_text("")
    assert expanded("~odd/x") == "~odd/x"  # a file that is there


def test_settings_expand_it_in_python_yaml_and_flags(home: Path) -> None:
    (home / "own.yaml").write_text(
        "output: ~/runs/x\ninit: ~/m.safetensors\n"
        "data: {images: ~/photos, labels: ~/masks, spec: ~/my.yaml, train_list: ~/list.txt}\n"
        "model: {pretrained_file: ~/w.safetensors}\n"
    )
    (home / "over.yaml").write_text("base: ~/own.yaml\nsteps: 3\n")
    for config in (
        TrainConfig.load("~/own.yaml"),
        TrainConfig.load("~/over.yaml"),
        TrainConfig(
            output=Path("~/runs/x"),
            init="~/m.safetensors",
            data=DataConfig(images=Path("~/photos"), labels=Path("~/masks"), spec="~/my.yaml", train_list="~/list.txt"),  # type: ignore[arg-type]
            model=ModelConfig(pretrained_file=Path("~/w.safetensors")),
        ),
        TrainConfig.load(
            "~/own.yaml", ["--output", "~/runs/x", "--data.images", "~/photos", "--init", "~/m.safetensors"]
        ),
    ):
        assert config.output == home / "runs" / "x" and config.init == str(home / "m.safetensors")
        assert (config.data.images, config.data.labels) == (home / "photos", home / "masks")
        assert (config.data.spec, config.data.train_list) == (str(home / "my.yaml"), home / "list.txt")
        assert config.model.pretrained_file == home / "w.safetensors"


def test_a_spec_and_a_model_are_found_by_it(home: Path) -> None:
    (home / "my.yaml").write_text(SPEC)
    split = load_spec("~/my.yaml").splits["train"]
    assert (split.images, split.labels) == (str(home / "photos"), str(home / "masks"))
    (home / "m.safetensors").write_bytes(b"a model")
    assert find_model("~/m.safetensors") == home / "m.safetensors"


def test_looking_whether_a_path_can_be_written_changes_nothing(tmp_path: Path) -> None:
    (kept := tmp_path / "kept.json").write_text("{}")
    for path, folder in ((tmp_path / "a/b", True), (tmp_path / "a/b.json", False), (tmp_path, True), (kept, False)):
        check_writable(path, folder=folder, remedy="give another")
        check_writable(tmp_path / "new.json", folder=False, remedy="give another")
    assert [*tmp_path.iterdir()] == [kept] and kept.read_text() == "{}"
    with pytest.raises(UserError, match=r"kept.json/a: cannot be written \(Not a directory: .*kept.json\); give"):
        check_writable(kept / "a", folder=True, remedy="give another")
    (tmp_path / "runs").symlink_to(tmp_path / "a disk that is away")
    for path in (tmp_path / "runs", tmp_path / "runs/one"):
        with pytest.raises(UserError, match=r"cannot be written .*; give another"):
            check_writable(path, folder=True, remedy="give another")
    with pytest.raises(UserError, match="cannot be written"):
        check_writable(tmp_path / ("x" * 300), folder=True, remedy="give another")


@pytest.mark.parametrize("flag", ["--sheet=~/sheet.png", "--sheet ~/sheet.png"])
def test_every_flag_and_folder_of_a_command_expands_it(
    home: Path, flag: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("photos", "masks"):
        (home / folder).mkdir()
    for number in range(3):
        Image.effect_noise((24, 24), 90).convert("RGB").save(home / "photos" / f"{number}.jpg")
        Image.linear_gradient("L").point(lambda value: value // 128).save(home / "masks" / f"{number}.png")
        Image.open(home / "masks" / f"{number}.png").resize((24, 24), 0).save(home / "masks" / f"{number}.png")
    words = ["segvit", "check-data", "~/photos", "~/masks", "--data.classes", "a", "b", *flag.split()]
    monkeypatch.setattr("sys.argv", words)
    cli.main()
    assert "Ready to train" in capsys.readouterr().out
    assert (home / "sheet.png").is_file() and not list(Path().iterdir())


# --- keys that are given twice ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, told",
    [
        ("a: 1\nb: 2\na: 3\n", "own.yaml: key `a` is given in line 1 and in line 3: keep one, with all its values"),
        ("a:\n  b: {c: 1, d: 2,\n     c: 3}\n", "own.yaml: key `c` is given in line 2 and in line 3"),
        ("- {x: 1, x: 1}\n", "own.yaml: key `x` is given in line 1 and in line 1"),
        ("a: [\n", "own.yaml: not a YAML file"),
    ],
)
def test_a_key_that_is_given_twice_is_refused(text: str, told: str) -> None:
    with pytest.raises(UserError) as caught:
        load_yaml(text, source="own.yaml")
    assert str(caught.value).startswith(told)


def test_other_yaml_is_read_as_before() -> None:
    assert load_yaml("a: &x {b: 1}\nc: {<<: *x, b: 2, '1': 3, 1: 4}\n", source="x") == {
        "a": {"b": 1},
        "c": {"b": 2, "1": 3, 1: 4},
    }
    assert load_yaml("", source="x") is None


def test_every_yaml_of_a_user_is_read_this_way(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("model: {image_size: 64}\nsteps: 3\nmodel: {depth: 2}\n")
    with pytest.raises(UserError, match="key `model` is given in line 1 and in line 3"):
        TrainConfig.load(own)
    own.write_text("base: demo\nname: my\nclasses: [a]\nclasses: [a, b]\n")
    with pytest.raises(UserError, match="key `classes` is given in line 3 and in line 4"):
        load_spec(own)
    package = Path(cli.__file__).parent.parent
    home = package / "utils" / "yaml_text.py"
    others = [path for path in package.rglob("*.py") if path != home and "yaml.safe_load" in path.read_text()]
    assert not others, "read YAML with segvit.utils.yaml_text.load_yaml"

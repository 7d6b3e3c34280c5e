"""Paths that the system refuses: every path flag of every command answers in a sentence, exit code 2, and early."""

import errno
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from cyclopts import App
from PIL import Image

from segvit.cli import main as cli
from segvit.cli.path_errors import explain
from segvit.data.spec import load_spec
from tests.helpers.tiny import labelling_model

CLASSES = load_spec("shapes").classes
LONG = "n" * 300
"""A name that no file system takes."""
OUT_FOLDERS = {"--charts", "--folder", "--output", "--pictures", "--data.cache", "--data.cache-features"}
OUT_FILES = {"--sheet": ".png", "--json": ".json", "--csv": ".csv", "--plot": ".png"}
IN_FOLDERS = {"--data.root", "--data.images", "--data.labels", "--data.val-images", "--data.val-labels"}
IN_FOLDERS |= {"PHOTOS", "MASKS", "--runs", "--root", "--examples"}
OUT_FILES_BY_VERB = {
    ("report", "--output"): ".html",
    ("convert", "--output"): ".safetensors",
    ("drop-group", "--output"): ".safetensors",
    ("export", "--output"): ".onnx",
    ("merge-find", "--output"): ".safetensors",
}
NOT_PATHS = {("lr-find", "--model"), ("train", "--model"), ("bench", "--model"), ("lr-find", "--output")}
NOT_USED = {(verb, "--data.cache-features") for verb in ("check-data", "export", "evaluate", "lr-find", "merge-find")}
"""Settings of training that these commands accept and do not use."""


class Flag(NamedTuple):
    """A flag whose value is a path."""

    verb: str
    name: str

    def bad(self, folder: Path) -> Iterator[Path]:
        """Values that cannot do; `folder` holds file.txt."""
        beside = OUT_FILES.get(self.name) or OUT_FILES_BY_VERB.get(self)
        if beside:
            yield from (Path("/proc/x") / f"a{beside}", folder / "file.txt" / f"a{beside}", folder / f"{LONG}{beside}")
            (folder / f"folder{beside}").mkdir(exist_ok=True)
            yield folder / f"folder{beside}"
        elif self.name in OUT_FOLDERS or self == ("data prepare", "--root"):
            yield from (Path("/proc/x"), folder / "file.txt", folder / "file.txt" / "x", folder / LONG)
        elif self.name in IN_FOLDERS:
            yield from (folder / "nowhere", folder / "file.txt", folder / "file.txt" / "x", folder / LONG)
        else:
            photos = {("predict", "--inputs"), ("export", "--images"), ("merge-find", "--images")}
            reads_folders = (self.verb, self.name) in photos
            yield from (
                folder / "nowhere",
                *([] if reads_folders else [folder]),
                folder / "file.txt" / "x",
                folder / LONG,
            )


def path_flags(app: App = cli.app, verb: str = "") -> Iterator[Flag]:
    """Every flag of the command line that takes a path."""
    for name in app:
        if name.startswith("-"):
            continue
        inside = f"{verb} {name}".strip()
        if app[name].default_command is None:
            yield from path_flags(app[name], inside)
            continue
        for argument in app[name].assemble_argument_collection():
            flag = Flag(inside, argument.name)
            if ("Path" in str(argument.hint) or argument.name in ("--inputs", "--model")) and flag not in NOT_PATHS:
                yield flag


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, four pairs, and settings of a run."""
    root = tmp_path_factory.mktemp("place")
    labelling_model(image_size=16, patch_size=8).save(root / "model.safetensors")
    for name in "abcd":
        for folder, picture in (("photos", np.zeros((16, 16, 3))), ("masks", np.arange(256).reshape(16, 16) % 8)):
            (root / folder).mkdir(exist_ok=True)
            Image.fromarray(picture.astype(np.uint8)).save(root / folder / f"{name}.png")
    (root / "file.txt").write_text("a file")
    (root / "old.pth").write_bytes(b"PK")
    (root / "own.yaml").write_text(
        "model: {backbone: vit_tiny_patch16_224, image_size: 16, patch_size: 8, embed_dim: 32, depth: 2}\n"
        f"data: {{images: {root}/photos, labels: {root}/masks, classes: [{', '.join(CLASSES)}], workers: 0}}\n"
        "steps: 1\nbatch_size: 1\nloggers: []\ndevice: cpu\n"
    )
    return root


def line(flag: Flag, value: Path, place: Path, output: Path) -> list[str]:
    """A command that would work but for one path."""
    model, photos, masks = place / "model.safetensors", place / "photos", place / "masks"
    data: dict[str, Any] = {
        "--data.images": photos,
        "--data.labels": masks,
        "--data.classes": list(CLASSES),
    }
    own: dict[str, Any] = {"--config": place / "own.yaml", "--output": output / "run"}
    lines: dict[str, dict[str, Any]] = {
        "check-data": data,
        "data prepare": {"": "ade20k", "--root": output / "ade"},
        "convert": {"--checkpoint": place / "old.pth", "--output": output / "m.safetensors"},
        "drop-group": {"--model": model, "--output": output / "m.safetensors", "--group": 1},
        "push": {"--model": model, "--repo": "user/repo"},
        "export": {"--model": model, "--output": output / "m.onnx"},
        "bench": {"": "vit_tiny_patch16_224", "--size": "32", "--repeats": 1},
        "lr-find": {**own, "--num-steps": 10},
        "merge-find": {"--model": model, "--output": output / "m.safetensors", "--images": photos},
        "report": {"--runs": place, "--score": []},
        "predict": {"--model": model, "--inputs": photos, "--output": output / "seen"},
        "look": {"--model": model, "--photos": photos / "a.png", "--output": output / "seen"},
        "app": {"": model},
        "cvat": {"--model": model, "--folder": output / "function"},
        "demo": {"--output": output / "demo", "--steps": 1},
        "train": own,
        "evaluate": {"--model": model, **data},
        "backbones": {"": "dinov2"},
        "info": {"": "vit_tiny_patch16_224"},
    }
    words = lines[flag.verb] | (data if flag.verb == "export" and flag.name.startswith("--data") else {})
    if flag.verb == "merge-find" and flag.name.startswith("--data"):
        words = {key: item for key, item in words.items() if key != "--images"} | data
    if flag.name == "--data.root":  # a spec needs it
        words = {key: item for key, item in words.items() if key not in data} | {"--data.spec": "camvid"}
        words |= {"--config": place / "bare.yaml"} if "--config" in words else {}
    if flag.name in ("--data.val-images", "--data.val-labels"):
        words |= {"--data.val-images": photos, "--data.val-labels": masks}
    if flag.name == "--data.val-list":
        words |= {"--data.train-list": place / "list.txt"}
    if flag == Flag("report", "--output"):  # of a comparison
        words = {"--runs": [place, place]}
    if flag.name.startswith("-"):
        words |= {flag.name: value}
    else:
        words = {name: item for name, item in words.items() if name not in ("--data.images", "--data.labels")}
        words = {"": list(({"PHOTOS": photos, "MASKS": masks} | {flag.name: value}).values()), **words}
    typed = flag.verb.split()
    for key, item in words.items():
        typed += [key] * bool(key) + [str(each) for each in (item if isinstance(item, list) else [item])]
    return typed


@pytest.fixture
def answer(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[list[str]], tuple[int, str]]:
    """Exit code and error text of a command line; an exception fails the test."""

    def run(words: list[str]) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["segvit", *words])
        monkeypatch.setenv("COLUMNS", "2000")
        try:
            cli.main()
        except SystemExit as leave:
            return int(leave.code or 0), capsys.readouterr().err
        return 0, capsys.readouterr().err

    return run


Answer = Callable[[list[str]], tuple[int, str]]
FLAGS = [flag for flag in path_flags() if flag not in NOT_USED]


def refuse(flag: Flag, values: Iterator[Path], place: Path, tmp_path: Path, answer: Answer) -> None:
    """Each value is refused in a sentence that names it, and nothing is left behind."""
    (place / "bare.yaml").write_text("model: {backbone: vit_tiny_patch16_224, image_size: 16}\nsteps: 1\n")
    (place / "list.txt").write_text("a\n")
    for value in values:
        before = sorted(place.rglob("*"))
        code, error = answer(line(flag, value, place, tmp_path))
        assert code == 2 or (code == 1 and flag.verb == "check-data"), (value, error)  # 1: an error in the data
        named = (value.name[:100], "file.txt", flag.name.removeprefix("--"), flag.name[2:].replace("-", "_"))
        assert any(name in error for name in named), (value, error)
        assert not list(tmp_path.iterdir()), f"{value} left something behind"
        assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize("flag", FLAGS, ids=" ".join)
def test_every_path_flag(flag: Flag, place: Path, tmp_path: Path, answer: Answer) -> None:
    refuse(flag, itertools.islice(flag.bad(place), 1), place, tmp_path, answer)


@pytest.mark.slow
@pytest.mark.parametrize("flag", FLAGS, ids=" ".join)
def test_every_path_flag_in_every_way(flag: Flag, place: Path, tmp_path: Path, answer: Answer) -> None:
    refuse(flag, itertools.islice(flag.bad(place), 1, None), place, tmp_path, answer)


def test_flags_are_found() -> None:
    assert len({flag.verb for flag in FLAGS}) == 19 and len(FLAGS) > 70
    assert {Flag("train", "--output"), Flag("predict", "--inputs"), Flag("evaluate", "--pictures")} < {*FLAGS}


# --- errors that no check foresees -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error, words, parts",
    [
        (PermissionError(errno.EACCES, "Permission denied", "run/config.yaml"), ["train", "--output", "run"],
         ("--output run: Permission denied (run/config.yaml); allow access to it, or give another path",)),
        (PermissionError(errno.EACCES, "Permission denied", "m.safetensors"), ["predict", "m.safetensors", "a.jpg"],
         ("m.safetensors: Permission denied; allow access",)),
        (OSError(errno.ENOSPC, "No space left on device"), ["bench", "x"], ("No space left on device; make room",)),
        (OSError(errno.EROFS, "Read-only file system", "runs/train"), ["train"], ("runs/train: Read-only",)),
        (OSError(errno.ENAMETOOLONG, "File name too long", LONG), [f"--json={LONG}"], ("--json nnn", "shorter name")),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "/d/m/a.png"), ["train", "--config", "{own}"],
         ("data.labels /d/m: Not a directory (/d/m/a.png)", "own.yaml")),
    ],
)  # fmt: skip
def test_an_error_of_the_system_names_the_flag(
    error: OSError, words: list[str], parts: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "own.yaml").write_text("data: {images: /d/p, labels: /d/m}\nsteps: 3\n")
    text = str(explain(error, [word.format(own=tmp_path / "own.yaml") for word in words]))
    for part in parts:
        assert part in text, text


def test_errors_about_other_files_keep_their_traceback() -> None:
    assert explain(FileNotFoundError(errno.ENOENT, "No such file", f"{sys.prefix}/lib/x.so"), ["train"]) is None
    assert explain(ConnectionError("refused"), ["push", "m", "user/repo"]) is None


def test_an_unforeseen_error_arrives_in_a_sentence(
    answer: Answer, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any, **settings: Any) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied", str(place / "photos" / "a.png"))

    monkeypatch.setattr("segvit.weights.load.load_network", fail)
    words = ["predict", str(place / "model.safetensors"), str(place / "photos"), "--output", str(tmp_path / "seen")]
    code, error = answer([*words, "--device", "cpu"])
    assert code == 2 and error.startswith(f"error: {place / 'photos'}: Permission denied (")


@pytest.mark.parametrize("verb", ["evaluate --json", "evaluate --csv", "backbones --json"])
def test_a_full_disk(verb: str, answer: Answer, place: Path, tmp_path: Path) -> None:
    """Files that are written at the end, on a device that is always full."""
    words = line(Flag(*verb.split()), Path("/dev/full"), place, tmp_path)
    code, error = answer([*words, "--device", "cpu"] if verb.startswith("evaluate") else words)
    assert code == 2 and "/dev/full: cannot be written (No space left on device)" in error, error

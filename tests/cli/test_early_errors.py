"""Mistakes in paths and plain values are answered before torch is imported, which takes seconds."""

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[2]
RUNNER = """
import contextlib, io, json, sys, time
from segvit.cli.main import main
answers = []
for words in json.loads(sys.argv[1]):
    sys.argv = ["segvit", *words]
    out, error, code, began = io.StringIO(), io.StringIO(), 0, time.perf_counter()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        try:
            main()
        except SystemExit as leave:
            code = leave.code
    answers.append([code, error.getvalue(), time.perf_counter() - began, "torch" in sys.modules])
print(json.dumps(answers))
"""
DATA = "--data.images photos --data.labels masks --data.classes a b"
LINES = {
    "predict none.safetensors photos": "no model file none.safetensors",
    "predict run photos": "it is a folder; give the file, such as run/best.safetensors",
    "predict page.safetensors photos": "a web page instead of weights",
    "predict model.safetensors nowhere.jpg": "no such file or folder: nowhere.jpg",
    "predict model.safetensors photos/*.gif": "no file or folder matches photos/*.gif",
    "predict model.safetensors photos --output photos/a.jpg": "photos/a.jpg",
    "predict model.safetensors photos --output /proc/x": "another --output",
    "predict model.safetensors photos --output seen": "seen/a.png exists, and there is no seen/predict.yaml",
    "predict model.safetensors masks --output ours": "holds the labels of",
    "predict model.safetensors photos --opacity 3": "--opacity 3.0",
    "predict model.safetensors photos --workers -1": "--workers -1",
    "predict model.safetensors photos --every 0": "--every 0",
    "predict model.safetensors photos --seconds 3": "only for videos",
    "predict model.safetensors photos --multi-scale --flip": "--multi-scale",
    "predict model.safetensors photos --mode whole --blend gaussian": "--blend gaussian is for windows",
    f"evaluate none.safetensors {DATA}": "no model file none.safetensors",
    "evaluate model.safetensors": "no dataset given, and there is no config.yaml beside model.safetensors: type",
    f"evaluate model.safetensors {DATA} --json photos": "photos is a folder",
    f"evaluate model.safetensors {DATA} --csv /proc/x/a.csv": "/proc/x/a.csv: cannot be written",
    "evaluate model.safetensors --data.spec camvid --data.root nowhere": "nowhere does not exist",
    f"evaluate model.safetensors {DATA.replace('masks', 'maks')}": "no folder maks",
    "evaluate run/best.safetensors": "no folder gone",  # of the config.yaml beside it
    f"train {DATA} --output /proc/x": "/proc/x: cannot be written (No such file or directory); give another --output",
    f"train {DATA} --output page.safetensors": "page.safetensors is a file",
    f"train {DATA.replace('photos', 'fotos')}": "no folder fotos",
    "train": "no dataset given",
    "train --config nowhere.yaml": "no config file 'nowhere.yaml'",
    f"check-data {DATA} --sheet a.gif": "--sheet a.gif",
    "check-data": "no dataset given",
    f"lr-find {DATA} --plot a.doc": "a.doc",
    "export none.safetensors out.onnx": "no model file",
    "export model.safetensors out.png": "ends in .onnx",
    "export model.safetensors /proc/x/out.onnx": "/proc/x/out.onnx: cannot be written",
    "export model.safetensors out.onnx --images nowhere": "no such file or folder: nowhere",
    "merge-find none.safetensors out.safetensors --images photos": "no model file",
    "merge-find model.safetensors out.safetensors": "type --images PHOTOS, or --data.spec",
    "merge-find model.safetensors out.onnx --images photos": "out.onnx: give a name that ends in .safetensors",
    "merge-find model.safetensors out.safetensors --images nowhere": "no such file or folder: nowhere",
    "convert old.pth /proc/x/new.safetensors": "/proc/x/new.safetensors: cannot be written",
    "push none.safetensors user/repo": "no model file",
    "look model.safetensors nowhere.jpg --output inside": "nowhere.jpg: no such file",
    "look model.safetensors photos/a.jpg --output /proc/x": "/proc/x: cannot be written",
    "bench vit_tiny_patch16_224 --threads 0": "--threads 0",
    "bench vit_tiny_patch16_224 --image nowhere.jpg": "nowhere.jpg: no such file",
    "bench vit_tiny_patch16_224 --json /proc/x/a.json": "/proc/x/a.json: cannot be written",
    "info vit_tiny_patch16_224 --json /proc/x/a.json": "/proc/x/a.json: cannot be written",
    "report nowhere": "no folder nowhere",
    "demo --output /proc/x": "/proc/x: cannot be written",
    "app none.safetensors": "no model file",
    "app model.safetensors --examples nowhere": "--examples nowhere: no such folder",
    "app model.safetensors --api-keys-file nowhere": "--api-keys-file nowhere: cannot be read",
    "app model.safetensors --api-key short": "--api-key has 5 characters: a key has at least 16",
    "app model.safetensors --label-studio-url studio": "--label-studio-url studio: give an address without a password",
    "app model.safetensors --root-path http://x/seg": "--root-path http://x/seg: give the path",
    "cvat none.safetensors function": "no model file",
}
"""Lines that are typed, each with a part of the answer."""


class Answer(NamedTuple):
    """Exit code and text of a command line."""

    code: int
    error: str
    seconds: float
    torch: bool
    """True if torch has been imported by then."""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answer]:
    """All lines in one process, which never imports torch."""
    root = tmp_path_factory.mktemp("place")
    for file in ("photos/a.jpg", "masks/a.png", "run/best.safetensors", "seen/a.png", "ours/a.png"):
        (root / file).parent.mkdir(exist_ok=True)
        Image.new("L", (8, 8)).save(root / file, format="PNG")
    (root / "run" / "config.yaml").write_text("data: {images: gone, labels: masks, classes: [a, b]}\n")
    facts = {"image": str(root / "photos" / "a.jpg"), "fingerprint": "0"}
    (root / "ours" / "a.json").write_text(json.dumps(facts))
    (root / "ours" / "predict.yaml").write_text("model: x\n")
    (root / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    (root / "page.safetensors").write_text("<!doctype html>")
    (root / "old.pth").write_bytes(b"PK")
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, json.dumps([line.split() for line in LINES])],
        cwd=root, capture_output=True, text=True, env={"PYTHONPATH": str(REPOSITORY), "COLUMNS": "500", "PATH": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return {line: Answer(*answer) for line, answer in zip(LINES, json.loads(done.stdout), strict=True)}


@pytest.mark.parametrize("line", LINES)
def test_the_answer_comes_before_torch(line: str, answers: dict[str, Answer]) -> None:
    answer = answers[line]
    assert answer.code == 2 and LINES[line] in answer.error, answer.error
    assert not answer.torch, "torch was imported by then"

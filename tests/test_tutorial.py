"""docs/your-own-data.md from its own code blocks, in order, in one folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segvit.data.shapes import render_scene

PAGE = Path(__file__).resolve().parent.parent / "docs" / "your-own-data.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FAILS = re.compile(r"\s+# exits with (\d+)$")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Photos, and masks of 0 and 255: any shape of a drawn scene is the thing."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "masks").mkdir()
    for index in range(24):
        image, labels = render_scene(index, 80)
        Image.fromarray(image).save(tmp_path / "photos" / f"street_{index:02}.jpg", quality=95)
        Image.fromarray(np.where(labels > 0, 255, 0).astype(np.uint8)).save(
            tmp_path / "masks" / f"street_{index:02}.png"
        )
    return tmp_path


def run(line: str, folder: Path) -> str:
    """What one line of a shell block prints; it must exit as its comment says, else with 0."""
    expected = FAILS.search(line)
    command = FAILS.sub("", line)
    tools = folder / "bin"
    tools.mkdir(exist_ok=True)
    tool = tools / "segvit"
    tool.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "from segvit.cli import main; main()" "$@"\n')
    tool.chmod(0o755)
    place = {"PATH": f"{tools}:{os.environ['PATH']}", "COLUMNS": "400", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["sh", "-c", command], cwd=folder, env={**os.environ, **place}, capture_output=True, text=True, check=False
    )
    said = done.stdout + done.stderr
    assert done.returncode == (int(expected[1]) if expected else 0), f"{command}\n{said}"
    assert "Traceback" not in said, said
    return said


def test_every_block_does_what_the_page_says(folder: Path) -> None:
    said, kinds = "", []
    for kind, text in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        kinds.append(kind)
        if kind == "yaml":
            name = text.splitlines()[0].removeprefix("# ")
            (folder / name).write_text(text, encoding="utf-8")
        elif kind == "sh":
            said = "".join(run(line, folder) for line in text.splitlines())
        else:
            assert kind == "text"
            for line in text.splitlines():
                assert line in said, f"{line!r} is not in:\n{said}"
    assert kinds.count("sh") == 7 and kinds.count("text") == 7
    labels = np.array(Image.open(folder / "seen" / "street_00.png"))
    assert labels.shape == (80, 80) and set(np.unique(labels)) <= {0, 1}
    assert (folder / "seen" / "street_00_overlay.png").is_file() and (folder / "runs" / "own" / "scores.json").is_file()

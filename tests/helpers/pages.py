"""The runnable blocks of a page of the documentation, and a folder in which they run.

A block is run when the line before it is `<!-- run -->` (or `<!-- run slow -->`), which no reader sees:

    sh      a command in each line; a trailing backslash joins two; `# exits with 2` says with what it must end
    python  statements; names live on to the end of the page
    yaml    is written to the file that its first line names, `# own.yaml`
    text    lines that the block before must have printed
"""

import contextlib
import importlib.util
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

import segvit
from segvit.cli import main as cli
from segvit.data.shapes.scenes import render_scene

TOOLS = Path(__file__).resolve().parents[2] / "docs" / "tools"
BLOCK = re.compile(
    r"^(?P<mark><!-- run(?P<slow> slow)? -->\n)?(?P<fence>```+)(?P<language>\w*)[^\n]*\n(?P<text>.*?)^(?P=fence)$",
    re.MULTILINE | re.DOTALL,
)
FAILS = re.compile(r"\s+# exits with (\d+)$")
SHELL = set("|&;<>$`*")
"""Characters by which a line is the shell's, and not for `segvit` alone."""
NUM_PHOTOS, SIDE = 24, 80
RECIPE = """
model: {backbone: vit_tiny_patch16_224, patch_size: 8, embed_dim: 32, depth: 3, image_size: 32, pretrained: false}
data: {workers: 0}
steps: 4
batch_size: 2
eval_every: 4
log_every: 2
device: cpu
output: runs/finetune
"""
"""Stands for the recipe `finetune` where pages are run: its ViT-Base wants weights from the Hub, and a GPU."""
SPEC = """
name: my
classes: [{name: background, raw: 0}, {name: thing, raw: 255}]
splits:
  train: {images: photos, labels: masks}
val_fraction: 0.25
"""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    text: str
    line: int
    """Of its fence, from 1."""
    run: Literal["no", "yes", "slow"]


def load_script(name: str, folder: Path = TOOLS) -> ModuleType:
    """Load a script of docs/tools, or of another folder, as a module."""
    sys.path.insert(0, str(folder))
    try:
        spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(folder))
    return module


def blocks(page: Path) -> list[Block]:
    """Every fenced block of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("fence")) + 1
        run: Literal["no", "yes", "slow"] = "slow" if match["slow"] else "yes" if match["mark"] else "no"
        found.append(Block(match["language"], match["text"], line, run))
    return found


def make_world(folder: Path) -> None:
    """What the pages take for granted: photos, masks of 0 and 255, a spec of them, and a model of two classes.

    Any shape of a drawn scene is the thing. A recipe named finetune lies there too, which goes before the shipped one.
    """
    for name in ("photos", "masks"):
        (folder / name).mkdir()
    for index in range(NUM_PHOTOS):
        image, labels = render_scene(index, SIDE)
        Image.fromarray(image).save(folder / "photos" / f"street_{index:02}.jpg", quality=95)
        mask = np.where(labels > 0, 255, 0).astype(np.uint8)
        Image.fromarray(mask).save(folder / "masks" / f"street_{index:02}.png")
    Image.fromarray(render_scene(NUM_PHOTOS, 2 * SIDE)[0]).save(folder / "photo.jpg")
    (folder / "data").symlink_to(".")  # what my.yaml describes
    (folder / "my.yaml").write_text(SPEC, encoding="utf-8")
    (folder / "finetune").write_text(RECIPE, encoding="utf-8")
    network = segvit.TrainConfig.load(folder / "finetune").model
    torch.manual_seed(0)
    segvit.create_model(config=network, num_classes=2, spec=segvit.load_spec(folder / "my.yaml")).save(
        folder / "best.safetensors"
    )


@dataclass
class Page:
    """The blocks of a page as they are run, one after the other, in one folder."""

    folder: Path
    names: dict[str, Any] = field(default_factory=dict)
    """Of the Python blocks."""
    said: str = ""
    """What the last block printed."""

    def run(self, block: Block) -> None:
        """Run a block; fail where it does not do what the page says."""
        with contextlib.chdir(self.folder):
            if block.language == "yaml":
                name = block.text.splitlines()[0].removeprefix("# ")
                Path(name).write_text(block.text, encoding="utf-8")
            elif block.language == "sh":
                self.said = "".join(map(self._command, commands(block.text)))
            elif block.language == "python":
                self.said = self._python(block.text)
            else:
                assert block.language == "text", f"a block of {block.language!r} cannot be run"
                for line in block.text.splitlines():
                    assert line in self.said, f"{line!r} is not in:\n{self.said}"

    def _command(self, line: str) -> str:
        """What a command prints."""
        expected = FAILS.search(line)
        command = FAILS.sub("", line)
        alone = command.startswith("segvit ") and not SHELL.intersection(command)
        code, said = _segvit(shlex.split(command)) if alone else _shell(command)
        assert code == (int(expected[1]) if expected else 0), f"{command}\n{said}"
        assert "Traceback" not in said, said
        return said

    def _python(self, text: str) -> str:
        """What statements print."""
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(text, "a block of the page", "exec"), self.names)
        return out.getvalue()


def commands(text: str) -> Iterator[str]:
    """The commands of a shell block, one a line."""
    for line in text.replace("\\\n", " ").splitlines():
        if line and not line.startswith("#"):
            yield line


def _segvit(words: list[str]) -> tuple[int, str]:
    """Exit code and output of the command line, in this process: no new one has to load torch."""
    said, before, code = io.StringIO(), (sys.argv, dict(os.environ)), 0
    sys.argv = words
    os.environ["COLUMNS"] = "400"
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            cli.main()
    except SystemExit as leave:
        code = leave.code if isinstance(leave.code, int) else int(leave.code is not None)
    finally:
        sys.argv, environment = before
        os.environ.clear()
        os.environ.update(environment)
    return code, said.getvalue()


def _shell(command: str) -> tuple[int, str]:
    """Exit code and output of a line for the shell."""
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr

"""Output for any encoding and any width: names and numbers survive, and nothing ends in a traceback."""

import io
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from segvit.cli import main as cli
from segvit.evaluation.metrics import ConfusionMatrix
from segvit.evaluation.result import EvalResult
from segvit.utils.tables import Fitted

NAMES = ("ground", "box", "a very long name of a class", "фото")


@pytest.fixture
def pairs(tmp_path: Path) -> list[str]:
    """Flags of twelve pairs with four classes."""
    for number in range(12):
        for folder in ("photos", "masks"):
            (tmp_path / folder).mkdir(exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "photos" / f"фото{number}.png")
        Image.fromarray(noise[:, :, 0] % 4).save(tmp_path / "masks" / f"фото{number}.png")
    return [
        "--data.images",
        str(tmp_path / "photos"),
        "--data.labels",
        str(tmp_path / "masks"),
        "--data.classes",
        *NAMES,
    ]


@pytest.fixture
def output(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Text that a command prints to a stream of some encoding and width."""

    def run(*words: Any, encoding: str = "utf-8", width: int = 80) -> str:
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        monkeypatch.setattr("rich._console", None)
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(sys, "argv", ["segvit", *map(str, words)])
        cli.main()
        stream.flush()
        buffer = stream.buffer
        assert isinstance(buffer, io.BytesIO)
        return buffer.getvalue().decode(encoding)

    return run


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1", "utf-8"])
def test_output_in_any_encoding(encoding: str, pairs: list[str], output: Callable[..., str]) -> None:
    text = output("check-data", *pairs, encoding=encoding, width=100)
    assert "ground" in text and "Ready to train" in text and re.search(r"\d\d\.\d\d %", text)
    if encoding == "utf-8":
        assert "█" in text and "фото" in text
    else:
        assert "###" in text and r"\u0444\u043e\u0442\u043e" in text  # a name loses nothing


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_the_table_of_values_at_any_width(width: int, pairs: list[str], output: Callable[..., str]) -> None:
    lines = output("check-data", *pairs, width=width).splitlines()
    end = next(at for at, line in enumerate(lines) if "pairs checked" in line)
    table = "\n".join(lines[:end])
    assert max(map(len, lines[:end])) <= width and "…" not in table
    squeezed = re.sub(r"[\s│┃]+", "", table)
    for name in NAMES[:2]:
        assert name in squeezed
    assert len(re.findall(r"2\d\.\d\d %", table)) >= 4  # whole numbers of the training set
    for heading in ("value", "becomes", "train", "images"):
        assert heading in table
    assert ("█" in table) == (width > 40) and len(re.findall(r"\d\d\.\d\d %", table)) == (8 if width >= 80 else 4)
    assert ("too narrow for val" in table) == (width < 80)


@pytest.mark.parametrize("width, shown", [(40, ("IoU",)), (50, ("IoU", "accuracy", "share")), (100, ("Dice",))])
def test_the_table_of_scores_at_any_width(width: int, shown: tuple[str, ...]) -> None:
    matrix = ConfusionMatrix(4)
    matrix.update(torch.arange(64).reshape(8, 8) % 4, torch.arange(64).reshape(8, 8) % 3)
    result = EvalResult(metrics=matrix.compute(), classes=NAMES, protocol={"mode": "whole"}, images=1, matrix=matrix)
    console = Console(width=width, file=io.StringIO())
    console.print(result.table())
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert all(heading in text for heading in shown) and "…" not in text
    assert all(len(line) <= width for line in text.splitlines())
    for name in ("ground", "box", "mean"):
        assert name in text
    for iou in matrix.compute().iou:
        assert iou is None or f"{100 * iou:.2f}" in text
    assert ("too narrow for Dice" in text) == (width < 100)


def test_a_table_is_shown_in_a_notebook() -> None:
    shown = Fitted(lambda level, ascii: Table("class", f"level {level}"), levels=2)._repr_mimebundle_([], [])
    assert "level 0" in shown["text/html"] and "level 0" in shown["text/plain"]

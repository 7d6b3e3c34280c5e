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
from segvit.export import compare
from segvit.profiling.info import describe
from segvit.profiling.plan import Memory, Plan
from segvit.profiling.timings import PARTS, Bench, Case, Timing
from segvit.recipes import backbones
from segvit.training.lr_find import LearningRates
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


def drawn(table: Any, width: int) -> str:
    """Return what a terminal shows. Nothing is cut, and no line is too long."""
    console = Console(width=width, file=io.StringIO())
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "…" not in text and all(len(line) <= width for line in text.splitlines()), text
    return text


@pytest.mark.parametrize("width, numbers", [(40, "M"), (80, "M"), (120, "M G patch px")])
def test_the_table_of_backbones_at_any_width(width: int, numbers: str) -> None:
    found = backbones.find_backbones("dinov")
    text = drawn(backbones.table(found), width)
    names = "".join(re.sub(r"^ ?(\S*).*", r"\1", line) for line in text.splitlines())
    for backbone in found:
        assert backbone.name in names and f" {backbone.cost.parameters / 1e6:,.1f} " in text
    heading = next(line for line in text.splitlines() if " M " in line)
    assert all(f" {number} " in heading for number in numbers.split()) and ("too narrow for" in text) == (width < 120)


@pytest.mark.parametrize("width", [40, *(pytest.param(width, marks=pytest.mark.slow) for width in (60, 100))])
def test_the_tables_of_info_at_any_width(width: int) -> None:
    seen = describe("vit_tiny_patch16_224", image_size=64, num_classes=3)
    text = drawn(seen.tables(), width)
    squeezed = re.sub(r"[\s│┃]+", "", text)
    for part in (*seen.profile.parts, seen.profile):
        assert f"{part.parameters:,}" in text
    for name in ("vit_tiny_patch16_224", "numberofclasses", "ATM", "total", "model.predict,at", "most"):
        assert name in squeezed
    assert ("FLOPs (G)" in text) == (width == 100) == ("too narrow for FLOPs" not in " ".join(text.split()))


@pytest.mark.parametrize("width", [40, 100])
def test_the_table_of_a_plan_at_any_width(width: int) -> None:
    kinds = ("data", "data + grad_checkpointing", "fsdp", "fsdp + grad_checkpointing")
    sizes = [111 * number * 2**20 for number in range(1, 5)]
    memory = {
        kind: Memory(**dict.fromkeys(Memory.__annotations__, size)) for kind, size in zip(kinds, sizes, strict=True)
    }
    plan = Plan(gpus=8, images=1, memory=memory, chosen="data", multiply_adds=1, steps=1, tflops=None)
    text = drawn(plan.tables(), width)
    for name in ("parameters", "AdamW's moments", "for the exchange", "peak"):
        assert name in text
    assert text.count("111") == 7 and ("444" in text) == (width == 100) == ("too narrow for" not in text)


@pytest.mark.parametrize("width, left_out", [(40, 3), (50, 2), (60, 1), (120, 0)])
def test_the_table_of_timings_at_any_width(width: int, left_out: int) -> None:
    cases = [Case(size=(1024, side), batch=16, precision="bf16") for side in (1024, 512)]
    timings = tuple(Timing(case=case, passes=((1.2,) * len(PARTS),), peak=2**31) for case in cases)
    facts = {"backbone": "vit", "structure": "plain", "num_classes": 3, "compiled": False}
    machine = {"name": "cpu", "threads": 2, "torch": "2"}
    text = drawn(Bench(model=facts, machine=machine, present=None, timings=timings).table(), width)
    for number in ("1024 x 1024", "1024 x 512", " 16 ", "bf16", "3600"):
        assert number in text
    for at, number in enumerate(("33.3 %", "0.0 %", "2048", "4.44")):
        assert text.count(number) == (0 if at < left_out else 6 if at == 0 else 2), number
    said = re.search("too narrow for (.*)", " ".join(text.split()))
    assert (said[1] if said else "") == ", ".join(("the shares", "±", "MiB", "images/s")[:left_out])


@pytest.mark.parametrize("width, left_out", [(40, ("x", "MB")), (120, ())])
def test_the_table_of_exported_files_at_any_width(width: int, left_out: tuple[str, ...]) -> None:
    names = ("PyTorch", "a_very_long_name_of_a_file_that_was_exported.onnx")
    scores = [compare.Score(name=name, miou=0.5, seconds=0.25, num_bytes=10**8) for name in names]
    text = drawn(compare.table(scores, title="scores"), width)
    lines = "".join(re.sub(r"^[\s│]*(\S*).*", r"\1", line) for line in text.splitlines())
    assert all(name in lines for name in names) and text.count("50.00") == text.count("250") == 2
    assert ("1.00" in text) == ("100.0" in text) == (not left_out)


def test_the_table_of_learning_rates_at_40_columns() -> None:
    numbers = tuple(0.1 * number for number in range(1, 40))
    found = LearningRates(rates=numbers, losses=numbers, smoothed=numbers, suggested=0.1, diverged=False)
    text = drawn(found.table(), 40)
    assert "lowest" in text and "3.90e+00" in text and "smoothed" in text

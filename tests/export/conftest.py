"""Some models and their ONNX files, exported once for all tests of this folder and all their processes."""

import os
import time
from pathlib import Path

import pytest

from segvit.export.export import export_onnx
from segvit.models.segvit import SegViT
from tests.helpers.exports import tiny, with_added_classes

PATIENCE = 600
"""Seconds to wait for another process's files."""


@pytest.fixture(scope="session")
def models() -> dict[str, SegViT]:
    return {
        "plain": tiny("plain"),
        "shrunk": tiny("shrunk"),
        "presence": tiny("plain", head_classes="presence"),
        "extended": with_added_classes(tiny("plain")),
    }


@pytest.fixture(scope="session")
def files(models: dict[str, SegViT], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The models as ONNX files, all but shrunk with scores."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "onnx"
    done = folder.with_name("onnx-done")
    try:
        folder.mkdir()
    except FileExistsError:
        end = time.monotonic() + PATIENCE
        while not done.exists() and time.monotonic() < end:
            time.sleep(0.2)
    else:
        try:
            for name, model in models.items():
                export_onnx(model, folder / f"{name}.onnx", scores=name != "shrunk")
        finally:
            done.touch()
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["extended.onnx", "plain.onnx", "presence.onnx", "shrunk.onnx"]  # nothing else is left
    return {name: folder / f"{name}.onnx" for name in models}

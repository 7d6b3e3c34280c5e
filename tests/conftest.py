"""Fixtures that all tests share: the shared files, without which some tests skip, and a short check of datasets."""

import functools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from segvit.data.shapes.scenes import render_scene
from segvit.recipes.facts import GIBIBYTE

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"


def shared(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip("needs the shared data/golden files, absent here")
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real datasets, small or reduced."""
    return shared("data")


@pytest.fixture(scope="session")
def shared_cases() -> Path:
    """Files with faults that users met."""
    return shared("cases")


@pytest.fixture(scope="session")
def shared_golden() -> Path:
    """Tensors that the paper's authors' implementation gave."""
    return shared("golden")


@pytest.fixture(autouse=True)
def _console_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let rich read the width again: its console keeps the COLUMNS of the first test that prints."""
    monkeypatch.setattr("rich._console", None)


@pytest.fixture(autouse=True)
def _short_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check 24 samples of a dataset before a run, not 1000, which took two thirds of a tiny run."""
    monkeypatch.setattr("segvit.training.start.CHECKED_SAMPLES", 24)


@pytest.fixture(autouse=True)
def _quick_estimate(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Take 1 GiB for the memory of a step when a recipe is chosen, which takes seconds to count."""
    if "counted_memory" not in request.fixturenames:
        monkeypatch.setattr("segvit.recipes.capacity.memory_of", lambda *_, **__: SimpleNamespace(peak=GIBIBYTE))


_render_once = functools.lru_cache(maxsize=500)(render_scene)


@pytest.fixture(autouse=True)
def _scenes_are_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw each made-up scene once in a process: the same few dozen make most of the tiny datasets."""

    def copied(seed: int, size: int = 96) -> tuple[Any, ...]:
        return tuple(part.copy() for part in _render_once(seed, size))

    monkeypatch.setattr("segvit.data.shapes.scenes.render_scene", copied)


@pytest.fixture
def counted_memory() -> None:
    """Count the memory of a step, as a user's run does."""

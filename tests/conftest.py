"""Fixtures that all tests share: the shared files, without which some tests skip, and a short check of datasets."""

from pathlib import Path
from types import SimpleNamespace

import pytest

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


@pytest.fixture
def counted_memory() -> None:
    """Count the memory of a step, as a user's run does."""

"""Where the shared files lie that some tests read; the tests skip where they are absent."""

from pathlib import Path

import pytest

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

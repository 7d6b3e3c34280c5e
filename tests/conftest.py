"""What tests share: the real data and the reference results that lie beside a checkout."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"


def shared_folder(name: str) -> Path:
    """`../shared/<name>`; the test is skipped where it is absent."""
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"../shared is absent: this test needs ../shared/{name} beside the checkout")
    return folder


@pytest.fixture
def shared_data() -> Path:
    """Folder of real images and label maps."""
    return shared_folder("data")


@pytest.fixture
def shared_golden() -> Path:
    """Folder of models and results of the reference implementation."""
    return shared_folder("golden")

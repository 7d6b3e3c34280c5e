"""The public names of a package: one list that runs, editors and type checkers agree on."""

from pathlib import Path

import pytest

import segvit
import segvit.pictures
from segvit.utils.lazy import lazy_names


@pytest.mark.parametrize("package", [segvit, segvit.pictures])
def test_every_public_name_is_there(package: object) -> None:
    names = package.__all__  # type: ignore[attr-defined]
    assert len(names) > 20 and dir(package) == sorted(names)
    assert [name for name in names if getattr(package, name, None) is None] == []


def test_a_name_is_imported_on_first_use_and_a_typo_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "__init__.py"
    file.write_text(
        "from typing import TYPE_CHECKING\nfrom os import sep\n"
        "if TYPE_CHECKING:\n    from segvit.errors import UserError as UserError\n"
    )
    get, listed, names = lazy_names("segvit.errors", str(file))
    assert names == listed() == ["UserError"]
    assert get("UserError").__module__ == "segvit.errors"
    with pytest.raises(AttributeError, match=r"module 'segvit\.errors' has no attribute 'UserEror'"):
        get("UserEror")

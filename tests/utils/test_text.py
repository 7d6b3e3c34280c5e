"""Counts and their nouns, and first lines of errors."""

from types import SimpleNamespace

import pytest

from segvit.data.check.check import CheckReport
from segvit.utils.text import counted, counted_are, first_line


def test_one_thing_is_no_plural() -> None:
    texts = [counted(count, thing) for count in (0, 1, 2) for thing in ("pair", "class", "box")]
    assert texts == ["0 pairs", "0 classes", "0 boxes", "1 pair", "1 class", "1 box", "2 pairs", "2 classes", "2 boxes"]
    assert counted(1234, "image", ",") == "1,234 images" and counted(1, "image", ",") == "1 image"
    assert counted_are(1, "label map") == "1 label map is" and counted_are(2, "label map") == "2 label maps are"


def test_errors_with_and_without_text() -> None:
    assert first_line(ValueError("\n  no such operator\nmore")) == "no such operator"
    assert first_line(AssertionError()) == "AssertionError"


@pytest.mark.parametrize(
    ("checked", "total", "expected"),
    [(1, 1, "1 pair checked"), (2, 2, "all 2 pairs checked"), (1, 2, "1 of 2 pairs checked")],
)
def test_the_verdict_of_a_check(checked: int, total: int, expected: str) -> None:
    report = SimpleNamespace(name="train", checked=checked, total=total, errors=("a",), warnings=("b", "c"))
    assert CheckReport.verdict.fget(report) == f"train: {expected}, 1 error, 2 warnings"  # type: ignore[attr-defined]

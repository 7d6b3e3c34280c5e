"""Charts: what they show is what was counted, and no name lies over another."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from segvit.errors import UserError
from segvit.pictures import confusion_matrix, curves, learning_rates

RECORDS: list[dict[str, Any]] = [{"step": step, "loss": 1 / (1 + step), "lr": 1e-3} for step in range(100)]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were saved, to look into."""
    figures: list[Figure] = []
    save = Figure.savefig

    def keep(self: Figure, *arguments: Any, **settings: Any) -> None:
        save(self, *arguments, **settings)
        figures.append(self)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def random_counts(num_classes: int) -> npt.NDArray[np.int64]:
    """Mostly right; the class in the middle has no labels."""
    counts = np.random.default_rng(0).integers(0, 50, (num_classes, num_classes))
    counts[np.diag_indices(num_classes)] += 900
    counts[num_classes // 2] = 0
    return counts


def names(count: int) -> list[str]:
    return [f"the class number {k} $of_1$ {'many ' * (k % 7)}".strip() for k in range(count)]


def lines(figure: Figure) -> Iterator[Sequence[Text]]:
    """The names along each side that is drawn."""
    for axis in (figure.axes[0].xaxis, figure.axes[0].yaxis):
        for number in (1, 2):
            labels = [getattr(tick, f"label{number}") for tick in axis.get_major_ticks()]
            if labels[0].get_visible():
                yield labels


@pytest.mark.parametrize("count", [1, 30, 31, *(pytest.param(count, marks=pytest.mark.slow) for count in (2, 11, 150))])
def test_confusion_names_do_not_overlap(count: int, drawn: list[Figure], tmp_path: Path) -> None:
    confusion_matrix(random_counts(count), names(count), tmp_path / "c.png")
    (figure,) = drawn
    matrix = figure.axes[0].get_window_extent()
    sides = list(lines(figure))
    assert len(sides) == (2 if count <= 30 else 4)
    for labels in sides:
        assert len(labels) == count
        boxes = [label.get_window_extent() for label in labels]
        assert not any(one.overlaps(other) for one, other in pairwise(boxes))
        assert not any(box.overlaps(matrix) for box in boxes)
        for other in (axes.get_tightbbox() for axes in figure.axes[1:]):
            assert other is not None and not any(box.overlaps(other) for box in boxes), "the scale lies clear of names"
    assert all("$" in label.get_text() for labels in sides for label in labels), "names are no formulas"
    with Image.open(tmp_path / "c.png") as picture:
        assert picture.width > matrix.width and picture.height > matrix.height, "the names are in the file"
        assert max(picture.size) < 3200


def test_confusion_cells_fit_their_numbers(drawn: list[Figure], tmp_path: Path) -> None:
    counts = random_counts(30)
    counts[0] = 0
    counts[0, 0] = 5  # 100 %
    confusion_matrix(counts, names(30), tmp_path / "c.png")
    cell = drawn[0].axes[0].get_window_extent().width / 30
    texts = drawn[0].axes[0].texts
    assert {text.get_text() for text in texts} >= {"100"}
    assert all(max(text.get_window_extent().width, text.get_window_extent().height) < 0.9 * cell for text in texts)


@pytest.mark.parametrize("count", [5, 40])
def test_confusion_shows_shares_of_the_true_class(count: int, drawn: list[Figure], tmp_path: Path) -> None:
    counts = random_counts(count)
    confusion_matrix(counts, names(count), tmp_path / "c.png")
    shown = drawn[0].axes[0].images[0].get_array()
    assert isinstance(shown, np.ma.MaskedArray)
    gone = counts.sum(axis=1) == 0
    assert (np.ma.getmaskarray(shown) == gone[:, None]).all()
    expected = counts[~gone] / counts[~gone].sum(axis=1, keepdims=True)
    np.testing.assert_allclose(shown[~gone].filled(), expected)
    for text in drawn[0].axes[0].texts:
        column, row = (round(place) for place in text.get_position())
        assert text.get_text() == f"{100 * counts[row, column] / counts[row].sum():.0f}"


def test_confusion_wants_a_name_per_class(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"2 names for a confusion matrix of \(3, 3\)"):
        confusion_matrix(random_counts(3), ["a", "b"], tmp_path / "c.png")


def test_charts_are_deterministic(tmp_path: Path) -> None:
    for name in ("a", "b"):
        curves([*RECORDS, {"step": 99, "miou": 0.5}], tmp_path / f"{name}.png")
        confusion_matrix(random_counts(9), names(9), tmp_path / f"{name}-confusion.png")
    for ending in (".png", "-confusion.png"):
        assert (tmp_path / f"a{ending}").read_bytes() == (tmp_path / f"b{ending}").read_bytes()


@pytest.mark.parametrize("ending", ["pdf", pytest.param("svg", marks=pytest.mark.slow)])
def test_charts_are_drawn_in_lines_for_print(ending: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        curves([*RECORDS, {"step": 99, "miou": 0.5}], tmp_path / f"{name}.{ending}")
    confusion_matrix(random_counts(9), names(9), tmp_path / f"confusion.{ending}")
    learning_rates([1e-4, 1e-3, 1e-2], [3.0, 2.0, 4.0], [3.0, 2.5, 4.0], tmp_path / f"rates.{ending}", suggested=1e-3)
    content = (tmp_path / f"a.{ending}").read_bytes()
    assert content == (tmp_path / f"b.{ending}").read_bytes() and b"/Type3" not in content
    assert content.startswith(b"%PDF" if ending == "pdf" else b"<?xml")
    assert all(file.stat().st_size < 200_000 for file in tmp_path.iterdir())
    with pytest.raises(UserError, match=r"curves\.gif: give a file that ends in \.png, \.pdf or \.svg"):
        curves(RECORDS, tmp_path / "curves.gif")


def test_curves_draw_what_is_there(tmp_path: Path) -> None:
    curves([{"step": 1, "loss": 2.0}], tmp_path / "loss.png")
    curves([{"step": 1, "loss": 2.0, "miou": None}, {"step": 2, "loss": 1.0, "miou": 0.3}], tmp_path / "both.png")
    assert Image.open(tmp_path / "both.png").width > 1.8 * Image.open(tmp_path / "loss.png").width
    with pytest.raises(UserError, match="loss"):
        curves([{"step": 1, "miou": 0.1}], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()

"""Shapes as pixels: the order, holes, masks at the border, curves, and the measures that find mistakes."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from segvit.data.annotations.geometry import area_of_ring, crosses_itself, is_tiny, outside_by
from segvit.data.annotations.names import image_name, match_names
from segvit.data.annotations.shapes import Drawing, PlacedMask, Rings, RunLengths, Shape, box, ellipse, fill, paint
from segvit.errors import UserError

OUTER, INNER = box(1, 1, 7, 7), box(3, 3, 5, 5)


def pixels(area: Rings | PlacedMask | RunLengths, size: tuple[int, int] = (8, 8)) -> Any:
    """The pixels (H, W) of an area."""
    labels = np.zeros(size, dtype=np.uint8)
    fill(labels, area, 1)
    return labels


def slow(inside: Callable[[float, float], bool], size: tuple[int, int] = (8, 8)) -> Any:
    """The pixels whose centres are inside, one by one."""
    return np.array([[inside(x + 0.5, y + 0.5) for x in range(size[1])] for y in range(size[0])]).astype(np.uint8)


def test_rings_are_joined_or_have_holes() -> None:
    outer = slow(lambda x, y: 1 <= x < 7 and 1 <= y < 7)
    inner = slow(lambda x, y: 3 <= x < 5 and 3 <= y < 5)
    assert (pixels(Rings((OUTER, INNER))) == outer).all()
    assert (pixels(Rings((OUTER, INNER), holes=True)) == outer - inner).all()


def test_curves_and_turned_boxes_are_those_of_their_formulas() -> None:
    round_one = pixels(Rings((ellipse(20.3, 18.1, 15, 9, rotation=30),)), (40, 40))
    c, s = math.cos(math.radians(30)), math.sin(math.radians(30))

    def in_ellipse(x: float, y: float) -> bool:  # turned clockwise as displayed, since y points down
        dx, dy = x - 20.3, y - 18.1
        return ((dx * c + dy * s) / 15) ** 2 + ((-dx * s + dy * c) / 9) ** 2 < 1

    assert np.abs(round_one.astype(int) - slow(in_ellipse, (40, 40))).sum() <= 2
    turned = pixels(Rings((box(10, 15, 30, 25, rotation=30),)), (40, 40))

    def in_box(x: float, y: float) -> bool:
        dx, dy = x - 20, y - 20
        return abs(dx * c + dy * s) < 10 and abs(-dx * s + dy * c) < 5

    assert (turned == slow(in_box, (40, 40))).all()
    assert len(ellipse(0, 0, 1e7, 1)) <= 4096


@pytest.mark.parametrize("top, left", [(0, 0), (2, 3), (-1, -2), (6, 6), (-9, 0), (9, 9), (7, -3)])
def test_masks_are_cut_at_the_border(top: int, left: int) -> None:
    mask = np.random.default_rng(0).random((4, 5)) > 0.4
    expected = np.zeros((8, 8), dtype=np.uint8)
    for row, column in zip(*mask.nonzero(), strict=True):
        if 0 <= row + top < 8 and 0 <= column + left < 8:
            expected[row + top, column + left] = 1
    assert (pixels(PlacedMask(mask, top=top, left=left)) == expected).all()


def test_later_shapes_cover_earlier_ones() -> None:
    shapes = [Shape(name=name, kind="box", area=Rings((ring,))) for name, ring in (("a", OUTER), ("b", INNER))]
    for order, middle in ((shapes, 2), (shapes[::-1], 1)):
        drawing = Drawing(where="file", shapes=tuple(order))
        labels = paint(drawing, (8, 8), lambda shape: {"a": 1, "b": 2}[shape.name], unlabeled=9)
        assert labels[4, 4] == middle and labels[1, 1] == 1 and labels[0, 0] == 9 and labels.dtype == np.uint8
    wide = paint(Drawing(where="file", shapes=tuple(shapes)), (8, 8), lambda shape: 300, unlabeled=0)
    assert wide.dtype == np.uint16 and wide.max() == 300


def test_impossible_sizes_and_masks_name_the_file() -> None:
    for size in ((0, 5), (2**20, 2**20)):
        with pytest.raises(UserError, match="file: the image's size"):
            paint(Drawing(where="file"), size, lambda shape: 1, unlabeled=0)
    wrong = Shape(name="a", kind="mask", area=RunLengths({"size": [9, 9], "counts": [81]}))
    with pytest.raises(UserError, match=r"file: mask of 'a': the mask's size is \[9, 9\]"):
        paint(Drawing(where="file", shapes=(wrong,)), (8, 8), lambda shape: 1, unlabeled=0)


def test_measures_of_outlines() -> None:
    assert area_of_ring(box(1e6, 1e6, 1e6 + 3, 1e6 + 2)) == pytest.approx(6)
    bow = np.array([[0, 0], [4, 4], [4, 0], [0, 4]], dtype=float)
    assert crosses_itself(bow) and not crosses_itself(box(0, 0, 4, 4, rotation=20))
    touching = np.array([[0, 0], [4, 0], [4, 4], [2, 0], [0, 4]], dtype=float)  # a corner on an edge
    assert not crosses_itself(touching) and not crosses_itself(bow[:3])
    assert is_tiny(Rings((box(2, 2, 2.9, 3),))) and not is_tiny(Rings((box(2, 2, 3, 3),)))
    assert is_tiny(PlacedMask(np.zeros((3, 3), dtype=bool), 0, 0)) and not is_tiny(RunLengths({}))
    assert is_tiny(Rings((np.empty((0, 2)),)))
    assert outside_by(Rings((box(-2, 1, 3, 9),)), (8, 10)) == 2 and outside_by(Rings((OUTER,)), (8, 8)) == 0
    assert outside_by(PlacedMask(np.ones((4, 4), dtype=bool), top=6, left=0), (8, 8)) == 2


def test_crossings_are_those_of_every_pair_of_edges() -> None:
    def side(a: Any, b: Any, c: Any) -> float:
        return float(np.sign((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])))

    random = np.random.default_rng(1)
    seen = set()
    for _ in range(60):
        ring = random.random((random.integers(3, 8), 2))
        edges = [(ring[i], ring[(i + 1) % len(ring)]) for i in range(len(ring))]
        expected = any(
            side(*one, other[0]) * side(*one, other[1]) < 0 and side(*other, one[0]) * side(*other, one[1]) < 0
            for one in edges
            for other in edges
        )
        assert crosses_itself(ring) is expected
        seen.add(expected)
    assert seen == {True, False}


@pytest.mark.parametrize(
    "text, name",
    [
        ("a/b.jpg", "a/b"),
        ("..\\images\\0.png", "images/0"),
        ("C:\\data\\0.png", "data/0"),
        ("/photos/0.tif", "photos/0"),
        ("./0.jpg", "0"),
        ("v1.2.jpg", "v1.2"),
    ],
)
def test_names_from_other_computers(text: str, name: str) -> None:
    assert image_name(text) == name


def test_names_match_only_if_one_fits_best() -> None:
    assert match_names(["images/0", "images/1"], ["0", "1", "2"]) == {"images/0": "0", "images/1": "1"}
    assert match_names(["x/a/0", "x/b/0"], ["a/0", "b/0"]) == {"x/a/0": "a/0", "x/b/0": "b/0"}
    assert match_names(["0"], ["a/0", "b/0"]) == {"0": "0"}  # either might be meant
    assert match_names(["a/0", "b/0"], ["0"]) == {"a/0": "a/0", "b/0": "b/0"}
    assert match_names(["gone"], ["0"]) == {"gone": "gone"}

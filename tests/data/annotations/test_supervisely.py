"""Supervisely's JSON: every kind of object, names of files, the classes of the project, and what is wrong in a file."""

import base64
import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segvit.data.dataset import SegmentationDataset
from segvit.errors import UserError
from tests.helpers.annotated import SQUARE, labels_of, opened, photo, write


def thing(kind: str, title: str, **content: Any) -> dict[str, Any]:
    return {"classTitle": title, "geometryType": kind, **content}


def points(exterior: Any, *interior: Any) -> dict[str, Any]:
    return {"points": {"exterior": exterior, "interior": list(interior)}}


def bitmap(pixels: Any, left: int, top: int, data: str | None = None) -> dict[str, Any]:
    """A bitmap as Supervisely writes it: opaque inside."""
    file = io.BytesIO()
    picture = np.zeros((*pixels.shape, 4), dtype=np.uint8)
    picture[pixels > 0] = 255
    Image.fromarray(picture).save(file, "PNG")
    text = base64.b64encode(zlib.compress(file.getvalue())).decode()
    return {"bitmap": {"data": data or text, "origin": [left, top]}}


def project(root: Path, *objects: Any, size: Any = None, meta: Any = None) -> SegmentationDataset:
    """A project of one photo of 6 x 8 pixels."""
    photo(root / "ds" / "img" / "a.jpg")
    content = {"size": {"height": 6, "width": 8} if size is None else size, "objects": objects, "tags": []}
    write(root / "ds" / "ann" / "a.jpg.json", content)
    if meta is not None:
        write(root / "meta.json", {"classes": meta, "tags": []})
    return opened(root / "ds" / "img", root / "ds" / "ann")


def test_every_kind_of_area(tmp_path: Path) -> None:
    hole = [[2, 2], [3, 2], [3, 3], [2, 3]]
    samples = project(
        tmp_path,
        thing("polygon", "poly", **points(SQUARE, hole)),
        thing("rectangle", "rect", **points([[6, 4], [7, 5]])),
        thing("bitmap", "mask", **bitmap(np.array([[1, 0], [1, 1]]), 5, 0)),
        thing("point", "poly", **points([[1, 1]])),
        thing("line", "poly", **points([[1, 1], [2, 2]])),
    )
    assert samples.spec.classes == ("background", "mask", "poly", "rect")
    assert labels_of(samples).tolist() == [
        [0, 0, 0, 0, 0, 1, 0, 0],
        [0, 2, 2, 2, 0, 1, 1, 0],
        [0, 2, 0, 2, 0, 0, 0, 0],
        [0, 2, 2, 2, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 3, 3],
        [0, 0, 0, 0, 0, 0, 3, 3],
    ]


def test_the_project_lists_the_classes(tmp_path: Path) -> None:
    meta = [{"title": title, "shape": shape} for title, shape in (("b", "polygon"), ("p", "point"), ("a", "any"))]
    samples = project(tmp_path, thing("polygon", "a", **points(SQUARE)), meta=meta)
    assert samples.spec.classes == ("background", "b", "a")
    above = opened(tmp_path / "ds" / "img", tmp_path / "ds")
    assert above.spec.classes == ("background", "b", "a") and (labels_of(above)[1:4, 1:4] == 2).all()


@pytest.mark.parametrize(
    "wrong, message",
    [
        (thing("polygon", "", **points(SQUARE)), "`classTitle` is ''"),
        (thing("polygon", "a"), "`points` is None"),
        (thing("polygon", "a", **points([[1]])), "points are"),
        (thing("polygon", "a", points={"exterior": SQUARE, "interior": 3}), "`interior` is 3, not a list"),
        (thing("rectangle", "a", **points([[1, 2]])), "a rectangle needs two points, and has 1"),
        (thing("bitmap", "a", bitmap={"data": "x"}), "`origin` is None"),
        (thing("bitmap", "a", **bitmap(np.ones((2, 2)), 0, 0, data="eA==")), "no compressed PNG in base64"),
        (3, "object 2 is 3"),
    ],
)
def test_mistakes_in_a_file(tmp_path: Path, wrong: Any, message: str) -> None:
    project(tmp_path, thing("polygon", "a", **points(SQUARE)))
    (tmp_path / "ds" / "img" / "b.jpg").write_bytes((tmp_path / "ds" / "img" / "a.jpg").read_bytes())
    objects = [thing("polygon", "a", **points(SQUARE)), wrong]
    write(tmp_path / "ds" / "ann" / "b.jpg.json", {"size": {"height": 6, "width": 8}, "objects": objects})
    with pytest.raises(UserError, match=message):
        opened(tmp_path / "ds" / "img", tmp_path / "ds" / "ann").read(1)


def test_a_bomb_is_no_bitmap(tmp_path: Path) -> None:
    data = base64.b64encode(zlib.compress(bytes(2**26 + 1))).decode()
    samples = project(tmp_path, thing("polygon", "a", **points(SQUARE)))
    large = thing("bitmap", "a", **bitmap(np.ones((2, 2)), 0, 0, data=data))
    write(tmp_path / "ds" / "ann" / "a.jpg.json", {"size": {"height": 6, "width": 8}, "objects": [large]})
    with pytest.raises(UserError, match="larger than 67108864 bytes"):
        samples.read(0)

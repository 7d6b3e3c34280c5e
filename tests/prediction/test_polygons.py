"""Label maps as polygons: the outlines give the map back, pixel by pixel, by an obvious filling and by our reader."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from segvit.errors import UserError
from segvit.prediction.polygons import Region, coco, outlines
from tests.helpers.coco import painted

Labels = npt.NDArray[np.integer[Any]]

RING = """
    ........
    .######.
    .#....#.
    .#.##.#.
    .#.##.#.
    .#....#.
    .######.
    .......#
"""
"""A ring with an island in its hole, and a pixel that touches it at a corner only."""


def drawn(text: str) -> Labels:
    """A map whose # are 1, . are 0 and ? are ignored."""
    return np.array([[{".": 0, "#": 1, "?": 255}[sign] for sign in line.strip()] for line in text.strip().splitlines()])


def filled(rings: list[npt.NDArray[np.int64]], shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """The pixels inside some rings: those whose centre has an odd number of vertical sides on its left."""
    inside = np.zeros(shape, bool)
    for row in range(shape[0]):
        for column in range(shape[1]):
            crossed = 0
            for ring in rings:
                for (x, y), (to_x, to_y) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
                    assert (x == to_x) != (y == to_y), "a ring runs along the edges of pixels, and turns at each corner"
                    crossed += x == to_x and min(y, to_y) < row + 0.5 < max(y, to_y) and x < column + 0.5
            inside[row, column] = crossed % 2
    return inside


def pieces(labels: Labels, ignore: int = 255) -> set[tuple[int, frozenset[tuple[int, int]]]]:
    """The regions as sets of pixels, by flooding from one pixel after another to its four neighbours."""
    height, width = labels.shape
    left = {(row, column) for row in range(height) for column in range(width) if labels[row, column] != ignore}
    found = set()
    while left:
        seed = min(left)
        region, front = {seed}, [seed]
        while front:
            row, column = front.pop()
            for there in ((row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)):
                if there in left and there not in region and labels[there] == labels[seed]:
                    region.add(there)
                    front.append(there)
        left -= region
        found.add((int(labels[seed]), frozenset(region)))
    return found


def read_back(content: dict[str, Any], folder: Path) -> Labels:
    """What the reader of COCO polygons makes of it."""
    path = folder / "polygons.json"
    path.write_text(json.dumps(content))
    return painted(path)


def by_size(regions: list[Region]) -> list[tuple[int, int, int]]:
    """Label, area and number of holes of each region, largest first."""
    return sorted(((region.label, region.area, len(region.rings) - 1) for region in regions), key=lambda row: -row[1])


def test_a_ring_its_hole_and_what_touches_it() -> None:
    regions = outlines(drawn(RING))
    # The background around the ring has no hole: at the corner where the lone pixel touches, its outer ring goes in.
    assert by_size(regions) == [(0, 27, 0), (1, 20, 1), (0, 12, 1), (1, 4, 0), (1, 1, 0)]
    ring = next(region for region in regions if region.area == 20)
    assert ring.rings[0].tolist() == [[7, 1], [7, 7], [1, 7], [1, 1]]  # clockwise as displayed
    assert ring.rings[1].tolist() == [[6, 6], [6, 2], [2, 2], [2, 6]]  # the other way round


def test_corners_only_touch() -> None:
    assert by_size(outlines(drawn("#.\n.#"))) == [(0, 1, 0)] * 2 + [(1, 1, 0)] * 2
    # Two pixels that touch at a corner make one hole, whose ring goes through that corner twice.
    (region,) = (region for region in outlines(drawn("####\n#.##\n##.#\n####")) if region.label == 1)
    assert (region.area, [len(ring) for ring in region.rings]) == (14, [4, 8])


def test_one_region_and_none() -> None:
    (whole,) = outlines(np.zeros((3, 5), np.uint8))
    assert (whole.label, whole.area) == (0, 15)
    assert sorted(whole.rings[0].tolist()) == [[0, 0], [0, 3], [5, 0], [5, 3]]
    assert outlines(np.full((2, 2), 255)) == []
    content = coco(np.full((2, 2), 255), ["a"], file_name="x.png")
    assert content["annotations"] == [] and content["categories"] == [{"id": 0, "name": "a"}]


@pytest.mark.parametrize("seed", [*range(10), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(10, 40))])
def test_random_maps_come_back(seed: int, tmp_path: Path) -> None:
    random = np.random.default_rng(seed)
    labels = random.integers(0, random.integers(1, 5), random.integers(1, 11, 2)).astype(np.uint8)
    labels = labels.repeat(random.integers(1, 3), axis=0)
    labels[random.random(labels.shape) < 0.1] = 255
    regions = outlines(labels)
    found = set()
    for region in regions:
        mask = filled(region.rings, labels.shape)
        assert mask.sum() == region.area
        assert all(filled([ring], labels.shape).any() for ring in region.rings)
        found.add((region.label, frozenset(zip(*(axis.tolist() for axis in mask.nonzero()), strict=True))))
    assert found == pieces(labels)
    assert len(found) == len(regions)
    content = coco(labels, list("abcde"), file_name="scene.jpg")
    assert np.array_equal(read_back(content, tmp_path), labels)


def test_bridges_leave_holes_out_under_both_rules() -> None:
    content = coco(drawn(RING), ["ground", "figure"], file_name="x.png")
    picture = np.zeros((8, 8), np.int64)
    for annotation in content["annotations"]:
        (line,) = annotation["segmentation"]
        points = np.array(line).reshape(-1, 2)
        for row in range(8):
            for column in range(8):
                winding = 0
                for (x, y), (to_x, to_y) in zip(points, np.roll(points, -1, axis=0), strict=True):
                    assert x == to_x or y == to_y, "bridges run along rows and columns as well"
                    if x == to_x and min(y, to_y) < row + 0.5 < max(y, to_y) and x < column + 0.5:
                        winding += np.sign(to_y - y)
                assert abs(winding) <= 1
                picture[row, column] += winding != 0
    assert (picture == 1).all()  # each pixel in one region


def test_form_of_coco() -> None:
    content = coco(drawn(RING), ["ground", "figure"], file_name="a photo.jpg")
    assert content["images"] == [{"id": 1, "file_name": "a photo.jpg", "width": 8, "height": 8}]
    assert content["categories"] == [{"id": 0, "name": "ground"}, {"id": 1, "name": "figure"}]
    assert [annotation["id"] for annotation in content["annotations"]] == [1, 2, 3, 4, 5]
    assert sum(annotation["area"] for annotation in content["annotations"]) == 64
    lone = next(annotation for annotation in content["annotations"] if annotation["area"] == 1)
    assert lone["bbox"] == [7, 7, 1, 1] and lone["category_id"] == 1 and lone["iscrowd"] == 0


def test_real_label_maps_come_back(shared_data: Path, tmp_path: Path) -> None:
    files = sorted((shared_data / "camvid" / "annotations" / "val").iterdir())[:20]
    holes = 0
    for file in files:
        labels = np.asarray(Image.open(file))
        content = coco(labels, [f"class {index}" for index in range(255)], file_name=file.name)
        assert np.array_equal(read_back(content, tmp_path), labels), file
        holes += sum(len(region.rings) - 1 for region in outlines(labels))
    assert holes > 100  # or the maps would not put bridges to the test


def test_many_classes_and_other_types(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 300, (20, 30)).astype(np.uint16)
    content = coco(labels, [str(index) for index in range(300)], file_name="x", ignore=65_535)
    assert np.array_equal(read_back(content, tmp_path), labels)
    backwards = np.asfortranarray(labels.astype(np.int64))[::-1]
    content = coco(backwards, [str(index) for index in range(300)], file_name="x", ignore=-1)
    assert np.array_equal(read_back(content, tmp_path), backwards)


def test_a_large_map_takes_no_second() -> None:
    coarse = np.random.default_rng(0).integers(0, 20, (50, 50)).astype(np.uint8)
    labels = np.asarray(Image.fromarray(coarse).resize((1200, 900), Image.Resampling.NEAREST))
    begin = time.perf_counter()
    json.dumps(coco(labels, [str(index) for index in range(20)], file_name="x"))
    assert time.perf_counter() - begin < 1


def test_refusals() -> None:
    for wrong in (np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2)), np.zeros((0, 4), np.uint8)):
        with pytest.raises(UserError, match="give whole numbers"):
            outlines(wrong)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"label 2 among 2 classes"):
        coco(np.array([[0, 2]]), ["a", "b"], file_name="x")

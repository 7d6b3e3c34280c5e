"""Simplified outlines: the points that a slow recursion keeps, no gap between neighbours, and close to the pixels."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from segvit.data.labels.rasterize import fill_polygon
from segvit.prediction.annotations.simplify import _thin, simplified
from segvit.prediction.polygons import Region, bridged, outlines

Labels = npt.NDArray[np.int64]
CAMVID = Path(__file__).parents[4] / "shared" / "data" / "camvid"


def smooth_map(seed: int, size: tuple[int, int], classes: int) -> Labels:
    """Draw a label map whose regions have round outlines, holes and islands."""
    coarse = torch.randn(1, classes, 9, 11, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, size=size, mode="bicubic")[0].argmax(0).numpy()


def covered(regions: list[Region], shape: tuple[int, int]) -> tuple[Labels, Labels]:
    """Paint regions, and return the labels and the number of regions that cover each pixel."""
    labels, counts = np.full(shape, -1), np.zeros(shape, dtype=np.int64)
    for region in regions:
        inside = np.zeros(shape, dtype=bool)
        fill_polygon(inside, bridged(region.rings).astype(np.float64), True)
        labels[inside] = region.label
        counts += inside
    return labels, counts


def mean_iou(found: Labels, wanted: Labels) -> float:
    shares = [((found == k) & (wanted == k)).sum() / ((found == k) | (wanted == k)).sum() for k in np.unique(wanted)]
    return float(np.mean(shares))


def slow_thin(points: list[tuple[int, int]], tolerance: float) -> list[tuple[int, int]]:
    """Douglas and Peucker, word for word."""
    (x, y), (to_x, to_y) = points[0], points[-1]
    farthest, place = 0.0, 0
    for index, (px, py) in enumerate(points[1:-1], start=1):
        length = (to_x - x) ** 2 + (to_y - y) ** 2
        share = 0.0 if length == 0 else min(1, max(0, ((px - x) * (to_x - x) + (py - y) * (to_y - y)) / length))
        distance = np.hypot(x + share * (to_x - x) - px, y + share * (to_y - y) - py)
        if distance > farthest + 1e-9:
            farthest, place = distance, index
    if farthest <= tolerance:
        return [points[0], points[-1]]
    return slow_thin(points[: place + 1], tolerance)[:-1] + slow_thin(points[place:], tolerance)


@pytest.mark.parametrize("tolerance", [70.0, 200.0, 530.0])
@pytest.mark.parametrize("seed", range(5))
def test_the_points_are_those_of_a_slow_recursion(seed: int, tolerance: float) -> None:
    points = np.random.default_rng(seed).integers(-300, 301, size=(60, 2)).cumsum(axis=0)
    assert [tuple(point) for point in _thin(points, tolerance).tolist()] == slow_thin(
        [(x, y) for x, y in points.tolist()], tolerance
    )


@pytest.mark.parametrize("tolerance", [0.5, 1.0, 2.5])
@pytest.mark.parametrize(("size", "classes"), [((90, 120), 2), ((121, 77), 5), ((150, 200), 12)])
def test_neighbours_keep_their_common_boundary(size: tuple[int, int], classes: int, tolerance: float) -> None:
    labels = smooth_map(classes, size, classes)
    exact = outlines(labels)
    _, counts = covered(simplified(exact, labels, tolerance=tolerance), size)
    # Two arcs may cross where they are closer than the tolerance, so a few pixels are covered twice or not at all.
    assert (counts != 1).mean() <= 0.003 * tolerance


def test_smooth_regions_keep_their_pixels_with_few_corners() -> None:
    labels = smooth_map(0, (240, 320), 6)
    exact = outlines(labels)
    fewer = simplified(exact, labels, tolerance=0.75)
    found, _ = covered(fewer, labels.shape)
    assert mean_iou(found, labels) >= 0.98
    corners = [sum(len(ring) for region in regions for ring in region.rings) for regions in (exact, fewer)]
    assert corners[1] < corners[0] / 4
    assert [region.area for region in fewer] == [region.area for region in exact]


def test_no_tolerance_changes_nothing() -> None:
    labels = smooth_map(1, (40, 50), 4)
    exact = outlines(labels)
    assert simplified(exact, labels, tolerance=0) == exact


@pytest.mark.parametrize("tolerance", [1.0, 30.0])
def test_small_and_thin_regions_remain(tolerance: float) -> None:
    labels = np.zeros((40, 40), dtype=np.int64)
    labels[5, 5] = 1  # a pixel
    labels[10:30, 20] = 2  # a line
    labels[0, 0] = 3  # in the corner
    labels[35:, 30:33] = 4  # at the edge
    found = simplified(outlines(labels), labels, tolerance=tolerance)
    assert sorted(region.label for region in found) == [0, 1, 2, 3, 4]
    for region in found:
        assert all(len(np.unique(ring, axis=0)) >= 3 for ring in region.rings)


@pytest.mark.skipif(not CAMVID.is_dir(), reason="the CamVid sample is absent")
def test_street_scenes_keep_their_pixels() -> None:
    scores: list[Any] = []
    for path in sorted(CAMVID.glob("annotations/val/*.png"))[:3]:
        labels = np.asarray(Image.open(path)).astype(np.int64)
        found, counts = covered(simplified(outlines(labels, ignore=-1), labels, tolerance=0.5), labels.shape)
        assert (counts == 1).mean() > 0.999
        scores.append(mean_iou(found, labels))
    assert len(scores) == 3
    assert min(scores) >= 0.98

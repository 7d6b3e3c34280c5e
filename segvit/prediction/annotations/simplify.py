"""Simplify the outlines of regions so that neighbours keep their common boundary.

    regions = simplified(outlines(labels), labels, tolerance=1.0)

The boundary of two regions is one arc between two junctions, which are corners where more than two regions meet. Each
arc is simplified once, by the algorithm of Douglas and Peucker, in a direction that both regions agree on. So both get
the same points, and no gap opens between them.

Letters: H, W size of the label map, N points of an arc or ring, V unit steps of all rings.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from segvit.prediction.polygons import Region

Points = npt.NDArray[np.int64]
"""Points x, y in half pixels, which are whole numbers."""
FEWEST = 4
"""Smallest number of points of a simplified loop. One with fewer keeps all its points."""


def simplified(regions: Sequence[Region], labels: npt.NDArray[np.integer[Any]], *, tolerance: float) -> list[Region]:
    """Return the regions of a label map with fewer corners, at whole and half pixels; `area` is that of the pixels.

    Args:
        regions: outlines of `labels`, or some of them.
        labels: (H, W).
        tolerance: largest distance in pixels between the middle of a pixel's side and the line that replaces it. 0
            keeps the outlines.
    """
    if tolerance == 0:
        return list(regions)
    junctions = _junctions(labels)
    return [
        region._replace(
            rings=[_simplify_ring(ring.astype(np.int64), junctions, 2 * tolerance) / 2 for ring in region.rings]
        )
        for region in regions
    ]


def _junctions(labels: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return the corners (H + 1, W + 1) that stay: those of the image, and those where over two boundaries end."""
    padded = np.pad(labels.astype(np.int64), 1, constant_values=-1)
    upright = padded[:, 1:] != padded[:, :-1]  # (H + 2, W + 1) boundary between a pixel and the one to its left
    level = padded[1:] != padded[:-1]  # (H + 1, W + 2) boundary between a pixel and the one above
    ends = upright[1:].astype(np.int8) + upright[:-1] + level[:, 1:] + level[:, :-1]
    fixed: npt.NDArray[np.bool_] = ends > 2
    fixed[[0, 0, -1, -1], [0, -1, 0, -1]] = True
    return fixed


def _simplify_ring(ring: npt.NDArray[np.int64], junctions: npt.NDArray[np.bool_], tolerance: float) -> Points:
    """Simplify each arc of a ring (N, 2), given in pixels."""
    corners, fixed = _unit_steps(ring, junctions)
    middles = corners + np.roll(corners, -1, axis=0)  # (V, 2) middles of the unit steps, in half pixels
    places = np.flatnonzero(fixed)
    if len(places) == 0:
        return _simplify_loop(middles, tolerance)
    arcs = []
    for place, following in itertools.pairwise([*places.tolist(), places[0] + len(corners)]):
        steps = middles.take(range(place, following), axis=0, mode="wrap")
        ends = 2 * corners.take([place, following], axis=0, mode="wrap")
        arcs.append(_simplify_arc(np.concatenate([ends[:1], steps, ends[1:]]), tolerance)[:-1])
    result = np.concatenate(arcs)
    return result if _area(result) > 0 else 2 * ring


def _unit_steps(
    ring: npt.NDArray[np.int64], junctions: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return a ring as steps of one pixel (V, 2), and which of its points are junctions (V,)."""
    sides = np.roll(ring, -1, axis=0) - ring
    lengths = np.abs(sides).max(axis=1)
    along = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    points = np.repeat(ring, lengths, axis=0) + np.repeat(np.sign(sides), lengths, axis=0) * along[:, None]
    return points, junctions[points[:, 1], points[:, 0]]


def _simplify_loop(loop: Points, tolerance: float) -> Points:
    """Simplify a ring without junctions (N, 2). It starts at its first point by column and row, for either region."""
    start = int(np.lexsort((loop[:, 1], loop[:, 0]))[0])
    return _simplify_arc(np.concatenate([loop[start:], loop[: start + 1]]), tolerance)[:-1]


def _simplify_arc(arc: Points, tolerance: float) -> Points:
    """Simplify an arc (N, 2) between its ends, which may be equal. Both directions give the same points."""
    closed = bool((arc[0] == arc[-1]).all())
    turned = tuple(arc[-2]) < tuple(arc[1]) if closed else tuple(arc[-1]) < tuple(arc[0])
    points = _corners(arc[::-1] if turned else arc)
    if closed:  # cut at the farthest point, because a line needs two ends
        middle = int(np.square(points - points[0]).sum(axis=1).argmax())
        thin = np.concatenate([_thin(points[: middle + 1], tolerance)[:-1], _thin(points[middle:], tolerance)])
        points = thin if len(thin) > FEWEST else points
    else:
        points = _thin(points, tolerance)
    return points[::-1] if turned else points


def _corners(points: Points) -> Points:
    """Drop the points (N, 2) in the middle of a straight line."""
    steps = np.diff(points, axis=0)
    kept = np.ones(len(points), dtype=bool)
    kept[1:-1] = steps[1:, 0] * steps[:-1, 1] != steps[1:, 1] * steps[:-1, 0]
    return points[kept]


def _thin(points: Points, tolerance: float) -> Points:
    """Drop points (N, 2) that are within `tolerance` of the lines between those kept (Douglas and Peucker)."""
    kept = np.zeros(len(points), dtype=bool)
    kept[[0, -1]] = True
    spans = [(0, len(points) - 1)]
    while spans:
        first, last = spans.pop()
        if last - first < 2:
            continue
        start, line = points[first], points[last] - points[first]
        offsets = points[first + 1 : last] - start
        share = (offsets @ line / max(int(line @ line), 1)).clip(0, 1)
        distance = np.square(offsets - share[:, None] * line).sum(axis=1)
        farthest = int(distance.argmax())
        if distance[farthest] > tolerance**2:
            middle = first + 1 + farthest
            kept[middle] = True
            spans += [(first, middle), (middle, last)]
    return points[kept]


def _area(ring: Points) -> int:
    """Return the area within a ring (N, 2), times a constant."""
    x, y = ring.T
    return abs(int(x @ np.roll(y, -1) - y @ np.roll(x, -1)))

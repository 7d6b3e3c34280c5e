"""Turn a label map into polygons: the exact outlines of its regions along the edges of pixels, with holes.

    regions = outlines(labels)                                  # labels (H, W)
    content = coco(labels, classes, file_name="photo.jpg")      # data/annotations/tools/coco.py and other tools read it

A region is a set of pixels of one class that are connected by their sides. Its rings, filled by the even-odd rule, give
its pixels back exactly; no two regions overlap. A ring may touch itself at a corner but never crosses itself.

Method: every side between a pixel and another class is an edge, walked with its pixel on the right. The three pixels at
its end decide whether the walk turns right, continues straight, or turns left. Runs of straight edges are skipped at
once, so only corners are followed, one step each. All rings are followed together, by doubling the steps.

Letters: H, W size of the map, P pixels H * W, E edges, T corners (edges after which the walk turns), R rings.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from segvit.data.spec import IGNORE_INDEX
from segvit.errors import UserError

Ints = npt.NDArray[np.int64]
Corners = npt.NDArray[np.int64 | np.float64]
"""Points (N, 2), x and y in pixels: whole numbers for exact outlines."""
Flags = npt.NDArray[np.bool_]

EAST, SOUTH, WEST, NORTH = range(4)
"""Directions of an edge: along the top, the right side, the bottom and the left side of its pixel."""


class Region(NamedTuple):
    """A connected region of one class."""

    label: int
    area: int
    """Area in pixels, without holes."""
    rings: Sequence[Corners]
    """Corners (N, 2) of each ring, x and y in pixels, the origin at the upper left; the first ring is the outer one,
    clockwise as displayed, the others are holes, the other way round."""


class _Edges(NamedTuple):
    """All edges of one direction."""

    keys: Ints
    """(E,) pixel of each as a number that ascends in `keys`: row by row, or column by column for SOUTH and NORTH."""
    corner: Ints
    """(E,) number of the corner at which the run of each ends."""


def outlines(labels: npt.NDArray[np.integer[Any]], *, ignore: int = IGNORE_INDEX) -> list[Region]:
    """Return the regions of a label map, ordered by class, and from top to bottom within a class.

    Args:
        labels: (H, W), 0 and above.
        ignore: label of pixels that belong to no region.

    Raises:
        UserError: not a map of whole numbers with at least one pixel.
    """
    if labels.ndim != 2 or labels.size == 0 or labels.dtype.kind not in "iu":
        raise UserError(f"labels are {labels.dtype} {labels.shape}: give whole numbers (H, W)")
    labels = np.ascontiguousarray(labels)
    sides = _sides(labels, ignore)
    if not any(side.any() for side in sides):
        return []
    pixel, direction, straight = _list_edges(sides, labels.shape)
    corner_pixel, corner_direction, table = _skip_runs(pixel, direction, straight, labels.shape)
    next_corner = _next_corners(sides, corner_pixel, corner_direction, table, labels.shape)
    order, starts = _cycles(next_corner)
    corners = _points(corner_pixel, corner_direction, labels.shape[1])[order]
    ring_of = np.empty(len(order), np.int64)
    ring_of[order] = np.repeat(np.arange(len(starts)), np.diff([*starts, len(order)]))
    areas = _areas(corners, starts)
    outer = _outer_rings(areas, corners, starts, corner_pixel[order], ring_of, sides[NORTH], table)
    ring_labels = labels.ravel()[corner_pixel[order[starts]]]
    return list(_regions(corners, starts, areas, outer, ring_labels))


def coco(
    labels: npt.NDArray[np.integer[Any]],
    classes: Sequence[str],
    *,
    file_name: str,
    ignore: int = IGNORE_INDEX,
) -> dict[str, Any]:
    """Return the regions of a label map in COCO format, ready for JSON: one image, one annotation per region.

    Category ids are the class numbers. A region is one polygon. Bridges without width connect its
    holes to its outer ring. Each is walked there and back, so the even-odd rule and winding numbers both exclude holes.

    Args:
        labels: (H, W), class numbers 0..K-1.
        classes: names (K,).
        file_name: of the image.
        ignore: label of pixels that belong to no region.

    Raises:
        UserError: see `outlines`; or a label that is neither a class nor ignored.
    """
    regions = outlines(labels, ignore=ignore)
    if regions and max(region.label for region in regions) >= len(classes):
        label = max(region.label for region in regions)
        raise UserError(f"label {label} among {len(classes)} classes; give 0..{len(classes) - 1}, or {ignore}")
    annotations = [annotation_of(region, number=number, image=1) for number, region in enumerate(regions, start=1)]
    height, width = labels.shape
    return {
        "images": [{"id": 1, "file_name": file_name, "width": width, "height": height}],
        "categories": [{"id": index, "name": name} for index, name in enumerate(classes)],
        "annotations": annotations,
    }


def annotation_of(region: Region, *, number: int, image: int) -> dict[str, Any]:
    """Return the COCO annotation of a region; `number` and `image` are the ids of both."""
    corners = bridged(region.rings)
    (left, top), (right, bottom) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    return {
        "id": number,
        "image_id": image,
        "category_id": region.label,
        "area": region.area,
        "bbox": [left, top, right - left, bottom - top],
        "iscrowd": 0,
        "segmentation": [corners.ravel().tolist()],
    }


def bridged(rings: Sequence[Corners]) -> Corners:
    """Return the rings of a region as one polygon (N, 2), whose holes are connected by bridges without width.

    Bridges run along rows and columns: the crossings of a slanted one would be rounded differently there and back.
    """
    if len(rings) == 1:
        return rings[0]
    (start,), walk = rings[0][:1], [rings[0]]
    for hole in rings[1:]:
        foot = np.array([[hole[0, 0], start[1]]])
        walk += [start[None], foot, hole, hole[:1], foot]
    return np.concatenate(walk)


def _sides(labels: npt.NDArray[Any], ignore: int) -> tuple[Flags, Flags, Flags, Flags]:
    """Return four masks (H, W): True where a pixel has an edge on its top, right, bottom and left."""
    across, down = labels[:, 1:] != labels[:, :-1], labels[1:] != labels[:-1]
    top, right, bottom, left = (np.ones(labels.shape, bool) for _ in range(4))
    top[1:], bottom[:-1], right[:, :-1], left[:, 1:] = down, down, across, across
    if (ignored := labels == ignore).any():
        for side in (top, right, bottom, left):
            side[ignored] = False
    return top, right, bottom, left


def _steps(width: int) -> tuple[int, int, int, int]:
    """Return the step from a pixel to the next one in each direction, in flat indices."""
    return 1, width, -1, -width


def _list_edges(sides: Sequence[Flags], shape: tuple[int, int]) -> tuple[list[Ints], list[Ints], list[Flags]]:
    """Return by direction: pixels (E,) of the edges in the order of the walk, sort keys, and where it is straight."""
    height, width = shape
    pixels, keys, continues = [], [], []
    for direction, side in enumerate(sides):
        if direction in (EAST, WEST):
            key = np.flatnonzero(side)
            pixel = key
        else:
            key = np.flatnonzero(side.T)
            pixel = key % height * width + key // height
        if direction in (WEST, NORTH):
            key, pixel = key[::-1], pixel[::-1]
        right = sides[(direction + 1) % 4].ravel()
        ahead = pixel + _steps(width)[direction]  # beyond the map only where there is an edge on the right
        straight = ~right[pixel]
        straight[straight] = side.ravel()[ahead[straight]]
        pixels.append(pixel)
        keys.append(key)
        continues.append(straight)
    return pixels, keys, continues


def _skip_runs(
    pixels: Sequence[Ints], keys: Sequence[Ints], straight: Sequence[Flags], shape: tuple[int, int]
) -> tuple[Ints, Ints, list[_Edges]]:
    """Pixels (T,) and directions (T,) of the corners, and by direction the edges with the corner that each leads to."""
    corner_pixels, table, count = [], [], 0
    for direction, (pixel, key, continues) in enumerate(zip(pixels, keys, straight, strict=True)):
        turns = ~continues
        corner = count + np.cumsum(turns) - turns  # the next one of the walk, for its runs are whole
        backward = direction in (WEST, NORTH)
        table.append(_Edges(key[::-1], corner[::-1]) if backward else _Edges(key, corner))
        corner_pixels.append(pixel[turns])
        count += len(corner_pixels[-1])
    directions = np.repeat(np.arange(4), [len(pixel) for pixel in corner_pixels])
    return np.concatenate(corner_pixels), directions, table


def _corner_after(table: Sequence[_Edges], pixel: Ints, direction: int, shape: tuple[int, int]) -> Ints:
    """Number of the corner that the run of an edge ends at, for edges of one direction at some pixels."""
    height, width = shape
    key = pixel if direction in (EAST, WEST) else pixel % width * height + pixel // width
    return table[direction].corner[np.searchsorted(table[direction].keys, key)]


def _next_corners(
    sides: Sequence[Flags], pixel: Ints, direction: Ints, table: Sequence[_Edges], shape: tuple[int, int]
) -> Ints:
    """Return the next corner (T,) of each corner on its ring."""
    steps = _steps(shape[1])
    following = np.empty(len(pixel), np.int64)
    for d in range(4):
        (here,) = np.nonzero(direction == d)
        at = pixel[here]
        right = sides[(d + 1) % 4].ravel()[at]
        following[here[right]] = _corner_after(table, at[right], (d + 1) % 4, shape)
        diagonal = at[~right] + steps[d] + steps[d - 1]  # ahead and on the left: it is of the same region
        following[here[~right]] = _corner_after(table, diagonal, (d - 1) % 4, shape)
    return following


def _points(pixel: Ints, direction: Ints, width: int) -> Ints:
    """Return the points (T, 2) at which edges end, as x and y."""
    row, column = np.divmod(pixel, width)
    x = column + np.isin(direction, (EAST, SOUTH))
    y = row + np.isin(direction, (SOUTH, WEST))
    return np.stack([x, y], axis=1)


def _cycles(following: Ints) -> tuple[Ints, Ints]:
    """The corners (T,) ring by ring in the order of the walk, and where each ring (R,) starts there.

    Each ring starts at its lowest number, and rings are sorted by that. Steps are doubled until nothing changes.
    """
    first, jump = np.arange(len(following)), following
    while True:
        lower = np.minimum(first, first[jump])
        if np.array_equal(lower, first):
            break
        first, jump = lower, jump[jump]
    # Steps left to the start of the ring, where the walk is held.
    at_start = first == np.arange(len(following))
    jump = np.where(at_start[following], np.arange(len(following)), following)
    left = (jump != np.arange(len(following))).astype(np.int64)
    while left[jump].any():
        left, jump = left + left[jump], jump[jump]
    order = np.lexsort((-left, first))  # the start has the most steps left
    return order, np.flatnonzero(np.diff(first[order], prepend=-1))


def _areas(corners: Ints, starts: Ints) -> Ints:
    """Return the number of pixels (R,) inside each ring, negative for holes."""
    last = np.append(starts[1:], len(corners)) - 1
    onward = np.arange(1, len(corners) + 1)
    onward[last] = starts
    x, y = corners.T
    return np.add.reduceat(x * y[onward] - x[onward] * y, starts) // 2


def _outer_rings(
    areas: Ints,
    corners: Ints,
    starts: Ints,
    pixel: Ints,
    ring_of: Ints,
    left_sides: Flags,
    table: Sequence[_Edges],
) -> Ints:
    """The outer ring (R,) of the region of each ring.

    From the pixel on the left of a hole's leftmost edge, the region goes on to the left up to an edge, which lies on
    the outer ring or on a hole further left: so step by step all come to the outer one.
    """
    (holes,) = np.nonzero(areas < 0)
    parent = np.arange(len(starts))
    if not len(holes):
        return parent
    width = left_sides.shape[1]
    # At a hole's leftmost corners the walk comes from the south, along the left side of the hole, or goes there; its
    # pixel is then the one on the left.
    ring = np.repeat(np.arange(len(starts)), np.diff([*starts, len(corners)]))
    leftmost = np.minimum.reduceat(corners[:, 0], starts)
    candidates = (areas[ring] < 0) & (pixel % width < leftmost[ring])
    (found,) = np.nonzero(candidates)
    chosen, position = np.unique(ring[found], return_index=True)
    assert len(chosen) == len(holes)
    begin = _run_starts(pixel[found[position]], left_sides)
    edges = table[NORTH]
    height = left_sides.shape[0]
    key = begin % width * height + begin // width
    parent[chosen] = ring_of[edges.corner[np.searchsorted(edges.keys, key)]]
    while (areas[parent] < 0).any():
        parent = parent[parent]
    return parent


def _run_starts(pixels: Ints, left_sides: Flags) -> Ints:
    """The first pixel with an edge on its left, at or left of each pixel in its row."""
    edges = np.flatnonzero(left_sides)
    return edges[np.searchsorted(edges, pixels, side="right") - 1]


def _regions(corners: Ints, starts: Ints, areas: Ints, outer: Ints, labels: npt.NDArray[Any]) -> Iterator[Region]:
    """The regions, sorted by class; rings of each from the outer one."""
    order = np.lexsort((areas < 0, outer, labels))
    begins = np.flatnonzero(np.diff(outer[order], prepend=-1))
    # Plain numbers and slices: noise has a million regions, and an array operation for each would take a minute.
    pixels = np.add.reduceat(areas[order], begins).tolist()
    classes = labels[order[begins]].tolist()
    first, last = starts[order].tolist(), np.append(starts[1:], len(corners))[order].tolist()
    bounds = [*begins.tolist(), len(order)]
    for number, (label, area) in enumerate(zip(classes, pixels, strict=True)):
        rings = range(bounds[number], bounds[number + 1])
        yield Region(label, area, [corners[first[ring] : last[ring]] for ring in rings])

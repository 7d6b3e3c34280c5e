"""Paint with soft edges: signed distances, value noise, and a canvas that keeps image and labels together.

Coordinates are fractions of the image side: x to the right, y down, both from 0 to 1, so that a scene looks
the same at any size.
Arithmetic uses only operations that IEEE 754 rounds alike on every machine (+ - * / sqrt, comparisons): no sin, no exp,
no BLAS.

Letters: S side of the canvas in pixels; h, w a window of it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segvit.data.spec import IGNORE_INDEX

Floats = NDArray[np.floating[Any]]
Point = tuple[float, float]
Box = tuple[float, float, float, float]
"""Corners x0, y0, x1, y1."""

BORDER = 1 / 400
"""Half the width of the ignored line around an object, as a fraction of the side: a quarter of a pixel at 96."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A region of the plane. `distance(x, y)` is negative inside, and positive outside `box`."""

    box: Box
    distance: Callable[[Floats, Floats], Floats]


def ellipse(cx: float, cy: float, rx: float, ry: float) -> Shape:
    """Return an axis-parallel ellipse. Its distance is exact for a circle, and to first order at the edge of others."""

    def distance(x: Floats, y: Floats) -> Floats:
        dx, dy = (x - cx) / rx, (y - cy) / ry
        level: Floats = np.sqrt(dx * dx + dy * dy)
        result: Floats = (level - 1) * rx
        if rx != ry:
            dx, dy = dx / rx, dy / ry
            result = (level - 1) * level / (np.sqrt(dx * dx + dy * dy) + 1e-6)
        return result

    return Shape(box=(cx - rx, cy - ry, cx + rx, cy + ry), distance=distance)


def rectangle(x0: float, y0: float, x1: float, y1: float) -> Shape:
    """Return an axis-parallel rectangle."""
    cx, cy, half_width, half_height = (x0 + x1) / 2, (y0 + y1) / 2, (x1 - x0) / 2, (y1 - y0) / 2

    def distance(x: Floats, y: Floats) -> Floats:
        result: Floats = np.maximum(np.abs(x - cx) - half_width, np.abs(y - cy) - half_height)
        return result

    return Shape(box=(x0, y0, x1, y1), distance=distance)


def polygon(*points: Point) -> Shape:
    """Return a convex polygon. Its points go clockwise as seen on the screen."""
    xs, ys = [p[0] for p in points], [p[1] for p in points]

    def distance(x: Floats, y: Floats) -> Floats:
        result: Floats | None = None
        for (px, py), (qx, qy) in zip(points, points[1:] + points[:1], strict=True):
            length = float(np.sqrt((qx - px) ** 2 + (qy - py) ** 2))
            nx, ny = (qy - py) / length, (px - qx) / length
            outside = (x * nx - px * nx) + (y * ny - py * ny)
            result = outside if result is None else np.maximum(result, outside)
        assert result is not None
        return result

    return Shape(box=(min(xs), min(ys), max(xs), max(ys)), distance=distance)


def limb(start: Point, end: Point, start_radius: float, end_radius: float) -> Shape:
    """Return a straight stick with round ends that tapers from one radius to the other."""
    (px, py), (qx, qy) = start, end
    dx, dy = qx - px, qy - py
    square, radius = dx * dx + dy * dy, max(start_radius, end_radius)

    def distance(x: Floats, y: Floats) -> Floats:
        along = np.clip(((x - px) * dx + (y - py) * dy) / square, 0, 1)
        ex, ey = x - px - along * dx, y - py - along * dy
        return np.sqrt(ex * ex + ey * ey) - (start_radius + along * (end_radius - start_radius))

    box = (min(px, qx) - radius, min(py, qy) - radius, max(px, qx) + radius, max(py, qy) + radius)
    return Shape(box=box, distance=distance)


def union(*shapes: Shape) -> Shape:
    """Return the union of the shapes."""

    def distance(x: Floats, y: Floats) -> Floats:
        result = shapes[0].distance(x, y)
        for shape in shapes[1:]:
            result = np.minimum(result, shape.distance(x, y))
        return result

    boxes = [shape.box for shape in shapes]
    box = (min(b[0] for b in boxes), min(b[1] for b in boxes), max(b[2] for b in boxes), max(b[3] for b in boxes))
    return Shape(box=box, distance=distance)


def grid(box: Box, columns: int, rows: int, fill: float) -> Shape:
    """Return `columns` x `rows` equal rectangles within `box`. Each fills that share of its cell's sides."""
    x0, y0, x1, y1 = box
    width, height = (x1 - x0) / columns, (y1 - y0) / rows

    def distance(x: Floats, y: Floats) -> Floats:
        u, v = (x - x0) / width, (y - y0) / height
        du = (np.abs(u - np.floor(u) - 0.5) - fill / 2) * width
        dv = (np.abs(v - np.floor(v) - 0.5) - fill / 2) * height
        inside = np.maximum(np.abs(u - columns / 2) - columns / 2, np.abs(v - rows / 2) - rows / 2)
        result: Floats = np.maximum(np.maximum(du, dv), inside * width)
        return result

    return Shape(box=box, distance=distance)


def noise(random: np.random.Generator, size: int, columns: float, rows: float) -> Floats:
    """Return value noise (size, size) in -1..1: random knots, smoothly interpolated.

    `columns` and `rows` are the numbers of cells across and down.
    """
    knots = random.random((int(rows) + 2, int(columns) + 2), dtype=np.float32) * 2 - 1
    centres = (np.arange(size, dtype=np.float32) + 0.5) / size
    x, y = centres * np.float32(columns), centres * np.float32(rows)
    column, row = x.astype(np.intp), y.astype(np.intp)
    u, v = x - column, (y - row)[:, None]
    u, v = u * u * (3 - 2 * u), v * v * (3 - 2 * v)
    across = knots[:, column] * (1 - u) + knots[:, column + 1] * u
    return across[row] * (1 - v) + across[row + 1] * v


class Canvas:
    """An image (3, S, S) of 0..1 and its labels (S, S), painted back to front.

    A pixel belongs to the object that covers its centre. Pixels on the edge of an object, where colours mix, are
    ignored.
    """

    def __init__(self, size: int) -> None:
        centres = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size)
        self.size = size
        self.x, self.y = centres[None, :], centres[:, None]
        self.image: Floats = np.zeros((3, size, size), dtype=np.float32)
        self.labels: NDArray[np.uint8] = np.full((size, size), IGNORE_INDEX, dtype=np.uint8)

    def window(self, box: Box) -> tuple[slice, slice]:
        """Return the rows and columns that `box` touches, with one more pixel for the soft edge."""
        left, top, right, bottom = (int(value * self.size) for value in box)
        return slice(max(0, top - 1), max(0, bottom + 2)), slice(max(0, left - 1), max(0, right + 2))

    def paint(
        self,
        shape: Shape,
        colour: Floats,
        *,
        label: int | None = None,
        shade: Floats | None = None,
        opacity: float = 1.0,
    ) -> None:
        """Cover `shape` with a colour. Without a label, it is a detail of the object below.

        Args:
            shape: region to cover.
            colour: (3,) or (3, S, S) of 0..1.
            label: class of the covered pixels.
            shade: factor on the colour, (S, S) or (1, S).
            opacity: 0..1. Below 1, the colours below shine through.
        """
        rows, columns = self.window(shape.box)
        target = self.image[:, rows, columns]
        if target.size == 0:
            return
        distance = shape.distance(self.x[:, columns], self.y[rows]) * self.size
        coverage = np.maximum(np.minimum(0.5 - distance, 1), 0)
        if opacity != 1:
            coverage *= opacity
        paint = colour[:, rows, columns] if colour.ndim == 3 else colour[:, None, None]
        if shade is not None:
            paint = paint * (shade[rows, columns] if len(shade) > 1 else shade[:, columns])
        target += coverage * (paint - target)
        if label is not None:
            labels = self.labels[rows, columns]
            edge = (np.abs(distance) < BORDER * self.size) & (labels != label)
            labels[distance < 0] = label
            labels[edge] = IGNORE_INDEX

    def photograph(self, light: Floats, exposure: Floats, grain: Floats) -> NDArray[np.uint8]:
        """Return the image (S, S, 3) in 8 bits, as a camera takes it.

        Args:
            light: (3,) factor of red, green and blue.
            exposure: (S, S) factor.
            grain: (3, S, S) noise of the sensor, on the scale of 0..1.
        """
        image = np.clip(self.image * (light[:, None, None] * exposure) + grain, 0, 1)
        return np.ascontiguousarray((image * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0))

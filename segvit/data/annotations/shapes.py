"""Describe what a labelling tool drew on one image, and paint it as a label map.

Shapes are painted in the order of their list, each over those before. That is the order of the file. If a format has a
z-order, the shapes are sorted by it, and shapes of one level keep the order of the file. A pixel belongs to a polygon
if its centre is inside, by the even-odd rule (labels/rasterize.py).

Letters: H, W size of an image, h, w size of a mask, N points of a ring.
"""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from segvit.data.labels.rasterize import decode_rle, fill_rings
from segvit.errors import UserError

Ring = npt.NDArray[np.float64]
"""Points (N, 2) of a closed outline, each x, y in pixels. The pixel at the origin covers 0..1."""
MOST_PIXELS = 2**31
"""Largest number of pixels of an image that is accepted."""
SAGITTA = 0.02
"""Largest distance in pixels between a curve and the polygon in its place."""
MOST_CORNERS = 4096
"""Largest number of corners of such a polygon."""


class Rings(NamedTuple):
    """An area inside outlines."""

    rings: tuple[Ring, ...]
    holes: bool = False
    """True if a ring inside another one is a hole. False joins the rings."""


class PlacedMask(NamedTuple):
    """An area of pixels inside a box."""

    pixels: npt.NDArray[np.bool_]
    """The pixels (h, w) of the box."""
    top: int
    """Row of the box in the image. The part outside the image is not painted."""
    left: int
    """Column of the box in the image."""


class RunLengths(NamedTuple):
    """An area of the whole image as COCO's run lengths."""

    rle: dict[str, Any]
    """`size` [H, W] and `counts`, a list or COCO's compressed text."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One area that a labelling tool drew."""

    name: str
    """Class name in the file. Empty if the tool marks the area as ignored without a class."""
    kind: str
    """The tool's word for the form, such as `polygon`."""
    area: Rings | PlacedMask | RunLengths
    ignored: bool = False
    """True if the pixels are ignored, whatever the class."""
    category: int | None = None
    """Number of the class in the file, if the tool numbers its classes."""


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """Everything that a labelling tool drew on one image."""

    where: str
    """File, and the image if the file describes several, for messages."""
    size: tuple[int, int] | None = None
    """Height and width of the image in pixels. None if the file has no size."""
    shapes: tuple[Shape, ...] = ()
    """Areas in the order in which they are painted."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Number of shapes that are no areas, by their kind, such as `point`."""


def paint(
    drawing: Drawing, size: tuple[int, int], value_of: Callable[[Shape], int], *, unlabeled: int
) -> npt.NDArray[Any]:
    """Paint the shapes of one image as raw values (H, W), uint8 or uint16.

    Args:
        drawing: the shapes.
        size: (H, W) of the image.
        value_of: returns the raw value of a shape.
        unlabeled: raw value of pixels outside every shape.

    Raises:
        UserError: the size is impossible, a mask does not fit it, or `value_of` raises.
    """
    height, width = size
    if min(size) < 1 or height * width > MOST_PIXELS:
        raise UserError(f"{drawing.where}: the image's size is {width} x {height} pixels; give the real one")
    values = [value_of(shape) for shape in drawing.shapes]
    labels = np.full(size, unlabeled, dtype=np.uint8 if max([unlabeled, *values]) < 256 else np.uint16)
    for shape, value in zip(drawing.shapes, values, strict=True):
        try:
            fill(labels, shape.area, value)
        except ValueError as error:
            raise UserError(f"{drawing.where}: {shape.kind} of {shape.name!r}: {error}") from error
    return labels


def fill(labels: npt.NDArray[Any], area: Rings | PlacedMask | RunLengths, value: int) -> None:
    """Set the pixels of `labels` (H, W) in an area.

    Raises:
        ValueError: the run lengths do not fit the image.
    """
    height, width = labels.shape
    if isinstance(area, Rings):
        for rings in [area.rings] if area.holes else [(ring,) for ring in area.rings]:
            fill_rings(labels, rings, value)
    elif isinstance(area, RunLengths):
        labels[decode_rle(area.rle, (height, width))] = value
    else:
        above, before = max(0, -area.top), max(0, -area.left)  # rows and columns outside the image
        inside = area.pixels[above : max(above, height - area.top), before : max(before, width - area.left)]
        if inside.size:
            top, left = area.top + above, area.left + before
            labels[top : top + inside.shape[0], left : left + inside.shape[1]][inside] = value


def box(left: float, top: float, right: float, bottom: float, *, rotation: float = 0.0) -> Ring:
    """Return the corners (4, 2) of a box in pixels, turned about its centre by `rotation` degrees clockwise."""
    corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]], dtype=np.float64)
    return _turned(corners, ((left + right) / 2, (top + bottom) / 2), rotation)


def ellipse(x: float, y: float, radius_x: float, radius_y: float, *, rotation: float = 0.0) -> Ring:
    """Return a polygon (N, 2) within `SAGITTA` of an ellipse, turned about its centre by `rotation` degrees clockwise.

    Args:
        x: column of the centre in pixels.
        y: row of the centre in pixels.
        radius_x: horizontal radius in pixels.
        radius_y: vertical radius in pixels.
        rotation: angle in degrees.
    """
    wanted = math.pi * math.sqrt(max(radius_x, radius_y, 0.0) / (2 * SAGITTA))
    angles = np.linspace(0, 2 * math.pi, min(max(16, math.ceil(wanted)), MOST_CORNERS), endpoint=False)
    points = np.stack([x + radius_x * np.cos(angles), y + radius_y * np.sin(angles)], axis=1)
    return _turned(points, (x, y), rotation)


def _turned(points: Ring, centre: tuple[float, float], rotation: float) -> Ring:
    """Return points (N, 2) turned by degrees, clockwise as displayed, because y points down."""
    if not rotation:
        return points
    angle = math.radians(rotation)
    matrix = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    turned: Ring = (points - centre) @ matrix + centre
    return turned

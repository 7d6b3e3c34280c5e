"""Read LabelMe's JSON: one file per image.

Polygons, rectangles, circles and masks are areas. Points, lines and line strips are not. The pixels of `__ignore__` are
ignored, and those outside every shape are background. If there is no photo, the image inside the file is read.

Letters: h, w size of a mask.
"""

import base64
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from PIL import UnidentifiedImageError

from segvit.data.annotations.format import Content, FileLabels
from segvit.data.annotations.name_list import LEFT_OUT
from segvit.data.annotations.parse import list_of, mapping_of, read_json, ring_of, size_of, text_of
from segvit.data.annotations.shapes import Drawing, PlacedMask, Rings, Shape, box, ellipse
from segvit.data.images import IMAGE_SUFFIXES, Unreadable, embedded_image, open_unlimited
from segvit.data.labels.format import Classes
from segvit.data.labels.memory import LabelMemory
from segvit.data.pairs import Orphans, Pair, Place, files_of, find_images, find_labels, read_listed

NO_AREAS = ("point", "points", "line", "linestrip")
"""Values of `shape_type` that are no areas."""


@dataclass(frozen=True, kw_only=True)
class LabelMeLabels(FileLabels):
    """JSON files of LabelMe."""

    name: ClassVar[str] = "labelme"
    title: ClassVar[str] = "LabelMe"
    suffixes: ClassVar[Sequence[str]] = (".json",)

    @classmethod
    def recognises(cls, content: Content) -> bool:
        """Return True for a mapping with a list `shapes` and `imagePath`."""
        value = content.value
        return isinstance(value, dict) and isinstance(value.get("shapes"), list) and "imagePath" in value

    def find(self, place: Place, classes: Classes, memory: LabelMemory) -> tuple[list[Pair], Orphans]:
        """Find the complete pairs. A file without a photo that holds its image is a pair of its own."""
        photos = files_of(place.root, place.split.images, place.what)
        images = find_images(place) if any(path.suffix.lower() in IMAGE_SUFFIXES for path in photos) else {}
        labels = find_labels(place, self.suffixes)
        found = read_listed(place, images, labels, suffixes=self.suffixes, shared=False)
        listed = None if found is None else list(found)
        wanted = [name for name in listed or sorted(labels) if name in labels and name not in images]
        inside = [Pair(name, labels[name], labels[name]) for name in wanted if _holds_image(labels[name])]
        if not inside:
            return super().find(place, classes, memory)
        if not any(name in images for name in listed or labels):
            return inside, Orphans()
        pairs, orphans = super().find(place, classes, memory)
        alone = {str(pair.labels) for pair in inside}
        rest = orphans._replace(labels=tuple(file for file in orphans.labels if file not in alone))
        order = {name: position for position, name in enumerate(listed or sorted({*labels, *images}))}
        return sorted([*pairs, *inside], key=lambda pair: order[pair.name]), rest if rest else Orphans()

    def draw(self, path: Path) -> Drawing:
        """Return the shapes in one file."""
        content = mapping_of(read_json(path), str(path))
        shapes: list[Shape] = []
        skipped: Counter[str] = Counter()
        for position, item in enumerate(list_of(content, "shapes", str(path)), start=1):
            where = f"{path}: shape {position}"
            row = mapping_of(item, where)
            kind = row.get("shape_type") or "polygon"  # files before version 3 have none
            if kind in NO_AREAS:
                skipped[str(kind)] += 1
                continue
            label = text_of(row, "label", where)
            area = _area(kind, row, where)
            shapes.append(Shape(name=label, kind=kind, area=area, ignored=label == LEFT_OUT))
        size = size_of(content, "imageHeight", "imageWidth", str(path))
        return Drawing(where=str(path), size=size, shapes=tuple(shapes), skipped=skipped)


def _holds_image(path: Path) -> bool:
    """True if a file holds its image."""
    try:
        return embedded_image(path).getbuffer().nbytes > 0
    except (OSError, ValueError, RecursionError):
        return False


def _area(kind: Any, row: dict[str, Any], where: str) -> Rings | PlacedMask:
    """Return the area of one shape."""
    points = ring_of(row.get("points"), where)
    wanted = {"rectangle": 2, "circle": 2, "mask": 2}
    if kind not in ("polygon", *wanted):
        raise Unreadable(f"{where}: shape_type is {kind!r}; redraw it as a polygon, rectangle, circle or mask")
    if kind == "polygon":
        return Rings((points,))
    if len(points) < wanted[kind]:
        raise Unreadable(f"{where}: a {kind} needs two points, and has {len(points)}; redraw it")
    (x, y), (to_x, to_y) = points[0], points[1]
    if kind == "circle":  # its centre, and a point on it
        radius = float(np.hypot(to_x - x, to_y - y))
        return Rings((ellipse(x, y, radius, radius),))
    if kind == "rectangle":
        return Rings((box(min(x, to_x), min(y, to_y), max(x, to_x), max(y, to_y)),))
    return PlacedMask(_decode_mask(row, where), top=round(min(y, to_y)), left=round(min(x, to_x)))


def _decode_mask(row: dict[str, Any], where: str) -> npt.NDArray[np.bool_]:
    """Decode the picture (h, w) of a mask. Pixels above 0 belong to it."""
    try:
        data = base64.b64decode(text_of(row, "mask", where), validate=True)
        with open_unlimited(io.BytesIO(data), formats=["PNG"]) as picture:
            return np.asarray(picture.convert("L")) > 0
    except (ValueError, OSError, SyntaxError, UnidentifiedImageError) as error:
        raise Unreadable(f"{where}: its mask is no PNG in base64 ({error}); redraw it") from error

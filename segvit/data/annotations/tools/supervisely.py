"""Read Supervisely's JSON: one file per image, `ann/photo.jpg.json` for `img/photo.jpg`.

Polygons, bitmaps and rectangles are areas. Points, lines, cuboids and graphs are not. Pixels outside every object are
background. `meta.json` above the folder of the files lists the classes.

Letters: h, w size of a bitmap.
"""

import base64
import io
import zlib
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from PIL import UnidentifiedImageError

from segvit.data.annotations.format import Content, FileLabels
from segvit.data.annotations.parse import list_of, mapping_of, number_of, read_json, ring_of, size_of, text_of
from segvit.data.annotations.shapes import Drawing, PlacedMask, Rings, Shape, box
from segvit.data.annotations.summary import Summary
from segvit.data.images import Unreadable, open_unlimited
from segvit.data.lists import stem

AREAS = ("polygon", "bitmap", "rectangle")
"""Values of `geometryType` that are areas."""
META = "meta.json"
"""File of the classes, in the folder of the project."""
MOST_BYTES = 2**26
"""Largest size of a bitmap's PNG that is accepted."""


@dataclass(frozen=True, kw_only=True)
class SuperviselyLabels(FileLabels):
    """JSON files of Supervisely."""

    name: ClassVar[str] = "supervisely"
    title: ClassVar[str] = "Supervisely"
    suffixes: ClassVar[Sequence[str]] = (".json",)
    no_labels: ClassVar[Collection[str]] = (META,)

    @classmethod
    def recognises(cls, content: Content) -> bool:
        """Return True for a mapping with `size` and a list `objects`."""
        value = content.value
        return (
            isinstance(value, dict) and isinstance(value.get("objects"), list) and isinstance(value.get("size"), dict)
        )

    def image_of(self, name: str) -> str:
        """Return the name of the image of `photo.jpg.json` or, in the folder of a data set, of `ann/photo.jpg.json`."""
        return stem(name.removeprefix("ann/"))

    def summarise(self, labels: Sequence[Path]) -> Summary:
        """Count the objects in all files, and read the classes of the project."""
        summary = super().summarise(labels)
        meta = self.names_file(labels[0].parent) if labels else None
        summary.declared = _classes(meta) if meta else ()
        return summary

    @classmethod
    def names_file(cls, labels: Path) -> Path | None:
        """Return the project's file of classes, in the folder of the labels or up to two folders above."""
        places = (labels, *labels.parents[:2])
        return next((place / META for place in places if (place / META).is_file()), None)

    def draw(self, path: Path) -> Drawing:
        """Return the objects in one file."""
        content = mapping_of(read_json(path), str(path))
        shapes: list[Shape] = []
        skipped: Counter[str] = Counter()
        for position, item in enumerate(list_of(content, "objects", str(path)), start=1):
            where = f"{path}: object {position}"
            row = mapping_of(item, where)
            kind = row.get("geometryType") or ("bitmap" if row.get("bitmap") else "polygon")  # old files have none
            if kind not in AREAS:
                skipped[str(kind)] += 1
                continue
            shapes.append(Shape(name=text_of(row, "classTitle", where), kind=kind, area=_area(kind, row, where)))
        size = size_of(mapping_of(content.get("size"), f"{path}: `size`"), "height", "width", str(path))
        return Drawing(where=str(path), size=size, shapes=tuple(shapes), skipped=skipped)


def _classes(meta: Path) -> tuple[str, ...]:
    """Return the names of the classes that areas can have."""
    rows = list_of(mapping_of(read_json(meta), str(meta)), "classes", str(meta))
    found = [mapping_of(row, f"{meta}: a class") for row in rows]
    return tuple(
        text_of(row, "title", f"{meta}: a class") for row in found if row.get("shape") in (*AREAS, "any", None)
    )


def _area(kind: str, row: dict[str, Any], where: str) -> Rings | PlacedMask:
    """Return the area of one object."""
    if kind == "bitmap":
        bitmap = mapping_of(row.get("bitmap"), f"{where}: `bitmap`")
        origin = bitmap.get("origin")
        if not isinstance(origin, list) or len(origin) != 2:
            raise Unreadable(f"{where}: `origin` is {repr(origin)[:80]}, not x and y; export the project again")
        left, top = (round(number_of(value, f"{where}: `origin`")) for value in origin)
        return PlacedMask(_decode_bitmap(text_of(bitmap, "data", where), where), top=top, left=left)
    points = mapping_of(row.get("points"), f"{where}: `points`")
    outline = ring_of(points.get("exterior"), where)
    if kind == "polygon":
        holes = [ring_of(hole, where) for hole in list_of({"interior": [], **points}, "interior", where)]
        return Rings((outline, *holes), holes=True)
    if len(outline) != 2:
        raise Unreadable(f"{where}: a rectangle needs two points, and has {len(outline)}; draw it again")
    (left, top), (right, bottom) = outline.min(axis=0), outline.max(axis=0)
    return Rings((box(left, top, right + 1, bottom + 1),))  # its corners are the first and the last pixel inside


def _decode_bitmap(text: str, where: str) -> npt.NDArray[np.bool_]:
    """Decode the mask (h, w) of a bitmap: base64 of a compressed PNG, whose opacity or brightness is above 0 inside."""
    try:
        packed = zlib.decompressobj()
        data = packed.decompress(base64.b64decode(text, validate=True), MOST_BYTES)
        if packed.unconsumed_tail:
            raise ValueError(f"it is larger than {MOST_BYTES} bytes")
        with open_unlimited(io.BytesIO(data), formats=["PNG"]) as picture:
            opacity = picture.has_transparency_data
            return np.asarray(picture.convert("RGBA").getchannel("A") if opacity else picture.convert("L")) > 0
    except (ValueError, OSError, SyntaxError, zlib.error, UnidentifiedImageError) as error:
        raise Unreadable(
            f"{where}: `data` is no compressed PNG in base64 ({error}); export the project again"
        ) from error

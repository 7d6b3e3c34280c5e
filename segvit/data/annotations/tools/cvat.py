"""Read "CVAT for images 1.1", one XML file for many images.

Polygons, boxes, ellipses and masks are areas. Points, polylines, cuboids, skeletons and tags are not. Shapes are
painted by their `z_order`. Pixels outside every shape are background.

The file is read as a stream. A document type, which could expand entities, is an error.

Letters: h, w size of a mask.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NoReturn
from xml.parsers import expat

import numpy as np
import numpy.typing as npt

from segvit.data.annotations.format import Content, Index, SharedLabels
from segvit.data.annotations.names import image_name
from segvit.data.annotations.parse import FARTHEST
from segvit.data.annotations.shapes import Drawing, PlacedMask, Ring, Rings, Shape, box, ellipse
from segvit.data.annotations.summary import Summary
from segvit.errors import UserError

ROOT = re.compile(r"<annotations[\s>]")
"""Start of the root element."""
AREAS = ("polygon", "box", "ellipse", "mask")
"""Elements that are areas."""
NO_AREAS = ("points", "polyline", "cuboid", "skeleton", "tag")
"""Elements that are no areas."""
NO_CLASS = ("skeleton", "points", "polyline")
"""Types of labels that no area can have."""
Attributes = dict[str, str]


@dataclass(frozen=True, kw_only=True)
class CvatLabels(SharedLabels):
    """XML files of CVAT."""

    name: ClassVar[str] = "cvat"
    title: ClassVar[str] = "CVAT"
    suffixes: ClassVar[Sequence[str]] = (".xml",)

    @classmethod
    def recognises(cls, content: Content) -> bool:
        """Return True for XML with the root `annotations`."""
        return isinstance(content.value, str) and ROOT.search(content.value) is not None

    def index(self, path: Path) -> Index:
        """Parse the whole file once.

        Raises:
            UserError: it is not XML, has a document type, or is a video's.
        """
        return _Reader(path).read()

    def draw(self, entry: bytes, path: Path, name: str) -> Drawing:
        """Return the shapes of one image.

        Raises:
            UserError: a shape is malformed.
        """
        where = f"{path}: image {name!r}"
        image, rows = json.loads(entry)
        size = _whole(image, "height", where), _whole(image, "width", where)
        placed: list[tuple[int, Shape]] = []
        skipped: Counter[str] = Counter()
        for position, (kind, row) in enumerate(rows, start=1):
            if (counted := _no_area(kind, row)) is not None:
                skipped[counted] += 1
                continue
            at = f"{where}: shape {position}, a {kind}"
            shape = Shape(name=row["label"], kind=kind, area=_area(kind, row, size, at))
            placed.append((_whole(row, "z_order", at) if "z_order" in row else 0, shape))
        ordered = sorted(placed, key=lambda pair: pair[0])  # stable: one level keeps the order of the file
        return Drawing(where=where, size=size, shapes=tuple(shape for _, shape in ordered), skipped=skipped)


class _Reader:
    """The state of reading one file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.images: dict[str, bytes] = {}
        self.summary = Summary()
        self._above: list[str] = []
        """Names of the open elements."""
        self._label: dict[str, str] = {}
        """Texts of the label that is being read, by element."""
        self._text = ""
        self._image: Attributes | None = None
        self._rows: list[tuple[str, Attributes]] = []

    def read(self) -> Index:
        """Parse the file."""
        parser = expat.ParserCreate()
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._add_text
        parser.StartDoctypeDeclHandler = self._refuse_doctype
        try:
            with self.path.open("rb") as file:
                parser.ParseFile(file)
        except UserError:  # a ValueError too
            raise
        except FileNotFoundError:
            raise UserError(f"{self.path}: no such file") from None
        except (OSError, expat.ExpatError, ValueError, LookupError) as error:
            raise UserError(f"{self.path}: cannot be read as XML ({error}); export it again") from error
        return Index(self.summary, self.images)

    def _start(self, name: str, attributes: Attributes) -> None:
        if name == "track":
            raise UserError(f"{self.path}: holds tracks of a video; export the task as `CVAT for images 1.1`")
        above = self._above[-1] if self._above else ""
        if name == "image":
            self._image, self._rows = attributes, []
        elif above == "image" and self._image is not None:
            attributes["label"] = attributes.get("label", "").strip()  # as the names in the list of labels
            self._rows.append((name, attributes))
        elif name == "label":
            self._label = {}
        self._text = ""
        self._above.append(name)

    def _add_text(self, text: str) -> None:
        self._text += text

    def _end(self, name: str) -> None:
        self._above.pop()
        above = self._above[-1] if self._above else ""
        if above == "label":
            self._label[name] = self._text.strip()
        elif name == "label" and above == "labels":
            label = self._label
            if label.get("name") and label.get("type") not in NO_CLASS and "parent" not in label:
                self.summary.declared = (*self.summary.declared, label["name"])
        elif name == "image" and self._image is not None:
            self._add_image(self._image)
            self._image = None

    def _add_image(self, image: Attributes) -> None:
        """Keep one image, and count its shapes."""
        name = image_name(image.get("name", ""))
        if not name:
            raise UserError(f"{self.path}: image {image.get('id')!r} has no `name`; export the task again")
        if name in self.images:
            raise UserError(f"{self.path}: two images have the name {name!r}; give each file once")
        for kind, row in self._rows:
            if kind not in (*AREAS, *NO_AREAS):
                raise UserError(f"{self.path}: image {name!r}: element {kind!r} is no shape of CVAT's images 1.1")
            if (counted := _no_area(kind, row)) is not None:
                self.summary.skipped[counted] += 1
            else:
                self.summary.kinds[kind] += 1
                self.summary.names[row["label"]] += 1
        self.images[name] = json.dumps([image, self._rows]).encode()

    def _refuse_doctype(self, *_: Any) -> NoReturn:
        raise UserError(f"{self.path}: has a document type, which CVAT does not write; export the task again")


def _no_area(kind: str, row: Attributes) -> str | None:
    """Return the kind under which a shape that labels no pixels is counted. None for an area."""
    if kind in NO_AREAS:
        return kind
    return None if row.get("label") else f"{kind} without a label"


def _area(kind: str, row: Attributes, size: tuple[int, int], where: str) -> Rings | PlacedMask:
    """Return the area of one shape."""
    turn = _number(row, "rotation", where) if "rotation" in row else 0.0
    if kind == "box":
        left, top, right, bottom = (_number(row, key, where) for key in ("xtl", "ytl", "xbr", "ybr"))
        return Rings((box(left, top, right, bottom, rotation=turn),))
    if kind == "ellipse":
        x, y, radius_x, radius_y = (_number(row, key, where) for key in ("cx", "cy", "rx", "ry"))
        return Rings((ellipse(x, y, radius_x, radius_y, rotation=turn),))
    if kind == "polygon":
        return Rings((_points(row.get("points", ""), where),))
    return _mask(row, size, where)


def _points(text: str, where: str) -> Ring:
    """Return points "x,y;x,y" as (N, 2)."""
    try:
        points = np.array([[float(part) for part in pair.split(",")] for pair in text.split(";")], dtype=np.float64)
    except ValueError:
        points = np.empty(0)
    if points.ndim != 2 or points.shape[1] != 2 or not (np.abs(points) <= FARTHEST).all():
        raise UserError(f"{where}: `points` is {text[:80]!r}; CVAT writes x,y;x,y;... in pixels")
    return points


def _mask(row: Attributes, size: tuple[int, int], where: str) -> PlacedMask:
    """Return a mask: runs of 0 and 1 in turn, along the rows of its box."""
    left, top, width, height = (_whole(row, key, where) for key in ("left", "top", "width", "height"))
    if not (width > 0 and height > 0 and width * height <= math.prod(size)):
        raise UserError(f"{where}: its box is {width} x {height} pixels, larger than the image; export the task again")
    try:
        runs = [int(run) for run in row.get("rle", "").split(",")]
    except ValueError:
        runs = []
    if not runs or min(runs) < 0 or sum(runs) != width * height:
        raise UserError(f"{where}: `rle` does not add up to {width} x {height} pixels; export the task again")
    pixels: npt.NDArray[np.bool_] = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)  # (h, w)
    return PlacedMask(pixels, top=top, left=left)


def _number(row: Attributes, key: str, where: str) -> float:
    """Return a number of pixels or degrees."""
    try:
        value = float(row.get(key, ""))
    except ValueError:
        value = math.nan
    if abs(value) <= FARTHEST:
        return value
    if abs(value) > FARTHEST:
        raise UserError(f"{where}: `{key}` is {row.get(key)!r}, larger than {FARTHEST:.0f} pixels; correct it in CVAT")
    raise UserError(f"{where}: `{key}` is {row.get(key)!r}; give a number")


def _whole(row: Attributes, key: str, where: str) -> int:
    """Return a whole number, which CVAT may write as 3.0."""
    value = _number(row, key, where)
    if value == int(value):
        return int(value)
    raise UserError(f"{where}: `{key}` is {row.get(key)!r}; give a whole number")

"""Read VGG Image Annotator (VIA) 1 and 2: a project or an export as JSON or CSV, one file for many images.

Rectangles, circles, ellipses and polygons are areas. Points and polylines are not. Pixels outside every region are
background. The class of a region is one of its attributes: the only one, or the option `attribute`.
"""

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from segvit.data.annotations.format import Content, Index, SharedLabels
from segvit.data.annotations.names import image_name
from segvit.data.annotations.parse import mapping_of, number_of, read_json, ring_of, text_of
from segvit.data.annotations.shapes import Drawing, Ring, Rings, Shape, box, ellipse
from segvit.data.annotations.summary import Summary, spelled
from segvit.data.images import Unreadable
from segvit.errors import UserError

NO_AREAS = ("point", "polyline", "line")
"""Names of shapes that are no areas."""
COLUMNS = ("filename", "region_shape_attributes", "region_attributes")
"""Columns of the CSV that are read."""


@dataclass(frozen=True, kw_only=True)
class ViaLabels(SharedLabels):
    """Files of VIA."""

    name: ClassVar[str] = "via"
    title: ClassVar[str] = "VGG Image Annotator"
    suffixes: ClassVar[Sequence[str]] = (".json", ".csv")

    attribute: str | None = None
    """Attribute of the regions that is the class. Default: the only one that they have."""

    @classmethod
    def recognises(cls, content: Content) -> bool:
        """Return True for a project, images with `regions`, or the columns of the CSV."""
        value = content.value
        if isinstance(value, str):
            return set(COLUMNS) <= set(value.partition("\n")[0].replace('"', "").strip().split(","))
        if not isinstance(value, dict):
            return False
        first = next(iter(value.values()), None)
        return "_via_img_metadata" in value or (isinstance(first, dict) and {"filename", "regions"} <= first.keys())

    def index(self, path: Path) -> Index:
        """Parse the whole file once.

        Raises:
            UserError: it is malformed, or its regions have several attributes and none was chosen.
        """
        content = None if path.suffix.lower() == ".csv" else mapping_of(read_json(path), str(path))
        images = _rows(path) if content is None else _images(content, path)
        attribute = self._chosen(images, path)
        summary = Summary(declared=_options(content or {}, attribute))
        entries: dict[str, bytes] = {}
        for name, regions in images.items():
            for region in regions:
                label = _label(region, attribute, f"{path}: image {name!r}")
                if region.kind in NO_AREAS or not label:
                    summary.skipped[_skipped_kind(region, label, attribute)] += 1
                else:
                    summary.kinds[region.kind] += 1
                    summary.names[label] += 1
            entries[name] = json.dumps([attribute, regions]).encode()
        return Index(summary, entries)

    def draw(self, entry: bytes, path: Path, name: str) -> Drawing:
        """Return the regions of one image, whose size the file does not have.

        Raises:
            UserError: a region is malformed.
        """
        where = f"{path}: image {name!r}"
        attribute, rows = json.loads(entry)
        shapes: list[Shape] = []
        skipped: Counter[str] = Counter()
        for position, row in enumerate(rows, start=1):
            region, at = _Region(*row), f"{where}: region {position}"
            label = _label(region, attribute, at)
            if region.kind in NO_AREAS or not label:
                skipped[_skipped_kind(region, label, attribute)] += 1
            else:
                shapes.append(Shape(name=label, kind=region.kind, area=Rings((_outline(region, at),))))
        return Drawing(where=where, shapes=tuple(shapes), skipped=skipped)

    def _chosen(self, images: Mapping[str, Sequence["_Region"]], path: Path) -> str:
        """Return the attribute that is the class."""
        found = Counter(key for regions in images.values() for region in regions for key in region.attributes)
        if self.attribute is not None:
            if found and self.attribute not in found:
                raise UserError(f"{path}: no region has the attribute {self.attribute!r}; it has {spelled(found)}")
            return self.attribute
        if len(found) > 1:
            raise UserError(
                f"{path}: the regions have several attributes ({spelled(found)}); write the one that is the class in a "
                f"spec, `labels: {{format: via, attribute: {next(iter(found))}}}`"
            )
        return next(iter(found), "class")


class _Region(NamedTuple):
    """One region of an image."""

    kind: str
    shape: dict[str, Any]
    """Its coordinates in pixels."""
    attributes: dict[str, Any]


def _images(content: dict[str, Any], path: Path) -> dict[str, list[_Region]]:
    """Return the regions by the name of the image, from JSON."""
    images: dict[str, list[_Region]] = {}
    listed = mapping_of(content.get("_via_img_metadata", content), f"{path}: `_via_img_metadata`")
    for key, item in listed.items():
        where = f"{path}: image {key!r}"
        row = mapping_of(item, where)
        regions = row.get("regions") or []
        found = list(regions.values()) if isinstance(regions, dict) else regions  # version 1 numbers them
        if not isinstance(found, list):
            raise UserError(f"{where}: `regions` is {repr(found)[:80]}, not a list; export the file again")
        name = image_name(text_of(row, "filename", where))
        if name in images:
            raise UserError(f"{where}: an image called {name!r} occurs twice; give each file once")
        images[name] = [_region(mapping_of(each, where), where) for each in found]
    return images


def _region(row: dict[str, Any], where: str) -> _Region:
    """Return one region of the JSON."""
    shape = mapping_of(row.get("shape_attributes"), f"{where}: `shape_attributes`")
    attributes = mapping_of(row.get("region_attributes") or {}, f"{where}: `region_attributes`")
    return _Region(text_of(shape, "name", where), shape, attributes)


def _rows(path: Path) -> dict[str, list[_Region]]:
    """Return the regions by the name of the image, from CSV: one region a line, or none for an image without any."""
    images: dict[str, list[_Region]] = {}
    for number, row in _lines(path):
        where = f"{path}: line {number}"
        name = image_name(text_of(row, "filename", where))
        regions = images.setdefault(name, [])
        try:
            shape, attributes = (json.loads(row.get(key) or "{}") for key in COLUMNS[1:])
        except ValueError as error:
            raise UserError(f"{where}: its columns hold no JSON ({error}); export the file again") from error
        if mapping_of(shape, where):
            regions.append(_region({"shape_attributes": shape, "region_attributes": attributes}, where))
    return images


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the lines of a table by the names of their columns, each with its number."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        for number, row in enumerate(csv.DictReader(io.StringIO(text, newline="")), start=2):
            yield number, dict(row)
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as CSV ({error}); export it again") from error


def _options(content: dict[str, Any], attribute: str) -> tuple[str, ...]:
    """Return the values that a project lists for an attribute."""
    found: Any = content
    for key in ("_via_attributes", "region", attribute, "options"):
        found = found.get(key) if isinstance(found, dict) else None
    return tuple(str(name) for name in found) if isinstance(found, dict) else ()


def _label(region: _Region, attribute: str, where: str) -> str:
    """Return the class of a region, or an empty text if it has none. A checkbox has a mapping from names to true."""
    value = region.attributes.get(attribute)
    if isinstance(value, dict):
        ticked = [name for name, on in value.items() if on]
        if len(ticked) > 1:
            raise Unreadable(f"{where}: a {region.kind} is {' and '.join(ticked)}; keep one of them")
        value = ticked[0] if ticked else ""
    return "" if value is None else str(value).strip()


def _skipped_kind(region: _Region, label: str, attribute: str) -> str:
    """Return the kind under which a region that labels no pixels is counted."""
    return region.kind if label or region.kind in NO_AREAS else f"{region.kind} without {attribute!r}"


def _outline(region: _Region, where: str) -> Ring:
    """Return the outline of one region."""

    def number(key: str) -> float:
        return number_of(region.shape.get(key), f"{where}: `{key}`")

    if region.kind == "rect":
        x, y = number("x"), number("y")
        return box(x, y, x + number("width"), y + number("height"))
    if region.kind == "circle":
        return ellipse(number("cx"), number("cy"), number("r"), number("r"))
    if region.kind == "ellipse":
        turn = math.degrees(number("theta")) if "theta" in region.shape else 0.0
        return ellipse(number("cx"), number("cy"), number("rx"), number("ry"), rotation=turn)
    if region.kind != "polygon":
        raise Unreadable(f"{where}: its shape is {region.kind!r}; draw a polygon, rectangle, circle or ellipse instead")
    columns, rows = region.shape.get("all_points_x"), region.shape.get("all_points_y")
    if not (isinstance(columns, list) and isinstance(rows, list) and len(columns) == len(rows)):
        raise Unreadable(f"{where}: `all_points_x` and `all_points_y` are no lists of one length; draw it again")
    return ring_of([list(point) for point in zip(columns, rows, strict=True)], where)

"""Read GeoJSON in pixels: one file per image, as `segvit predict --write geojson`, QuPath and other viewers write it.

Polygons are areas, and their inner rings are holes. Points and lines are not. The class is a property of a feature:
`class`, `label`, `name`, or the name in `classification`. Pixels outside every polygon are background.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from segvit.data.annotations.format import Content, FileLabels
from segvit.data.annotations.parse import list_of, mapping_of, read_json, ring_of, size_of
from segvit.data.annotations.shapes import Drawing, Rings, Shape
from segvit.data.images import Unreadable

NAMES = ("class", "label", "name")
"""Properties that may hold the class, the first one first."""
AREAS = ("Polygon", "MultiPolygon")
"""Kinds of geometry that are areas."""
NO_AREAS = ("Point", "MultiPoint", "LineString", "MultiLineString")
"""Kinds of geometry that are no areas."""


@dataclass(frozen=True, kw_only=True)
class GeoJsonLabels(FileLabels):
    """Files of GeoJSON whose coordinates are pixels, y downwards."""

    name: ClassVar[str] = "geojson"
    title: ClassVar[str] = "GeoJSON"
    suffixes: ClassVar[Sequence[str]] = (".geojson", ".json")

    @classmethod
    def recognises(cls, content: Content) -> bool:
        """Return True for a collection of features, also before the file is parsed."""
        if isinstance(content.value, str):
            return '"FeatureCollection"' in content.value
        return isinstance(content.value, dict) and content.value.get("type") == "FeatureCollection"

    def draw(self, path: Path) -> Drawing:
        """Return the shapes in one file.

        Raises:
            Unreadable: it is malformed, or its coordinates are on a map.
        """
        content = mapping_of(read_json(path), str(path))
        if "crs" in content:
            raise Unreadable(
                f"{path}: its coordinates are on a map (`crs`), and pixels are needed; convert them with the transform "
                "of the image, or rasterize the file, for example with gdal_rasterize"
            )
        shapes: list[Shape] = []
        skipped: Counter[str] = Counter()
        for position, item in enumerate(list_of(content, "features", str(path)), start=1):
            where = f"{path}: feature {position}"
            feature = mapping_of(item, where)
            geometry = mapping_of(feature.get("geometry"), f"{where}: geometry")
            kind = geometry.get("type")
            if kind in NO_AREAS:
                skipped[str(kind)] += 1
                continue
            if kind not in AREAS:
                raise Unreadable(f"{where}: its geometry is {kind!r}; give {' or '.join(AREAS)}")
            name = _class_of(feature, where)
            shapes += [Shape(name=name, kind="polygon", area=area) for area in _areas(geometry, where)]
        about = content.get("properties")
        size = size_of(about, "height", "width", str(path)) if isinstance(about, dict) else None
        return Drawing(where=str(path), size=size, shapes=tuple(shapes), skipped=skipped)


def _class_of(feature: dict[str, Any], where: str) -> str:
    """Return the class of a feature."""
    properties = feature.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    classification = properties.get("classification")
    found = [properties.get(key) for key in NAMES]
    if isinstance(classification, dict):  # QuPath's, whose `name` is that of the object
        found.insert(0, classification.get("name"))
    for name in found:
        if isinstance(name, str) and name.strip():
            return name
    raise Unreadable(f"{where}: no class; give the feature a property {', '.join(NAMES)} or `classification`")


def _areas(geometry: dict[str, Any], where: str) -> Iterator[Rings]:
    """Yield the polygons of a geometry, each with its holes."""
    polygons = list_of(geometry, "coordinates", where)
    for rings in polygons if geometry["type"] == "MultiPolygon" else [polygons]:
        if not isinstance(rings, list) or not rings:
            raise Unreadable(f"{where}: a polygon is a list of rings; found {repr(rings)[:80]}")
        yield Rings(tuple(ring_of([point[:2] for point in ring], where) for ring in _pointed(rings, where)), holes=True)


def _pointed(rings: list[Any], where: str) -> Iterator[list[Any]]:
    """Yield rings whose points are lists; points may have a height."""
    for ring in rings:
        if not isinstance(ring, list) or not all(isinstance(point, list) for point in ring):
            raise Unreadable(f"{where}: a ring is a list of points [x, y]; found {repr(ring)[:80]}")
        yield ring

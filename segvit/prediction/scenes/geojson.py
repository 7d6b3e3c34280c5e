"""Write a label map as GeoJSON polygons in map coordinates, one feature per connected region of a class.

trace_map(Path("scene_labels.tif"), Path("scene_polygons.geojson"), values=values, classes=classes, side=4096)

segvit/prediction/polygons.py traces the regions. Large maps are traced in blocks, which cut regions at their borders.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segvit.data.bands.deep import open_rasterio
from segvit.data.bands.raster import Place
from segvit.data.labels.format import MAX_RAW
from segvit.data.spec import IGNORE_INDEX
from segvit.prediction.names import aside
from segvit.prediction.polygons import Region, outlines

Block = tuple[int, int, npt.NDArray[Any]]
"""First row, first column, and labels (y, x) of a part of a map."""


def trace_map(labels: Path, path: Path, *, values: npt.NDArray[Any], classes: Sequence[str], side: int) -> int:
    """Write the regions of a GeoTIFF of labels as polygons, and return their number.

    Args:
        labels: the label map.
        path: .geojson file to write.
        values: (K,) values of the classes in the map. Pixels of another value belong to no region.
        classes: names (K,).
        side: side in pixels of the blocks that are traced, which bounds the memory.
    """
    table = np.full(MAX_RAW + 1, IGNORE_INDEX, np.uint8)
    table[values] = np.arange(len(values))
    with open_rasterio(labels) as source:
        place = Place(crs=source.crs, transform=source.transform)

        def blocks() -> Iterator[Block]:
            for top in range(0, source.height, side):
                for left in range(0, source.width, side):
                    window = (top, min(top + side, source.height)), (left, min(left + side, source.width))
                    yield top, left, table[source.read(1, window=window)]

        return write_polygons(path, blocks(), classes=classes, place=place, ignore=IGNORE_INDEX)


def write_polygons(path: Path, blocks: Iterable[Block], *, classes: Sequence[str], place: Place, ignore: int) -> int:
    """Write the regions of a label map as a FeatureCollection, and return their number.

    Coordinates are those of the map. Without a map they are columns and rows of pixels. The area is in squares of their
    unit. Outer rings run counter-clockwise, as RFC 7946 asks.

    Args:
        path: .geojson file to write.
        blocks: parts of the map, in any order.
        classes: names (K,).
        place: position on the map.
        ignore: label of pixels that belong to no region.
    """
    count = 0
    head = {"type": "FeatureCollection", "name": path.stem, **_crs(place)}
    with aside(path) as final, final.open("w", encoding="utf-8") as file:
        file.write(json.dumps(head, ensure_ascii=False)[:-1] + ', "features": [')
        for top, left, labels in blocks:
            for feature in _features(outlines(labels, ignore=ignore), top, left, classes, place):
                file.write(",\n" if count else "\n")
                file.write(json.dumps(feature, ensure_ascii=False))
                count += 1
        file.write("\n]}\n")
    return count


def _features(
    regions: Iterable[Region], top: int, left: int, classes: Sequence[str], place: Place
) -> Iterator[dict[str, Any]]:
    """Yield the features of the regions of a part of a map."""
    matrix = np.array(place.transform, dtype=np.float64).reshape(3, 3)
    determinant = np.linalg.det(matrix[:2, :2])
    for region in regions:
        rings = []
        for corners in region.rings:
            points = np.column_stack([corners + (left, top), np.ones(len(corners))]) @ matrix[:2].T
            points = points if determinant > 0 else points[::-1]
            rings.append([*points.tolist(), points[0].tolist()])
        yield {
            "type": "Feature",
            "properties": {
                "class": classes[region.label],
                "label": int(region.label),
                "area": abs(float(determinant)) * int(region.area),
            },
            "geometry": {"type": "Polygon", "coordinates": rings},
        }


def _crs(place: Place) -> dict[str, Any]:
    """Return the member that names the coordinate system, as GDAL and QGIS read it."""
    if place.crs is None:
        return {}
    authority = place.crs.to_authority()
    name = place.crs.to_wkt() if authority is None else f"urn:ogc:def:crs:{authority[0]}::{authority[1]}"
    return {"crs": {"type": "name", "properties": {"name": name}}}

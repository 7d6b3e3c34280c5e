"""GeoJSON in pixels: holes, several polygons of one feature, QuPath's classes, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import segvit
from segvit.errors import UserError

SQUARE = [[1, 1], [7, 1], [7, 7], [1, 7], [1, 1]]
HOLE = [[3, 3], [5, 3], [5, 5], [3, 5], [3, 3]]
FAR = [[8, 0], [10, 0], [10, 2], [8, 2], [8, 0]]


def feature(kind: str, coordinates: Any, **properties: Any) -> dict[str, Any]:
    return {"type": "Feature", "properties": properties, "geometry": {"type": kind, "coordinates": coordinates}}


def opened(folder: Path, *features: dict[str, Any], **further: Any) -> Any:
    """Open one image of 10 x 8 pixels (width x height) with a file of these features."""
    for name in ("photos", "labels"):
        (folder / name).mkdir(exist_ok=True)
    Image.new("RGB", (10, 8)).save(folder / "photos" / "a.png")
    content = {"type": "FeatureCollection", "features": features, **further}
    (folder / "labels" / "a.geojson").write_text(json.dumps(content))
    data = segvit.DataConfig(images=folder / "photos", labels=folder / "labels", val_fraction=0.0)
    return segvit.open_dataset(data, "train")


def test_holes_and_several_polygons(tmp_path: Path) -> None:
    samples = opened(
        tmp_path,
        feature("MultiPolygon", [[SQUARE, HOLE], [FAR]], classification={"name": "Tumor"}, name="cell 7"),
        feature("Polygon", [[[*point, 30.0] for point in HOLE]], label="stroma"),
        feature("Point", [2, 2], label="stroma"),
    )
    assert samples.spec.classes == ("background", "Tumor", "stroma")
    wanted = np.zeros((8, 10), dtype=np.int64)
    wanted[1:7, 1:7] = wanted[0:2, 8:10] = 1
    wanted[3:5, 3:5] = 2
    np.testing.assert_array_equal(samples.read(0).labels.numpy(), wanted)


@pytest.mark.parametrize(
    ("features", "further", "match"),
    [
        ([feature("Polygon", [SQUARE])], {}, r"a\.geojson: feature 1: no class; give the feature a property class"),
        ([feature("Circle", [SQUARE], label="x")], {}, r"its geometry is 'Circle'; give Polygon or MultiPolygon"),
        ([feature("Polygon", [], label="x")], {}, r"a polygon is a list of rings; found \[\]"),
        ([feature("Polygon", SQUARE, label="x")], {}, r"a ring is a list of points"),
        ([feature("Polygon", [[[1], [2]]], label="x")], {}, r"points are \[x, y\]; found"),
        ([{"type": "Feature", "properties": None, "geometry": None}], {}, r"geometry is None, not a mapping"),
        ([feature("Polygon", [SQUARE], label="x")], {"crs": {"type": "name"}}, r"on a map .*gdal_rasterize"),
        ([feature("Polygon", [SQUARE], label="x")], {"properties": {"width": -1, "height": 8}}, r"its size is -1 x 8"),
    ],
)
def test_faults_are_named(tmp_path: Path, features: list[dict[str, Any]], further: dict[str, Any], match: str) -> None:
    with pytest.raises(UserError, match=match):
        opened(tmp_path, *features, **further)

"""VGG Image Annotator: both versions, JSON and CSV, every kind of region, and the attribute that is the class."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segvit.config import DataConfig
from segvit.data.annotations.tools.via import ViaLabels
from segvit.data.dataset import SegmentationDataset, open_dataset
from segvit.errors import UserError
from tests.helpers.annotated import labels_of, opened, photo, write


def region(label: Any, name: str = "polygon", **numbers: Any) -> dict[str, Any]:
    square = {"all_points_x": [1, 4, 4, 1], "all_points_y": [1, 1, 4, 4]} if name == "polygon" and not numbers else {}
    attributes = {} if label is None else {"class": label}
    return {"shape_attributes": {"name": name, **square, **numbers}, "region_attributes": attributes}


def images(*regions: Any, name: str = "a.jpg") -> dict[str, Any]:
    return {f"{name}123": {"filename": name, "size": 123, "regions": list(regions), "file_attributes": {}}}


def export(root: Path, content: Any, file: str = "via.json") -> SegmentationDataset:
    photo(root / "photos" / "a.jpg")
    return opened(root / "photos", write(root / file, content))


ALL = (
    region("rect", "rect", x=5, y=0, width=2, height=2),
    region("poly"),
    region("round", "circle", cx=7, cy=5, r=1),
    region("long", "ellipse", cx=2, cy=5, rx=0.6, ry=2, theta=math.pi / 2),
    region("poly", "point", cx=1, cy=1),
    region("poly", "polyline", all_points_x=[1, 2], all_points_y=[1, 2]),
    region(None, "circle", cx=1, cy=1, r=3),
)
LABELS = [
    [0, 0, 0, 0, 0, 3, 3, 0],
    [0, 2, 2, 2, 0, 3, 3, 0],
    [0, 2, 2, 2, 0, 0, 0, 0],
    [0, 2, 2, 2, 0, 0, 0, 0],
    [0, 1, 1, 0, 0, 0, 4, 4],
    [0, 1, 1, 0, 0, 0, 4, 4],
]


def test_every_kind_of_area(tmp_path: Path) -> None:
    samples = export(tmp_path, images(*ALL))
    assert samples.spec.classes == ("background", "long", "poly", "rect", "round")
    labels = labels_of(samples)
    assert (labels[:, 4:] == np.array(LABELS)[:, 4:]).all() and (labels[:4] == np.array(LABELS)[:4]).all()
    assert (labels[4:, :4] == 1).sum() in (4, 8)  # an ellipse of 4 x 1.2 pixels, turned to lie on its side
    assert labels[4:, 1:3].all()


def test_a_project_lists_the_classes(tmp_path: Path) -> None:
    options = {"region": {"class": {"type": "dropdown", "options": {"b": "", "a": ""}}}, "file": {}}
    content = {"_via_settings": {}, "_via_img_metadata": images(region("a")), "_via_attributes": options}
    samples = export(tmp_path, content)
    assert samples.spec.classes == ("background", "b", "a") and (labels_of(samples)[1:4, 1:4] == 2).all()


def test_version_1_numbers_the_regions(tmp_path: Path) -> None:
    content = images()
    content["a.jpg123"]["regions"] = {"0": region("x"), "1": region("y", "rect", x=0, y=0, width=1, height=1)}
    labels = labels_of(export(tmp_path, content))
    assert labels[0, 0] == 2 and (labels[1:4, 1:4] == 1).all()


def test_checkboxes_name_the_class_that_is_ticked(tmp_path: Path) -> None:
    assert export(tmp_path, images(region({"x": True, "y": False}))).spec.classes == ("background", "x")
    with pytest.raises(UserError, match="a polygon is x and y; keep one"):
        export(tmp_path, images(region({"x": True, "y": True})))


def test_the_csv_holds_the_same(tmp_path: Path) -> None:
    photo(tmp_path / "photos" / "b.jpg")
    with (tmp_path / "via.csv").open("w", newline="") as file:
        lines = csv.writer(file)
        names = ("file_size", "file_attributes", "region_count", "region_id")
        lines.writerow(["filename", *names, "region_shape_attributes", "region_attributes"])
        for number, each in enumerate(ALL[:2]):
            cells = [json.dumps(each[key]) for key in ("shape_attributes", "region_attributes")]
            lines.writerow(["a.jpg", 1, "{}", 2, number, *cells])
        lines.writerow(["b.jpg", 1, "{}", 0, 0, "{}", "{}"])
    samples = export(tmp_path, (tmp_path / "via.csv").read_text(), "via.csv")
    same = export(tmp_path, images(*ALL[:2]))
    assert (labels_of(samples) == labels_of(same)).all() and not labels_of(samples, 1).any()


def test_several_attributes_need_a_choice(tmp_path: Path) -> None:
    several = region("x")
    several["region_attributes"]["colour"] = "red"
    with pytest.raises(UserError, match=r"several attributes \(1 x class, 1 x colour\).*attribute: class"):
        export(tmp_path, images(several))
    spec = write(
        tmp_path / "spec.yaml",
        "name: a\nclasses: [background, red]\nlabels: {format: via, attribute: colour}\n"
        "splits: {train: {images: photos, labels: via.json}}\n",
    )
    samples = open_dataset(DataConfig(spec=str(spec), root=tmp_path, val_fraction=0), "train")
    assert samples.read(0).labels[1, 1] == 1
    with pytest.raises(UserError, match="no region has the attribute 'size'; it has 1 x class"):
        ViaLabels(attribute="size").index(tmp_path / "via.json")


@pytest.mark.parametrize(
    "wrong, message",
    [
        (region("x", "blob"), "its shape is 'blob'"),
        (region("x", "rect", x=1, y=1, width="2", height=1), "`width`: '2' is no number"),
        (region("x", all_points_x=[1, 2], all_points_y=[1]), "no lists of one length"),
    ],
)
def test_mistakes_in_a_region(tmp_path: Path, wrong: Any, message: str) -> None:
    samples = export(tmp_path, images(wrong))
    with pytest.raises(UserError, match=message):
        samples.read(0)


@pytest.mark.parametrize(
    "content, message",
    [
        (images(3), "is 3, not a mapping"),
        ({"a": {"filename": "", "regions": []}}, "`filename` is ''"),
        (
            {"a": {"filename": "a.jpg", "regions": [region("x")]}, "b": {"filename": "a.jpg", "regions": []}},
            "occurs twice",
        ),
        (images({"shape_attributes": {}}), "`name` is None"),
    ],
)
def test_mistakes_in_a_file(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        export(tmp_path, content)

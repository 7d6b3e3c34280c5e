"""`segvit predict --write`: what the files of each labelling tool hold, and what a second run does with them."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import pytest
import yaml
from PIL import Image

import segvit
from segvit.cli.main import app
from segvit.data.labels.rasterize import fill_polygon
from segvit.errors import UserError
from segvit.models.segvit import SegViT
from segvit.prediction.annotations.annotated import trace
from segvit.prediction.annotations.kinds import SCORED
from segvit.prediction.annotations.writers import WRITERS, write_annotations
from segvit.prediction.polygons import bridged
from segvit.prediction.predict_files import predict_files
from tests.helpers.coco import painted as painted_coco
from tests.helpers.tiny import labelling_model

Labels = npt.NDArray[np.int64]
CLASSES = ("Background", "sky & sea", 'the "road"')
SIZE = (23, 31)


@pytest.fixture(scope="module")
def labels() -> Labels:
    """(23, 31) with holes, islands and regions that touch at a corner."""
    noise = np.random.default_rng(3).integers(0, 3, (8, 11))
    return noise.repeat(3, axis=0).repeat(3, axis=1)[: SIZE[0], : SIZE[1]]


@pytest.fixture
def written(labels: Labels, tmp_path: Path) -> Callable[[str], Path]:
    """Write the label map for one photo of a subfolder in a format, and return the path that this gave."""
    confidence = np.linspace(0, 1, labels.size).reshape(labels.shape)

    def write(kind: Any) -> Path:
        image = tmp_path / "photos" / "one.jpg"
        item = trace(labels, CLASSES, image=image, stem="street/one", tolerance=0, confidence=confidence)
        return write_annotations(kind, [item], CLASSES, tmp_path / "seen")

    return write


def painted(polygons: list[tuple[int, Any]]) -> Labels:
    """Paint polygons x, y in pixels over background."""
    found = np.zeros(SIZE, dtype=np.int64)
    for label, points in polygons:
        fill_polygon(found, np.array(points, dtype=np.float64).reshape(-1, 2), label)
    return found


def test_coco(written: Callable[[str], Path], labels: Labels) -> None:
    path = written("coco")
    np.testing.assert_array_equal(painted_coco(path, "street/one", unlabeled=0), labels)
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["categories"] == [{"id": 1, "name": CLASSES[1]}, {"id": 2, "name": CLASSES[2]}]
    assert content["images"] == [{"id": 1, "file_name": "street/one.jpg", "width": 31, "height": 23}]
    assert [row["area"] for row in content["annotations"]] == sorted(row["area"] for row in content["annotations"])[
        ::-1
    ]


def test_scores_are_the_means_of_the_regions(labels: Labels) -> None:
    confidence = np.random.default_rng(0).random(labels.shape)
    item = trace(labels, CLASSES, image=Path("one.jpg"), stem="one", tolerance=1.5, confidence=confidence)
    exact = trace(labels, CLASSES, image=Path("one.jpg"), stem="one", tolerance=0)
    assert item.scores is not None
    assert exact.scores is None
    for region, score in zip(exact.regions, item.scores, strict=True):
        inside = np.zeros(labels.shape, dtype=bool)
        fill_polygon(inside, bridged(region.rings).astype(np.float64), True)
        assert inside.sum() == region.area
        assert score == pytest.approx(confidence[inside].mean())


def test_yolo(written: Callable[[str], Path], labels: Labels) -> None:
    folder = written("yolo")
    names = yaml.safe_load((folder / "data.yaml").read_text(encoding="utf-8"))["names"]
    assert names == {0: CLASSES[1], 1: CLASSES[2]}
    rows = [line.split() for line in (folder / "labels" / "street" / "one.txt").read_text().splitlines()]
    shares = [(int(row[0]) + 1, np.array(row[1:], dtype=np.float64).reshape(-1, 2)) for row in rows]
    assert all((share >= 0).all() and (share <= 1).all() for _, share in shares)
    np.testing.assert_array_equal(painted([(label, share * SIZE[::-1]) for label, share in shares]), labels)


def test_labelme_knows_its_photo(written: Callable[[str], Path], labels: Labels, tmp_path: Path) -> None:
    path = written("labelme") / "street" / "one.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    assert (path.parent / content["imagePath"]).resolve() == tmp_path / "photos" / "one.jpg"
    assert (content["imageHeight"], content["imageWidth"], content["imageData"]) == (*SIZE, None)
    assert {shape["shape_type"] for shape in content["shapes"]} == {"polygon"}
    shapes = [(CLASSES.index(shape["label"]), shape["points"]) for shape in content["shapes"]]
    np.testing.assert_array_equal(painted(shapes), labels)


def test_cvat(written: Callable[[str], Path], labels: Labels) -> None:
    root = ElementTree.parse(written("cvat")).getroot()
    assert [name.text for name in root.findall("meta/task/labels/label/name")] == list(CLASSES[1:])
    (image,) = root.findall("image")
    assert (image.get("name"), image.get("width"), image.get("height")) == ("street/one.jpg", "31", "23")
    shapes = [
        (CLASSES.index(str(shape.get("label"))), [point.split(",") for point in str(shape.get("points")).split(";")])
        for shape in image
    ]
    np.testing.assert_array_equal(painted(shapes), labels)
    assert [shape.get("z_order") for shape in image] == [str(order) for order in range(len(shapes))]


def test_label_studio(written: Callable[[str], Path], labels: Labels) -> None:
    (task,) = json.loads(written("label-studio").read_text(encoding="utf-8"))
    assert task["data"] == {"image": "street/one.jpg"}
    results = task["predictions"][0]["result"]
    assert len({result["id"] for result in results}) == len(results)
    shapes = []
    for result in results:
        assert 0 <= result["score"] <= 1
        scale = (result["original_width"] / 100, result["original_height"] / 100)
        value = result["value"]
        shapes.append((CLASSES.index(value["polygonlabels"][0]), np.array(value["points"]) * scale))
    np.testing.assert_array_equal(painted(shapes), labels)


def test_geojson_has_holes(written: Callable[[str], Path], labels: Labels) -> None:
    content = json.loads((written("geojson") / "street" / "one.geojson").read_text(encoding="utf-8"))
    found = np.zeros(SIZE, dtype=np.int64)
    for feature in content["features"]:
        inside = np.zeros(SIZE, dtype=np.int64)
        for ring in feature["geometry"]["coordinates"]:
            assert ring[0] == ring[-1]
            once = np.zeros(SIZE, dtype=np.int64)
            fill_polygon(once, np.array(ring[:-1], dtype=np.float64), 1)
            inside ^= once
        found[inside > 0] = CLASSES.index(feature["properties"]["class"])
        assert inside.sum() == feature["properties"]["area"]
    np.testing.assert_array_equal(found, labels)


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> SegViT:
    made = labelling_model(image_size=16, patch_size=8)
    assert made.spec is not None
    made.spec = replace(made.spec, classes=("background", *made.spec.classes[1:]))
    return made


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "photos" / "day").mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (4, 6, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
        Image.fromarray(pixels).save(tmp_path / "photos" / "day" / name)
    return tmp_path / "photos"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("raw_ids", [False, True], ids=["index", "raw"])
def test_a_resumed_prediction_writes_the_same_files(model: SegViT, photos: Path, tmp_path: Path, raw_ids: bool) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    style: dict[str, Any] = {"raw_ids": raw_ids, "write": tuple(WRITERS), "workers": 0}
    done = predict_files(model, [photos], first, **style)
    assert len(done.annotations) == len(WRITERS)
    predict_files(model, [photos / "day" / "a.jpg"], tmp_path / "else", **style)
    predict_files(model, [photos], second, **style | {"write": ("coco",)})
    again = predict_files(model, [photos], second, **style)
    assert (len(again.written), len(again.skipped)) == (0, 2)
    ours, theirs = contents(first / "annotations"), contents(second / "annotations")
    assert ours.keys() == theirs.keys()
    assert all(ours[name] == theirs[name] for name in ours)
    labels = segvit.predict(model, photos / "day" / "a.jpg").labels
    read = painted_coco(first / "annotations" / "coco.json", "day/a", unlabeled=0)
    np.testing.assert_array_equal(read, labels)


def test_scores_need_confidence_maps(model: SegViT, photos: Path, tmp_path: Path) -> None:
    predict_files(model, [photos], tmp_path / "plain", write=("labelme",), workers=0)
    assert not list((tmp_path / "plain").rglob("*_confidence.png"))
    predict_files(model, [photos], tmp_path / "scored", write=SCORED, workers=0)
    assert len(list((tmp_path / "scored").rglob("*_confidence.png"))) == 2
    content = json.loads((tmp_path / "scored" / "annotations" / "coco.json").read_text(encoding="utf-8"))
    assert all(0 < row["score"] <= 1 for row in content["annotations"])


def test_the_command_names_what_it_wrote(
    model: SegViT, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    model.save("model.safetensors")
    words = "predict model.safetensors photos --output seen --write labelme yolo --simplify 0.5 --device cpu"
    app(words.split(), result_action="return_value")
    said = capsys.readouterr().out
    assert f"annotations: {Path('seen/annotations/labelme')}" in said
    assert f"annotations: {Path('seen/annotations/yolo')}" in said
    path = tmp_path / "seen" / "annotations" / "labelme" / "day" / "a.json"
    image = json.loads(path.read_text(encoding="utf-8"))["imagePath"]
    assert os.path.normpath(path.parent / image) == str(photos / "day" / "a.jpg")


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"write": ("label_studio",)}, ["'label_studio'", "did you mean 'label-studio'"]),
        ({"write": ("coco",), "simplify": -1.0}, ["--simplify -1.0", "such as 1"]),
        ({"write": ("coco",), "simplify": float("nan")}, ["--simplify nan"]),
        ({"simplify": 1.0}, ["--simplify 1.0", "--write FORMAT"]),
    ],
)
def test_bad_requests_are_refused_at_once(
    model: SegViT, photos: Path, tmp_path: Path, options: dict[str, Any], parts: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        predict_files(model, [photos], tmp_path / "seen", **options)
    assert all(part in str(caught.value) for part in parts), caught.value
    assert not (tmp_path / "seen").exists()


def test_photos_among_the_annotations_are_refused(model: SegViT, photos: Path, tmp_path: Path) -> None:
    (photos / "day").rename(photos / "annotations")
    with pytest.raises(UserError, match=r"annotations.a would be among the files of --write"):
        predict_files(model, [photos], tmp_path / "seen", write=("coco",), workers=0)

"""Label Studio's exports: every kind of region, brushes, names of uploads, and whose annotation counts."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segvit.config import DataConfig
from segvit.data.annotations.recognise import recognise
from segvit.data.annotations.tools.label_studio import LabelStudioLabels
from segvit.data.dataset import SegmentationDataset
from segvit.errors import UserError
from tests.helpers.annotated import labels_of, opened, photo, write

SIZE = {"original_width": 8, "original_height": 6, "image_rotation": 0}


def region(kind: str, label: str | None, value: dict[str, Any], **more: Any) -> dict[str, Any]:
    labels = {} if label is None else {f"{kind}labels": [label]}
    return {"type": f"{kind}labels", "from_name": "label", "to_name": "image", **SIZE, "value": value | labels, **more}


def percent(*points: tuple[float, float]) -> list[list[float]]:
    """Points in pixels of 8 x 6 as percent."""
    return [[100 * x / 8, 100 * y / 6] for x, y in points]


def square(label: str, left: int = 1, top: int = 1, side: int = 2) -> dict[str, Any]:
    corners = [(left, top), (left + side, top), (left + side, top + side), (left, top + side)]
    return region("polygon", label, {"points": percent(*corners), "closed": True})


def task(*regions: Any, image: str = "/data/upload/3/0a1b2c3d-a.jpg", **more: Any) -> dict[str, Any]:
    return {"id": 1, "data": {"image": image}, "annotations": [{"result": list(regions), **more}], "predictions": []}


def export(root: Path, *tasks: Any, name: str = "a") -> SegmentationDataset:
    photo(root / "photos" / f"{name}.jpg")
    return opened(root / "photos", write(root / "export.json", list(tasks)))


def packed(picture: Any) -> list[int]:
    """Encode bytes as Label Studio's brushes: literal blocks, and runs for repeats."""
    values = picture.reshape(-1).tolist()
    sizes = [3, 4, 8, 16]
    bits = f"{len(values):032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in sizes)
    at = 0
    while at < len(values):
        run = 1
        while at + run < len(values) and values[at + run] == values[at]:
            run += 1
        length = run if run > 1 else min(2, len(values) - at)
        choice = next(k for k, size in enumerate(sizes) if length <= 2**size)
        bits += f"{int(run > 1)}{choice:02b}{length - 1:0{sizes[choice]}b}"
        bits += "".join(f"{value:08b}" for value in ([values[at]] if run > 1 else values[at : at + length]))
        at += length
    bits += "0" * (-len(bits) % 8)
    return [int(bits[start : start + 8], 2) for start in range(0, len(bits), 8)]


def test_every_kind_of_area(tmp_path: Path) -> None:
    brush = np.zeros((6, 8, 4), dtype=np.uint8)
    brush[5, :3, 3], brush[..., 0] = (255, 7, 90), 200
    samples = export(
        tmp_path,
        task(
            region("rectangle", "rect", {"x": 50, "y": 0, "width": 25, "height": 50, "rotation": 0}),
            square("poly"),
            region("ellipse", "round", {"x": 87.5, "y": 200 / 3, "radiusX": 12.5, "radiusY": 100 / 6, "rotation": 0}),
            region("brush", "brush", {"format": "rle", "rle": packed(brush)}),
            region("keypoint", "poly", {"x": 1, "y": 1}) | {"value": {"x": 1, "y": 1, "keypointlabels": ["poly"]}},
        ),
    )
    assert samples.spec.classes == ("background", "brush", "poly", "rect", "round")
    assert labels_of(samples).tolist() == [
        [0, 0, 0, 0, 3, 3, 0, 0],
        [0, 2, 2, 0, 3, 3, 0, 0],
        [0, 2, 2, 0, 3, 3, 0, 0],
        [0, 0, 0, 0, 0, 0, 4, 4],
        [0, 0, 0, 0, 0, 0, 4, 4],
        [1, 1, 1, 0, 0, 0, 0, 0],
    ]


def test_a_rectangle_turns_about_its_corner(tmp_path: Path) -> None:
    value = {"x": 50, "y": 0, "width": 50, "height": 100 / 6, "rotation": 90}  # 4 wide, 1 high, then 1 wide, 4 high
    labels = labels_of(export(tmp_path, task(region("rectangle", "rect", value))))
    assert np.argwhere(labels == 1).tolist() == [[0, 3], [1, 3], [2, 3], [3, 3]]


@pytest.mark.parametrize("seed", range(3))
def test_brushes_decode_to_what_was_encoded(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 2, (6, 8, 4), dtype=np.uint8) * 255
    picture[:, : 2 * seed] = 9  # runs longer than eight words
    labels = labels_of(export(tmp_path, task(region("brush", "b", {"format": "rle", "rle": packed(picture)}))))
    assert (labels == (picture[..., 3] > 0)).all()


@pytest.mark.parametrize(
    "image, name",
    [
        ("/data/upload/3/0a1b2c3d-a.jpg", "a"),
        ("/data/upload/0a1b2c3d-a.jpg", "a"),
        ("/data/upload/3/0a1b2c3d-a.jpg", "0a1b2c3d-a"),  # images of an export "with images"
        ("/data/local-files/?d=sets%2Fmy/a.jpg", "a"),
        ("https://host/bucket/a.jpg?X-Signature=b.png", "a"),
        ("s3://bucket/photos/a%20b.jpg", "a b"),
    ],
)
def test_names_of_uploaded_files(tmp_path: Path, image: str, name: str) -> None:
    samples = export(tmp_path, task(square("x"), image=image), name=name)
    assert len(samples) == 1 and labels_of(samples).sum() == 4


def test_two_uploads_of_one_name_keep_their_prefixes(tmp_path: Path) -> None:
    photo(tmp_path / "photos" / "11111111-a.jpg")
    tasks = [task(square("x", side=n), image=f"/data/upload/1/{n}{n}{n}{n}{n}{n}{n}{n}-a.jpg") for n in (1, 2)]
    photo(tmp_path / "photos" / "22222222-a.jpg")
    samples = opened(tmp_path / "photos", write(tmp_path / "export.json", tasks))
    assert [int(labels_of(samples, index).sum()) for index in range(2)] == [1, 4]


def test_the_form_json_min(tmp_path: Path) -> None:
    flat = square("x")["value"] | SIZE
    samples = export(tmp_path, {"id": 1, "image": "/data/upload/1/0a1b2c3d-a.jpg", "label": [flat], "annotator": 1})
    assert samples.spec.classes == ("background", "x") and labels_of(samples).sum() == 4


def test_an_outline_and_its_label_may_be_two_results(tmp_path: Path) -> None:
    outline = square("x") | {"id": "r", "type": "polygon"}
    label = {"id": "r", "type": "labels", **SIZE, "value": {"points": outline["value"]["points"], "labels": ["car"]}}
    outline["value"] = {key: value for key, value in outline["value"].items() if key != "polygonlabels"}
    samples = export(tmp_path, task(outline, label))
    assert samples.spec.classes == ("background", "car") and labels_of(samples).sum() == 4


def test_which_annotation_counts(tmp_path: Path) -> None:
    several = task(square("x", side=1), updated_at="2024-02")
    several["annotations"] += [
        {"result": [square("x", side=2)], "updated_at": "2024-03"},
        {"result": [square("x", side=3)], "updated_at": "2024-04", "was_cancelled": True},
    ]
    assert labels_of(export(tmp_path, several)).sum() == 4
    several["annotations"][0]["ground_truth"] = True
    assert labels_of(export(tmp_path, several)).sum() == 1


def test_skipped_tasks_and_predictions(tmp_path: Path) -> None:
    photo(tmp_path / "photos" / "b.jpg")
    skipped = task(square("x"), was_cancelled=True)
    predicted = task(image="/data/upload/1/0a1b2c3d-b.jpg") | {"annotations": []}
    predicted["predictions"] = [{"result": [square("y", side=3)]}]
    skipped["predictions"] = predicted["predictions"]
    samples = export(tmp_path, skipped, predicted)
    assert [pair.name for pair in samples.pairs] == ["b"] and labels_of(samples).sum() == 9
    found = recognise(tmp_path / "photos", tmp_path / "export.json")
    assert found and "1 task skipped or without annotation, left out" in found.notes
    assert "1 task without annotation, whose predictions are read" in found.notes


@pytest.mark.parametrize(
    "change, message",
    [
        ({"image_rotation": 90}, "was drawn on a turned image"),
        ({"original_width": None, "original_height": None}, "has no `original_width`"),
        ({"original_width": -8}, "its size is -8 x 6"),
        ({"value": {"points": [[1]], "polygonlabels": ["x"]}}, "points are"),
        ({"value": {"rle": [1, 2], "brushlabels": ["x"]}}, "`rle` is not a picture of 8 x 6 pixels .*cut short"),
        ({"value": {"rle": packed(np.zeros((2, 2, 4), np.uint8)), "brushlabels": ["x"]}}, "it holds 16 words"),
        ({"value": {"rle": "no", "brushlabels": ["x"]}}, "`rle` is 'no'"),
        ({"value": {"x": 1, "y": True, "width": 2, "height": 3, "rectanglelabels": ["x"]}}, "no number of pixels"),
    ],
)
def test_mistakes_in_a_region(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    samples = export(tmp_path, task(square("x") | change))
    with pytest.raises(UserError, match=message):
        samples.read(0)


def test_mistakes_in_a_task(tmp_path: Path) -> None:
    two = square("x")
    two["value"]["polygonlabels"] = ["x", "y"]
    for tasks, message in (
        ([task(two)], "has the labels x, y; keep one"),
        ([task(square("x")), task(square("x"))], "is the image of an earlier task too"),
        ([task(square("x"), image="hello")], "none of its data is the file of an image"),
        ([task(square("x")) | {"annotations": [{"result": 3}]}], "`result` is 3, not a list"),
    ):
        with pytest.raises(UserError, match=message):
            export(tmp_path, *tasks)


def test_a_public_export(shared_data: Path) -> None:
    path = shared_data / "annotations" / "label_studio" / "polygons.json"
    labels = LabelStudioLabels()
    index = labels.index(path)
    (name,) = index.images
    drawing = labels.draw(index.images[name], path, name)
    regions = json.loads(path.read_text())[0]["annotations"][0]["result"]
    assert len(drawing.shapes) == sum(each["type"] == "polygonlabels" for each in regions)
    assert drawing.size == (regions[0]["original_height"], regions[0]["original_width"])
    first = np.array(regions[0]["value"]["points"]) / 100 * drawing.size[::-1]
    np.testing.assert_allclose(drawing.shapes[0].area.rings[0], first)  # type: ignore[union-attr]


def test_the_case_of_tools(shared_data: Path) -> None:
    case = shared_data.parent / "cases" / "label-tools"
    config = DataConfig(images=case / "photos", labels=case / "labelstudio.json")
    assert config.labels
    samples = opened(case / "photos", config.labels)
    assert labels_of(samples)[8:24, 6:24].all() and labels_of(samples).sum() == 16 * 18

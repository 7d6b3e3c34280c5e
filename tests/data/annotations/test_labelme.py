"""LabelMe's JSON: every kind of shape, images inside the file, and what is wrong in a file."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segvit.config import DataConfig
from segvit.data.annotations.tools.labelme import LabelMeLabels
from segvit.data.dataset import open_dataset
from segvit.data.images import Unreadable
from segvit.data.spec import DatasetSpec
from segvit.errors import UserError
from tests.helpers.annotated import SQUARE, labels_of, opened, photo, write


def shape(label: str, points: Any = SQUARE, kind: str | None = "polygon", **more: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": kind, **more}


def labelme(root: Path, *shapes: Any, name: str = "a", **more: Any) -> Path:
    """A folder of a photo of 6 x 8 pixels and its file."""
    if "imageData" not in more:
        photo(root / f"{name}.jpg")
    size = {"imageHeight": 6, "imageWidth": 8}
    write(root / f"{name}.json", {"version": "5.5.0", "shapes": shapes, "imagePath": f"{name}.jpg", **size, **more})
    return root


def encoded(pixels: Any, kind: str = "PNG") -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return base64.b64encode(file.getvalue()).decode()


def test_every_kind_of_area(tmp_path: Path) -> None:
    mask = np.array([[1, 0], [1, 1]], dtype=np.uint8) * 255
    labelme(
        tmp_path,
        shape("poly"),
        shape("rect", [[8, 6], [6, 4]], "rectangle"),
        shape("ring", [[6, 1], [7, 1]], "circle"),
        shape("mask", [[0, 4], [1, 5]], "mask", mask=encoded(mask)),
        shape("__ignore__", [[0, 0], [1, 0], [1, 1], [0, 1]], None),
        shape("_background_", [[2, 2], [3, 2], [3, 3], [2, 3]]),
        shape("poly", [[1, 1]], "point"),
        shape("poly", [[1, 1], [2, 2]], "linestrip"),
    )
    samples = opened(tmp_path, tmp_path)
    assert samples.spec.classes == ("background", "mask", "poly", "rect", "ring")
    assert labels_of(samples).tolist() == [
        [255, 0, 0, 0, 0, 4, 4, 0],
        [0, 2, 2, 2, 0, 4, 4, 0],
        [0, 2, 0, 2, 0, 0, 0, 0],
        [0, 2, 2, 2, 0, 0, 0, 0],
        [1, 0, 0, 0, 0, 0, 3, 3],
        [1, 1, 0, 0, 0, 0, 3, 3],
    ]


def test_the_order_of_the_file_decides(tmp_path: Path) -> None:
    labelme(tmp_path, shape("b"), shape("a", [[2, 2], [3, 2], [3, 3], [2, 3]]))
    labels = labels_of(opened(tmp_path, tmp_path))
    assert labels[2, 2] == 1 and labels[1, 1] == 2


def test_a_spec_refuses_shapes_of_no_area_unless_told_otherwise(tmp_path: Path) -> None:
    labelme(tmp_path, shape("a"), shape("a", [[1, 1]], "point"))
    content = {"name": "own", "classes": ["background", "a"], "splits": {}}

    def read(**options: Any) -> Any:
        spec = DatasetSpec.from_dict({**content, "labels": {"format": "labelme", **options}})
        assert DatasetSpec.from_dict(spec.to_dict()) == spec
        samples = opened(tmp_path, tmp_path)
        samples.spec = spec
        return samples.read_raw(0)

    with pytest.raises(UserError, match=r"a\.json: 1 x point label no pixels.*no_areas: skip"):
        read()
    assert read(no_areas="skip").max() == 1
    for options, told in (
        ({"no_areas": "drop"}, "`no_areas` is 'drop'; give error or skip"),
        ({"unlabelled": "a"}, "did you mean 'unlabeled'"),
        ({"unlabeled": "b"}, "`labels: unlabeled` names 'b'"),
        ({"ignore": "a"}, "give a list of names"),
        ({"merge": ["a"]}, "give names by class"),
        ({"merge": {"c": ["a"]}}, "`labels: merge` names 'c'"),
    ):
        with pytest.raises(UserError, match=told):
            read(**options)


def test_an_unknown_name_says_what_to_write(tmp_path: Path) -> None:
    samples = opened(labelme(tmp_path, shape("cart")), tmp_path)
    spec = {"name": "own", "classes": ["background", "cat"], "labels": {"format": "labelme"}}
    for more, value in (({"others": "ignore"}, 255), ({"others": "cat"}, 1)):
        samples.spec = DatasetSpec.from_dict({**spec, **more})
        assert samples.read_raw(0)[1, 1] == value
    samples.spec = DatasetSpec.from_dict(spec)
    with pytest.raises(UserError, match=r"a polygon is 'cart' \(did you mean 'cat'\?\).*`ignore: \[cart\]`"):
        samples.read_raw(0)
    samples.spec = DatasetSpec.from_dict({**spec, "ignore": [], "labels": {"format": "labelme", "merge": {"cat": []}}})
    labelme(tmp_path, shape("__ignore__"))
    with pytest.raises(UserError, match="no raw value is"):
        samples.read_raw(0)


def test_images_inside_the_files(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    for name in "ab":
        labelme(tmp_path, shape("a"), name=name, imageData=encoded(pixels))
    samples = opened(tmp_path, tmp_path)
    assert [pair.name for pair in samples.pairs] == ["a", "b"]
    assert (samples.read(0).image.numpy().transpose(1, 2, 0) == pixels).all() and labels_of(samples)[1, 1] == 1
    labelme(tmp_path, shape("a"), name="c")  # one with a photo
    assert [pair.image.name for pair in opened(tmp_path, tmp_path).pairs] == ["a.json", "b.json", "c.jpg"]
    (tmp_path / "list.txt").write_text("c\na\n")
    listed = opened(tmp_path, tmp_path, train_list=tmp_path / "list.txt")
    assert [pair.name for pair in listed.pairs] == ["c", "a"]


def test_photos_without_labels_and_labels_without_photos_are_left_out(tmp_path: Path) -> None:
    labelme(tmp_path, shape("a"))
    photo(tmp_path / "new.jpg")
    labelme(tmp_path, shape("a"), name="gone")
    (tmp_path / "gone.jpg").unlink()
    samples = opened(tmp_path, tmp_path)
    assert [pair.name for pair in samples.pairs] == ["a"]


@pytest.mark.parametrize(
    "change, told",
    [
        ({"shapes": {}}, "`shapes` is {}, not a list"),
        ({"shapes": [3]}, "shape 1 is 3, not a mapping"),
        ({"shapes": [shape("")]}, "`label` is '', not text"),
        ({"shapes": [shape("a", 3)]}, "points are"),
        ({"shapes": [shape("a", [[1, 2], [3]])]}, "points are"),
        ({"shapes": [shape("a", [[1, "2"]])]}, "'2' is no number"),
        ({"shapes": [shape("a", [[1, True]])]}, "True is no number"),
        ({"shapes": [shape("a", [[1, 1e300]])]}, "1e.300 is larger than 10000000 pixels"),
        ({"shapes": [shape("a", SQUARE, "blob")]}, "shape_type is 'blob'"),
        ({"shapes": [shape("a", SQUARE, ["blob"])]}, "shape_type is"),  # type: ignore[arg-type]
        ({"shapes": [shape("a", [[1, 1]], "circle")]}, "a circle needs two points"),
        ({"shapes": [shape("a", SQUARE, "mask")]}, "`mask` is None"),
        ({"shapes": [shape("a", SQUARE, "mask", mask="AAAA")]}, "no PNG in base64"),
        ({"shapes": [shape("a", SQUARE, "mask", mask="ä")]}, "no PNG in base64"),
        ({"imageHeight": 0}, "its size is 8 x 0"),
        ({"imageWidth": None}, "its size is None x 6"),
    ],
)
def test_a_malformed_file_is_named(change: dict[str, Any], told: str, tmp_path: Path) -> None:
    write(tmp_path / "a.json", {"shapes": [], "imagePath": "a.jpg", "imageHeight": 6, "imageWidth": 8, **change})
    with pytest.raises(Unreadable, match=told) as caught:
        LabelMeLabels().draw(tmp_path / "a.json")
    assert str(tmp_path / "a.json") in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[NaN]", "\xff", "[" * 100_000])
def test_no_json(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text, encoding="latin-1")
    with pytest.raises(Unreadable, match=r"a\.json: cannot be read as JSON|not a mapping"):
        LabelMeLabels().draw(tmp_path / "a.json")


def test_one_damaged_file_among_others_is_reported(tmp_path: Path) -> None:
    labelme(tmp_path, shape("a"))
    photo(tmp_path / "b.jpg")
    (tmp_path / "b.json").write_text("{")
    samples = opened(tmp_path, tmp_path)
    assert labels_of(samples)[1, 1] == 1
    with pytest.raises(Unreadable, match=r"b\.json"):
        samples.read(1)


def test_the_size_of_the_photo_serves_without_one_in_the_file(tmp_path: Path) -> None:
    labelme(tmp_path, shape("a"), imageHeight=None, imageWidth=None)
    assert labels_of(opened(tmp_path, tmp_path)).shape == (6, 8)
    labelme(tmp_path, shape("a"), imageHeight=8)
    with pytest.raises(UserError, match="8 x 8"):
        opened(tmp_path, tmp_path).read(0)


def test_the_tools_own_label_maps(shared_data: Path) -> None:
    """LabelMe paints each outline one pixel wide as well, so edges differ."""
    folder = shared_data / "annotations" / "labelme"
    samples = opened(folder / "annotated", folder / "annotated")
    names = (folder / "class_names.txt").read_text().split("\n")
    assert samples.spec.classes == ("background", *names[1:])  # the values are those of the tool
    same = total = 0
    for index, pair in enumerate(samples.pairs):
        theirs = np.asarray(Image.open(folder / "voc_png" / f"{pair.name}.png"))
        same, total = same + int((labels_of(samples, index) == theirs).sum()), total + theirs.size
    assert same / total > 0.995


def test_the_case_of_photos_and_files_in_one_folder(shared_cases: Path) -> None:
    folder = shared_cases / "labelme-folder" / "annotated"
    samples = opened(folder, folder, "background", "box")
    assert (labels_of(samples) == 1).sum() == 18 * 16 and len(samples) == 2
    pictures = DataConfig(images=folder / "*.jpg", labels=folder / "*.jpg", classes=("background", "box"))
    with pytest.raises(UserError) as caught:
        open_dataset(pictures, "train")
    assert "label maps are JPEG" not in str(caught.value)

"""COCO's JSON without a spec: classes by name, exports with faults, public files, panoptic labels."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segvit.config import DataConfig
from segvit.data.annotations.recognise import recognise
from segvit.data.annotations.shapes import RunLengths
from segvit.data.annotations.tools.coco import CocoLabels
from segvit.data.check.class_names import name_classes
from segvit.data.check.report import check_splits
from segvit.data.dataset import SegmentationDataset, open_dataset
from segvit.data.labels.rasterize import decode_rle
from segvit.data.spec import DatasetSpec
from segvit.errors import UserError
from tests.helpers.annotated import labels_of, opened, photo, write

SQUARE = [[1, 1, 4, 1, 4, 4, 1, 4]]


def coco(root: Path, *annotations: Any, file: str = "a.json", name: str = "a.jpg", **more: Any) -> Path:
    """A file of one photo of 6 x 8 pixels."""
    photo(root / "photos" / "a.jpg")
    return write(
        root / file,
        {
            "images": [{"id": 5, "file_name": name, "height": 6, "width": 8}],
            "categories": [{"id": 99_999, "name": "dog"}, {"id": 2, "name": "cat"}],
            "annotations": annotations,
            **more,
        },
    )


def row(category: int, segmentation: Any = SQUARE, image: int = 5, **more: Any) -> dict[str, Any]:
    return {"id": 1, "image_id": image, "category_id": category, "segmentation": segmentation, **more}


def test_classes_are_matched_by_name(tmp_path: Path) -> None:
    train = coco(tmp_path, row(99_999), row(2, [[6, 4, 8, 4, 8, 6, 6, 6]]))
    samples = opened(tmp_path / "photos", train)
    assert samples.spec.classes == ("background", "dog", "cat")  # any ids, in the order of the file
    assert (labels_of(samples)[1:4, 1:4] == 1).all() and (labels_of(samples)[4:, 6:] == 2).all()
    assert DatasetSpec.from_dict(samples.spec.to_dict()) == samples.spec
    other = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]  # the validation file numbers them differently
    val = coco(tmp_path, row(2), file="val.json", categories=other)
    data = {"images": tmp_path / "photos", "val_images": tmp_path / "photos", "labels": train, "val_labels": val}
    assert open_dataset(DataConfig(**data), "val").read(0).labels[1, 1] == 1  # type: ignore[arg-type]


def test_a_spec_may_match_names_too(tmp_path: Path) -> None:
    file = coco(tmp_path, row(2))
    options = {"format": "coco", "match": "name"}
    spec = DatasetSpec.from_dict({"name": "own", "classes": ["background", "cat"], "labels": options})
    samples = opened(tmp_path / "photos", file)
    samples.spec = spec
    assert samples.read_raw(0)[1, 1] == 1
    with pytest.raises(UserError, match="`raw` is missing"):
        DatasetSpec.from_dict(
            {"name": "own", "classes": ["background"], "labels": {"format": "coco", "unlabeled": "background"}}
        )


def test_a_category_that_only_groups_others_is_no_class(tmp_path: Path) -> None:
    """Roboflow writes its project as category 0."""
    categories = [
        {"id": 0, "name": "pets", "supercategory": "none"},
        {"id": 1, "name": "cat", "supercategory": "pets"},
        {"id": 2, "name": "cat", "supercategory": "pets"},
    ]
    file = coco(tmp_path, row(1), row(2, [[6, 4, 8, 4, 8, 6, 6, 6]]), categories=categories)
    samples = opened(tmp_path / "photos", file)
    assert samples.spec.classes == ("background", "cat") and (labels_of(samples) == 1).sum() == 13
    used = opened(tmp_path / "photos", coco(tmp_path, row(0), row(1), categories=categories))
    assert used.spec.classes == ("background", "pets", "cat")


def test_a_file_in_the_folder_of_the_photos(tmp_path: Path) -> None:
    coco(tmp_path, row(2), file="photos/_annotations.coco.json")
    assert labels_of(opened(tmp_path / "photos", tmp_path / "photos"))[1, 1] == 2


def test_categories_need_an_id_and_a_name_of_their_own(tmp_path: Path) -> None:
    for categories, told in (
        ([{"id": 2, "name": "cat"}, {"id": 2, "name": "dog"}], "two categories have the id 2, 'cat' and 'dog'"),
        ([{"id": 2, "name": "cat"}, {"id": 3}], "category 3: `name` is None, not text"),
    ):
        with pytest.raises(UserError, match=told):
            opened(tmp_path / "photos", coco(tmp_path, row(2), categories=categories))


def test_empty_outlines(tmp_path: Path) -> None:
    def labels(**options: Any) -> Any:
        samples = opened(tmp_path / "photos", file)
        given = {"name": "own", "classes": ["background", "cat", "dog"], "labels": {"format": "coco", **options}}
        samples.spec = DatasetSpec.from_dict(given)
        return samples.read_raw(0)

    for empty in ([], None):
        file = coco(tmp_path, row(99_999, [[6, 4, 8, 4, 8, 6, 6, 6]]), row(2, empty, bbox=[1, 1, 3, 3]))
        assert (labels(match="name")[1:4, 1:4] == 255).all() and labels(match="name")[0, 0] == 0
        assert (labels(match="name", empty="box")[1:4, 1:4] == 1).all()
        with pytest.raises(UserError, match=r"annotation 1 of image 'a'.*a box alone labels no pixels.*`empty: box`"):
            labels(match="name", empty="error")
    file = coco(tmp_path, row(99_999), row(2, []))
    with pytest.raises(UserError, match="1 x annotation without an outline label no pixels"):
        labels(match="name")
    assert (labels(match="name", no_areas="skip") < 255).all()
    for bounds in ([1, 2, 3], [1, 2, 3, "4"], "box"):
        file = coco(tmp_path, row(99_999), row(2, [], bbox=bounds))
        with pytest.raises(UserError, match="`bbox` is"):
            labels(match="name")


def test_a_file_is_parsed_once_in_a_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = coco(tmp_path, row(2))
    photo(tmp_path / "photos" / "b.jpg")
    content = json.loads(file.read_text())
    content["images"].append({"id": 9, "file_name": "b.jpg", "height": 6, "width": 8})
    file.write_text(json.dumps(content))
    parsed: list[Any] = []
    loads = json.loads
    monkeypatch.setattr("segvit.data.annotations.parse.json.loads", lambda *a, **k: parsed.append(a) or loads(*a, **k))
    config = DataConfig(images=tmp_path / "photos", labels=file, val_fraction=0.5)
    check_splits(name_classes(config).config, ["train", "val"])
    assert len([args for args in parsed if args[0] == file.read_bytes()]) == 1
    write(file, loads(file.read_text()) | {"categories": [{"id": 2, "name": "lion"}]})
    assert opened(tmp_path / "photos", file).spec.classes == ("background", "lion")


def test_boxes_alone_are_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no shape labels pixels.*`--data.spec boxes.yaml --data.root .`") as caught:
        opened(tmp_path / "photos", coco(tmp_path, row(2, [], bbox=[1, 1, 3, 3])))
    spec = write(tmp_path / "boxes.yaml", str(caught.value).partition("\n")[2])  # the printed spec works
    samples = open_dataset(DataConfig(spec=str(spec), root=tmp_path, val_fraction=0), "train")
    assert isinstance(samples, SegmentationDataset) and samples.spec.classes == ("background", "dog", "cat")
    assert (labels_of(samples)[1:4, 1:4] == 2).all() and not labels_of(samples)[0].any()


def test_what_the_file_does_not_list(tmp_path: Path) -> None:
    file = coco(tmp_path, row(2), row(2, image=77))
    found = recognise(tmp_path / "photos", file)
    assert found is not None and found.notes == ("1 annotation of images that the file does not list",)
    with pytest.raises(UserError, match="image 77, which the file does not describe"):
        CocoLabels(match="name").index(file)
    with pytest.raises(UserError, match="has the category 3, which the file does not list"):
        opened(tmp_path / "photos", coco(tmp_path, row(3)))


@pytest.mark.parametrize("name", ["windows", "folder", "flat", "empty", "lost"])
def test_real_exports(name: str, shared_cases: Path) -> None:
    folder = shared_cases / "coco-exports"
    samples = opened(folder / "photos", folder / f"{name}.json")
    assert samples.spec.classes == ("background", "box") and [pair.name for pair in samples.pairs] == ["0", "1"]
    boxes = [labels_of(samples, index)[8:24, 6:24] for index in range(2)]
    assert (boxes[0] == (255 if name == "empty" else 1)).all() and (boxes[1] == 1).all()
    config = DataConfig(images=folder / "photos", labels=folder / f"{name}.json", val_fraction=0.5)
    told = " ".join(check_splits(config, ["train", "val"]).warnings)
    expected = {
        "windows": "2 images in another folder",
        "folder": "images/0 -> 0",
        "empty": "1 annotation without an outline (boxes are ignored)",
        "lost": f"1 label without an image left out: {folder / 'lost.json'}: gone",
    }
    assert expected.get(name, "") in told and (name in expected) is bool(told)


@pytest.mark.parametrize("name", ["instances_val", "stuff_train"])
def test_public_run_lengths_have_their_area(name: str, shared_data: Path) -> None:
    path = shared_data / "annotations" / "coco" / f"{name}.json"
    areas = [row["area"] for row in json.loads(path.read_text())["annotations"]]
    index = CocoLabels(match="name").index(path)
    ((image, entry),) = index.images.items()
    drawing = CocoLabels().draw(entry, path, image)
    assert drawing.size is not None and len(drawing.shapes) == len(areas)
    masks = [(shape.area, area) for shape, area in zip(drawing.shapes, areas, strict=True)]
    run_lengths = [(mask, area) for mask, area in masks if isinstance(mask, RunLengths)]
    assert run_lengths and all(decode_rle(mask.rle, drawing.size).sum() == area for mask, area in run_lengths)


def test_the_same_shapes_as_in_labelme(shared_data: Path) -> None:
    """LabelMe's example as COCO, whose points its script moved by a fraction of a pixel."""
    folder = shared_data / "annotations" / "labelme"
    ours = opened(folder / "annotated", folder / "coco_annotations.json")
    theirs = opened(folder / "annotated", folder / "annotated")
    assert ours.spec.classes == theirs.spec.classes
    for index, pair in enumerate(ours.pairs):
        one, other = labels_of(ours, index), labels_of(theirs, index)
        assert pair.name == theirs.pairs[index].name and (one == other)[other < 255].mean() > 0.99


@pytest.mark.parametrize("junk", [None, True, -1, 1.5, "x", [], {}, [None], [[1]]], ids=str)
def test_junk_in_any_place_is_an_error_of_the_file(junk: Any, tmp_path: Path) -> None:
    for file in (coco(tmp_path, row(2)), panoptic(tmp_path)):
        before = json.loads(file.read_text())
        for part, key in [("images", "id"), ("images", "height"), ("categories", "id"), ("categories", "name")] + [
            ("annotations", key) for key in before["annotations"][0]
        ]:
            content = json.loads(file.read_text())
            content[part][0][key] = junk
            changed = write(tmp_path / file.name.replace("a.json", "b.json"), content)
            with suppress(UserError):
                opened(tmp_path / "photos", changed).read(0)
            write(file, before)


def panoptic(root: Path) -> Path:
    """Two segments of 6 x 8 pixels, and a pixel column without one."""
    file = coco(
        root,
        {
            "image_id": 5,
            "file_name": "a.png",
            "segments_info": [{"id": 7, "category_id": 2}, {"id": 256 * 3 + 65_536 * 2 + 1, "category_id": 99_999}],
        },
        file="panoptic.json",
    )
    ids = np.zeros((6, 8, 3), dtype=np.uint8)
    ids[:, :4] = (7, 0, 0)
    ids[:, 4:7] = (1, 3, 2)
    (root / "panoptic").mkdir(exist_ok=True)
    Image.fromarray(ids).save(root / "panoptic" / "a.png")
    return file


def test_panoptic_labels(tmp_path: Path) -> None:
    samples = opened(tmp_path / "photos", panoptic(tmp_path))
    assert samples.spec.classes == ("dog", "cat")  # pixels of no segment have no class
    assert labels_of(samples)[0].tolist() == [1, 1, 1, 1, 0, 0, 0, 255]
    given = opened(tmp_path / "photos", panoptic(tmp_path), "background", "cat", "dog=ignore")
    assert labels_of(given)[0].tolist() == [1, 1, 1, 1, 255, 255, 255, 0]
    categories = [{"id": 99_999, "name": "background"}, {"id": 2, "name": "cat"}]  # one like any other
    content = {**json.loads((tmp_path / "panoptic.json").read_text()), "categories": categories}
    drawn = opened(tmp_path / "photos", write(tmp_path / "panoptic.json", content))
    assert drawn.spec.classes == ("background", "cat") and labels_of(drawn)[0].tolist() == [1, 1, 1, 1, 0, 0, 0, 255]
    Image.new("RGB", (4, 4)).save(tmp_path / "panoptic" / "a.png")
    with pytest.raises(UserError, match="is 4 x 4 pixels"):
        samples.read(0)
    (tmp_path / "panoptic" / "a.png").unlink()
    with pytest.raises(UserError, match=r"no picture a\.png in"):
        samples.read(0)


def test_a_public_panoptic_file_is_recognised(shared_data: Path) -> None:
    found = recognise(Path("photos"), shared_data / "annotations" / "coco" / "panoptic_train.json")
    assert found is not None and found.text == "coco_panoptic: 1 file, 1 segment, classes a, b"

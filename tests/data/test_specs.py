"""Specs: the shipped class lists, what a spec may say of values, and readers of the datasets as they are downloaded."""

import csv
import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import yaml
from PIL import Image
from scipy.io import loadmat, savemat

import segvit.data.spec
from segvit.config import DataConfig, EvalConfig, ModelConfig
from segvit.data.check.check import check_dataset
from segvit.data.dataset import SegmentationDataset, open_dataset
from segvit.data.labels.format import MAX_RAW
from segvit.data.spec import IGNORE_INDEX, UNKNOWN, DatasetSpec, load_spec
from segvit.errors import UserError
from segvit.models.create import create_model
from segvit.pictures import colorize
from segvit.prediction.predict import predict
from segvit.prediction.predict_files import predict_files
from segvit.weights.load import load_model

UNUSED_IN_COCO_STUFF = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91)


def opened(spec: str | Path, root: Path, split: Any = "train", **settings: Any) -> SegmentationDataset:
    samples = open_dataset(DataConfig(spec=str(spec), root=root, **settings), split)
    assert isinstance(samples, SegmentationDataset)
    return samples


def names(samples: SegmentationDataset) -> list[str]:
    return [pair.name for pair in samples.pairs]


def image(path: Path, size: tuple[int, int]) -> None:
    """A flat photo of (height, width)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size[::-1], (90, 150, 60)).save(path)


def png(path: Path, values: npt.ArrayLike, palette: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(np.asarray(values, dtype=np.uint8))
    if palette:
        picture.putpalette(bytes(range(256)) * 3)
    picture.save(path)


# --- the shipped lists -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, count, first, last, digest, ids",
    [
        ("ade20k", 150, "wall", "flag", "f9dbd8a75a0722c9", "f4b75480e77b40a3"),
        ("camvid", 11, "sky", "bicyclist", "4079fe08a5eedfc1", "a68f3d924711ac71"),
        ("cityscapes", 19, "road", "bicycle", "5995d02d6c574d51", "7cb12e1f9e63996d"),
        ("clothing", 59, "null", "wedges", "4c5149e52a413dad", "000503e528982049"),
        ("coco_stuff_10k", 171, "person", "wood", "8ea44449837dceb3", "9552867947f11118"),
        ("pascal_context_59", 59, "aeroplane", "wood", "cd808465f06a1616", "71ccb41cc0df04b4"),
        ("pascal_context_60", 60, "background", "wood", "e29ff1a0eaea71eb", "2049ed29b3a8311a"),
        ("pascal_voc_2012", 21, "background", "tvmonitor", "301e5e4e2a9a7ab6", "9de5910046528f90"),
        ("shapes", 8, "sky", "sign", "3212c20612529ca5", "71347777824d0062"),
    ],
)
def test_class_lists(name: str, count: int, first: str, last: str, digest: str, ids: str) -> None:
    spec = load_spec(name)
    assert (spec.name, spec.num_classes, spec.classes[0], spec.classes[-1]) == (name, count, first, last)
    assert hashlib.sha256("\n".join(spec.classes).encode()).hexdigest().startswith(digest)
    assert hashlib.sha256(repr(spec.raw_ids).encode()).hexdigest().startswith(ids)
    assert len(set(spec.classes)) == len(spec.palette) == count
    assert "val" in spec.splits or spec.val_fraction == 0.1
    assert DatasetSpec.from_dict(spec.to_dict()) == spec


@pytest.mark.parametrize(
    "name, table",
    [
        ("ade20k", "ade20k"),
        ("cityscapes", "cityscapes"),
        ("coco_stuff_10k", "coco_stuff"),
        ("pascal_context_59", "pascal_context_59"),
        ("pascal_context_60", "pascal_context_60"),
        ("pascal_voc_2012", "pascal_voc_2012"),
    ],
)
def test_lists_ids_and_colours_are_the_official_ones(name: str, table: str, shared_data: Path) -> None:
    with (shared_data / "classes" / f"{table}.csv").open() as file:
        rows = list(csv.DictReader(file))
    spec = load_spec(name)
    assert list(spec.classes) == [row["name"] for row in rows]
    assert list(spec.raw_ids) == [int(row["raw_id"]) for row in rows]
    assert list(spec.palette) == [(int(row["red"]), int(row["green"]), int(row["blue"])) for row in rows]


def test_coco_stuff_names_are_those_of_its_ids(shared_data: Path) -> None:
    lines = (shared_data / "cocostuff-labels.txt").read_text().splitlines()
    official = {int(number): name for number, name in (line.split(": ") for line in lines)}
    spec = load_spec("coco_stuff_10k")
    assert {raw: official[raw] for raw in spec.raw_ids} == dict(zip(spec.raw_ids, spec.classes, strict=True))
    assert set(range(1, 183)) - set(spec.raw_ids) == set(UNUSED_IN_COCO_STUFF)


def test_clothing_names_are_those_of_its_list(shared_data: Path) -> None:
    listed = loadmat(shared_data / "clothing" / "label_list.mat")["label_list"][0]
    assert list(load_spec("clothing").classes) == [str(name[0]) for name in listed]


def test_every_spec_in_the_documentation_is_one() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```yaml\n(?!# own\.yaml)(.*?)^```", page, re.MULTILINE | re.DOTALL)
    specs = [DatasetSpec.from_dict(yaml.safe_load(block), source="docs/data.md") for block in blocks]
    assert {type(spec.label_format).__name__ for spec in specs} == {
        "IndexLabels", "MatLabels", "ColorLabels", "CocoLabels", "LabelMeLabels",
    }  # fmt: skip
    for name in (file.stem for file in (Path(segvit.data.spec.__file__).parent / "specs").glob("*.yaml")):
        assert f"`{name}`" in page


# --- values ----------------------------------------------------------------------------------------------------------

MERGING = {
    "name": "merging",
    "classes": ["nothing", {"name": "vehicle", "raw": [7, 300, 9]}, {"name": "person", "raw": 4}],
    "ignore": [1, 2],
}


def test_several_values_become_one_class(tmp_path: Path) -> None:
    spec = DatasetSpec.from_dict(MERGING)
    assert (spec.raw_ids, spec.raw_values(1), spec.raw_values(2)) == ((0, 7, 4), (7, 300, 9), (4,))
    table = spec.lookup()
    assert [table[value] for value in (0, 7, 300, 9, 4, 1, 2, 5)] == [0, 1, 1, 1, 2, 255, 255, UNKNOWN]
    assert spec.unknown([0, 5, 9, 70_000]) == [5, 70_000]
    assert DatasetSpec.from_dict(spec.to_dict()) == spec
    plain = DatasetSpec.from_dict({"name": "plain", "classes": ["a", "b"]})
    assert plain.merged == () and [row["raw"] for row in plain.to_dict()["classes"]] == [0, 1]  # as older files have it


def test_the_spec_of_an_older_model_file_loads_as_before() -> None:
    older = {
        "name": "older",
        "classes": [{"name": "a", "raw": 3, "color": [1, 2, 3]}, {"name": "b", "raw": 1, "color": [4, 5, 6]}],
        "ignore": [255],
        "splits": {"train": {"images": "i", "labels": "l"}},
    }
    spec = DatasetSpec.from_dict(older)
    assert spec.raw_ids == (3, 1) and spec.merged == () and spec.others is None
    assert spec.to_dict() == older


@pytest.mark.parametrize("others, index", [("ignore", IGNORE_INDEX), ("person", 2)])
def test_all_other_values(others: str, index: int) -> None:
    spec = DatasetSpec.from_dict({**MERGING, "others": others})
    table = spec.lookup()
    assert table[5] == table[MAX_RAW] == spec.class_of(5) == index
    assert [table[value] for value in (0, 7, 300, 4, 1)] == [0, 1, 1, 2, 255]
    assert spec.unknown([5, 7, MAX_RAW]) == [] and spec.unknown([MAX_RAW + 1, -1]) == [MAX_RAW + 1, -1]
    assert DatasetSpec.from_dict(spec.to_dict()) == spec


@pytest.mark.parametrize(
    "change, parts",
    [
        ({"others": "persn"}, ("`others` names 'persn'", "did you mean 'person'", "or ignore")),
        ({"others": 3}, ("`others` is 3",)),
        ({"classes": ["a", {"name": "b", "raw": []}]}, ("entry 2", "`raw` is []", "a list of them")),
        ({"classes": ["a", {"name": "b", "raw": [1, "x"]}]}, ("entry 2", "[1, 'x']", "whole number")),
        ({"classes": ["a", {"name": "b", "raw": [3, 0]}]}, ("raw value 0", "more than once")),
        ({"classes": ["a", {"name": "b", "raw": [3, 3]}]}, ("raw value 3", "for one class only")),
        ({"classes": ["a", {"name": "b", "raw": [3, 2]}]}, ("raw value 2 is class 'b' and is ignored too",)),
        ({"val_fraction": 2.0}, ("`val_fraction` is 2.0", "between 0 and 1")),
        ({"splits": {"train": {"images": "a", "labels": "b", "labeled_only": 1}}}, ("`labeled_only` is 1", "true")),
        ({"labels": "pdf"}, ("format is 'pdf'", "index, mat, color, coco")),
        ({"labels": {"format": "matt", "key": "S"}}, ("'matt'", "did you mean 'mat'")),
        ({"labels": {"format": "mat"}}, ("labels", "key `key` is missing")),
        ({"labels": {"format": "mat", "kye": "S"}}, ("'kye'", "did you mean 'key'")),
        ({"labels": {"format": "index", "key": "S"}}, ("unknown key 'key'",)),
        ({"labels": {"format": "color"}}, ("entry 1", "`color` is missing")),
        ({"labels": {"format": "coco", "unlabeled": "a"}}, ("entry 1", "`raw` is missing", "id of the category")),
        ({"labels": {"format": "coco"}}, ("key `unlabeled` is missing",)),
        ({"labels": {"format": "coco", "unlabeled": "a", "crowd": "no"}}, ("`crowd` is 'no'", "class or ignore")),
    ],
)
def test_what_a_spec_may_not_say(change: dict[str, Any], parts: tuple[str, ...]) -> None:
    with pytest.raises(UserError) as caught:
        DatasetSpec.from_dict({**MERGING, **change}, source="mine.yaml")
    text = str(caught.value)
    assert text.startswith("mine.yaml: ")
    for part in parts:
        assert part in text


def test_the_check_counts_merged_and_other_values_with_their_class(tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        "name: m\nclasses: [sky, {name: vehicle, raw: [7, 9]}]\nignore: [1]\nothers: sky\n"
        "splits: {train: {images: i, labels: l}}\n"
    )
    for name, values in (("a", [[7, 9, 0, 50]]), ("b", [[9, 7, 9, 7]])):
        image(tmp_path / "i" / f"{name}.png", (1, 4))
        png(tmp_path / "l" / f"{name}.png", values)
    report = check_dataset(opened(spec, tmp_path))
    assert not report.errors and not report.unknown
    assert [(row.name, row.raw, row.share, row.images) for row in report.rows] == [
        ("sky", 0, 0.25, 1),
        ("vehicle", 7, 0.75, 2),
    ]
    assert len(report.uniform) == 1 and report.uniform[0].endswith("b.png")  # two values, but of one class


def test_predicted_raw_ids_are_the_first_of_each_class(tmp_path: Path) -> None:
    """Through a model file, in which the spec travels."""
    spec = DatasetSpec.from_dict(MERGING)
    config = ModelConfig(backbone="vit_tiny_patch16_224", image_size=32, embed_dim=32, depth=2, num_heads=2, taps=(1,))
    create_model(config=config, num_classes=3, spec=spec, protocol=EvalConfig(mode="whole")).save(
        tmp_path / "model.safetensors"
    )
    model = load_model(tmp_path / "model.safetensors")
    assert model.spec == spec
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)).save(tmp_path / "photo.png")
    shown = predict(model, tmp_path / "photo.png").labels
    done = predict_files(model, [tmp_path / "photo.png"], tmp_path / "seen", raw_ids=True)
    (written,) = done.written
    assert not done.failures and np.asarray(Image.open(written)).tolist() == np.array([0, 7, 4])[shown].tolist()


# --- the datasets as downloaded --------------------------------------------------------------------------------------


def coco_stuff(root: Path, name: str, values: npt.ArrayLike) -> Path:
    """A pair as in COCO-Stuff-10K v1.1: the matrix S among other variables."""
    labels = np.asarray(values, dtype=np.uint8)
    image(root / "images" / f"{name}.jpg", (labels.shape[0], labels.shape[1]))
    path = root / "annotations" / f"{name}.mat"
    path.parent.mkdir(exist_ok=True)
    content = {
        "S": labels,
        "names": np.array([["unlabeled"], ["person"]], dtype=object),
        "captions": np.array([["A photo."], ["Another."]], dtype=object),
        "regionMapStuff": np.arange(labels.size, dtype=np.uint16).reshape(labels.shape),
        "regionLabelsStuff": np.array([[0], [92]], dtype=np.uint8),
    }
    savemat(path, content, do_compression=True)
    return path


def test_coco_stuff_as_downloaded(tmp_path: Path) -> None:
    spec = load_spec("coco_stuff_10k")
    every = np.array([0, *spec.raw_ids]).reshape(4, 43)  # 0 and each of the 171 ids, once
    coco_stuff(tmp_path, "COCO_train2014_000000000077", every)
    coco_stuff(tmp_path, "COCO_train2014_000000000192", [[92, 0], [1, 182]])
    (tmp_path / "imageLists").mkdir()
    (tmp_path / "imageLists" / "train.txt").write_text("COCO_train2014_000000000077\n")
    (tmp_path / "imageLists" / "test.txt").write_text("COCO_train2014_000000000192\n")
    train, val = opened("coco_stuff_10k", tmp_path), opened("coco_stuff_10k", tmp_path, "val")
    assert names(train) == ["COCO_train2014_000000000077"] and names(val) == ["COCO_train2014_000000000192"]
    assert train.read(0).labels.flatten().tolist() == [255, *range(171)]
    assert val.read(0).labels.tolist() == [[80, 255], [0, 170]]
    assert [spec.classes[k] for k in (80, 0, 170)] == ["banner", "person", "wood"]
    assert not check_dataset(train, decode=True).errors


@pytest.mark.parametrize("value", [*UNUSED_IN_COCO_STUFF, 183, 255])
def test_an_id_that_never_occurs_in_coco_stuff_is_an_error(value: int, tmp_path: Path) -> None:
    path = coco_stuff(tmp_path, "COCO_train2014_000000000077", [[1, value]])
    (tmp_path / "imageLists").mkdir()
    (tmp_path / "imageLists" / "train.txt").write_text("COCO_train2014_000000000077\n")
    samples = opened("coco_stuff_10k", tmp_path)
    for act in (lambda: samples.read(0), check_dataset(samples).raise_on_error):
        with pytest.raises(UserError) as caught:
            act()
        assert str(path) in str(caught.value) and f"label value {value} is not a class" in str(caught.value)


CONTEXT_LISTED = {"train": "2008_000002\n2008_000003\n", "val": "2008_000004\n"}


def pascal_context(root: Path) -> npt.NDArray[np.uint16]:
    """VOC2010 with the PASCAL-Context labels in it; the raw values 0..459 that each of its label maps holds."""
    values = np.arange(460, dtype=np.uint16).reshape(20, 23)
    for name in ("2008_000002", "2008_000003", "2008_000004", "2008_000099"):
        image(root / "JPEGImages" / f"{name}.jpg", (20, 23))
        (root / "trainval").mkdir(exist_ok=True)
        savemat(root / "trainval" / f"{name}.mat", {"LabelMap": values}, do_compression=True)
    image(root / "JPEGImages" / "2010_000001.jpg", (20, 23))  # images of VOC without a label map
    (root / "ImageSets" / "Main").mkdir(parents=True)
    for split, text in CONTEXT_LISTED.items():
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text(text)
    return values


@pytest.mark.parametrize("count", [59, 60])
def test_pascal_context_as_downloaded(count: int, tmp_path: Path) -> None:
    values = pascal_context(tmp_path)
    train, val = (opened(f"pascal_context_{count}", tmp_path, split) for split in ("train", "val"))
    assert names(train) == ["2008_000002", "2008_000003"] and names(val) == ["2008_000004"]
    labels = train.read(0).labels.numpy()
    spec, rest = train.spec, 0 if count == 60 else 255
    expected = {raw: k for k, raw in enumerate(spec.raw_ids)}
    assert labels.tolist() == np.vectorize(lambda raw: expected.get(raw, rest))(values).tolist()
    assert labels[values == 255] == rest  # one of the 459 labels, and no mark of its own
    assert (labels == rest).sum() == 401 and len(set(labels.flat) - {255}) == count
    assert spec.classes[labels[values == 284].item()] == "person"
    assert not check_dataset(train, decode=True).errors


def test_pascal_context_refuses_what_is_no_label(tmp_path: Path) -> None:
    pascal_context(tmp_path)
    path = tmp_path / "trainval" / "2008_000003.mat"
    savemat(path, {"LabelMap": np.full((20, 23), 70_000, dtype=np.int32)})
    samples = opened("pascal_context_60", tmp_path)
    with pytest.raises(UserError, match="70000") as caught:
        samples.read(1)
    assert str(path) in str(caught.value)


def test_a_list_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "VOC2010"
    pascal_context(root)
    (tmp_path / "mine.txt").write_text("2008_000099.jpg\n")
    monkeypatch.chdir(tmp_path)  # a list in the settings is found from where one stands, as the root is
    mine = {"train_list": Path("mine.txt"), "val_list": tmp_path / "mine.txt"}
    assert names(opened("pascal_context_59", root, **mine)) == ["2008_000099"]
    assert names(opened("pascal_context_59", root, "val", **mine)) == ["2008_000099"]
    assert names(opened("pascal_context_59", root, "val", train_list=Path("mine.txt"))) == ["2008_000004"]
    (tmp_path / "mine.txt").write_text("2010_000001\n")
    with pytest.raises(UserError, match=r"names without a file among the label maps.*2010_000001.*mine\.txt"):
        opened("pascal_context_59", root, **mine)


def test_cityscapes_as_downloaded(tmp_path: Path) -> None:
    values = np.arange(34, dtype=np.uint8).reshape(2, 17)
    values[0, 0] = 255  # the licence plate, -1 in an unsigned file
    for split, city in (("train", "aachen"), ("train", "zurich"), ("val", "munster"), ("test", "berlin")):
        name = f"{city}_000000_000019"
        image(tmp_path / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png", (2, 17))
        for kind in ("labelIds", "instanceIds", "color"):
            png(tmp_path / "gtFine" / split / city / f"{name}_gtFine_{kind}.png", values)
        (tmp_path / "gtFine" / split / city / f"{name}_gtFine_polygons.json").write_text("{}")
    train, val = opened("cityscapes", tmp_path), opened("cityscapes", tmp_path, "val")
    assert names(train) == ["aachen/aachen_000000_000019", "zurich/zurich_000000_000019"]
    assert names(val) == ["munster/munster_000000_000019"]
    labels = train.read(0).labels
    expected = {raw: k for k, raw in enumerate(train.spec.raw_ids)}
    assert labels.flatten().tolist() == [expected.get(int(raw), 255) for raw in values.flat]
    assert (labels != 255).sum() == 19


def test_pascal_voc_as_downloaded(tmp_path: Path) -> None:
    for name in ("2007_000032", "2007_000033", "2007_000039"):
        image(tmp_path / "JPEGImages" / f"{name}.jpg", (2, 11))
    values = np.array([*range(21), 255]).reshape(2, 11)
    (tmp_path / "ImageSets" / "Segmentation").mkdir(parents=True)
    for split, name in (("train", "2007_000032"), ("val", "2007_000033")):
        png(tmp_path / "SegmentationClass" / f"{name}.png", values, palette=True)
        (tmp_path / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(name + "\n")
    train, val = opened("pascal_voc_2012", tmp_path), opened("pascal_voc_2012", tmp_path, "val")
    assert names(train) + names(val) == ["2007_000032", "2007_000033"]
    assert train.read(0).labels.tolist() == values.tolist()


def test_ade20k_sample(shared_data: Path) -> None:
    """The genuine files: values, names and sizes; what 0 hides is in the pictures, not in the labels."""
    root = shared_data / "ade20k-sample"
    with (root / "objectInfo150.csv").open() as file:
        rows = list(csv.DictReader(file))
    spec = load_spec("ade20k")
    assert [int(row["Idx"]) for row in rows] == list(spec.raw_ids)
    for name, row in zip(spec.classes, rows, strict=True):  # "chest;of;drawers;chest;...": names run into each other
        assert f" {name} " in f" {row['Name'].replace(';', ' ')} "
    seen: dict[str, tuple[tuple[int, ...], list[str], float]] = {}
    for split in ("train", "val"):
        samples = opened("ade20k", root / "ADEChallengeData2016", split)
        for index in range(len(samples)):
            labels, raw = samples.read(index).labels.numpy(), samples.read_raw(index)
            assert ((labels == 255) == (raw == 0)).all() and (labels[raw > 0] + 1 == raw[raw > 0]).all()
            top = np.bincount(labels[labels < 255], minlength=150).argsort()[::-1][:3]
            seen[samples.pairs[index].name] = (
                labels.shape,
                [spec.classes[k] for k in top],
                round((raw == 0).mean().item(), 3),
            )
    assert seen == ADE20K_SAMPLE


ADE20K_SAMPLE = {  # as the photos show: a hall, a house on a lawn, a church at dusk, a street
    "ADE_train_00000001": ((512, 683), ["ceiling", "wall", "floor"], 0.098),
    "ADE_val_00000001": ((512, 683), ["sky", "building", "grass"], 0.01),
    "ADE_val_00000002": ((364, 500), ["sky", "building", "tree"], 0.095),
    "ADE_val_00000003": ((300, 400), ["road", "sky", "sidewalk"], 0.017),
}
"""Size, the three largest classes, and the share of 0."""


# --- clothing: .mat through a user's YAML ----------------------------------------------------------------------------


def test_clothing_through_a_spec_of_ones_own(shared_data: Path, tmp_path: Path) -> None:
    """No code: a YAML file with the names, the key of the matrix and two folders."""
    listed = [str(name[0]) for name in loadmat(shared_data / "clothing" / "label_list.mat")["label_list"][0]]
    spec = tmp_path / "clothes.yaml"
    spec.write_text(
        "name: clothes\n"
        f"classes: {listed}\n"
        "labels: {format: mat, key: groundtruth}\n"
        "splits:\n  train: {images: photos, labels: annotations}\n"
        "val_fraction: 0.1\n"
    )
    train, val = (opened(spec, shared_data / "clothing", split) for split in ("train", "val"))
    assert (len(train), len(val)) == (180, 20) and not set(names(train)) & set(names(val))
    assert train.spec.classes[0] == "null" and train.spec.num_classes == 59
    heights = set()
    for index in range(0, 180, 12):
        picture, labels, name = train.read(index)
        raw = loadmat(shared_data / "clothing" / "annotations" / f"{name}.mat")["groundtruth"]
        assert picture.shape[1:] == labels.shape and labels.shape[0] > labels.shape[1]  # portrait
        assert (labels.numpy() == raw).all()
        heights.add(labels.shape[0])
    assert len(heights) > 3
    assert not check_dataset(val, decode=True).errors
    assert {"coat", "hat", "skin"} <= {val.spec.classes[k] for k in np.unique(val.read(0).labels)}
    assert colorize(val.read(0).labels.numpy(), val.spec.palette).shape[2] == 3


def test_clothing_as_shipped_reads_the_repository_and_a_flat_copy(shared_data: Path, tmp_path: Path) -> None:
    flat = shared_data / "clothing"
    (tmp_path / "annotations" / "image-level").mkdir(parents=True)
    (tmp_path / "annotations" / "pixel-level").symlink_to(flat / "annotations")
    (tmp_path / "photos").mkdir()
    for path in (flat / "photos").iterdir():
        (tmp_path / "photos" / path.name).symlink_to(path)
    image(tmp_path / "photos" / "1005.jpg", (4, 3))  # a photo with tags, but no label map
    savemat(tmp_path / "annotations" / "image-level" / "1005.mat", {"tags": np.array([[3, 17]])})
    for split in ("train", "val"):
        assert names(opened("clothing", tmp_path, split)) == names(opened("clothing", flat, split))
    assert (opened("clothing", tmp_path).read(5).labels == opened("clothing", flat).read(5).labels).all()


# --- train and validation --------------------------------------------------------------------------------------------

ONE_SPLIT = "name: one\nclasses: [a, b]\nsplits: {train: {images: i, labels: l}}\n"


@pytest.fixture
def one_split(tmp_path: Path) -> Path:
    """A dataset of 20 pairs without a split to validate on."""
    for index in range(20):
        image(tmp_path / "i" / f"{index:02}.jpg", (1, 2))
        png(tmp_path / "l" / f"{index:02}.png", [[0, 1]])
    (tmp_path / "spec.yaml").write_text(ONE_SPLIT)
    return tmp_path


def test_a_share_for_validation_in_a_spec(one_split: Path) -> None:
    every = [f"{index:02}" for index in range(20)]
    spec = one_split / "spec.yaml"
    assert names(opened(spec, one_split)) == every  # nothing is kept that nobody asked for
    with pytest.raises(UserError, match=r"no split 'val', only train.*data\.val_fraction"):
        opened(spec, one_split, "val")
    shares = {}
    for fraction in (0.25, 0.1):
        train, val = (names(opened(spec, one_split, split, val_fraction=fraction)) for split in ("train", "val"))
        assert sorted(train + val) == every and len(val) == 20 * fraction
        shares[fraction] = val
    assert set(shares[0.1]) < set(shares[0.25])
    folders = DataConfig(images=one_split / "i", labels=one_split / "l", classes=("a", "b"))
    unnamed = open_dataset(folders, "val")
    assert isinstance(unnamed, SegmentationDataset) and names(unnamed) == shares[0.1]  # the same rule, the same pairs
    spec.write_text(ONE_SPLIT + "val_fraction: 0.25\n")
    assert names(opened(spec, one_split, "val")) == shares[0.25]
    assert names(opened(spec, one_split, "val", val_fraction=0.1)) == shares[0.1]  # the setting goes before the spec
    assert names(opened(spec, one_split, val_fraction=0.0)) == every
    with pytest.raises(UserError, match=r"nothing to validate on.*add a validation split"):
        opened(spec, one_split, "val", val_fraction=0.0)


def test_a_share_beside_a_split_is_a_contradiction(one_split: Path) -> None:
    spec = one_split / "spec.yaml"
    spec.write_text(ONE_SPLIT.replace("{train", "{val: {images: i, labels: l}, train"))
    assert len(opened(spec, one_split, "val")) == 20
    with pytest.raises(UserError, match=r"data\.val_fraction is 0\.1, but the spec has a validation split 'val'"):
        opened(spec, one_split, val_fraction=0.1)


def test_lists_divide_one_split(one_split: Path) -> None:
    train, val = one_split / "train.txt", one_split / "val.txt"
    train.write_text("00\n07\n03.jpg\n")
    val.write_text("11\n")
    spec, lists = one_split / "spec.yaml", {"train_list": train, "val_list": val}
    assert names(opened(spec, one_split, **lists)) == ["00", "07", "03"]
    assert names(opened(spec, one_split, "val", **lists)) == ["11"]
    with pytest.raises(UserError, match=r"give data\.train_list as well"):
        opened(spec, one_split, val_list=val)
    folders = DataConfig(images=one_split / "i", labels=one_split / "l", classes=("a", "b"), **lists)
    assert len(open_dataset(folders, "train")) == 3 and len(open_dataset(folders, "val")) == 1
    assert len(opened(spec, one_split, train_list=train, val_fraction=0.3)) == 2  # a share of the list


def test_images_without_labels_are_left_out_where_the_spec_says_so(one_split: Path) -> None:
    spec = one_split / "spec.yaml"
    image(one_split / "i" / "extra.jpg", (1, 2))
    with pytest.raises(UserError, match=r"images without a label map.*extra.*labeled_only: true"):
        opened(spec, one_split)
    spec.write_text(ONE_SPLIT.replace("labels: l", "labels: l, labeled_only: true"))
    assert len(opened(spec, one_split)) == 20
    (one_split / "i" / "00.jpg").unlink()
    with pytest.raises(UserError, match="label maps without an image"):
        opened(spec, one_split)


def test_braces_choose_folders(one_split: Path) -> None:
    spec = one_split / "spec.yaml"
    (one_split / "l" / "deep").mkdir()
    for index in range(10):
        (one_split / "l" / f"{index:02}.png").rename(one_split / "l" / "deep" / f"{index:02}.png")
    (one_split / "l" / "other").mkdir()
    png(one_split / "l" / "other" / "00.png", [[9, 9]])
    spec.write_text(ONE_SPLIT.replace("labels: l", 'labels: "l/{deep/,}*.png"'))
    samples = opened(spec, one_split)
    assert names(samples) == [f"{index:02}" for index in range(20)]
    assert samples.pairs[0].labels.parent.name == "deep" and samples.pairs[19].labels.parent.name == "l"
    (one_split / "i").rename(one_split / "{i}")  # braces without a choice are meant literally
    spec.write_text(ONE_SPLIT.replace("images: i", 'images: "{i}"').replace("labels: l", 'labels: "l/{deep/,}*.png"'))
    assert len(opened(spec, one_split)) == 20

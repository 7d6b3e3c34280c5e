"""Hugging Face datasets: saved folders, parquet files and a stand-in for the Hub, columns, splits and class names."""

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from segvit.config import DataConfig
from segvit.data.check.class_names import name_classes
from segvit.data.dataset import SegmentationDataset, open_dataset
from segvit.data.packed import hub_source
from segvit.errors import UserError
from tests.helpers.packed import as_dataset, encoded, made_files, write_folders

datasets = pytest.importorskip("datasets")
CLASSES = ("a", "b", "c")


@pytest.fixture(autouse=True)
def quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A cache of the test's own, and no progress bars."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def config_of(folder: object, **settings: Any) -> DataConfig:
    return DataConfig(hub=str(folder), **{"classes": CLASSES, "val_fraction": 0.0, **settings})


def saved(tmp_path: Path, rows: Any) -> Path:
    rows.save_to_disk(tmp_path / "saved")
    return tmp_path / "saved"


def refused(folder: object, *texts: str, split: Any = "train", **settings: Any) -> None:
    """Opening the dataset is an error with these texts."""
    with pytest.raises(UserError) as caught:
        open_dataset(config_of(folder, **settings), split)
    for text in texts:
        assert text in str(caught.value), str(caught.value)


def parquet(tmp_path: Path, **splits: Any) -> Path:
    """A folder of parquet files, as repositories of the Hub have them."""
    folder = tmp_path / "repository" / "data"
    folder.mkdir(parents=True)
    for name, rows in splits.items():
        rows.to_parquet(folder / f"{name}-00000-of-00001.parquet")
    return folder.parent


@pytest.mark.parametrize("form", ["saved", "parquet", "bytes"])
def test_each_form_gives_the_samples_of_two_folders(tmp_path: Path, form: str) -> None:
    files = made_files(7)
    folders = open_dataset(
        DataConfig(**write_folders(tmp_path / "two", files), classes=CLASSES, val_fraction=0), "train"
    )
    rows = as_dataset(files, feature=form != "bytes")
    folder = parquet(tmp_path, train=rows) if form == "parquet" else saved(tmp_path, rows)
    samples = open_dataset(config_of(folder), "train")
    copied = pickle.loads(pickle.dumps(samples))
    assert len(samples) == len(folders) == 7
    for index in range(7):
        ours, theirs, copy = samples.read(index), folders.read(index), copied.read(index)
        assert torch.equal(ours.image, theirs.image)
        assert torch.equal(ours.labels, theirs.labels)
        assert torch.equal(ours.image, copy.image)
        assert ours.name == f"train/{index}"


def test_sizes_are_those_of_the_files(tmp_path: Path) -> None:
    files = made_files(5)
    for folder, rows in (("whole", as_dataset(files)), ("chosen", as_dataset(files).select([3, 1, 2]))):
        samples = open_dataset(config_of(saved(tmp_path / folder, rows)), "train")
        assert isinstance(samples, SegmentationDataset)
        order = range(5) if folder == "whole" else (3, 1, 2)
        assert [pair.image.stat().st_size for pair in samples.pairs] == [len(files[number][0]) for number in order]
        assert [pair.labels.stat().st_size for pair in samples.pairs] == [len(files[number][1]) for number in order]
        assert [samples.read(place).image.sum() for place in range(len(samples))]


def test_splits_are_found_by_their_usual_names(tmp_path: Path) -> None:
    files = made_files(6)
    rows = as_dataset(files)
    parts = {"train": rows.select(range(3)), "validation": rows.select(range(3, 5)), "test": rows.select([5])}
    folder = saved(tmp_path, datasets.DatasetDict(parts))
    lengths = {
        (None, "train", "val"): (3, 2),
        (None, "train", "test"): (3, 1),
        (None, "validation", "val"): (2, 1),
        (0.34, "train", "val"): (2, 1),
    }
    for (fraction, train, val), expected in lengths.items():
        config = config_of(folder, val_fraction=fraction, train_split=train, val_split=val)
        assert (len(open_dataset(config, "train")), len(open_dataset(config, "val"))) == expected
    refused(
        folder,
        "has no split 'dev', only test, train, validation",
        "--data.val-split",
        val_split="dev",
        val_fraction=None,
    )
    refused(folder, "has no split 'x'", "--data.train-split", train_split="x")
    refused(folder, "drop one of them", val_split="test", val_fraction=0.5)


def test_a_dataset_without_splits_is_divided_by_a_hash(tmp_path: Path) -> None:
    folder = saved(tmp_path, as_dataset(made_files(20)))
    config = config_of(folder, val_fraction=None)
    names = [{open_dataset(config, split).read(i).name for i in range(n)} for split, n in (("train", 18), ("val", 2))]
    assert len(names[0] | names[1]) == 20
    assert not names[0] & names[1]


@pytest.mark.parametrize(
    "names", [("image", "annotation"), ("pixel_values", "label"), ("img", "mask"), ("image", "segmentation_mask")]
)
def test_usual_columns_are_recognised(tmp_path: Path, names: tuple[str, str]) -> None:
    folder = saved(tmp_path, as_dataset(made_files(2), names=names))
    named = name_classes(config_of(folder))
    assert (named.config.image_key, named.config.labels_key) == names
    assert named.text == f"{folder}: images in {names[0]!r}, labels in {names[1]!r}"


def test_unclear_columns_are_listed(tmp_path: Path) -> None:
    rows = as_dataset(made_files(2), names=("scan", "label"))
    folder = saved(tmp_path / "a", rows)
    listed = "scan (Image), label (Image), number (int64)"
    refused(folder, listed, "none looks like the images", "--data.image-key")
    assert len(open_dataset(config_of(folder, image_key="scan"), "train")) == 2
    refused(folder, "data.image_key is 'scann'", "did you mean 'scan'", image_key="scann")
    refused(folder, "data.labels_key is 'number', which cannot hold label maps", image_key="scan", labels_key="number")
    refused(folder, "name two different parts", image_key="label", labels_key="label")
    rows = rows.add_column("mask", [MASK, MASK])
    refused(saved(tmp_path / "b", rows), "label and mask may be the label maps", image_key="scan")


MASK = made_files(2)[1][1]


def test_a_number_called_label_is_no_label_map(tmp_path: Path) -> None:
    rows = as_dataset(made_files(2), names=("image", "annotation")).rename_column("number", "label")
    assert name_classes(config_of(saved(tmp_path, rows))).config.labels_key == "annotation"


def test_empty_and_broken_cells_name_their_row(tmp_path: Path) -> None:
    photo, mask = made_files(2)[1]
    small = encoded(np.zeros((5, 7), np.uint8), "PNG")
    files = [(photo, mask), (photo[:300], mask), (photo, small)]
    samples = open_dataset(config_of(saved(tmp_path, as_dataset(files))), "train")
    with pytest.raises(UserError, match=r"saved, split train, row 1: image: cannot be read as an image"):
        samples.read(1)
    with pytest.raises(UserError, match=r"row 2: image is 36 x 24 pixels .*row 2: label is 7 x 5"):
        samples.read(2)


def test_cells_that_are_empty_or_name_a_file(tmp_path: Path) -> None:
    photo, mask = made_files(2)[1]
    (tmp_path / "photo.jpg").write_bytes(photo)
    named = {"bytes": None, "path": str(tmp_path / "photo.jpg")}
    rows = {"image": [None, named], "label": [None, {"bytes": mask, "path": None}], "number": [0, 1]}
    table = datasets.Dataset.from_dict(rows, features=as_dataset([(photo, mask)]).features)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("segvit.data.packed.packed.open_tables", lambda _: {"train": table})
        samples = open_dataset(config_of("user/set"), "train")
    assert isinstance(samples, SegmentationDataset)
    assert [pair.labels.stat().st_size for pair in samples.pairs] == [0, len(mask)]
    assert samples.read(1).image.shape == (3, 24, 36)
    with pytest.raises(UserError, match=r"row 0: column 'image' is empty"):
        samples.read(0)
    (tmp_path / "photo.jpg").unlink()
    with pytest.raises(UserError, match=r"row 1: column 'image' names the file .*photo\.jpg, which cannot be read"):
        samples.read(1)


def test_painted_masks_by_the_classes(tmp_path: Path) -> None:
    photo, _ = made_files(2)[1]
    painted = np.zeros((24, 36, 3), np.uint8)
    painted[:, 9:] = (135, 206, 235)
    folder = saved(tmp_path, as_dataset([(photo, encoded(painted, "PNG"))]))
    samples = open_dataset(config_of(folder, classes=("ground=#000000", "sky=#87ceeb")), "train")
    assert torch.equal(samples.read(0).labels[0], torch.tensor([0] * 9 + [1] * 27))


def test_a_spec_names_classes_and_values(tmp_path: Path) -> None:
    folder = saved(tmp_path, as_dataset(made_files(3)))
    (tmp_path / "own.yaml").write_text(
        "name: own\nclasses:\n- {name: thing, raw: [1, 2]}\nignore: [0, 255]\nval_fraction: 0.34\n"
    )
    config = config_of(folder, classes=(), spec=str(tmp_path / "own.yaml"), val_fraction=None)
    assert set(open_dataset(config, "train").read(0).labels.unique().tolist()) == {0, 255}
    assert [len(open_dataset(config, split)) for split in ("train", "val")] == [2, 1]
    (tmp_path / "own.yaml").write_text(
        "name: own\nclasses:\n- {name: thing, raw: 1}\nlabels: {format: coco, unlabeled: ignore}\n"
    )
    refused(folder, "'coco' are one file for all images", classes=(), spec=str(tmp_path / "own.yaml"))


def test_class_names_come_from_the_dataset(tmp_path: Path) -> None:
    rows = as_dataset(made_files(3)).remove_columns("number")
    kinds = datasets.Sequence(datasets.ClassLabel(names=["sky", "road", "car"]))
    with_names = rows.add_column("classes", [[0], [1], [2]]).cast_column("classes", kinds)
    scenes = rows.add_column("scene", [0, 0, 1]).cast_column("scene", datasets.ClassLabel(names=["beach", "city"]))
    named = name_classes(config_of(saved(tmp_path / "a", with_names), classes=()))
    assert named.config.classes == ("sky=0", "road=1", "car=2")
    assert "class names from" in named.text
    assert "ClassLabel of the column 'classes': sky=0, road=1, car=2" in named.text
    folder = saved(tmp_path / "b", scenes)
    named = name_classes(config_of(folder, classes=()))
    assert named.config.classes == ("value_0=0", "value_1=1", "value_2=2"), "scenes are no classes of pixels"
    (folder / "id2label.json").write_text(json.dumps({"0": "sky", "1": "road", "2": "car", "3": "tree"}))
    assert name_classes(config_of(folder, classes=())).config.classes == ("sky=0", "road=1", "car=2", "tree=3")


def test_folders_that_are_no_dataset_are_refused(tmp_path: Path) -> None:
    refused(tmp_path / "none", "there is no folder", "save_to_disk")
    refused(Path("none here"), "there is no folder none here")
    (tmp_path / "file").write_text("x")
    refused(tmp_path / "file", "is a file; give the folder")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "cannot be opened")
    (tmp_path / "table").mkdir()
    (tmp_path / "table" / "train.csv").write_text("image,label\n1,2\n")
    refused(tmp_path / "table", "has files of the kind csv, not parquet, arrow, imagefolder", "save it as parquet")
    folder = saved(tmp_path, as_dataset(made_files(1)))
    refused(folder, "leave it out", hub_subset="small")
    (folder / "state.json").write_text("{")
    refused(folder, "saved cannot be opened", "save it again")


def test_no_code_of_a_dataset_is_run(tmp_path: Path) -> None:
    script = f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\n"
    folder = parquet(tmp_path, train=as_dataset(made_files(2)))
    (folder / f"{folder.name}.py").write_text(script)
    try:
        open_dataset(config_of(folder), "train")
    except UserError as error:
        assert "repository" in str(error)  # noqa: PT017  # either way, nothing has run
    assert not (tmp_path / "ran").exists()
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "train.pkl").write_bytes(pickle.dumps({"image": [1]}))
    refused(tmp_path / "pickled", "cannot be opened")


def test_a_repository_is_loaded_by_name_subset_and_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A local folder is the stand-in for the repository."""
    folder = parquet(tmp_path, train=as_dataset(made_files(3)), validation=as_dataset(made_files(2)))
    asked = []
    load = datasets.load_dataset_builder

    def load_builder(path: str, name: str | None = None, revision: str | None = None) -> Any:
        asked.append((path, name, revision))
        return load(str(folder))

    monkeypatch.setattr(datasets, "load_dataset_builder", load_builder)
    config = config_of("user/streets@v2", hub_subset="small", val_fraction=None)
    assert [len(open_dataset(config, split)) for split in ("train", "val")] == [3, 2]
    assert asked == [("user/streets", "small", "v2")] * 2
    assert open_dataset(config, "val").describe(0) == (
        "user/streets@v2, split validation, row 0: image with user/streets@v2, split validation, row 0: label"
    )

    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("no route\nto the Hub")

    monkeypatch.setattr(datasets, "load_dataset_builder", fail)
    refused("user/streets", "user/streets cannot be opened (no route to the Hub)", "check the name, the network")


def test_a_folder_of_images_with_their_masks_in_the_metadata(tmp_path: Path) -> None:
    files = made_files(3)
    places = write_folders(tmp_path / "set", files)
    lines = [{"file_name": f"photos/{n:02d}.jpg", "mask_file_name": f"masks/{n:02d}.png"} for n in range(3)]
    (tmp_path / "set" / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    samples = open_dataset(config_of(tmp_path / "set"), "train")
    folders = open_dataset(DataConfig(**places, classes=CLASSES, val_fraction=0), "train")
    assert isinstance(samples, SegmentationDataset)
    assert torch.equal(samples.read(2).labels, folders.read(2).labels)
    assert samples.pairs[2].labels.stat().st_size == len(files[2][1])


def test_several_subsets_are_listed(tmp_path: Path) -> None:
    rows = as_dataset(made_files(2))
    for name in ("small", "large"):
        (tmp_path / "set" / name).mkdir(parents=True)
        rows.to_parquet(tmp_path / "set" / name / "train.parquet")
    header = "configs:\n" + "".join(
        f"- config_name: {name}\n  data_files: {name}/*.parquet\n" for name in ("small", "large")
    )
    (tmp_path / "set" / "README.md").write_text(f"---\n{header}---\n")
    refused(tmp_path / "set", "small", "large", "choose one with --data.hub-subset")
    assert len(open_dataset(config_of(tmp_path / "set", hub_subset="large"), "train")) == 2


def test_without_the_library_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr("segvit.utils.optional.import_module", absent)
    (tmp_path / "set").mkdir()
    refused(tmp_path / "set", "Hugging Face datasets need datasets", "pip install 'segvit[hub]'")


def test_a_file_of_the_hub_that_is_absent_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    def absent(*_: object, **__: object) -> str:
        raise EntryNotFoundError("404")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", absent)
    assert hub_source.fetch_text("user/streets", "id2label.json") is None

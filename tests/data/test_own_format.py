"""A label format of one's own: handed in, or named in a spec, and in the files of models."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

import segvit
from segvit.config import DataConfig, ModelConfig
from segvit.data.check.check import check_dataset
from segvit.data.dataset import SegmentationDataset, open_dataset
from segvit.data.images import Unreadable
from segvit.data.labels.format import Classes, LabelFormat
from segvit.data.labels.known_formats import FORMATS
from segvit.data.labels.memory import LabelMemory
from segvit.data.pairs import Pair
from segvit.data.spec import DatasetSpec, load_spec
from segvit.data.yaml_values import check_keys, read_text
from segvit.errors import UserError


@dataclass(frozen=True, kw_only=True)
class ArrayLabels(LabelFormat):
    """NumPy files."""

    name: ClassVar[str] = "npz"
    suffixes: ClassVar[tuple[str, ...]] = (".npz",)
    slow_to_decode: ClassVar[bool] = True
    class_keys: ClassVar[dict[str, str]] = {"raw": "arrays hold ids"}

    key: str = "labels"

    @classmethod
    def parse(cls, options: Mapping[str, Any], where: str) -> Self:
        check_keys(options, {"key": False}, where)
        return cls(key=read_text(options.get("key", "labels"), "key", where))

    def check(self, classes: Classes, where: str) -> None:
        if "void" in classes.classes:
            raise UserError(f"{where}: arrays have no class 'void'; take it out")

    def read(self, pair: Pair, classes: Classes, memory: LabelMemory) -> npt.NDArray[Any]:
        def decode() -> npt.NDArray[Any]:
            try:
                with np.load(pair.labels) as content:
                    return np.asarray(content[self.key])
            except (OSError, ValueError, KeyError) as error:
                raise Unreadable(f"{pair.labels}: no array {self.key!r} ({error}); save it again") from error

        return memory.decoded(pair.labels, decode, settings=f"npz {self.key}")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("photos", "arrays"):
        (tmp_path / name).mkdir()
    for index, name in enumerate(("a", "b.1", "c")):
        Image.new("RGB", (6, 4), (index, 0, 0)).save(tmp_path / "photos" / f"{name}.png")
        np.savez(tmp_path / "arrays" / f"{name}.npz", labels=np.full((4, 6), index, np.uint8), other=np.zeros((4, 6)))
    (tmp_path / "val.txt").write_text("b.1.npz\n")
    (tmp_path / "train.txt").write_text("a\nc.png\n")
    (tmp_path / "own.yaml").write_text(
        "name: own\nclasses: [{name: x, raw: 0}, {name: y, raw: 1}, {name: z, raw: 2}]\nlabels: {format: npz}\n"
        "splits:\n  train: {images: photos, labels: arrays, list: train.txt}\n"
        "  val: {images: photos, labels: arrays, list: val.txt}\n"
    )
    return tmp_path


def folders(root: Path) -> DataConfig:
    return DataConfig(images=root / "photos", labels=root / "arrays", classes=("x", "y", "z"))


def test_a_format_that_is_handed_in_reads_two_folders(root: Path) -> None:
    samples = open_dataset(folders(root), "train", labels=ArrayLabels())
    assert isinstance(samples, SegmentationDataset) and len(samples) == 2
    assert [sample.name for sample in samples] == [pair.name for pair in samples.pairs]
    both = [*samples, *open_dataset(folders(root), "val", labels=ArrayLabels())]  # type: ignore[call-overload]
    assert {sample.name: sample.labels.unique().tolist() for sample in both} == {"a": [0], "b.1": [1], "c": [2]}
    assert check_dataset(samples).errors == ()
    with pytest.raises(UserError, match=r"no file of type \.png"):
        open_dataset(folders(root), "train")


def test_its_options_files_and_errors(root: Path, tmp_path: Path) -> None:
    config = DataConfig(**vars(folders(root)) | {"cache": tmp_path / "kept"})
    open_dataset(config, "train", labels=ArrayLabels()).read(0)
    assert len(list((tmp_path / "kept").rglob("*.png"))) == 1
    report = check_dataset(open_dataset(folders(root), "train", labels=ArrayLabels(key="none")))
    assert len(report.unreadable) == 2 and "no array 'none'" in report.unreadable[0]
    (root / "photos" / "d.png").write_bytes((root / "photos" / "c.png").read_bytes())
    with pytest.raises(UserError, match=r"images without a label map in .*arrays: 1 \(d\)"):
        open_dataset(folders(root), "train", labels=ArrayLabels())
    with pytest.raises(UserError, match="no class 'void'"):
        open_dataset(DataConfig(**vars(folders(root)) | {"classes": ("void",)}), "train", labels=ArrayLabels())


def test_its_files_are_read_by_worker_processes(root: Path) -> None:
    samples = open_dataset(folders(root), "train", labels=ArrayLabels())
    assert isinstance(samples, SegmentationDataset)
    loader = DataLoader(samples, batch_size=None, num_workers=1, multiprocessing_context="fork")
    assert [sample.name for sample in loader] == [pair.name for pair in samples.pairs]


def test_a_format_that_is_registered_has_a_name_in_yaml(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"format is 'npz'; give .* with index, mat, color, coco"):
        load_spec(root / "own.yaml")
    monkeypatch.setitem(FORMATS, "npz", ArrayLabels)
    config = DataConfig(spec=str(root / "own.yaml"), root=root)
    train, val = (open_dataset(config, split) for split in ("train", "val"))
    assert [train.read(index).name for index in range(len(train))] == ["a", "c"]
    assert val.read(0).labels.unique().tolist() == [1]
    spec = load_spec(root / "own.yaml")
    assert DatasetSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    text = (root / "own.yaml").read_text()
    for old, new, part in [
        ("npz}", "npz, kay: s}", "did you mean 'key'"),
        ("npz}", "npz, key: 3}", "`key` is 3"),
        ("{name: x, raw: 0}", "x", "`raw` is missing; arrays hold ids"),
    ]:
        (root / "own.yaml").write_text(text.replace(old, new))
        with pytest.raises(UserError, match=part):
            load_spec(root / "own.yaml")


def test_a_model_keeps_the_classes_of_a_format_that_it_cannot_read(root: Path, tmp_path: Path) -> None:
    spec = open_dataset(folders(root), "train", labels=ArrayLabels(key="other")).spec
    network = ModelConfig(
        backbone="vit_tiny_patch16_224", patch_size=8, embed_dim=32, depth=3, image_size=32, pretrained=False
    )
    torch.manual_seed(0)
    segvit.create_model(config=network, num_classes=3, spec=spec).save(tmp_path / "model.safetensors")
    loaded = segvit.load_model(tmp_path / "model.safetensors").spec
    assert loaded is not None and loaded.classes == spec.classes
    folders_named = {"splits": {"train": {"images": "photos", "labels": "arrays"}}}  # no folder of this machine
    assert loaded.to_dict() == spec.to_dict() | folders_named
    with pytest.raises(UserError, match=r"format 'npz', which was handed in .* labels="):
        SegmentationDataset(loaded, [Pair("a", root / "photos/a.png", root / "arrays/a.npz")]).read(0)

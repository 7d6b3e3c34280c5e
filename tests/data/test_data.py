"""Datasets: what specs say, what files of every kind become, who sees which sample when, and what the check reports."""

import csv
import shutil
import struct
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import tv_tensors

from segvit.config import AugmentConfig, DataConfig
from segvit.data.augment.transform import TrainTransform
from segvit.data.check.check import CheckReport, check_dataset
from segvit.data.dataset import (
    IGNORE_INDEX,
    SegmentationDataset,
    open_dataset,
)
from segvit.data.folder_spec import folder_spec
from segvit.data.images import as_rgb, read_image, read_size
from segvit.data.labels.index import read_labels
from segvit.data.palette import default_palette
from segvit.data.sampling.crops import TrainingSamples
from segvit.data.sampling.order import EndlessBatches
from segvit.data.shapes.scenes import ShapesDataset, write_shapes
from segvit.data.spec import UNKNOWN, DatasetSpec, load_spec
from segvit.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def save(folder: Path, name: str, values: Any, **options: Any) -> Path:
    """An array or a PIL image as a file."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = values if isinstance(values, Image.Image) else Image.fromarray(np.asarray(values))
    picture.save(path, **options)
    return path


def cut_short(path: Path) -> Path:
    """The file without its second half, as after a broken download: the header is whole."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def write_pairs(root: Path, labels: dict[str, Any], images: str = "photos", masks: str = "masks") -> DataConfig:
    """Two folders with a random photo for each label map."""
    for name, values in labels.items():
        values = np.asarray(values, dtype=np.uint8)
        noise = np.random.default_rng(len(name)).integers(0, 256, (*values.shape, 3), dtype=np.uint8)
        save(root / images, f"{name}.jpg", noise)
        save(root / masks, f"{name}.png", values)
    return DataConfig(images=root / images, labels=root / masks, classes=("sky", "road", "car"))


def dataset(config: DataConfig, split: Any = "train") -> SegmentationDataset:
    samples = open_dataset(config, split)
    assert isinstance(samples, SegmentationDataset)
    return samples


# --- specs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, count, ignore", [("camvid", 11, (11,)), ("ade20k", 150, (0,)), ("shapes", 8, (255,))])
def test_shipped_specs(name: str, count: int, ignore: tuple[int, ...]) -> None:
    spec = load_spec(name)
    assert spec.name == name and spec.num_classes == count and spec.ignore == ignore
    assert {"train", "val"} <= set(spec.splits)
    assert len(set(spec.classes)) == count and len(set(spec.palette)) >= count - 1  # ADE20K has one colour twice
    table = spec.lookup()
    for index, raw in enumerate(spec.raw_ids):
        assert table[raw] == index
    assert (table[list(ignore)] == IGNORE_INDEX).all()
    assert (table != UNKNOWN).sum() == count + len(ignore)
    assert DatasetSpec.from_dict(spec.to_dict()) == spec


def test_ade20k_is_the_official_list(shared_data: Path) -> None:
    with (shared_data / "classes" / "ade20k.csv").open() as file:
        rows = list(csv.DictReader(file))
    spec = load_spec("ade20k")
    assert list(spec.classes) == [row["name"] for row in rows]
    assert list(spec.raw_ids) == [int(row["raw_id"]) for row in rows]
    assert list(spec.palette) == [(int(row["red"]), int(row["green"]), int(row["blue"])) for row in rows]


def test_a_spec_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "street.yaml"
    path.write_text(
        "name: street\n"
        "classes: [road, {name: car, raw: 700, color: [64, 0, 128]}]\n"
        "ignore: [3, 9]\n"
        "splits:\n  train: {images: im/*_photo.jpg, labels: im/*_mask.png, list: names.txt}\n"
    )
    labels = np.array([[0, 700], [3, 9]], dtype=np.uint16)
    for name in ("a", "b", "c"):
        save(tmp_path / "im", f"{name}_photo.jpg", np.zeros((2, 2, 3), np.uint8))
        save(tmp_path / "im", f"{name}_mask.png", labels)
    (tmp_path / "names.txt").write_text("c\n\na\n")
    samples = dataset(DataConfig(spec=str(path), root=tmp_path))
    assert [samples.read(index).name for index in range(len(samples))] == ["c", "a"]
    assert samples.read(0).labels.tolist() == [[0, 1], [255, 255]]
    assert samples.spec.palette[1] == (64, 0, 128)


def test_default_colours_are_distinct_and_do_not_move() -> None:
    palette = default_palette(255)
    assert len(set(palette)) == 255 and palette[:7] == default_palette(7)
    few = np.array(default_palette(20), dtype=float)
    gaps = np.linalg.norm(few[:, None] - few, axis=-1) + np.eye(20) * 999
    assert gaps.min() > 40


# --- genuine files ---------------------------------------------------------------------------------------------------


def test_camvid_as_downloaded(shared_data: Path) -> None:
    config = DataConfig(spec="camvid", root=shared_data / "camvid")
    train, val = dataset(config), dataset(config, "val")
    assert (len(train), len(val)) == (367, 101)
    assert not {pair.name for pair in train.pairs} & {pair.name for pair in val.pairs}
    for index in (0, 50, 100):
        image, labels, name = val.read(index)
        raw = np.asarray(Image.open(shared_data / "camvid" / "annotations" / "val" / f"{name}.png"))
        photo = np.asarray(Image.open(shared_data / "camvid" / "images" / "val" / f"{name}.jpg"))
        assert isinstance(image, tv_tensors.Image) and isinstance(labels, tv_tensors.Mask)
        assert image.shape == (3, 360, 480) and image.dtype == torch.uint8 and labels.dtype == torch.int64
        assert (image.permute(1, 2, 0).numpy() == photo).all()
        assert (labels.numpy() == np.where(raw == 11, 255, raw)).all()
        assert str(val.pairs[index].image) in val.describe(index)


def test_ade20k_as_downloaded(shared_data: Path) -> None:
    root = shared_data / "ade20k-sample" / "ADEChallengeData2016"
    config = DataConfig(spec="ade20k", root=root)
    train, val = dataset(config), dataset(config, "val")
    assert (len(train), len(val)) == (1, 3)
    sizes = set()
    for split, samples in (("training", train), ("validation", val)):
        for index in range(len(samples)):
            image, labels, name = samples.read(index)
            raw = np.asarray(Image.open(root / "annotations" / split / f"{name}.png"))
            assert image.shape[1:] == labels.shape == raw.shape
            assert set(np.unique(raw)) >= {0, 1}  # as downloaded 0 is "other", 1 the first class
            assert (labels.numpy()[raw == 0] == 255).all()
            assert (labels.numpy()[raw > 0] == raw[raw > 0] - 1).all()
            sizes.add(tuple(labels.shape))
    assert sizes == {(512, 683), (364, 500), (300, 400)}
    seen = {samples.spec.classes[k] for samples in (val,) for k in np.unique(val.read(0).labels) if k != 255}
    assert {"wall", "building", "sky"} <= seen


# --- two folders -----------------------------------------------------------------------------------------------------


def test_two_folders_with_values(tmp_path: Path) -> None:
    config = write_pairs(tmp_path, {"a": [[0, 255], [7, 7]], "deep/b": [[255, 0], [7, 0]]})
    samples = dataset(
        DataConfig(
            images=config.images, labels=config.labels, classes=("nothing=0", "cat=255"), ignore=(7,), val_fraction=0
        )
    )
    assert [samples.read(index).name for index in range(2)] == ["a", "deep/b"]
    assert samples.read(0).labels.tolist() == [[0, 1], [255, 255]]
    assert samples.read(1).labels.tolist() == [[1, 0], [255, 0]]
    assert samples.spec.classes == ("nothing", "cat") and samples.spec.ignore == (7,)


def test_values_default_to_the_position_and_names_may_hold_anything() -> None:
    paths = {"images": Path("a"), "labels": Path("b")}
    spec = folder_spec(DataConfig(**paths, classes=("sky", "a=b=9", "Straße")))
    assert spec.classes == ("sky", "a=b", "Straße") and spec.raw_ids == (0, 9, 2) and spec.ignore == (255,)
    cat = folder_spec(DataConfig(**paths, classes=("nothing=0", "cat=255")))
    assert cat.ignore == ()  # the default gives way to the class
    with pytest.raises(UserError, match="255 is class 'cat' and is ignored too"):
        folder_spec(DataConfig(**paths, classes=("nothing=0", "cat=255"), ignore=(7, 255)))


def test_hidden_files_and_odd_suffixes(tmp_path: Path) -> None:
    config = write_pairs(tmp_path, {"a.b.c": [[0]], "d": [[1]]})
    (tmp_path / "photos" / ".DS_Store").write_bytes(b"x")
    (tmp_path / "photos" / "._d.jpg").write_bytes(b"x")
    (tmp_path / "photos" / "notes.txt").write_text("x")
    (tmp_path / "photos" / "d.jpg").rename(tmp_path / "photos" / "d.JPEG")
    assert {pair.name for pair in dataset(config).pairs} | {pair.name for pair in dataset(config, "val").pairs} == {
        "a.b.c",
        "d",
    }


@pytest.mark.parametrize("fraction, expected", [(0.1, 4), (0.5, 20), (0.001, 1), (0.999, 39)])
def test_validation_is_a_share_by_name(fraction: float, expected: int, tmp_path: Path) -> None:
    config = write_pairs(tmp_path, {f"{index:02}": [[0]] for index in range(40)})
    config = DataConfig(**{**vars(config), "val_fraction": fraction})
    train, val = ([pair.name for pair in dataset(config, split).pairs] for split in ("train", "val"))
    assert len(val) == expected and sorted(train + val) == [f"{index:02}" for index in range(40)]
    assert [pair.name for pair in dataset(config, "val").pairs] == val == sorted(val)


def test_the_validation_share_stays_when_pairs_are_added(tmp_path: Path) -> None:
    names = [f"{index:02}" for index in range(40)]
    config = write_pairs(tmp_path, {name: [[0]] for name in names})
    before = {pair.name for pair in dataset(config, "val").pairs}
    assert before != set(names[:4]) and before != set(names[-4:])  # not simply the first or the last
    write_pairs(tmp_path, {"99": [[0]]})
    after = {pair.name for pair in dataset(config, "val").pairs}
    assert len(before & after) >= len(before) - 1
    moved = tmp_path / "elsewhere"
    (tmp_path / "photos").rename(moved)
    config = DataConfig(images=moved, labels=tmp_path / "masks", classes=("sky",))
    assert {pair.name for pair in dataset(config, "val").pairs} == after  # the folder's place does not matter


def test_folders_of_their_own_for_validation(tmp_path: Path) -> None:
    write_pairs(tmp_path, {"a": [[0]], "b": [[1]]})
    write_pairs(tmp_path, {"v": [[2]]}, images="vp", masks="vm")
    config = DataConfig(
        images=tmp_path / "photos",
        labels=tmp_path / "masks",
        val_images=tmp_path / "vp",
        val_labels=tmp_path / "vm",
        classes=("sky", "road", "car"),
    )
    assert [pair.name for pair in dataset(config).pairs] == ["a", "b"]
    assert [pair.name for pair in dataset(config, "val").pairs] == ["v"]


# --- order and augmentation ------------------------------------------------------------------------------------------

Batches = list[list[tuple[int, int]]]


def batches(length: int = 10, batch_size: int = 4, **settings: Any) -> Batches:
    return list(EndlessBatches(length, batch_size, seed=settings.pop("seed", 0), **settings))


def test_every_sample_once_per_epoch() -> None:
    draws = [pair for batch in batches(steps=15) for pair in batch]  # six epochs of ten
    assert [draw for _, draw in draws] == list(range(60))
    orders = [[index for index, _ in draws[start : start + 10]] for start in range(0, 60, 10)]
    assert all(sorted(order) == list(range(10)) for order in orders)
    assert len({tuple(order) for order in orders}) == 6 and list(range(10)) not in orders


def test_batches_larger_than_the_set() -> None:
    draws = [index for batch in batches(3, 8, steps=3) for index, _ in batch]
    assert len(draws) == 24 and set(Counter(draws).values()) == {8}


def test_the_order_is_the_seeds() -> None:
    assert batches(steps=5) == batches(steps=5)
    assert batches(steps=5, seed=1) != batches(steps=5, seed=2)
    state = torch.get_rng_state()
    batches(steps=5)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("start", [0, 1, 2, 3, 7, 11])
def test_a_late_start_goes_on(start: int) -> None:
    late = EndlessBatches(10, 4, seed=0, start_step=start, steps=11)
    assert list(late) == batches(steps=11)[start:]
    assert len(late) == 11 - start


@pytest.mark.parametrize("world", [1, 2, 4])
def test_ranks_share_out_the_same_batches(world: int) -> None:
    ranks = [batches(steps=7, rank=rank, world_size=world) for rank in range(world)]
    for step, whole in enumerate(batches(steps=7)):
        parts = [pair for rank in ranks for pair in rank[step]]
        assert sorted(parts, key=lambda pair: pair[1]) == whole
        assert {len(rank[step]) for rank in ranks} == {4 // world}


def test_without_steps_there_is_no_end() -> None:
    endless = EndlessBatches(3, 2, seed=0)
    found = [batch for _, batch in zip(range(100), endless, strict=False)]
    assert len(found) == 100
    with pytest.raises(TypeError, match="endless"):
        len(endless)


def training_samples(seed: int = 0, length: int = 6) -> TrainingSamples:
    return TrainingSamples(
        ShapesDataset(length, size=48), TrainTransform(32, AugmentConfig(), (124, 116, 104)), seed=seed
    )


def same(one: Sequence[Any], other: Sequence[Any]) -> bool:
    return all(torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in zip(one, other, strict=True))


def test_augmentation_is_a_function_of_seed_and_draw() -> None:
    samples = training_samples()
    image, labels, index = samples[3, 17]
    assert image.shape == (3, 32, 32) and image.dtype == torch.uint8 and index == 3
    assert labels.shape == (32, 32) and labels.dtype == torch.int64
    torch.manual_seed(99)
    samples[2, 5]  # whatever came in between
    assert same(samples[3, 17], (image, labels, index)) and same(training_samples()[3, 17], (image, labels, index))
    assert not same(samples[3, 18], (image, labels, index))
    assert not same(training_samples(seed=1)[3, 17], (image, labels, index))


def test_neighbouring_draws_have_nothing_in_common() -> None:
    """Seed s at draw t + 1 must not be seed s + 1 at draw t."""
    seen = {training_samples(seed)[0, draw][0].numpy().tobytes() for seed in range(4) for draw in range(4)}
    assert len(seen) == 16


def test_workers_change_nothing() -> None:
    def run(workers: int, start: int = 0) -> list[Any]:
        order = EndlessBatches(6, 4, seed=3, start_step=start, steps=5)
        return list(DataLoader(training_samples(), batch_sampler=order, num_workers=workers))

    alone = run(0)
    for other, expected in ((run(2), alone), (run(1, start=2), alone[2:])):
        assert len(other) == len(expected) and all(same(a, b) for a, b in zip(other, expected, strict=True))


# --- images of every kind --------------------------------------------------------------------------------------------


def read(path: Path) -> np.ndarray:
    picture = read_image(path)
    assert picture.mode == "RGB"
    assert read_size(path) == (picture.height, picture.width)
    return np.asarray(picture)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "tiff", "webp"])
def test_lossless_rgb(suffix: str, tmp_path: Path) -> None:
    options = {"lossless": True} if suffix == "webp" else {}
    assert (read(save(tmp_path, f"a.{suffix}", PIXELS, **options)) == PIXELS).all()


def test_jpeg_is_near(tmp_path: Path) -> None:
    smooth = np.linspace(0, 255, 32 * 32 * 3).reshape(32, 32, 3).astype(np.uint8)
    assert np.abs(read(save(tmp_path, "a.jpg", smooth, quality=98)).astype(int) - smooth).max() < 12


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_is_scaled(suffix: str, tmp_path: Path) -> None:
    """Not cut at 255, as a mere conversion would."""
    values = np.array([[0, 257, 128 * 257, 65535, 200 * 257 + 100, 200 * 257 + 200]], dtype=np.uint16)
    grey = read(save(tmp_path, f"a.{suffix}", values))
    assert grey.tolist() == [[[value] * 3 for value in (0, 1, 128, 255, 200, 201)]]


def test_16_bit_rgb(tmp_path: Path) -> None:
    """Pillow cannot write one, so a PNG by hand."""
    values = PIXELS.astype(">u2") * 257

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", PIXELS.shape[1], PIXELS.shape[0], 16, 2, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    path = tmp_path / "a.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
    assert (read(path) == PIXELS).all()


def test_transparency_is_shown_over_white(tmp_path: Path) -> None:
    alpha = np.zeros((6, 9), dtype=np.uint8)
    alpha[:3], alpha[3] = 255, 128
    result = read(save(tmp_path, "a.png", np.dstack([PIXELS, alpha])))
    assert (result[:3] == PIXELS[:3]).all() and (result[4:] == 255).all()
    assert np.abs(result[3] - (PIXELS[3] * (128 / 255) + 255 * (127 / 255))).max() <= 1
    grey = read(save(tmp_path, "b.png", np.dstack([PIXELS[..., 0], alpha])))
    assert (grey[:3] == PIXELS[:3, :, :1]).all() and (grey[4:] == 255).all()


def test_cmyk(tmp_path: Path) -> None:
    inks = np.array([[[0, 255, 255, 0], [255, 0, 255, 0], [0, 0, 0, 255], [0, 0, 0, 0]]], dtype=np.uint8)
    picture = Image.frombytes("CMYK", (4, 1), inks.tobytes())
    assert read(save(tmp_path, "a.tif", picture)).tolist() == [[[255, 0, 0], [0, 255, 0], [0, 0, 0], [255, 255, 255]]]
    big = picture.resize((32, 8), Image.Resampling.NEAREST)
    jpeg = read(save(tmp_path, "a.jpg", big, quality=100)).astype(int)
    assert np.abs(jpeg[4, [4, 12, 20, 28]] - [[255, 0, 0], [0, 255, 0], [0, 0, 0], [255, 255, 255]]).max() < 25


def test_palette_and_grey_and_one_bit(tmp_path: Path) -> None:
    picture = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8))
    grey = read(save(tmp_path, "grey.png", picture))
    assert grey.tolist() == [[[0] * 3, [1] * 3, [2] * 3]]
    picture.putpalette(bytes([10, 20, 30, 40, 50, 60, 70, 80, 90]))
    assert read(save(tmp_path, "p.png", picture)).tolist() == [[[10, 20, 30], [40, 50, 60], [70, 80, 90]]]
    assert read(save(tmp_path, "t.png", picture, transparency=1)).tolist() == [[[10, 20, 30], [255] * 3, [70, 80, 90]]]
    bits = Image.fromarray(np.array([[0, 255]], dtype=np.uint8)).convert("1")
    assert read(save(tmp_path, "bits.png", bits)).tolist() == [[[0] * 3, [255] * 3]]


UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
    8: lambda a: np.rot90(a, 1),
}
"""What a viewer does with the stored pixels, by EXIF orientation."""


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_is_applied(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path, "a.png", PIXELS, exif=exif)
    assert (read(path) == UPRIGHT[orientation](PIXELS)).all()
    assert (
        read_labels(save(tmp_path, "l.png", PIXELS[..., 0], exif=exif)) == UPRIGHT[orientation](PIXELS)[..., 0]
    ).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (6, 1), (7, 9)])
def test_samples_can_be_written_to_and_pictures_given_are_left_alone(size: tuple[int, int], tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    save(tmp_path / "photos", "a.png", pixels)
    save(tmp_path / "masks", "a.png", np.ones(size, dtype=np.uint8))
    image, labels, _ = dataset(
        DataConfig(images=tmp_path / "photos", labels=tmp_path / "masks", classes=("x", "y"), val_fraction=0)
    ).read(0)
    assert image.is_contiguous() and image.shape == (3, *size) and labels.dtype == torch.int64
    assert np.array_equal(image.permute(1, 2, 0).numpy(), pixels)
    image.fill_(7)
    labels.fill_(0)
    with Image.open(tmp_path / "photos" / "a.png") as opened:
        assert np.array_equal(np.asarray(as_rgb(opened, name="it")), pixels) and np.array_equal(
            np.asarray(opened), pixels
        )


def test_labels_of_every_kind(tmp_path: Path) -> None:
    values = np.array([[0, 1, 2], [7, 200, 255]], dtype=np.uint8)
    assert (read_labels(save(tmp_path, "grey.png", values)) == values).all()
    picture = Image.fromarray(values)
    picture.putpalette([part for index in range(256) for part in (index, 255 - index, 9)])
    assert (read_labels(save(tmp_path, "palette.png", picture)) == values).all()  # the indices, not the colours
    assert (read_labels(save(tmp_path, "see-through.png", picture, transparency=0)) == values).all()
    wide = values.astype(np.uint16) * 257
    for suffix in ("png", "tif"):
        assert (read_labels(save(tmp_path, f"wide.{suffix}", wide)) == wide).all()  # not scaled
    bits = Image.fromarray(np.array([[0, 255], [255, 0]], dtype=np.uint8)).convert("1")
    assert read_labels(save(tmp_path, "bits.png", bits)).tolist() == [[0, 1], [1, 0]]


def test_16_bit_labels_reach_their_class(tmp_path: Path) -> None:
    save(tmp_path / "im", "a.png", PIXELS[:1, :3])
    save(tmp_path / "la", "a.png", np.array([[0, 1000, 65535]], dtype=np.uint16))
    config = DataConfig(
        images=tmp_path / "im", labels=tmp_path / "la", classes=("x=0", "y=1000"), ignore=(65535,), val_fraction=0
    )
    assert dataset(config).read(0).labels.tolist() == [[0, 1, 255]]


# --- the check -------------------------------------------------------------------------------------------------------


def rows(report: CheckReport) -> dict[str, tuple[float, int]]:
    return {row.name: (row.share, row.images) for row in report.rows}


def test_check_of_a_clean_set(tmp_path: Path) -> None:
    config = write_pairs(tmp_path, {"a": [[0, 1], [1, 255]], "b": [[0, 0, 0], [2, 2, 1]]})
    calls: list[tuple[int, int]] = []
    samples = SegmentationDataset(dataset(config).spec, sorted([*dataset(config).pairs, *dataset(config, "val").pairs]))
    report = check_dataset(samples, decode=True, progress=lambda *done: calls.append(done))
    assert report.errors == () and report.warnings == () and "no errors" in report.verdict
    assert calls == [(1, 2), (2, 2)] and (report.total, report.checked) == (2, 2)
    assert rows(report) == {"sky": (0.4, 2), "road": (0.3, 2), "car": (0.2, 1)}
    assert report.ignored_share == 0.1
    assert report.smallest == (2, 2) and report.largest == (2, 3)
    report.raise_on_error()
    assert [(row.value, row.becomes, row.pixels, row.images) for row in report.values] == [
        (0, "sky", 4, 2),
        (1, "road", 3, 2),
        (2, "car", 2, 1),
        (255, "(ignored)", 1, 1),
    ]


def test_check_finds_everything_in_a_broken_set(tmp_path: Path) -> None:
    config = write_pairs(tmp_path, {name: [[0, 1], [1, 0]] for name in "abcdefg"})
    save(tmp_path / "masks", "b.png", np.array([[0, 9], [9, 1]], dtype=np.uint8))
    save(tmp_path / "masks", "c.png", np.zeros((3, 5), dtype=np.uint8))
    (tmp_path / "masks" / "d.png").write_bytes(b"")
    cut_short(save(tmp_path / "photos", "e.jpg", np.tile(PIXELS, (10, 10, 1))))
    save(tmp_path / "masks", "e.png", np.zeros((60, 90), dtype=np.uint8))
    config = DataConfig(**{**vars(config), "val_fraction": 0.0})
    report = check_dataset(dataset(config), decode=True)
    assert report.checked == 7 and len(report.unreadable) == 2 and len(report.mismatches) == 1
    (unknown,) = report.unknown
    assert (unknown.value, unknown.pixels) == (9, 2) and unknown.files == (str(tmp_path / "masks" / "b.png"),)
    with pytest.raises(UserError) as caught:
        report.raise_on_error()
    text = str(caught.value)
    for part in ("b.png", "9", "--data.classes NAME=9", "c.jpg is 2 x 2", "c.png is 5 x 3", "d.png", "e.jpg"):
        assert part in text
    assert "4 errors" in text and text.startswith(report.verdict)
    assert any("2 car" in warning for warning in report.warnings)  # a class that no label map holds
    assert any("c.png" in warning and "one class or none" in warning for warning in report.warnings)


def test_check_without_decoding_reads_headers_only(tmp_path: Path) -> None:
    config = write_pairs(tmp_path, {"a": [[0, 1]], "b": [[2, 1]]})
    cut_short(save(tmp_path / "photos", "a.jpg", np.tile(PIXELS, (10, 10, 1))))
    save(tmp_path / "masks", "a.png", np.eye(60, 90, dtype=np.uint8))
    config = DataConfig(**{**vars(config), "val_fraction": 0.0})
    assert check_dataset(dataset(config)).errors == ()
    assert len(check_dataset(dataset(config), decode=True).unreadable) == 1


def test_check_looks_at_evenly_spaced_samples(tmp_path: Path) -> None:
    config = write_pairs(tmp_path, {f"{index}": [[index % 3, 1]] for index in range(10)})
    save(tmp_path / "masks", "9.png", np.array([[77, 77]], dtype=np.uint8))
    config = DataConfig(**{**vars(config), "val_fraction": 0.0})
    report = check_dataset(dataset(config), limit=5)
    assert report.checked == 5 and "5 of 10 pairs checked" in report.verdict and not report.errors
    assert check_dataset(dataset(config), limit=99).checked == 10
    with pytest.raises(UserError, match="limit is 0"):
        check_dataset(dataset(config), limit=0)


def test_check_of_scenes_is_the_check_of_their_files(tmp_path: Path) -> None:
    write_shapes(tmp_path, train=4, val=1, size=32)
    files = check_dataset(dataset(DataConfig(spec="shapes", root=tmp_path)))
    drawn = check_dataset(ShapesDataset(4, size=32, seed=0))
    assert files.rows == drawn.rows and files.ignored_share == drawn.ignored_share > 0
    assert not files.errors


def test_check_of_genuine_sets(shared_data: Path) -> None:
    camvid = check_dataset(dataset(DataConfig(spec="camvid", root=shared_data / "camvid"), "val"), limit=8)
    assert not camvid.errors and camvid.smallest == camvid.largest == (360, 480)
    assert 0.2 < rows(camvid)["road"][0] < 0.5
    root = shared_data / "ade20k-sample" / "ADEChallengeData2016"
    ade = check_dataset(dataset(DataConfig(spec="ade20k", root=root), "val"), decode=True)
    assert not ade.errors and ade.smallest == (300, 400) and ade.largest == (512, 683)


def test_check_of_a_copy_of_camvid_with_ade20ks_spec(shared_data: Path, tmp_path: Path) -> None:
    """A wrong spec shows in the report: label 0 of CamVid is sky, and would be ignored."""
    for folder, target in (("images", "images/training"), ("annotations", "annotations/training")):
        source = sorted((shared_data / "camvid" / folder / "val").iterdir())[:2]
        (tmp_path / target).mkdir(parents=True)
        for path in source:
            shutil.copy(path, tmp_path / target)
    report = check_dataset(dataset(DataConfig(spec="ade20k", root=tmp_path)))
    assert not report.errors and any("139 of 150 classes" in warning for warning in report.warnings)

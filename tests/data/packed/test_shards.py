"""Tar shards: the pairs that are found, the endings and splits that are chosen, and every damage that is refused."""

import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segvit.config import DataConfig
from segvit.data.check.class_names import name_classes
from segvit.data.check.report import check_splits
from segvit.data.dataset import SegmentationDataset, open_dataset, open_incomplete
from segvit.data.labels.format import Classes, LabelFormat
from segvit.data.labels.memory import LabelMemory
from segvit.data.packed import tar_index
from segvit.data.packed.shard import look_at
from segvit.data.packed.shard_places import find_shards
from segvit.data.packed.tar_index import read_index
from segvit.data.pairs import Pair
from segvit.errors import UserError
from tests.helpers.packed import encoded, made_files, write_shard, write_shards

CLASSES = ("a", "b", "c")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own."""
    monkeypatch.setenv("SEGVIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "shards"


def config_of(shards: object, **settings: object) -> DataConfig:
    return DataConfig(shards=str(shards), **{"classes": CLASSES, "val_fraction": 0.0, **settings})  # type: ignore[arg-type]


def samples_of(shards: object, **settings: object) -> SegmentationDataset:
    samples = open_dataset(config_of(shards, **settings), "train")
    assert isinstance(samples, SegmentationDataset)
    return samples


def refused(shards: object, *texts: str, **settings: object) -> None:
    """Opening the shards is an error with these texts."""
    with pytest.raises(UserError) as caught:
        samples_of(shards, **settings)
    for text in texts:
        assert text in str(caught.value), str(caught.value)


PHOTO, MASK = made_files(2)[1]


def members(*keys: str, photo: str = "jpg", mask: str = "png") -> list[tuple[str, bytes]]:
    return [(f"{key}.{ending}", content) for key in keys for ending, content in ((photo, PHOTO), (mask, MASK))]


# --- the index -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_every_form_of_tar_gives_the_bytes_of_its_members(tmp_path: Path, form: int) -> None:
    long = "folder/" * (40 if form != tarfile.USTAR_FORMAT else 12) + "0.jpg"
    content = {"a.jpg": PHOTO, long: MASK, "empty.txt": b"", "b.seg.png": b"x" * 512, "c.json": b"{}"}
    shard = look_at(str(write_shard(tmp_path / "s.tar", content, format=form)))
    found = {entry.path: shard.read(entry.offset, entry.size) for entry in read_index(shard)}
    assert found == content


def test_folders_in_a_shard_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "in" / "street").mkdir(parents=True)
    (tmp_path / "in" / "street" / "0.jpg").write_bytes(PHOTO)
    (tmp_path / "in" / "street" / "0.png").write_bytes(MASK)
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        tar.add(tmp_path / "in", arcname=".")
    samples = samples_of(tmp_path / "s.tar")
    assert [pair.name for pair in samples.pairs] == ["s/street/0"]


def test_headers_are_read_once(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shards(tmp_path / "shards", made_files(6))
    before = samples_of(tmp_path / "shards").pairs
    assert len(list(cache.iterdir())) == 2
    monkeypatch.setattr(tar_index, "_entries", None)  # calling it fails
    assert samples_of(tmp_path / "shards").pairs == before


@pytest.mark.parametrize(
    "spoilt",
    ["", "[]", '{"format": 1}', '{"format": 0, "entries": []}', '{"format": 1, "entries": [["a.jpg", 0]]}']
    + ['{"format": 1, "entries": [["a.jpg", 0, 1e99]]}', '{"format": 1, "entries": [["a.jpg", -5, 5]]}']
    + ['{"format": 1, "entries": [["a.jpg", true, 5]]}', '{"format": 1, "entries": [["a.jpg", 0, 99999999]]}', "\xff"],
)
def test_a_spoilt_index_is_made_again(tmp_path: Path, cache: Path, spoilt: str) -> None:
    write_shards(tmp_path / "shards", made_files(3))
    before = samples_of(tmp_path / "shards").pairs
    (kept,) = cache.iterdir()
    good = kept.read_text()
    kept.write_bytes(spoilt.encode("latin-1"))
    assert samples_of(tmp_path / "shards").pairs == before
    assert kept.read_text() == good


def test_a_shard_that_has_changed_is_indexed_again(tmp_path: Path, cache: Path) -> None:
    path = write_shard(tmp_path / "s.tar", members("0", "1"))
    samples = samples_of(path)
    write_shard(path, [*members("0", "1", "2"), ("more.txt", bytes(20_000))])
    assert len(samples_of(path)) == 3
    with pytest.raises(UserError, match=r"s\.tar: had \d+ bytes and has \d+ now; restore it"):
        samples.read(1)
    path.unlink()
    with pytest.raises(UserError, match=r"s\.tar: cannot be read .*restore the shard"):
        samples.read(1)


# --- damage ----------------------------------------------------------------------------------------------------------


def test_truncation_anywhere_is_refused_or_loses_nothing(tmp_path: Path) -> None:
    whole = write_shard(tmp_path / "s.tar", members("0", "1", "2")).read_bytes()
    full = len(samples_of(tmp_path / "s.tar"))
    seen = set()
    for size in range(0, len(whole), 256):
        (tmp_path / "s.tar").write_bytes(whole[:size])
        try:
            count = len(samples_of(tmp_path / "s.tar"))
        except UserError as error:
            seen.add("error" if "s.tar" in str(error) else str(error))
        else:  # cut behind the last member, or exactly between two samples, which no reader can notice
            last = read_index(look_at(str(tmp_path / "s.tar")))[-1]
            assert count == full or last.offset + -(-last.size // 512) * 512 == size
            seen.add(str(count))
    assert {"error", "3"} <= seen <= {"error", "1", "2", "3"}


def test_a_damaged_header_is_refused(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "s.tar", members("0", "1"))
    content = bytearray(path.read_bytes())
    start = read_index(look_at(str(path)))[2].offset - 512
    content[start + 3] ^= 0xFF
    path.write_bytes(content)
    refused(path, "s.tar: the header at byte", "damaged")
    path.write_bytes(b"\xff" + path.read_bytes()[1:])
    refused(path, "s.tar", "cannot be read as a tar file")


@pytest.mark.parametrize("size", [-512, -1, 2**40, 2**62])
def test_sizes_that_cannot_be_are_refused(tmp_path: Path, size: int) -> None:
    info = tarfile.TarInfo("0.jpg")
    info.size = size
    header = info.tobuf(tarfile.GNU_FORMAT)
    (tmp_path / "s.tar").write_bytes(header + bytes(10240))
    refused(tmp_path / "s.tar", "s.tar")


@pytest.mark.parametrize("size", [-512, 2**33])
def test_long_names_of_an_impossible_size_are_refused(tmp_path: Path, size: int) -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, size
    (tmp_path / "s.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
    refused(tmp_path / "s.tar", "s.tar", f"claims {size}" if size < 0 else "claims")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        info = tarfile.TarInfo("0.jpg")
        info.type, info.linkname = kind, "/etc/passwd"
        tar.addfile(info)
    refused(tmp_path / "s.tar", "s.tar: '0.jpg' is a link or a special file")


def test_compressed_and_joined_archives_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "s.tar", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("0.jpg"), io.BytesIO())
    refused(tmp_path / "s.tar", "s.tar", "it is compressed", "unpack it to a plain .tar")
    one, other = (write_shard(tmp_path / f"{name}.tar", members(name)) for name in "xy")
    (tmp_path / "s.tar").write_bytes(one.read_bytes() + other.read_bytes())
    refused(tmp_path / "s.tar", "s.tar: further members follow its end mark", "tar -A")
    (tmp_path / "s.tar").write_bytes(b"")
    refused(tmp_path / "s.tar", "s.tar")


def test_keys_twice_and_without_a_partner_are_refused(tmp_path: Path) -> None:
    refused(write_shard(tmp_path / "twice.tar", members("0", "0")), "twice.tar: the key '0' has two members", "0.jpg")
    path = write_shard(tmp_path / "alone.tar", [*members("0"), ("1.jpg", PHOTO), ("2.png", MASK)])
    refused(path, "1 keys have no member png", "alone.tar: 1.jpg", "every key needs")
    refused(path, "1 keys have no member png", "alone.tar: 1.jpg", val_fraction=0.5)
    samples, orphans = open_incomplete(config_of(path), "train")
    assert len(samples) == 1
    assert orphans.images == (f"{path}: 1.jpg",)
    assert orphans.labels == (f"{path}: 2.png",)
    survey = check_splits(config_of(path), ("train",))
    assert any("1 image without labels" in error and "alone.tar: 1.jpg" in error for error in survey.errors)


def test_a_broken_picture_names_shard_and_member(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "s.tar", [("0.jpg", PHOTO[:300]), ("0.png", MASK), ("1.jpg", b"x"), ("1.png", MASK)])
    samples = samples_of(path)
    with pytest.raises(UserError, match=r"s\.tar: 0\.jpg: cannot be read as an image"):
        samples.read(0)
    with pytest.raises(UserError, match=r"s\.tar: 1\.jpg: cannot be read as an image"):
        samples.read(1)


def test_pairs_of_unequal_size_and_unknown_values_name_the_member(tmp_path: Path) -> None:
    small = encoded(np.zeros((5, 7), np.uint8), "PNG")
    strange = encoded(np.full((24, 36), 9, np.uint8), "PNG")
    path = write_shard(tmp_path / "s.tar", [("0.jpg", PHOTO), ("0.png", small), ("1.jpg", PHOTO), ("1.png", strange)])
    samples = samples_of(path)
    with pytest.raises(UserError, match=r"s\.tar: 0\.jpg is 36 x 24 pixels .*s\.tar: 0\.png is 7 x 5"):
        samples.read(0)
    with pytest.raises(UserError, match=r"s\.tar: 1\.png: label value 9 is not a class"):
        samples.read(1)


# --- endings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "endings, chosen",
    [
        (("jpg", "png"), ("jpg", "png")),
        (("JPG", "PNG"), ("jpg", "png")),
        (("jpg", "seg.png"), ("jpg", "seg.png")),
        (("png", "mask.png"), ("png", "mask.png")),
        (("jpg", "png", "seg.png"), ("jpg", "seg.png")),
        (("webp", "tif", "json", "cls"), ("webp", "tif")),
        (("image.png", "labels.png"), ("image.png", "labels.png")),
        (("jpg", "png", "edges.png"), ("jpg", "png")),
    ],
)
def test_usual_endings_are_recognised(tmp_path: Path, endings: tuple[str, ...], chosen: tuple[str, str]) -> None:
    path = write_shard(tmp_path / "s.tar", [(f"0.{ending}", PHOTO) for ending in endings])
    named = name_classes(config_of(path))
    assert (named.config.image_key, named.config.labels_key) == chosen
    assert named.text == f"{path}: images in {chosen[0]!r}, labels in {chosen[1]!r}"


def test_images_of_several_endings(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "s.tar", [*members("0"), *members("1", photo="jpeg")])
    named = name_classes(config_of(path))
    assert named.config.image_key == "jpg;jpeg"
    assert len(samples_of(path)) == 2
    write_shard(path, [*members("0"), ("0.jpeg", PHOTO)])
    refused(path, "s.tar: the key '0' has two members for one part, 0.jpg and 0.jpeg", "--data.image-key")
    assert len(samples_of(path, image_key="jpeg")) == 1


@pytest.mark.parametrize(
    "endings, texts",
    [
        (("jpg", "seg.png", "mask.png"), ("seg.png and mask.png may be the label maps", "--data.labels-key seg.png")),
        (("png", "json"), ("png (1 members), json (1 members)", "none looks like the label maps", "--data.labels-key")),
        (("txt",), ("txt (1 members)", "none looks like")),
    ],
)
def test_unclear_endings_are_listed(tmp_path: Path, endings: tuple[str, ...], texts: tuple[str, ...]) -> None:
    refused(write_shard(tmp_path / "s.tar", [(f"0.{ending}", PHOTO) for ending in endings]), *texts)


def test_wrong_keys_are_refused(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "s.tar", [*members("0"), ("0.json", b"{}")])
    refused(path, "data.labels_key is 'pgn'", "did you mean 'png'", "jpg (1 members)", labels_key="pgn")
    refused(path, "data.image_key is 'json', which cannot hold pictures", image_key="json")
    refused(path, "data.labels_key is 'jpg', which cannot hold label maps", labels_key="jpg", image_key="png")
    refused(path, "name two different parts", labels_key="png", image_key="png")


@dataclass(frozen=True)
class NumpyLabels(LabelFormat):
    """A format of the caller's own, as in docs/extending.md."""

    name = "npy"
    suffixes = (".npy",)

    def read(self, pair: Pair, classes: Classes, memory: LabelMemory) -> Any:
        with pair.labels.open("rb") as file:
            return np.load(file)


def test_label_files_of_other_formats(tmp_path: Path) -> None:
    labels = np.arange(24 * 36, dtype=np.uint16).reshape(24, 36) % 3
    array, matrix = io.BytesIO(), io.BytesIO()
    np.save(array, labels)
    path = write_shard(tmp_path / "npy.tar", [("0.jpg", PHOTO), ("0.npy", array.getvalue())])
    samples = open_dataset(config_of(path, labels_key="npy"), "train", labels=NumpyLabels())
    assert np.array_equal(samples.read(0).labels.numpy(), labels)
    pytest.importorskip("scipy.io").savemat(matrix, {"S": labels})
    path = write_shard(tmp_path / "mat.tar", [("0.jpg", PHOTO), ("0.seg.mat", matrix.getvalue())])
    spec = tmp_path / "own.yaml"
    spec.write_text("name: own\nclasses: [a, b, c]\nlabels: {format: mat, key: S}\n")
    for cache in (None, tmp_path / "decoded", tmp_path / "decoded"):
        samples = open_dataset(config_of(path, classes=(), spec=str(spec), cache=cache), "train")
        assert np.array_equal(samples.read(0).labels.numpy(), labels)


# --- places and splits -----------------------------------------------------------------------------------------------


def test_braces_and_globs_stand_for_shards(tmp_path: Path) -> None:
    for number in range(12):
        write_shard(tmp_path / f"train-{number:04d}.tar", members(str(number)))
    every = [str(tmp_path / f"train-{number:04d}.tar") for number in range(12)]
    assert find_shards(str(tmp_path / "train-{0000..0011}.tar"), "x") == every
    assert find_shards(str(tmp_path / "train-{0003,0007}.tar"), "x") == [every[3], every[7]]
    assert find_shards(str(tmp_path / "train-000{1..3}.tar"), "x") == every[1:4]
    assert find_shards(str(tmp_path / "train-*.tar"), "x") == every
    assert find_shards(str(tmp_path), "x") == every
    assert find_shards("https://host/{a,b}-{8..10}.tar", "x") == [
        f"https://host/{letter}-{number}.tar" for letter in "ab" for number in (8, 9, 10)
    ]
    for pattern, text in (
        ("train-{0000..0012}.tar", "no shard"),
        ("train-{0..99999999999}.tar", "name 1 to 100000"),
        ("train-{5..3}.tar", "stands for 0 shards"),
        ("val-*.tar", "no file matches"),
    ):
        with pytest.raises(UserError, match=text):
            find_shards(str(tmp_path / pattern), "data.shards")
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match=r"no \.tar file in"):
        find_shards(str(tmp_path / "none"), "data.shards")


def test_shards_named_after_splits_are_divided(tmp_path: Path) -> None:
    for name in ("train-0", "train-1", "validation-0"):
        write_shard(tmp_path / "set" / f"{name}.tar", members("0", "1"))
    config = config_of(tmp_path / "set", val_fraction=None)
    assert [len(open_dataset(config, split)) for split in ("train", "val")] == [4, 2]
    write_shard(tmp_path / "set" / "more.tar", members("0"))
    with pytest.raises(UserError, match=r"train-0\.tar is named after a split, and .*more\.tar is not"):
        open_dataset(config, "train")
    for split in ("train", "val"):
        write_shard(tmp_path / "below" / split / f"{split}-1.tar", members(split))
    config = config_of(tmp_path / "below", val_fraction=None)
    assert [open_dataset(config, split).read(0).name for split in ("train", "val")] == ["train-1/train", "val-1/val"]


def test_validation_shards_of_their_own(tmp_path: Path) -> None:
    one, other = (write_shard(tmp_path / f"{name}.tar", members(name, name + "2")) for name in "xy")
    config = config_of(one, val_shards=str(other), val_fraction=None)
    assert open_dataset(config, "val").read(0).name == "y/y"
    with pytest.raises(UserError, match=r"is in data\.shards and in data\.val_shards"):
        open_dataset(config_of(one, val_shards=str(one), val_fraction=None), "train")
    with pytest.raises(UserError, match=r"data\.val_fraction is 0\.4, but data\.val_shards is the validation set"):
        open_dataset(config_of(one, val_shards=str(other), val_fraction=0.4), "train")
    write_shard(tmp_path / "more" / "x.tar", members("0"))
    refused(tmp_path / "{x,more/x}.tar", "have the same name", "rename one")


@pytest.mark.parametrize(
    "settings, text",
    [
        ({"images": "photos"}, "data.shards names the dataset, but data.images is given as well"),
        ({"root": "x"}, "data.shards names the dataset, but data.root is given as well"),
        ({"train_list": "x"}, "but data.train_list is given as well"),
        ({"hub": "user/set"}, "data.hub names the dataset, but data.shards is given as well"),
        ({"hub_subset": "x"}, "data.shards names the dataset, but data.hub_subset is given as well"),
        ({"spec": "camvid"}, "data.classes is given as well"),
        ({"val_fraction": 1.5}, "data.val_fraction is 1.5"),
        ({"classes": ()}, "data.hub and data.shards need class names"),
        ({"spec": "clothing", "classes": (), "labels_key": None}, "none looks like the label maps"),
    ],
)
def test_settings_that_contradict_each_other(tmp_path: Path, settings: dict[str, object], text: str) -> None:
    refused(write_shard(tmp_path / "s.tar", members("0")), text, **settings)


def test_settings_of_shards_without_shards() -> None:
    with pytest.raises(UserError, match=r"data\.image_key works only with data\.hub or data\.shards"):
        open_dataset(DataConfig(images=Path("a"), labels=Path("b"), classes=("a",), image_key="x"), "train")


# --- class names -----------------------------------------------------------------------------------------------------


def test_class_names_beside_the_shards(tmp_path: Path) -> None:
    write_shards(tmp_path / "shards", made_files(3))
    config = config_of(tmp_path / "shards", classes=(), image_key="jpg", labels_key="png")
    named = name_classes(config)
    assert named.config.classes == ("value_0=0", "value_1=1", "value_2=2")
    assert named.text.startswith("warning: the classes have no names")
    (tmp_path / "shards" / "classes.txt").write_text("sky\nroad\ncar\n")
    assert name_classes(config).config.classes == ("sky", "road", "car")
    file = tmp_path / "shards" / "id2label.json"
    file.write_text(json.dumps({"2": "tree", "0": "sky", "1": "road"}))
    named = name_classes(config)
    assert named.config.classes == ("sky=0", "road=1", "tree=2")
    assert named.text == f"class names from {file.parent}: id2label.json: sky=0, road=1, tree=2"
    for content in ("", "[]", "{}", '{"a": "b"}', '{"-1": "b"}', '{"1e3": "b"}', '{"99999999": "b"}', '{"0": 5}'):
        file.write_text(content)
        with pytest.raises(UserError, match=r"id2label\.json"):
            name_classes(config)
    file.write_text('{"1": "a", "01": "b"}')
    with pytest.raises(UserError, match="the value 1 is named twice"):
        name_classes(config)
    file.write_text("[" * 100_000)
    with pytest.raises(UserError, match="not JSON"):
        name_classes(config)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="save it as UTF-8"):
        name_classes(config)

"""Lists of a split: the forms of a line, the encodings, and the pairs that they give."""

import codecs
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segvit.config import DataConfig
from segvit.data.dataset import open_dataset
from segvit.data.lists import Known, read_list
from segvit.errors import UserError


def write(root: Path, *names: str, ending: str = "") -> DataConfig:
    """Photos and masks of these names. The mask of photo number n holds n alone."""
    for number, name in enumerate(names):
        for folder, file in (("photos", f"{name}.jpg"), ("masks", f"{name}{ending}.png")):
            (root / folder / file).parent.mkdir(parents=True, exist_ok=True)
            values = np.full((2, 2), number, np.uint8)
            Image.fromarray(values).save(root / folder / file)
    return DataConfig(
        images=root / "photos",
        labels=root / "masks",
        classes=tuple("abcd"),
        train_list=root / "list.txt",
        val_fraction=0,
    )


def pairs(config: DataConfig, text: str | bytes) -> list[tuple[str, int]]:
    """The names of the pairs that a list gives, each with the value in its mask."""
    assert config.train_list
    config.train_list.write_bytes(text if isinstance(text, bytes) else text.encode())
    samples = open_dataset(config, "train")
    return [(sample.name, int(sample.labels[0, 0])) for sample in (samples.read(i) for i in range(len(samples)))]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("2\n0.jpg\n\n2\n", [("2", 2), ("0", 0)]),
        ("# from a tool\nphotos/1.jpg\n", [("1", 1)]),
        ("/their/other/set/photos/1.jpg\n", [("1", 1)]),
        ("photos\\1.jpg\n./photos/0.jpg", [("1", 1), ("0", 0)]),
        ("photos/0.jpg masks/0.png\nphotos/2.jpg masks/2.png", [("0", 0), ("2", 2)]),
        ("photos/0.jpg\tmasks/1.png", [("0", 1)]),
        ("photos/0.jpg, masks/1.png", [("0", 1)]),
        ("image,mask\nphotos/0.jpg,masks/1.png", [("0", 1)]),
        ("0 2\n1 2", [("0", 2), ("1", 2)]),
        ("0 1\n1 -1\n2 1", [("0", 0), ("2", 2)]),
        ("0,1\n1,-1\n", [("0", 0)]),
        ("my photo\n", [("my photo", 3)]),
        ('"photos/my photo.jpg" "masks/my photo.png"', [("my photo", 3)]),
        ("'my photo.jpg' 1", [("my photo", 3)]),
        ("photos/my photo.jpg\tmasks/my photo.png", [("my photo", 3)]),
    ],
)
def test_every_form_of_a_line(tmp_path: Path, text: str, expected: list[tuple[str, int]]) -> None:
    config = write(tmp_path, "0", "1", "2", "my photo")
    assert pairs(config, text) == expected


@pytest.mark.parametrize("mark, codec", [(codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF8, "utf-8")])
def test_lists_with_a_byte_order_mark(tmp_path: Path, mark: bytes, codec: str) -> None:
    assert pairs(write(tmp_path, "bär"), mark + "photos/bär.jpg\r\n".encode(codec)) == [("bär", 0)]


def test_the_longest_name_at_the_end_of_a_path(tmp_path: Path) -> None:
    assert pairs(write(tmp_path, "0", "a/0", "b/a/0"), "x/b/a/0\nz/a/0\nq/0") == [("b/a/0", 2), ("a/0", 1), ("0", 0)]
    known = Known({"0": Path("0.png")}, {"0_mask": "0"})
    assert known.find("masks/0_mask.png", [".png"]) == "0" and known.find("10", []) is None


def test_pairs_of_globs(tmp_path: Path) -> None:
    config = write(tmp_path, "0", "1", ending="_m")
    globs = {"images": tmp_path / "photos" / "*.jpg", "labels": tmp_path / "masks" / "*_m.png"}
    config = DataConfig(**{**vars(config), **globs})
    assert pairs(config, "photos/1.jpg masks/1_m.png\nphotos/0.jpg masks/1_m.png") == [("1", 1), ("0", 1)]


@pytest.mark.parametrize(
    "text, message",
    [
        ("0 1 2", "'0 1 2' has 3 words; a line may be a name"),
        ("0 masks/9.png", r"names without a file among the label maps in .*: 1 \(masks/9\).*a line may be a name"),
        ("9 masks/0.png", r"names without a file among the images in .*: 1 \(9\)"),
        ("no photo", r"names without a file .*: 1 \(no photo\)"),
        ("0 -1", "every line ends with -1"),
        ("0 masks/0.png\n0 masks/1.png", "'0' has two label maps, '0' and '1'"),
        ("# nothing", "is empty"),
        (b"0\0\n", "zero bytes; save it as UTF-8"),
        (b"\xff\xffa", "cannot read the list"),
    ],
)
def test_lines_that_name_no_pair(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        pairs(write(tmp_path, "0", "1"), text)


def test_a_path_to_another_file_of_that_name_is_refused(tmp_path: Path) -> None:
    config = write(tmp_path, "0")
    (tmp_path / "val").mkdir()
    Image.new("RGB", (2, 2)).save(tmp_path / "val" / "0.jpg")
    with pytest.raises(UserError, match=r"val/0.jpg is a file, but not below the folders of this split"):
        pairs(config, f"{tmp_path}/val/0.jpg")
    assert pairs(config, f"{tmp_path}/photos/0.jpg {tmp_path}/masks/0.png") == [("0", 0)]


def test_the_case_of_a_list_of_pairs(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = shared_data.parent / "cases" / "lists-of-pairs"
    monkeypatch.chdir(case)
    assert read_list(Path("pairs.txt"), "x") == ["photos/0.png masks/0.png", "photos/1.png masks/1.png"]
    config = DataConfig(
        images=Path("photos"),
        labels=Path("masks"),
        classes=("a=0", "b=255"),
        train_list=Path("pairs.txt"),
        val_fraction=0,
    )
    assert len(open_dataset(config, "train")) == 2

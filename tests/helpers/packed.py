"""Made-up pairs in each form: two folders, a Hugging Face dataset, parquet files, tar shards."""

import io
import itertools
import os
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 24, 36
"""Size of the stored pictures; every third photo is turned by its EXIF orientation."""
EXIF_TURN = 6
TIMES = itertools.count(10**18)
Files = tuple[bytes, bytes]
"""A photo and its mask."""


def encoded(pixels: np.ndarray, kind: str, *, palette: bool = False, **options: Any) -> bytes:
    """A picture as a file."""
    image = Image.fromarray(pixels)
    if palette:
        image = image.convert("P") if image.mode != "L" else image
        image.putpalette([value for index in range(256) for value in (255 - index, index, 7)])
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def made_files(count: int) -> list[Files]:
    """Photos of noise as JPEG, and masks of the values 0, 1, 2 and 255 as PNG: with palettes, with 16 bits, turned."""
    files = []
    for number in range(count):
        random = np.random.default_rng(number)
        photo = random.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        mask = random.choice(np.array([0, 1, 2, 255], np.uint8), (HEIGHT // 4, WIDTH // 4)).repeat(4, 0).repeat(4, 1)
        options: dict[str, Any] = {}
        if number % 3 == 0:
            exif = Image.Exif()
            exif[274] = EXIF_TURN
            options = {"exif": exif}
            mask = np.rot90(mask, -1)  # label maps are stored as displayed
        masks = {
            0: lambda mask=mask: encoded(mask, "PNG"),
            1: lambda mask=mask: encoded(mask, "PNG", palette=True),
            2: lambda mask=mask: encoded(mask.astype(np.uint16), "PNG"),
        }
        files.append((encoded(photo, "JPEG", quality=90, **options), masks[number % 3]()))
    return files


def write_folders(root: Path, files: Sequence[Files]) -> dict[str, Path]:
    """Write photos and masks to two folders."""
    for name in ("photos", "masks"):
        (root / name).mkdir(parents=True)
    for number, (photo, mask) in enumerate(files):
        (root / "photos" / f"{number:02d}.jpg").write_bytes(photo)
        (root / "masks" / f"{number:02d}.png").write_bytes(mask)
    return {"images": root / "photos", "labels": root / "masks"}


def write_shard(path: Path, members: Mapping[str, bytes] | Sequence[tuple[str, bytes]], **options: Any) -> Path:
    """Write a tar file of members in order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as tar:
        for name, content in members.items() if isinstance(members, Mapping) else members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    os.utime(path, ns=(0, next(TIMES)))  # two versions never have the same time
    return path


def write_shards(root: Path, files: Sequence[Files], *, size: int = 4, prefix: str = "") -> Path:
    """Write shards of a few samples each."""
    for start in range(0, len(files), size):
        members = [
            (f"{number:02d}.{ending}", content)
            for number, pair in list(enumerate(files))[start : start + size]
            for ending, content in zip(("jpg", "png"), pair, strict=True)
        ]
        write_shard(root / f"{prefix}{start // size:06d}.tar", members)
    return root


def as_dataset(files: Sequence[Files], *, names: tuple[str, str] = ("image", "label"), feature: bool = True) -> Any:
    """A Hugging Face dataset of the files, with columns of the feature Image or of plain bytes, and a number."""
    from datasets import Dataset, Features, Image as Picture, Value

    kind = Picture() if feature else Value("binary")
    rows = {
        names[0]: [{"bytes": photo, "path": None} if feature else photo for photo, _ in files],
        names[1]: [{"bytes": mask, "path": None} if feature else mask for _, mask in files],
        "number": list(range(len(files))),
    }
    return Dataset.from_dict(rows, features=Features({names[0]: kind, names[1]: kind, "number": Value("int64")}))

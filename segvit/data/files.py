"""Image and label files on disk: which belong together, and what is in one.

Pairs share a name: their path below the two folders without suffix, or, for globs, what the `*` match.
Images may be of any kind Pillow opens; label maps hold one whole number per pixel, in one channel. Labels in other
forms are read by the modules that labels.py names.
"""

import os
import re
import struct
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps

from segvit.data.spec import Split
from segvit.errors import UserError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
LABEL_SUFFIXES = (".png", ".tif", ".tiff", ".bmp")
LOSSY_SUFFIXES = (".jpg", ".jpeg")
"""Of pictures whose values are not those that were saved."""
MAT_SUFFIX = ".mat"
WILDCARD = re.compile(r"(\*\*/|\*|\?|\{[^{}]*,[^{}]*\})")
"""What is not meant literally in a glob."""
SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N", "I")
"""Pillow's modes of one wide channel ("I" is how older versions open 16-bit PNGs)."""
TURNED = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""


class Unreadable(UserError):
    """A file that cannot be read as what it should be: the fault of this one alone."""


class Pair(NamedTuple):
    """An image and its labels."""

    name: str
    """What both share: their relative path without suffix."""
    image: Path
    labels: Path
    """The label map, or the JSON file that describes it among others."""

    @property
    def source(self) -> str:
        """Where the labels come from, for messages."""
        return f"{self.labels}: {self.name}" if self.labels.suffix.lower() == ".json" else str(self.labels)


class Orphans(NamedTuple):
    """What lacks its partner."""

    images: tuple[str, ...] = ()
    """Images without labels: files, or names in a list."""
    labels: tuple[str, ...] = ()
    """Labels without an image: the same."""
    error: str = ""
    """What forbids to train on it."""
    remedy: str = ""
    """What to do about it; `error` ends with it."""

    def __bool__(self) -> bool:
        return bool(self.images or self.labels)


def find_pairs(
    root: Path,
    split: Split,
    *,
    what: str,
    options: tuple[str, str],
    suffixes: Sequence[str] = LABEL_SUFFIXES,
    described: Collection[str] | None = None,
) -> tuple[list[Pair], Orphans]:
    """The complete pairs of a split, sorted by name or in the order of its list, and what is left over.

    Args:
        root: what the split's folders are relative to (absolute ones stay as they are).
        split: folders or globs, and optionally the list of names to use.
        what: how error texts call the split, such as "dataset 'camvid', split 'train'".
        options: the settings that hold the image and the label folder, named in error texts.
        suffixes: of label files.
        described: where `split.labels` is one file for all images: their names in it, which are the list to use.

    Raises:
        UserError: a folder is missing or empty, a name occurs twice, or no pair is complete.
    """
    images, _ = _find(root, split.images, IMAGE_SUFFIXES, f"{what}: images ({options[0]})")
    others: dict[str, Path] = {}
    if described is not None:
        labels = dict.fromkeys(described, root / split.labels)
    else:
        labels, others = _find(root, split.labels, suffixes, f"{what}: label maps ({options[1]})")
    listed = _read_list(root / split.list, what) if split.list is not None else None
    names = sorted(images.keys() | labels.keys()) if listed is None else listed
    partial = listed is None and (split.labeled_only or described is not None)
    bare = [] if partial else [name for name in names if name not in labels]
    alone = [name for name in names if name not in images]
    if listed is not None:
        remedy = f"they are named in {root / str(split.list)}: add the files, or take the names out of the list"
    elif described is not None:
        remedy = f"they are named in {root / split.labels}: add the files, or give a list of the names to use"
    else:
        remedy = (
            "every image needs one label map whose path is the same but for the suffix: move or delete the others; "
            f"where the names differ by an ending, give globs, such as {options[0]} 'photos/*.jpg' and "
            f"{options[1]} 'masks/*_mask.png'; images that shall have none: `labeled_only: true` in a spec"
        )
    lossy = [others[name] for name in bare if name in others and others[name] != images.get(name)]
    remedy += _explain_lossy(lossy, suffixes)
    kinds = (
        (bare, "images without a label map", "label maps", split.labels),
        (alone, "label maps without an image", "images", split.images),
    )
    orphans = Orphans()
    for missing, text, kind, folder in kinds:
        if missing:
            text = text if listed is None else f"names without a file among the {kind}"
            orphans = Orphans(
                images=tuple(str(images.get(name, name)) for name in bare),
                labels=tuple(str(labels.get(name, name)) + f": {name}" * (described is not None) for name in alone),
                error=f"{what}: {text} in {root / folder}: {len(missing)} ({first(missing)}); {remedy}",
                remedy=remedy,
            )
            break
    pairs = [Pair(name, images[name], labels[name]) for name in names if name in images and name in labels]
    if orphans and not pairs:
        raise UserError(orphans.error)
    return pairs, orphans


def read_image(path: Path) -> Image.Image:
    """The image in `path` as 8-bit RGB, turned as its EXIF orientation says.

    16-bit grey is scaled from 0..65535 to 0..255; transparency is shown over white, as a viewer would; palette, grey,
    CMYK and other colour spaces are converted; of several frames the first is taken.

    Raises:
        UserError: no such file, no image, damaged or cut short, or floating-point pixels.
    """
    with reading(path, "an image"), Image.open(path) as opened:
        opened.load()
        return as_rgb(opened, name=str(path))


def as_rgb(image: Image.Image, *, name: str) -> Image.Image:
    """An open image as `read_image` gives it; `name` is what error texts call it.

    Raises:
        UserError: floating-point pixels, or grey beyond 16 bits.
    """
    image = _upright(image)
    if image.mode in SIXTEEN_BIT:
        wide = np.asarray(image).astype(np.int64)
        if wide.min() < 0 or wide.max() > 65_535:
            raise Unreadable(f"{name}: pixels reach {wide.min()}..{wide.max()}; save the image with 8 or 16 bits")
        return Image.fromarray(((wide * 255 + 32_767) // 65_535).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise Unreadable(f"{name}: pixels are floating-point numbers; save the image with 8 or 16 bits per channel")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    """The image as its EXIF orientation says; itself where that says nothing, for Pillow would copy it."""
    return ImageOps.exif_transpose(image) if image.getexif().get(ExifTags.Base.Orientation, 1) != 1 else image


def read_labels(path: Path) -> npt.NDArray[Any]:
    """The raw values (H, W) in a label file, of its own integer type: 8 bits, 16 bits, or palette indices.

    A 1-bit file holds 0 and 1. An EXIF orientation is applied, as for images.

    Raises:
        UserError: no such file, no image, damaged or cut short, or more than one channel (a coloured mask).
    """
    with reading(path, "a label map"), Image.open(path) as opened:
        opened.load()
        labels = _upright(opened)
        if labels.mode == "1":
            return np.asarray(labels).astype(np.uint8)
        if labels.mode in ("L", "P", *SIXTEEN_BIT):
            return np.asarray(labels)
        channels = labels.getbands()
        if len(channels) == 1:
            raise UserError(f"{path}: pixels are floating-point numbers; a label map holds whole numbers: save it so")
        raise UserError(f"{path}: {_explain_channels(np.asarray(labels), channels)}")


def read_size(path: Path) -> tuple[int, int]:
    """Height and width of an image as displayed, from its header alone.

    Raises:
        UserError: no such file, or no image.
    """
    with reading(path, "an image"), Image.open(path) as opened:
        width, height = opened.size
        turned = opened.getexif().get(ExifTags.Base.Orientation) in TURNED
    return (width, height) if turned else (height, width)


def first(items: Sequence[Any], count: int = 3) -> str:
    """The first few of `items` as text."""
    return ", ".join(str(item) for item in items[:count]) + (", ..." if len(items) > count else "")


def _explain_channels(pixels: npt.NDArray[Any], channels: Sequence[str]) -> str:
    """Why a label map of several channels is refused, and how to mend it."""
    found = f"the label map has {len(channels)} channels ({', '.join(channels)}), but one number per pixel is needed; "
    see_through = channels[-1] in ("A", "a")
    color = pixels[..., :-1] if see_through else pixels[..., :3]
    if (color == color[..., :1]).all():
        kept = '"A"' if see_through and color.min() == color.max() and np.ptp(pixels[..., -1]) else "0"
        why = "all of it is in its transparency" if kept != "0" else "its colour channels are equal"
        if color.shape[-1] == 1 and kept == "0":
            why = "one of them is transparency"
        return found + (
            f"{why}, so nothing is lost by saving one of them: in Python, "
            f"`from PIL import Image; Image.open(FILE).getchannel({kept}).save(FILE)`"
        )
    return found + (
        "it looks like a mask painted in colours: describe them in a spec, with `labels: {format: color}` and each "
        "class's `color`, or save class numbers instead, as a grey or palette PNG"
    )


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Turn whatever Pillow raises on a bad file into an `Unreadable` that names the file and `what` it should be."""
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError:
        raise Unreadable(f"{path}: no such file") from None
    except Image.DecompressionBombError as error:
        raise Unreadable(f"{path}: {error}; cut or shrink the picture first") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        raise Unreadable(f"{path}: cannot be read as {what} ({error}); mend it, fetch it again or remove it") from error


def _explain_lossy(files: Sequence[Path], suffixes: Sequence[str]) -> str:
    """What to do about label maps in `files` that are JPEG, where pictures with these suffixes are read."""
    if ".png" not in suffixes or not (lossy := [path for path in files if path.suffix.lower() in LOSSY_SUFFIXES]):
        return ""
    return (
        f"; {len(lossy)} label maps are JPEG ({lossy[0]}), which is not read, for compression changes values: export "
        "them as PNG, or make masks of two values 0 and 255 again, in Python `from PIL import Image; "
        "Image.open(FILE).convert('L').point(lambda value: 255 * (value > 127)).save(FILE_AS_PNG)`"
    )


def _find(root: Path, pattern: str, suffixes: Sequence[str], what: str) -> tuple[dict[str, Path], dict[str, Path]]:
    """Files by name, under a folder or matching a glob with `*`, `**`, `?` and `{one,other}`; those of other types."""
    pattern = Path(pattern).as_posix()
    wildcard = WILDCARD.search(pattern)
    fixed = pattern[: pattern.rfind("/", 0, wildcard.start()) + 1] if wildcard else pattern
    folder = root / fixed
    if not folder.is_dir():
        raise UserError(f"{what}: no folder {folder}{_describe(root, Path(fixed))}")
    matcher = re.compile(_glob(pattern.removeprefix(fixed) or "**/*"))
    found: dict[str, Path] = {}
    others: dict[str, Path] = {}
    for path in _walk(folder):
        match = matcher.fullmatch(path.relative_to(folder).as_posix())
        if match is None:
            continue
        name = stem("/".join(group.strip("/") for group in match.groups() if group and group.strip("/")))
        if path.suffix.lower() not in suffixes:
            others[name] = path
            continue
        if name in found:
            raise UserError(f"{what}: {found[name]} and {path} have the same name {name!r}; keep one of them")
        found[name] = path
    if not found:
        seen = f"; it holds {len(others)} other files ({first([path.name for path in others.values()])})"
        raise UserError(
            f"{what}: no file of type {', '.join(suffixes)} in {root / pattern}{seen if others else ''}"
            f"{_explain_lossy(list(others.values()), suffixes)}"
        )
    return found, others


def _glob(pattern: str) -> str:
    """A regular expression whose groups are the wildcards of `pattern`; what stands in braces is in no group."""
    wild = {"**/": "((?:.*/)?)", "*": "([^/]*)", "?": "([^/])"}
    text = ""
    for piece in WILDCARD.split(pattern):
        if WILDCARD.fullmatch(piece) and piece.startswith("{"):
            text += "(?:" + "|".join(_glob(choice) for choice in piece[1:-1].split(",")) + ")"
        else:
            text += wild.get(piece) or re.escape(piece)
    return text


def _walk(folder: Path) -> Iterator[Path]:
    """Files under `folder`, sorted, but for hidden ones (.DS_Store, ._photo.jpg, .ipynb_checkpoints)."""
    for base, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(base, name) for name in sorted(files) if not name.startswith("."))


def stem(name: str) -> str:
    """`name` without the suffix of a readable file; other dots stay.

    Composed (NFC), since macOS writes an accent as a character of its own: the same name on every machine.
    """
    name = unicodedata.normalize("NFC", name)
    return name[: -len(Path(name).suffix)] if Path(name).suffix.lower() in (*IMAGE_SUFFIXES, MAT_SUFFIX) else name


def _read_list(path: Path, what: str) -> list[str]:
    """The names in a text file, one a line, with or without a suffix."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()  # Windows puts a mark at the start
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{what}: cannot read the list of names {path} ({error})") from error
    names = list(dict.fromkeys(stem(line.strip()) for line in lines if line.strip()))
    if not names:
        raise UserError(f"{what}: the list of names {path} is empty")
    return names


def _describe(root: Path, wanted: Path) -> str:
    """What `root` holds instead of the folder `wanted`, and whether it lies one level deeper."""
    if wanted.is_absolute():
        return ""
    if not root.is_dir():
        return f": {root} does not exist"
    entries = sorted(entry for entry in root.iterdir() if not entry.name.startswith("."))
    if deeper := [entry for entry in entries if (entry / wanted).is_dir()]:
        return f"; it is under {deeper[0]}: give that as the root"
    return f"; {root} should hold {wanted}, but holds {first([e.name for e in entries], 8) or 'nothing'}"

"""Image and label files that belong together: found by their names, or by what the labels describe.

Pairs share a name: their path below the two folders without suffix, or, for globs, what the `*` match.
"""

import os
import re
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from segvit.data.images import IMAGE_SUFFIXES, LOSSY_SUFFIXES
from segvit.errors import UserError

WILDCARD = re.compile(r"(\*\*/|\*|\?|\{[^{}]*,[^{}]*\})")
"""What is not meant literally in a glob."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """Where the pairs of one split lie."""

    images: str
    """Folder (searched with its sub-folders) or glob, relative to the root."""
    labels: str
    """The same for label maps. Pairs share their path below the folder without suffix, or what the glob's * match.
    For polygons the one JSON file."""
    list: str | None = None
    """Text file, relative to the root, with one name a line: only these pairs are used. Default: every file."""
    labeled_only: bool = False
    """Leave out images without a label map; otherwise they are an error."""


class Place(NamedTuple):
    """The folders of one split, and the words for it in error texts."""

    root: Path
    """Folder that the split's paths are relative to (absolute ones stay as they are)."""
    split: Split
    what: str
    """Name of the split in error texts, such as "dataset 'camvid', split 'train'"."""
    options: tuple[str, str]
    """Settings that hold the image and the label folder, named in error texts."""


class Pair(NamedTuple):
    """An image and its labels."""

    name: str
    """What both share: their relative path without suffix."""
    image: Path
    labels: Path
    """The label map, or the file that describes it among others."""
    shared: bool = False
    """Whether `labels` describes other images too."""

    @property
    def source(self) -> str:
        """Where the labels come from, for messages."""
        return f"{self.labels}: {self.name}" if self.shared else str(self.labels)


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
    place: Place, *, suffixes: Sequence[str], described: Collection[str] | None = None
) -> tuple[list[Pair], Orphans]:
    """The complete pairs of a split, sorted by name or in the order of its list, and what is left over.

    Args:
        place: folders or globs, and optionally the list of names to use.
        suffixes: of label files.
        described: where `split.labels` is one file for all images: their names in it, which are the list to use.

    Raises:
        UserError: a folder is missing or empty, a name occurs twice, or no pair is complete.
    """
    root, split, what, options = place
    images, _ = _find(root, split.images, IMAGE_SUFFIXES, f"{what}: images ({options[0]})")
    others: dict[str, Path] = {}
    if described is not None:
        labels = dict.fromkeys(described, root / split.labels)
    else:
        labels, others = _find(root, split.labels, suffixes, f"{what}: label maps ({options[1]})")
    listed = _read_list(root / split.list, suffixes, what) if split.list is not None else None
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
    shared = described is not None
    pairs = [Pair(name, images[name], labels[name], shared) for name in names if name in images and name in labels]
    if orphans and not pairs:
        raise UserError(orphans.error)
    return pairs, orphans


def first(items: Sequence[Any], count: int = 3) -> str:
    """The first few of `items` as text."""
    return ", ".join(str(item) for item in items[:count]) + (", ..." if len(items) > count else "")


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
        name = stem("/".join(group.strip("/") for group in match.groups() if group and group.strip("/")), suffixes)
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


def stem(name: str, suffixes: Sequence[str] = ()) -> str:
    """`name` without the suffix of an image, or one of `suffixes`; other dots stay.

    Composed (NFC), since macOS writes an accent as a character of its own: the same name on every machine.
    """
    name = unicodedata.normalize("NFC", name)
    return name[: -len(Path(name).suffix)] if Path(name).suffix.lower() in (*IMAGE_SUFFIXES, *suffixes) else name


def _read_list(path: Path, suffixes: Sequence[str], what: str) -> list[str]:
    """The names in a text file, one a line, with or without a suffix."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()  # Windows puts a mark at the start
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{what}: cannot read the list of names {path} ({error})") from error
    names = list(dict.fromkeys(stem(line.strip(), suffixes) for line in lines if line.strip()))
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

"""Find image and label files that belong together: by their names, or by the names in a file of labels.

The files of a pair share a name: their path below the two folders without suffix, or the parts that a glob's `*` match.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from segvit.data.images import IMAGE_SUFFIXES, LOSSY_SUFFIXES
from segvit.data.lists import LINES, Known, read_entries, read_list, stem
from segvit.data.masks_beside import has_masks, mask_name, photo_name
from segvit.data.member import File
from segvit.errors import UserError
from segvit.utils.files import files_below
from segvit.utils.text import counted_are

WILDCARD = re.compile(r"(\*\*/|\*|\?|\{[^{}]*,[^{}]*\})")
"""The parts of a glob that are not literal."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """The folders and the list of one split."""

    images: str
    """Folder (searched with its sub-folders) or glob, relative to the root."""
    labels: str
    """Folder or glob of the label maps. Pairs share their path below the folder without suffix, or the parts that the
    globs' * match. For polygons, the JSON file."""
    list: str | None = None
    """Text file, relative to the root, with one pair per line (lists.py). Default: every file is used."""
    labeled_only: bool = False
    """Leave out images without a label map. Otherwise they are an error."""


class Place(NamedTuple):
    """The folders of one split, and the words for it in error texts."""

    root: Path
    """Folder that the split's relative paths start from."""
    split: Split
    what: str
    """Name of the split in error texts, such as "dataset 'camvid', split 'train'"."""
    options: tuple[str, str]
    """Settings that hold the image and the label folder, named in error texts."""


class Pair(NamedTuple):
    """An image and its labels."""

    name: str
    """Relative path of both without suffix."""
    image: File
    labels: File
    """The label map, or the file that describes it among others."""
    shared: bool = False
    """True if `labels` describes other images too."""

    @property
    def source(self) -> str:
        """The label file, with the image's name if the file is shared, for messages."""
        return f"{self.labels}: {self.name}" if self.shared else str(self.labels)

    @property
    def label_path(self) -> Path:
        """The label file of a format whose files are never inside another file."""
        assert isinstance(self.labels, Path)
        return self.labels


class Orphans(NamedTuple):
    """Files without a partner."""

    images: tuple[str, ...] = ()
    """Images without labels: files, or names in a list."""
    labels: tuple[str, ...] = ()
    """Labels without an image: files, or names in a list."""
    error: str = ""
    """Error text for training on such a split."""
    remedy: str = ""
    """The remedy, which `error` ends with."""

    def __bool__(self) -> bool:
        return bool(self.images or self.labels)


def find_pairs(
    place: Place,
    *,
    suffixes: Sequence[str],
    described: Collection[str] | None = None,
    label_name: Callable[[str], str] = str,
) -> tuple[list[Pair], Orphans]:
    """Find the complete pairs of a split, sorted by name or in the order of its list, and the files without a partner.

    Args:
        place: folders or globs, and optionally a list of names.
        suffixes: suffixes of label files.
        described: names of the images in `split.labels`, if that is one file for all images. They serve as the list.
        label_name: returns the name of the image that a label file belongs to, if the two names differ.

    Raises:
        UserError: a folder is missing or empty, a name occurs twice, or no pair is complete.
    """
    root, split, what, options = place
    together = described is None and split.images == split.labels
    keep = options if together else (options[0],)
    together = together and has_masks(root / split.images, suffixes)
    rename: Callable[[str], str] = photo_name if together else str
    images, _ = _find(root, split.images, IMAGE_SUFFIXES, f"{what}: images ({options[0]})", keep, rename)
    others: dict[str, Path] = {}
    if described is not None:
        labels = dict.fromkeys(described, root / split.labels)
    else:
        where, rename = f"{what}: label maps ({options[1]})", mask_name if together else label_name
        labels, others = _find(root, split.labels, suffixes, where, (options[1],), rename, set(images.values()))
    listed = read_listed(place, images, labels, suffixes=suffixes, shared=described is not None)
    if listed is None:
        names = sorted(images.keys() | labels.keys())
    else:
        names = list(listed)
        labels = {name: labels[partner] for name, partner in listed.items() if partner in labels}
    partial = listed is None and (split.labeled_only or described is not None)
    bare = [] if partial else [name for name in names if name not in labels]
    alone = [name for name in names if name not in images]
    if listed is not None:
        remedy = (
            f"they are named in {root / str(split.list)}: add the files, or remove the names from the list ({LINES})"
        )
    elif described is not None:
        skip = "leave them out with `missing: skip` under `labels`"
        if options[0].startswith("data."):  # flags, whose users have no section `labels`
            skip = f"give the folder of these images as {options[0]}"
        remedy = f"they are named in {root / split.labels}: add the files, or {skip}"
    else:
        remedy = (
            "every image needs one label map with the same path except for the suffix: move or delete the others; "
            f"if the names have different endings, give globs, such as {options[0]} 'photos/*.jpg' and "
            f"{options[1]} 'masks/*_mask.png'; to leave out images without labels, write `labeled_only: true` in a spec"
        )
    lossy = [others[name] for name in bare if name in others and others[name] != images.get(name)]
    remedy += _explain_lossy(lossy, suffixes)
    kinds = (
        ([listed[name] if listed else name for name in bare], "images without a label map", "label maps", split.labels),
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


def read_listed(
    place: Place, images: Mapping[str, Path], labels: Mapping[str, Path], *, suffixes: Sequence[str], shared: bool
) -> dict[str, str] | None:
    """Return the name of the label map by that of its image, as the split's list gives them. None without a list.

    Raises:
        UserError: the list cannot be read.
    """
    root, split, what, _ = place
    if split.list is None:
        return None
    lines = read_list(root / split.list, what)
    known = [
        Known(files, {} if one else _below(files, folder_of(root, pattern, what)[0]))
        for files, pattern, one in ((images, split.images, False), (labels, split.labels, shared))
    ]
    where = f"{what}: {root / split.list}"
    return dict(read_entries(lines, *known, suffixes=suffixes, where=where, root=root))


def _below(files: Mapping[str, Path], folder: Path) -> dict[str, str]:
    """Return the names of files by their paths below a folder, without suffix."""
    return {stem(path.relative_to(folder).as_posix(), [path.suffix.lower()]): name for name, path in files.items()}


def first(items: Sequence[Any], count: int = 3) -> str:
    """Return the first few of `items` as text."""
    return ", ".join(str(item) for item in items[:count]) + (", ..." if len(items) > count else "")


def _explain_lossy(files: Sequence[Path], suffixes: Sequence[str]) -> str:
    """Return the remedy for label maps in `files` that are JPEG, if the format reads pictures."""
    if ".png" not in suffixes or not (lossy := [path for path in files if path.suffix.lower() in LOSSY_SUFFIXES]):
        return ""
    return (
        f"; {counted_are(len(lossy), 'label map')} JPEG ({lossy[0]}), whose compression changes values, so they are "
        "not read: export them as PNG, or restore masks of two values 0 and 255 in Python, `from PIL import Image; "
        "Image.open(FILE).convert('L').point(lambda value: 255 * (value > 127)).save(FILE_AS_PNG)`"
    )


def _find(
    root: Path,
    pattern: str,
    suffixes: Sequence[str],
    what: str,
    options: Sequence[str],
    rename: Callable[[str], str] = str,
    photos: Collection[Path] = (),
) -> tuple[dict[str, Path], dict[str, Path]]:
    """Find files by name, under a folder or matching a glob with `*`, `**`, `?` and `{one,other}`.

    Args:
        root: what the pattern is relative to.
        pattern: folder or glob.
        suffixes: of the files to find.
        what: name of the files in error texts.
        options: settings that hold this pattern: one, or both if images and labels are in the same folder.
        rename: returns the name to use for a file's, or nothing to pass over the file.
        photos: the images of these labels, which are no label maps.

    Returns:
        The files with these suffixes, and the others.
    """
    found: dict[str, Path] = {}
    others: dict[str, Path] = {}
    for path, own in _matching(root, pattern, suffixes, what):
        if not (name := rename(own)):
            continue
        if path.suffix.lower() not in suffixes:
            others[name] = path
            continue
        if name in found:
            remedy = _tell_apart(found[name], path, pattern if not WILDCARD.search(pattern) else "", options)
            raise UserError(f"{what}: {found[name]} and {path} have the same name {name!r}; {remedy}")
        found[name] = path
    if not found:
        seen = f"; it has {len(others)} other files ({first([path.name for path in others.values()])})"
        raise UserError(
            f"{what}: no file of type {', '.join(suffixes)} in {root / pattern}{seen if others else ''}"
            f"{_explain_lossy([path for path in others.values() if path not in photos], suffixes)}"
        )
    return found, others


def files_of(root: Path, pattern: str, what: str) -> list[Path]:
    """Return all files in a folder and its subfolders, or those that match a glob, sorted.

    Raises:
        UserError: there is no such folder.
    """
    return [path for path, _ in _matching(root, pattern, (), what)]


def find_images(place: Place) -> dict[str, Path]:
    """Return the images of a split by name.

    Raises:
        UserError: the folder is missing or empty, or a name occurs twice.
    """
    root, split, what, options = place
    return _find(root, split.images, IMAGE_SUFFIXES, f"{what}: images ({options[0]})", options[:1])[0]


def find_labels(place: Place, suffixes: Sequence[str]) -> dict[str, Path]:
    """Return the label files of a split by name.

    Raises:
        UserError: the folder is missing or empty, or a name occurs twice.
    """
    root, split, what, options = place
    return _find(root, split.labels, suffixes, f"{what}: label maps ({options[1]})", options[1:])[0]


def _matching(root: Path, pattern: str, suffixes: Sequence[str], what: str) -> Iterator[tuple[Path, str]]:
    """Yield each file in a folder or of a glob, with its name."""
    folder, pattern, fixed = folder_of(root, pattern, what)
    matcher = re.compile(_glob(pattern.removeprefix(fixed) or "**/*"))
    for path in files_below(folder, follow=True):
        match = matcher.fullmatch(path.relative_to(folder).as_posix())
        if match is not None:
            parts = [group.strip("/") for group in match.groups() if group and group.strip("/")]
            yield path, stem("/".join(parts), suffixes)


def _tell_apart(one: Path, other: Path, folder: str, options: Sequence[str]) -> str:
    """Return the remedy for two files of one name, of which one may be the label map of the other.

    Args:
        one: a file.
        other: another file of the same name.
        folder: folder that both were found in; empty if they were found by a glob.
        options: see `_find`.
    """
    if one.suffix == other.suffix or not folder:
        return "keep one of them"
    photo, mask = (one, other) if one.suffix.lower() in LOSSY_SUFFIXES else (other, one)
    below = "" if one.parent.name == other.parent.name == Path(folder).name else "**/"
    globs = [f"{folder}/{below}*{file.suffix}" for file in (photo, mask)]
    flags = [f"--{option}" if option.startswith("data.") else option for option in options]
    pairs = " ".join(f"{flag} '{glob}'" for flag, glob in zip(flags, globs, strict=False))
    if len(options) > 1:
        return f"if one is the photo and one is its label map, separate them by globs: {pairs}"
    return f"keep one of them, or choose by a glob, such as {pairs}"


def folder_of(root: Path, pattern: str, what: str) -> tuple[Path, str, str]:
    """Return the folder of a folder or glob, the pattern with forward slashes, and its part without wildcards.

    Raises:
        UserError: there is no such folder.
    """
    pattern = Path(pattern).as_posix()
    wildcard = WILDCARD.search(pattern)
    fixed = pattern[: pattern.rfind("/", 0, wildcard.start()) + 1] if wildcard else pattern
    folder = root / fixed
    if not folder.is_dir():
        raise UserError(f"{what}: no folder {folder}{_describe(root, Path(fixed))}")
    return folder, pattern, fixed


def _glob(pattern: str) -> str:
    """Return a regular expression whose groups are the wildcards of `pattern`, except for the choices in braces."""
    wild = {"**/": "((?:.*/)?)", "*": "([^/]*)", "?": "([^/])"}
    text = ""
    for piece in WILDCARD.split(pattern):
        if WILDCARD.fullmatch(piece) and piece.startswith("{"):
            text += "(?:" + "|".join(_glob(choice) for choice in piece[1:-1].split(",")) + ")"
        else:
            text += wild.get(piece) or re.escape(piece)
    return text


def _describe(root: Path, wanted: Path) -> str:
    """Return a text with the content of `root`, in which the folder `wanted` is missing or one level deeper."""
    if wanted.is_absolute():
        return ""
    if not root.is_dir():
        return f": {root} does not exist"
    entries = sorted(entry for entry in root.iterdir() if not entry.name.startswith("."))
    if deeper := [entry for entry in entries if (entry / wanted).is_dir()]:
        return f"; it is in {deeper[0]}: give that as the root"
    return f"; {root} should contain {wanted}, but contains {first([e.name for e in entries], 8) or 'nothing'}"

"""Read the list of a split: a text file with one name, path, or pair of paths a line.

    lines = read_list(Path("train.txt"), "split 'train'")
    entries = read_entries(lines, images, labels, suffixes=(".png",), where="train.txt")

A line may be a name (`0`) or a path whose end is a name (`data/photos/0.png`). Two words are an image and its label
map (`photos/0.png masks/0.png`), or a name and a flag of VOC (`0 1`): 1 uses the image, and -1 leaves it out.
"""

import codecs
import csv
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from segvit.data.images import IMAGE_SUFFIXES
from segvit.errors import UserError

LINES = (
    "a line may be a name, a path that ends with a name, an image and its label map (`photos/0.png masks/0.png`), or a "
    'name with 1 or -1; put names with blanks in quotes, "my photo.png"'
)
"""Sentence for error texts: the forms that a line may have."""
COMMENT = "#"
"""Start of a line that is passed over."""
FLAGS = ("1", "-1")
"""Second words of VOC's lists: the image is used, or left out."""
HEADER = frozenset(
    f"{word}{ending}"
    for word in ("image", "photo", "file", "filename", "img", "mask", "label", "annotation")
    for ending in ("", "s", "_path")
)
"""Words of a line above the pairs that names the two columns."""
BETWEEN = re.compile(r"[\s,]")
"""A mark between two words."""
WORD = re.compile(r'"([^"]*)"|\'([^\']*)\'|(\S+)')
"""A word between blanks, with or without quotes."""


class Known(NamedTuple):
    """The files that the words of a list may mean."""

    files: Mapping[str, Path]
    """Files by their names."""
    aliases: Mapping[str, str]
    """Names by the paths below the folder, without suffix. The two differ if a glob has wildcards in a file's name."""

    def find(self, word: str, suffixes: Sequence[str]) -> str | None:
        """Return the name that a word ends with, the longest of several, or None."""
        end = self._end(stem(_forward(word), suffixes))
        return end if end is None else self.aliases.get(end, end)

    def is_word(self, line: str, suffixes: Sequence[str]) -> bool:
        """Return True if a whole line ends with a name, and no blank or comma is before the name."""
        text = stem(_forward(line), suffixes)
        end = self._end(text)
        return end is not None and not BETWEEN.search(text.removesuffix(end))

    def _end(self, text: str) -> str | None:
        parts = text.split("/")
        ends = ("/".join(parts[start:]) for start in range(len(parts)))
        return next((end for end in ends if end in self.files or end in self.aliases), None)


class Entry(NamedTuple):
    """One pair that a list names."""

    image: str
    """Name of the image, or the words of the line if no image has this name."""
    labels: str
    """Name of its label map, or the words of the line if there is none."""


def read_list(path: Path, what: str) -> list[str]:
    """Read the lines of a list, without blank ones and comments.

    Args:
        path: text file in UTF-8, or in UTF-16 with a byte-order mark, as PowerShell writes it.
        what: name of the split in error texts.

    Raises:
        UserError: the file cannot be read, or has no lines.
    """
    try:
        content = path.read_bytes()
        wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{what}: cannot read the list of names {path} ({error})") from error
    if "\0" in text:
        raise UserError(f"{what}: the list of names {path} holds zero bytes; save it as UTF-8 text")
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith(COMMENT)]
    if not lines:
        raise UserError(f"{what}: the list of names {path} is empty")
    return lines


def read_entries(
    lines: Sequence[str], images: Known, labels: Known, *, suffixes: Sequence[str], where: str, root: Path
) -> list[Entry]:
    """Return the pairs that the lines of a list name, each once and in the order of the list.

    Args:
        lines: see `read_list`.
        images: image files.
        labels: label files.
        suffixes: suffixes of label files.
        where: name of the list in error texts.
        root: folder that relative paths may start from.

    Raises:
        UserError: a line has more than two words, an image occurs with two label maps, a path is another file than that
            of its name, or nothing is left to use.
    """

    both = (images, labels)
    if lines and _is_header(lines[0], both, suffixes):
        lines = lines[1:]
    rows = [_words(line, both, suffixes) for line in lines]
    flagged = all(row[1] in FLAGS for row in rows if len(row) == 2)
    entries: dict[str, Entry] = {}
    for line, row in zip(lines, rows, strict=True):
        if len(row) > 2:
            raise UserError(f"{where}: {line!r} has {len(row)} words; {LINES}")
        if len(row) == 2 and flagged:
            row, dropped = row[:1], row[1] == FLAGS[1]
            if dropped:
                continue
        if len(row) == 2 and not any(among.find(word, suffixes) for among in both for word in row):
            row = [line]  # one name with a blank, whose file is missing
        words = (row[0], row[-1])
        entry = Entry(*(_name(word, among, suffixes) for word, among in zip(words, both, strict=True)))
        if len(row) == 1:
            entry = _completed(entry, images, labels)
        _check_files(words, entry, both, root, where)
        if (before := entries.setdefault(entry.image, entry)) != entry:
            two = f"{before.labels!r} and {entry.labels!r}"
            raise UserError(f"{where}: {entry.image!r} has two label maps, {two}; keep one line")
    if not rows:
        raise UserError(f"{where}: there is no pair below the names of the columns")
    if not entries:
        raise UserError(f"{where}: every line ends with -1, so no image is left; end those to use with 1")
    return list(entries.values())


def stem(name: str, suffixes: Sequence[str] = ()) -> str:
    """Return `name` without the suffix of an image or one of `suffixes`. Other dots stay.

    The name is composed (NFC), because macOS writes an accent as a separate character.
    """
    name = unicodedata.normalize("NFC", name)
    return name[: -len(Path(name).suffix)] if Path(name).suffix.lower() in (*IMAGE_SUFFIXES, *suffixes) else name


def _name(word: str, known: Known, suffixes: Sequence[str]) -> str:
    """Return the name that a word means, or the word without suffix if no file has it."""
    return known.find(word, suffixes) or stem(_forward(word), suffixes)


def _completed(entry: Entry, images: Known, labels: Known) -> Entry:
    """Return the entry of a line with one word, whose two names are the same."""
    if entry.image in images.files:
        return Entry(entry.image, entry.image)
    return Entry(entry.labels, entry.labels) if entry.labels in labels.files else entry


def _check_files(words: tuple[str, str], entry: Entry, known: tuple[Known, Known], root: Path, where: str) -> None:
    """Refuse a path to a file that exists, but is not the one that its name stands for."""
    files = [among.files.get(name) for among, name in zip(known, entry, strict=True)]
    for word in dict.fromkeys(words):
        path = root / _forward(word)
        wanted = files if words[0] == words[1] else [files[words.index(word)]]
        if "/" not in _forward(word) or None in wanted or path in wanted or not path.is_file():
            continue
        if not any(path.samefile(file) for file in wanted if file):
            raise UserError(
                f"{where}: {word} is a file, but not below the folders of this split, whose file of that name is "
                f"{wanted[0]}; correct the path, or give the folder that holds it"
            )


def _is_header(line: str, both: tuple[Known, Known], suffixes: Sequence[str]) -> bool:
    """True if a line names the two columns, and no file has such a name."""
    words = _split(line)
    known = any(among.find(word, suffixes) for among in both for word in words)
    return len(words) == 2 and not known and {word.lower() for word in words} <= HEADER


def _forward(word: str) -> str:
    """Return a path with forward slashes and without a leading `./`. Those of Windows have backslashes."""
    word = word if "/" in word else word.replace("\\", "/")
    return word.removeprefix("./")


def _words(line: str, both: tuple[Known, Known], suffixes: Sequence[str]) -> list[str]:
    """Return the words of a line. A name with blanks that a file has is one word."""
    bare = line[1:-1] if line[0] == line[-1] and line[0] in "\"'" and len(line) > 2 else line
    return [bare] if any(known.is_word(bare, suffixes) for known in both) else _split(line)


def _split(line: str) -> list[str]:
    """Return the words between tabs, or else between commas, or else between blanks."""
    for mark in ("\t", ","):
        if mark in line:
            cells = next(csv.reader([line], delimiter=mark, skipinitialspace=True))
            return [cell.strip() for cell in cells if cell.strip()]
    return ["".join(groups) for groups in WORD.findall(line)]

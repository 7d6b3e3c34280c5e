"""Label maps of .mat and JSON files, kept as PNG files (`data.cache`): made once, whole or not at all.

An entry bears the size and the time of the file it was made from, and a checksum of its pixels: one that is stale or
damaged is made anew. Any number of processes may read and write the same folder.
"""

import hashlib
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from segvit.data.images import reading
from segvit.utils.files import PARTIAL, cannot_write, whole_file, writing

STAMP = "segvit"
"""Key of the text in an entry that says what it was made from."""
REMEDY = "name another folder with `--data.cache FOLDER`, or leave it out and decode the label maps each time"


class LabelCache:
    """A folder of decoded label maps."""

    def __init__(self, folder: Path) -> None:
        """Make the folder.

        Raises:
            UserError: it cannot be made or written to.
        """
        self.folder = folder
        with writing(folder, REMEDY):
            folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise cannot_write(folder, "no permission", REMEDY)

    def get(
        self, source: Path, decode: Callable[[], npt.NDArray[Any]], *, item: str = "", settings: str = ""
    ) -> npt.NDArray[Any]:
        """The label map (H, W), uint8 or uint16, that `decode` gives, from the folder where it is there.

        Args:
            source: file that `decode` reads; the entry is made anew when its size or time of change differs.
            decode: called where there is no good entry.
            item: which label map of the file, where it holds several.
            settings: whatever else the result depends on.

        Raises:
            UserError: no such file, or an entry cannot be written.
        """
        with reading(source, "a label file"):
            state = source.stat()
        made_from = f"{state.st_size} {state.st_mtime_ns}"
        key = hashlib.sha256("\0".join([str(source.absolute()), item, settings]).encode()).hexdigest()
        entry = self.folder / key[:2] / f"{key[2:]}.png"
        labels = _load(entry, made_from)
        if labels is None:
            labels = decode()
            _store(labels, entry, made_from)
        return labels


def _load(entry: Path, made_from: str) -> npt.NDArray[Any] | None:
    """The label map in an entry; None where it is missing, stale or damaged."""
    try:
        with Image.open(entry) as opened:
            opened.load()
            labels = np.asarray(opened)
            stamp = opened.info.get(STAMP)
    except (OSError, SyntaxError, ValueError, EOFError, struct.error):
        return None
    return labels if stamp == _stamp(labels, made_from) else None


def _store(labels: npt.NDArray[Any], entry: Path, made_from: str) -> None:
    """Write an entry aside and move it into its place."""
    about = PngInfo()
    about.add_text(STAMP, _stamp(labels, made_from))
    with writing(entry, REMEDY):
        entry.parent.mkdir(exist_ok=True)
        with whole_file(entry, flush=False, ending=PARTIAL) as aside:  # the stamp tells a damaged entry
            Image.fromarray(labels).save(aside, "PNG", pnginfo=about)


def _stamp(labels: npt.NDArray[Any], made_from: str) -> str:
    """What an entry says of itself."""
    return f"{made_from} {zlib.crc32(np.ascontiguousarray(labels).tobytes())}"

"""Keep the label maps of .mat and JSON files as PNG files (`data.cache`), so that each is decoded once.

An entry records the size and modification time of its source, and a checksum of its pixels. A stale or damaged entry is
replaced. Any number of processes may read and write the same folder.
"""

import hashlib
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from segvit.data.images import Unreadable, open_picture, reading
from segvit.data.member import File
from segvit.utils.files import PARTIAL, cannot_write, whole_file, writing

STAMP = "segvit"
"""Key of the text in an entry that identifies its source."""
REMEDY = "give another folder, `--data.cache FOLDER`, or leave it out to decode the label maps each time"


class LabelCache:
    """A folder of decoded label maps."""

    def __init__(self, folder: Path) -> None:
        """Create the folder.

        Raises:
            UserError: the folder cannot be created or written to.
        """
        self.folder = folder
        with writing(folder, REMEDY):
            folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise cannot_write(folder, "no permission", REMEDY)

    def get(
        self, source: File, decode: Callable[[], npt.NDArray[Any]], *, item: str = "", settings: str = ""
    ) -> npt.NDArray[Any]:
        """Return the label map (H, W), uint8 or uint16, from the folder, or from `decode` if it is not there.

        Args:
            source: file that `decode` reads. The entry is replaced if its size or modification time differs.
            decode: called if there is no valid entry.
            item: name of the label map, if the file holds several.
            settings: everything else that the result depends on.

        Raises:
            UserError: the file does not exist, or an entry cannot be written.
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
    """Read the label map in an entry. None if it is missing, stale or damaged."""
    try:
        with open_picture(entry, "a label map") as opened:
            opened.load()
            labels = np.asarray(opened)
            stamp = opened.info.get(STAMP)
    except Unreadable:
        return None
    return labels if stamp == _stamp(labels, made_from) else None


def _store(labels: npt.NDArray[Any], entry: Path, made_from: str) -> None:
    """Write an entry under another name and rename it."""
    about = PngInfo()
    about.add_text(STAMP, _stamp(labels, made_from))
    with writing(entry, REMEDY):
        entry.parent.mkdir(exist_ok=True)
        with whole_file(entry, flush=False, ending=PARTIAL) as aside:  # the stamp reveals a damaged entry
            Image.fromarray(labels).save(aside, "PNG", pnginfo=about)


def _stamp(labels: npt.NDArray[Any], made_from: str) -> str:
    """Return the text that identifies an entry's source and pixels."""
    return f"{made_from} {zlib.crc32(np.ascontiguousarray(labels).tobytes())}"

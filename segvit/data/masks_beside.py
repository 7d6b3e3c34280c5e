"""Distinguish photos from the masks beside them in one folder, as Roboflow writes them: `0.jpg` and `0_mask.png`."""

from collections.abc import Sequence
from pathlib import Path

from segvit.utils.files import files_below

MASK_ENDING = "_mask"
"""Ending of the names of masks that are in one folder with their photos."""


def has_masks(folder: Path, suffixes: Sequence[str]) -> bool:
    """Return True if a folder holds files such as `0_mask.png`, which are the label maps of others beside them.

    Raises:
        UserError: a folder cannot be read.
    """
    if not folder.is_dir():
        return False
    paths = files_below(folder, follow=True)
    return any(path.suffix.lower() in suffixes and path.stem.endswith(MASK_ENDING) for path in paths)


def photo_name(name: str) -> str:
    """Return the name of a photo, or an empty text for a mask."""
    return "" if name.endswith(MASK_ENDING) else name


def mask_name(name: str) -> str:
    """Return the name of the photo that a mask belongs to, or an empty text for a photo."""
    return name.removesuffix(MASK_ENDING) if name.endswith(MASK_ENDING) else ""

"""Count each class in each sample of a dataset, for class weights and for the sampling of rare classes.

    census = take_census(samples, folder=cache_folder() / "census")

Every label map is read once. The counts are kept in a file whose name is a hash of the spec and of the label files:
their names, sizes and modification times. Another run on the same files reads the counts instead.

Letters: N samples, K classes.
"""

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from segvit.data.check.scan import scan_all
from segvit.data.dataset import Samples, SegmentationDataset
from segvit.data.spec import IGNORE_INDEX
from segvit.errors import UserError
from segvit.utils.files import PARTIAL, whole_file, writing


class Census(NamedTuple):
    """The class counts of a dataset."""

    pixels: npt.NDArray[np.int64]
    """(K,) number of pixels of each class, over all samples."""
    shown: npt.NDArray[np.bool_]
    """(N, K) True if the sample shows the class."""


def take_census(samples: Samples, *, folder: Path | None = None) -> Census:
    """Count the classes of every sample. Label maps that cannot be read are left out.

    Args:
        samples: the dataset.
        folder: folder to keep the counts in. Default: they are not kept. Drawn scenes are always counted again.

    Raises:
        UserError: the counts cannot be written to the folder.
    """
    kept = folder / f"{_key(samples)}.npz" if folder and isinstance(samples, SegmentationDataset) else None
    census = _load(kept, (len(samples), samples.spec.num_classes)) if kept else None
    if census is None:
        census = _count(samples)
        if kept:
            _store(census, kept)
    return census


def _count(samples: Samples) -> Census:
    """Count all samples, with one thread per core."""
    classes = samples.spec.lookup()  # raw value -> class
    pixels = np.zeros(samples.spec.num_classes, dtype=np.int64)
    shown = np.zeros((len(samples), len(pixels)), dtype=np.bool_)
    for index, scan in enumerate(scan_all(samples, range(len(samples)), decode=False)):
        for value, count in (scan.pixels or {}).items():
            found = int(classes[value]) if 0 <= value < len(classes) else IGNORE_INDEX
            if 0 <= found != IGNORE_INDEX:
                pixels[found] += count
                shown[index, found] = True
    return Census(pixels, shown)


def _key(samples: SegmentationDataset) -> str:
    """Hash everything that the counts depend on."""
    spec = samples.spec.to_dict()
    digest = hashlib.sha256(json.dumps([spec["classes"], spec["ignore"], spec.get("others")]).encode())
    digest.update(repr(samples.spec.label_format).encode())
    for pair in samples.pairs:
        try:
            state = pair.labels.stat()
        except OSError as error:
            raise UserError(f"{pair.labels}: cannot be read ({error})") from error
        made_from = [pair.source, str(pair.labels.absolute()), str(state.st_size), str(state.st_mtime_ns)]
        digest.update("\0".join(made_from).encode())
    return digest.hexdigest()


def _load(path: Path, shape: tuple[int, int]) -> Census | None:
    """Read the counts in a file. None if it is missing or damaged."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
            census = Census(content["pixels"], np.unpackbits(content["shown"], axis=1, count=shape[1]).astype(bool))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return census if census.shown.shape == shape and census.pixels.shape == shape[1:] else None


def _store(census: Census, path: Path) -> None:
    """Write a file under another name and rename it, because other processes may do the same."""
    content: dict[str, Any] = {"pixels": census.pixels, "shown": np.packbits(census.shown, axis=1)}
    with writing(path, "name another folder for the class counts in SEGVIT_CACHE"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path, ending=PARTIAL) as aside, aside.open("wb") as file:
            np.savez(file, **content)

"""Scan each sample of a dataset (sizes, raw values, colours, orientation, a hash of the pixels), and add the scans up.

    tally = Tally(samples.spec)
    for scan in scan_all(samples, range(len(samples)), decode=True):
        tally.add(scan)

A scan holds no pixels, so that the scans of a large dataset fit in memory. check.py reports the sums.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from segvit.data.bands.reading import (
    Reading,
    UnknownWhite,
    Values,
    image_frames,
    image_orientation,
    image_size,
    read_pixels,
)
from segvit.data.bands.remarks import is_dark
from segvit.data.check.fixes import explain_sizes
from segvit.data.dataset import Samples, SegmentationDataset
from segvit.data.images import read_orientation
from segvit.data.labels.format import Guess
from segvit.data.member import File
from segvit.data.pairs import Pair
from segvit.data.palette import Color
from segvit.data.spec import IGNORE_INDEX, DatasetSpec
from segvit.errors import UserError

SLICE = 1024
"""Number of samples that the threads get at a time."""
NAMED = 20
"""Number of files kept by name for a value or a finding. The others are counted."""

TURN = {5: "TRANSPOSE", 6: "ROTATE_270", 7: "TRANSVERSE", 8: "ROTATE_90"}
"""Pillow's name of the transposition for each EXIF orientation that swaps height and width."""

Size = tuple[int, int]
"""Height and width in pixels."""


class Depth(NamedTuple):
    """Values and bands of an image that is no 8-bit photo."""

    peak: float | None
    """Largest value, if it has more than 8 bits."""
    full: int | None
    """Largest value that its bits can hold."""
    dark: bool
    """True if its values end in the lowest quarter of its range, and no value of white is given."""
    cut: bool
    """True if values are above the white that is given."""
    dropped: int
    """Number of bands left out."""
    alpha: int
    """Number of channels if the last one was taken for transparency and may be a band, otherwise 0."""


class Scan(NamedTuple):
    """The facts of one sample."""

    where: str
    """Label file of the sample, or a text that identifies a drawn one."""
    image: str
    """Image file of the sample, or the same text."""
    size: Size | None = None
    """Size of the image as displayed. None if it cannot be read."""
    label_size: Size | None = None
    mismatch: str | None = None
    """Error text for an image and a label map that differ in size."""
    pixels: dict[int, int] | None = None
    """Number of pixels by raw value. None if the label map cannot be read."""
    unreadable: tuple[str, ...] = ()
    """Error texts of the files that cannot be read."""
    colors: dict[Color, int] | None = None
    """Number of pixels by colour, if the labels have colour channels instead of one number. A photo has none."""
    guess: Guess | None = None
    """Pixels whose class is a guess from the nearest known colour. None if there are none."""
    frames: int = 1
    """Number of frames of the image. The first is read."""
    turned: int = 1
    """EXIF orientation of the image if its label map has none. 1 means upright."""
    digest: bytes = b""
    """Hash of the decoded image, or empty if it was not decoded."""
    depth: Depth | None = None
    """Values and bands of the decoded image, if they differ from an 8-bit photo's."""
    unscaled: float | None = None
    """Largest value of an image that cannot be read because its white is not known."""


def scan_all(samples: Samples, indices: Sequence[int], *, decode: bool) -> Iterator[Scan]:
    """Yield the scans in the order of `indices`, from one thread per core.

    Decoding, counting and hashing release Python's lock. Processes were measured to be no faster, and each takes memory
    of its own (benchmarks/check_data.py).

    Args:
        samples: the dataset.
        indices: samples to scan.
        decode: read the images in full and hash them. Otherwise only their headers are read.
    """
    pool = ThreadPoolExecutor(max_workers=min(16, os.cpu_count() or 1))
    try:
        for start in range(0, len(indices), SLICE):  # one slice at a time, so that results do not pile up
            yield from pool.map(lambda index: scan(samples, index, decode=decode), indices[start : start + SLICE])
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt stops at once


def scan(samples: Samples, index: int, *, decode: bool) -> Scan:
    """Scan one sample."""
    if not isinstance(samples, SegmentationDataset):
        return _scan_drawn(samples, index, decode=decode)
    pair = samples.pairs[index]
    size, orientation, digest, depth, shape, pixels, colors, guess = None, 1, b"", None, None, None, None, None
    unreadable, frames, unscaled = [], 1, None
    try:
        frames = image_frames(pair.image)
        size, orientation, digest, depth = _look_at_image(pair.image, samples.reading, decode=decode)
    except UnknownWhite as error:
        unscaled = error.peak
    except UserError as error:
        unreadable.append(str(error))
    try:
        labels = samples.read_raw(index)
        shape = (labels.shape[0], labels.shape[1])
        pixels = count_values(labels)
        guess = samples.guessed(index)
    except UserError as error:
        colors = samples.spec.label_format.painted_colors(pair.labels)
        unreadable.append(str(error))
    upright = orientation == 1 or (not pair.shared and _has_orientation(pair))
    differ = size is not None and shape is not None and size != shape
    return Scan(
        pair.source,
        str(pair.image),
        size=size,
        label_size=shape,
        mismatch=_explain(pair, size, shape, 1 if upright else orientation) if differ and size and shape else None,
        pixels=pixels,
        unreadable=tuple(unreadable),
        colors=colors,
        guess=guess,
        frames=frames,
        turned=1 if upright else orientation,
        digest=digest,
        depth=depth,
        unscaled=unscaled,
    )


def count_values(labels: npt.NDArray[Any]) -> dict[int, int]:
    """Count the pixels of each value in labels (H, W)."""
    if labels.dtype.kind in "bu" and labels.dtype.itemsize <= 2:
        counts = np.bincount(labels.ravel())
        values = counts.nonzero()[0]
        return dict(zip(values.tolist(), counts[values].tolist(), strict=True))
    values, counts = np.unique(labels, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _scan_drawn(samples: Samples, index: int, *, decode: bool) -> Scan:
    """Scan a sample that is drawn and has no files."""
    spec = samples.spec
    image, labels, _ = samples.read(index)
    ignored = spec.ignore[0] if spec.ignore else IGNORE_INDEX
    size = (image.shape[-2], image.shape[-1])
    pixels = count_values(labels.numpy())
    return Scan(
        samples.describe(index),
        samples.describe(index),
        size=size,
        label_size=size,
        pixels={ignored if k == IGNORE_INDEX else spec.raw_ids[k]: count for k, count in pixels.items()},
        digest=_hash(image.permute(1, 2, 0).numpy()) if decode else b"",
    )


def _explain(pair: Pair, size: Size, shape: Size, turned: int) -> str:
    """Return the text for a pair whose sizes differ, which mentions EXIF if that is the cause."""
    if turned not in TURN or shape != size[::-1]:
        return explain_sizes(pair, size, shape)
    return (
        f"{pair.image} is turned by its EXIF orientation ({turned}) to {size[1]} x {size[0]} pixels (width x height), "
        f"but its label map {pair.source} is not turned, {shape[1]} x {shape[0]}: turn it too, in "
        f"Python `from PIL import Image; Image.open(FILE).transpose(Image.Transpose.{TURN[turned]}).save(FILE)`"
    )


def _look_at_image(path: File, reading: Reading, *, decode: bool) -> tuple[Size, int, bytes, Depth | None]:
    """Return the size as displayed, the EXIF orientation, the hash and the depth of an image."""
    orientation = image_orientation(path)
    if not decode:
        return image_size(path), orientation, b"", None
    pixels = read_pixels(path, reading)
    depth = Depth(
        peak=pixels.peak,
        full=pixels.full,
        dark=is_dark(pixels, reading),
        cut=reading.white is not None and pixels.peak is not None and pixels.peak > reading.white,
        dropped=pixels.dropped,
        alpha=pixels.alpha,
    )
    height, width = pixels.values.shape[:2]
    return (
        (height, width),
        orientation,
        _hash(pixels.values),
        depth if pixels.peak or pixels.dropped or pixels.alpha else None,
    )


def _hash(pixels: Values) -> bytes:
    """Hash the displayed pixels (H, W, N). Copies that were renamed or saved without loss have the same hash."""
    digest = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels).tobytes())
    return digest.digest()


def _has_orientation(pair: Pair) -> bool:
    """True if EXIF turns the label map as well."""
    try:
        return read_orientation(pair.labels) != 1
    except UserError:  # not an image, such as a .mat file
        return False


@dataclass
class Named:
    """A number of files, and the names of the first."""

    count: int = 0
    names: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        """Count a file."""
        self.count += 1
        if len(self.names) < NAMED:
            self.names.append(name)


@dataclass
class Tally:
    """Sums over the scans."""

    spec: DatasetSpec
    pixels: Counter[int] = field(default_factory=Counter)
    """Number of pixels by raw value."""
    files: Counter[int] = field(default_factory=Counter)
    """Number of label maps by raw value."""
    images: Counter[int] = field(default_factory=Counter)
    """Number of images by index of the class that they show."""
    unknown: dict[int, Named] = field(default_factory=dict)
    """Files by unknown value."""
    strange: Named = field(default_factory=Named)
    """Files with an unknown value."""
    uniform: list[str] = field(default_factory=list)
    """Files that show one class or none."""
    empty: Named = field(default_factory=Named)
    """Files in which every pixel is ignored."""
    mismatches: list[str] = field(default_factory=list)
    """Error texts of pairs that differ in size."""
    unreadable: list[str] = field(default_factory=list)
    painted: list[str] = field(default_factory=list)
    """Error texts of label files with colours in them."""
    colors: Counter[Color] = field(default_factory=Counter)
    """Number of pixels by colour in those files."""
    guesses: dict[str, Guess] = field(default_factory=dict)
    """Pixels whose class is a guess, by label file."""
    animations: Named = field(default_factory=Named)
    """Images of several frames."""
    turned: Named = field(default_factory=Named)
    """Images that EXIF turns, and whose label maps match either way."""
    sizes: Counter[Size] = field(default_factory=Counter)
    digests: dict[bytes, list[str]] = field(default_factory=dict)
    """Image files by the hash of their pixels."""
    classes: list[bytes | None] = field(default_factory=list)
    """Indices of the classes that each scanned sample shows. None if the sample cannot be drawn."""
    depths: dict[str, Depth] = field(default_factory=dict)
    """Depth of each image that is no 8-bit photo, by its file."""
    unscaled: dict[str, float] = field(default_factory=dict)
    """Largest value of each image whose white is not known, by its file."""
    turned_at: list[int] = field(default_factory=list)
    """Positions of the `turned` images among the scanned samples."""

    def add(self, scan: Scan) -> None:
        """Count one sample."""
        fits = scan.size == scan.label_size
        self.unreadable.extend(() if scan.colors is not None else scan.unreadable)
        if scan.colors is not None:
            self.painted.append(scan.unreadable[-1])
            self.colors.update(scan.colors)
            self.unreadable.extend(scan.unreadable[:-1])  # the error of the image, if it has one
        if scan.size:
            self.sizes[scan.size] += 1
        if scan.mismatch:
            self.mismatches.append(scan.mismatch)
        if scan.frames > 1:
            self.animations.add(f"{scan.image} of {scan.frames} frames")
        if scan.guess:
            self.guesses[scan.where] = scan.guess
        if scan.unscaled is not None:
            self.unscaled[scan.image] = scan.unscaled
        if scan.depth:
            self.depths[scan.image] = scan.depth
        if scan.digest:
            self.digests.setdefault(scan.digest, []).append(scan.image)
        if fits and scan.size and (scan.turned in (2, 3, 4) or (scan.turned != 1 and scan.size[0] == scan.size[1])):
            self.turned.add(scan.image)
            self.turned_at.append(len(self.classes))
        found = self._add_values(scan) if scan.pixels is not None else None
        self.classes.append(found if fits and scan.size else None)

    def _add_values(self, scan: Scan) -> bytes:
        """Count the values of a label map, and return the indices of the classes that it shows."""
        assert scan.pixels is not None
        self.pixels.update(scan.pixels)
        self.files.update(scan.pixels.keys())
        unknown = self.spec.unknown(scan.pixels)
        for value in unknown:
            self.unknown.setdefault(value, Named()).add(scan.where)
        if unknown:
            self.strange.add(scan.where)
        known = scan.pixels.keys() - set(unknown)
        classes = {self.spec.class_of(value) for value in known} - {IGNORE_INDEX}
        self.images.update(classes)
        if len(classes) + len(unknown) < 2:
            self.uniform.append(scan.where)
        if not classes and not unknown:
            self.empty.add(scan.where)
        return bytes(sorted(classes))

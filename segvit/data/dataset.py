"""Open the image and label pairs of a split, and read them as tensors.

    samples = open_dataset(DataConfig(spec="camvid", root=Path("camvid")), "train")
    image, labels, name = samples.read(0)

Letters: H, W size of an image, K classes.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset
from torchvision import tv_tensors

from segvit.config import DataConfig
from segvit.data.bands.reading import Reading, read_pixels
from segvit.data.bands.tensors import to_tensor
from segvit.data.check.fixes import explain_sizes, explain_values
from segvit.data.folder_spec import DEFAULT_FRACTION, check_cache, place_of, resolve_spec, with_bands
from segvit.data.labels.cache import LabelCache
from segvit.data.labels.format import Guess, LabelFormat
from segvit.data.labels.memory import LabelMemory
from segvit.data.member import File
from segvit.data.packed.packed import find_packed
from segvit.data.pairs import Orphans, Pair, Place, Split
from segvit.data.sample import Sample, Samples
from segvit.data.spec import IGNORE_INDEX, UNKNOWN, DatasetSpec
from segvit.errors import UserError
from segvit.utils.files import expanded

__all__ = [
    "IGNORE_INDEX",
    "Sample",
    "Samples",
    "SegmentationDataset",
    "open_dataset",
    "open_incomplete",
]

PROCEDURAL = "shapes"
"""Name of the spec whose scenes are drawn on the fly if no root is given."""
SHAPES_LENGTH = {"train": 2000, "val": 200}
SHAPES_SEED = {"train": 0, "val": 1_000_000}


class SegmentationDataset(Dataset[Sample]):
    """Pairs of image and label files under one spec."""

    def __init__(self, spec: DatasetSpec, pairs: Sequence[Pair], *, memory: LabelMemory | None = None) -> None:
        """Set the pairs.

        Args:
            spec: classes and label format of the pairs.
            pairs: image and label files.
            memory: parsed label files and the cache of decoded ones. Default: an empty memory without a cache.
        """
        self.spec = spec
        self.pairs = list(pairs)
        self.memory = memory or LabelMemory()
        self.reading = Reading.of(spec)
        self._lookup = spec.lookup()

    def read_like(self, bands: tuple[str, ...], white: float | None) -> "SegmentationDataset":
        """Return the dataset with a model's bands and white, unless its own spec gives them."""
        spec = replace(self.spec, bands=self.spec.bands or bands, white=self.spec.white or white)
        return SegmentationDataset(spec, self.pairs, memory=self.memory)

    @property
    def files(self) -> list[tuple[File, File]]:
        """Image and label file of each sample."""
        return [(pair.image, pair.labels) for pair in self.pairs]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        return self.read(index)

    def describe(self, index: int) -> str:
        """Return the names of a sample's two files."""
        return f"{self.pairs[index].image} with {self.pairs[index].source}"

    def read_raw(self, index: int) -> npt.NDArray[Any]:
        """Read the raw values (H, W) of a sample's labels, of an integer type.

        Raises:
            UserError: the labels cannot be read.
        """
        return self.spec.label_format.read(self.pairs[index], self.spec, self.memory)

    def guessed(self, index: int) -> Guess | None:
        """Count the pixels of a sample whose class `read_raw` guesses. None if there are none.

        Raises:
            UserError: the labels cannot be read.
        """
        return self.spec.label_format.guessed(self.pairs[index], self.spec, self.memory)

    def read(self, index: int) -> Sample:
        """Decode a pair.

        Raises:
            UserError: a file cannot be read, the sizes differ, or a label value is neither a class nor ignored.
        """
        pair = self.pairs[index]
        pixels, missing, *_ = read_pixels(pair.image, self.reading)  # (H, W, N)
        raw = self.read_raw(index)  # (H, W)
        if pixels.shape[:2] != raw.shape:
            raise UserError(explain_sizes(pair, (pixels.shape[0], pixels.shape[1]), (raw.shape[0], raw.shape[1])))
        labels = self._to_classes(raw, pair.source)
        if missing is not None:
            labels[missing] = IGNORE_INDEX
        image = to_tensor(pixels)
        return Sample(tv_tensors.Image(image), tv_tensors.Mask(torch.from_numpy(labels)), pair.name)

    def _to_classes(self, raw: npt.NDArray[Any], source: str) -> npt.NDArray[np.int64]:
        """Turn raw values (H, W) into class indices and `IGNORE_INDEX`."""
        if raw.dtype.itemsize <= 2 or (raw.min() >= 0 and raw.max() < len(self._lookup)):
            labels = self._lookup.take(raw)
            if labels.min() > UNKNOWN:  # -1, the smallest value in the table
                return labels.astype(np.int64)
        raise UserError(f"{source}: {explain_values(np.unique(raw).tolist(), self.spec)}")


def open_dataset(
    config: DataConfig,
    split: Literal["train", "val"],
    *,
    size: int = 256,
    labels: LabelFormat | None = None,
    bands: int | None = None,
    bands_of: str = "model.bands",
) -> Samples:
    """Open the pairs to train on or to validate on.

    A dataset without a validation split is divided by a hash of the names, so that the division is the same on every
    machine. Nearly every pair stays in its split when others are added (the share is exact). Frames of one film may end
    up in both splits: give `val_images` or lists in that case.

    Examples:
        >>> import segvit
        >>> classes = ("background", "person")
        >>> data = segvit.DataConfig(images="photos", labels="masks", classes=classes, val_fraction=0.34)
        >>> len(segvit.open_dataset(data, "train")), len(segvit.open_dataset(data, "val"))
        (4, 2)

    Args:
        config: folders and spec of the dataset.
        split: the split to open, `config.train_split` or `config.val_split`.
        size: side in pixels of the procedural scenes (spec "shapes" without a root); unused by files.
        labels: format of the label files, in place of the one that the spec names (docs/extending.md).
        bands: number of bands of the images, if the data do not name them (`model.bands`).
        bands_of: where that number comes from, in error texts.

    Raises:
        UserError: no dataset or a contradictory one is given, folders are missing or empty, or pairs are incomplete.
    """
    samples, orphans = open_incomplete(config, split, size=size, labels=labels, bands=bands, bands_of=bands_of)
    if orphans:
        raise UserError(orphans.error)
    return samples


def open_incomplete(
    config: DataConfig,
    split: Literal["train", "val"],
    *,
    size: int = 256,
    labels: LabelFormat | None = None,
    memory: LabelMemory | None = None,
    bands: int | None = None,
    bands_of: str = "model.bands",
) -> tuple[Samples, Orphans]:
    """Open the complete pairs of `open_dataset`, and return the files without a partner as well, for a full check.

    Args:
        config: as for `open_dataset`.
        split: as for `open_dataset`.
        size: as for `open_dataset`.
        labels: as for `open_dataset`.
        memory: label files that were parsed before. Default: none.

    Raises:
        UserError: as `open_dataset`, except for files without a partner if at least one pair is complete.
    """
    spec = with_bands(resolve_spec(config), bands, source=bands_of)
    if labels is not None:
        spec = replace(spec, label_format=labels)
    if config.spec == PROCEDURAL and config.root is None and not config.is_packed:
        if spec.bands or spec.white is not None:
            raise UserError("the drawn scenes are red, green, blue in 8 bits: leave the bands and data.white out")
        from segvit.data.shapes.scenes import ShapesDataset

        return ShapesDataset(length=SHAPES_LENGTH[split], size=size, seed=SHAPES_SEED[split]), Orphans()
    if config.spec is not None and config.root is None and not config.is_packed:
        raise UserError(f"dataset {config.spec!r} needs the folder of its files: give `--data.root FOLDER`")
    if config.cache is not None:
        check_cache(spec)
    memory = memory or LabelMemory(LabelCache(config.cache) if config.cache else None)
    find = _find_packed if config.is_packed else _find_pairs
    pairs, orphans = find(config, spec, split, memory)
    return SegmentationDataset(spec, pairs, memory=memory), orphans


def open_folders(spec: DatasetSpec, images: Path, labels: Path) -> Samples:
    """Open all pairs of two folders whose label files have the classes and the format of a spec.

    Raises:
        UserError: a folder is missing or empty, or pairs are incomplete.
    """
    split = Split(images=expanded(images), labels=expanded(labels))
    place, memory = Place(Path(), split, "your folders", ("images", "labels")), LabelMemory()
    pairs, orphans = spec.label_format.find(place, spec, memory)
    if orphans:
        raise UserError(orphans.error)
    return SegmentationDataset(spec, pairs, memory=memory)


def _find_pairs(
    config: DataConfig, spec: DatasetSpec, split: Literal["train", "val"], memory: LabelMemory
) -> tuple[list[Pair], Orphans]:
    """Find the complete pairs of a split of `spec`, or the part of its training split that belongs to `split`."""
    train, val = (config.train_split, config.val_split) if config.spec else ("train", "val")
    if val in spec.splits:
        if config.val_fraction is not None:
            raise UserError(
                f"data.val_fraction is {config.val_fraction}, but the spec has a validation split {val!r}; drop one"
            )
        return _find_split(config, spec, train if split == "train" else val, split, memory)
    if config.val_list is not None:
        if config.train_list is None:
            raise UserError(
                "data.val_list alone would leave its pairs in the training set; give data.train_list as well, or a "
                "validation split"
            )
        return _find_split(config, spec, train, split, memory)
    fraction = _fraction(config, spec)
    if fraction is None:
        return _find_split(config, spec, train if split == "train" else val, split, memory)
    pairs, orphans = _find_split(config, spec, train, "train", memory)
    remedy = (
        "give data.val_images and data.val_labels (the same folders will do for a trial)"
        if config.spec is None
        else "add a validation split to the spec, or give data.train_list and data.val_list"
    )
    if orphans and len(pairs) < 2:
        raise UserError(orphans.error)
    return _share(pairs, fraction, split, remedy), orphans


def _find_packed(
    config: DataConfig, spec: DatasetSpec, split: Literal["train", "val"], memory: LabelMemory
) -> tuple[list[Pair], Orphans]:
    """Find the complete pairs of a split of a packed dataset, or its share of the training split."""
    fraction = _fraction(config, spec)
    found = find_packed(config, spec.label_format, split)
    if not found.is_share:
        return found.pairs, found.orphans
    if found.orphans and len(found.pairs) < 2 and fraction != 0:
        raise UserError(found.orphans.error)
    remedy = "give data.val_shards" if config.hub is None else "name a split with data.val_split"
    return _share(found.pairs, DEFAULT_FRACTION if fraction is None else fraction, split, remedy), found.orphans


def _fraction(config: DataConfig, spec: DatasetSpec) -> float | None:
    """Return the share of the training pairs that is held out if there is no validation split. None: not set."""
    fraction = spec.val_fraction if config.val_fraction is None else config.val_fraction
    if fraction is not None and not 0 <= fraction < 1:
        raise UserError(f"data.val_fraction is {fraction}; give a share of at least 0 and below 1")
    return fraction


def _find_split(
    config: DataConfig, spec: DatasetSpec, name: str, role: Literal["train", "val"], memory: LabelMemory
) -> tuple[list[Pair], Orphans]:
    """Find the pairs of the split `name` of `spec`. The list for `role` in `config` overrides the split's own."""
    return spec.label_format.find(place_of(config, spec, name, role), spec, memory)


def _share(pairs: list[Pair], fraction: float, split: Literal["train", "val"], remedy: str) -> list[Pair]:
    """Return the part of `pairs` that belongs to `split`, if a share of them is held out for validation."""
    if fraction == 0:
        if split == "val":
            raise UserError(f"nothing to validate on: data.val_fraction is 0; set it, or {remedy}")
        return pairs
    if len(pairs) < 2:
        raise UserError(f"{pairs[0].image} is the only pair, so none can be held out for validation; {remedy}")
    kept = min(max(round(len(pairs) * fraction), 1), len(pairs) - 1)
    ordered = sorted(pairs, key=lambda pair: hashlib.sha256(pair.name.encode()).digest())
    return sorted(ordered[:kept] if split == "val" else ordered[kept:])

"""Image and label pairs as tensors: reading, the endless order of a training run, and its augmented samples.

    samples = open_dataset(DataConfig(spec="camvid", root=Path("camvid")), "train")
    image, labels, name = samples.read(0)

Letters: H, W size of an image, K classes.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset, Sampler, default_collate
from torchvision import tv_tensors

from segvit.config import DataConfig
from segvit.data.files import Pair, find_pairs, first, read_image, read_labels
from segvit.data.sample import Sample, Samples
from segvit.data.spec import FOLDERS, IGNORE_INDEX, UNKNOWN, DatasetSpec, Split, resolve_spec
from segvit.data.transforms import TrainTransform
from segvit.errors import UserError

__all__ = [
    "IGNORE_INDEX",
    "EndlessBatches",
    "Sample",
    "Samples",
    "SegmentationDataset",
    "TrainingSamples",
    "open_dataset",
]

PROCEDURAL = "shapes"
"""The spec whose scenes are drawn on the fly where no root is given."""
MANY_VALUES = 20
"""Unknown values in one label file from which it is taken for no label map at all."""
SHAPES_LENGTH = {"train": 2000, "val": 200}
SHAPES_SEED = {"train": 0, "val": 1_000_000}


class SegmentationDataset(Dataset[Sample]):
    """Pairs of image and label files under one spec."""

    def __init__(self, spec: DatasetSpec, pairs: Sequence[Pair]) -> None:
        self.spec = spec
        self.pairs = list(pairs)
        self._lookup = spec.lookup()

    @property
    def files(self) -> list[tuple[Path, Path]]:
        """Image and label file of each sample."""
        return [(pair.image, pair.labels) for pair in self.pairs]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        return self.read(index)

    def describe(self, index: int) -> str:
        """The two files of a sample."""
        return f"{self.pairs[index].image} with {self.pairs[index].labels}"

    def read(self, index: int) -> Sample:
        """Decode a pair.

        Raises:
            UserError: a file cannot be read, the sizes differ, or a label value is neither a class nor ignored.
        """
        pair = self.pairs[index]
        pixels = np.array(read_image(pair.image))  # (H, W, 3), writable
        raw = read_labels(pair.labels)  # (H, W)
        if pixels.shape[:2] != raw.shape:
            raise UserError(explain_sizes(pair, (pixels.shape[0], pixels.shape[1]), (raw.shape[0], raw.shape[1])))
        labels = self._to_classes(raw, pair.labels)
        image = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
        return Sample(tv_tensors.Image(image), tv_tensors.Mask(torch.from_numpy(labels)), pair.name)

    def _to_classes(self, raw: npt.NDArray[Any], path: Path) -> npt.NDArray[np.int64]:
        """Raw values (H, W) as class indices and `IGNORE_INDEX`."""
        if raw.dtype.itemsize <= 2 or (raw.min() >= 0 and raw.max() < len(self._lookup)):
            labels = self._lookup[raw]
            if (labels != UNKNOWN).all():
                return np.asarray(labels, dtype=np.int64)
        raise UserError(f"{path}: {explain_values(np.unique(raw).tolist(), self.spec)}")


def explain_sizes(pair: Pair, image: tuple[int, int], labels: tuple[int, int]) -> str:
    """Text for a pair whose sizes (height, width) differ."""
    text = (
        f"{pair.image} is {image[1]} x {image[0]} pixels (width x height as displayed), but its label map "
        f"{pair.labels} is {labels[1]} x {labels[0]}; "
    )
    if image == labels[::-1]:
        return text + "one of them lies on its side: an EXIF orientation of the image is applied; save both upright"
    return text + "make both the same size (label maps without interpolation), or remove the pair"


def explain_values(values: Sequence[int], spec: DatasetSpec, *, what: str = "the file holds") -> str:
    """Text for label files that hold `values` (distinct, sorted), some of them unknown to `spec`."""
    known = {*spec.raw_ids, *spec.ignore}
    unknown = [value for value in values if value not in known]
    names = ", ".join(f"{raw} {name}" for name, raw in zip(spec.classes[:6], spec.raw_ids[:6], strict=False))
    text = (
        f"label value {first(unknown, 10)} is no class of {spec.name!r} "
        f"({names}{', ...' if spec.num_classes > 6 else ''}; ignored: {first(spec.ignore, 10) or 'none'}); "
        f"{what} {first(values, 20)}; "
    )
    if set(values) <= {0, 255}:
        return text + f"it looks like a 0/255 mask: {remap(spec, {0: 0, 1: 255})}"
    if len(unknown) > MANY_VALUES:
        return text + (
            "so many values look like a photo, or a mask that was resized with smoothing or saved with compression: "
            "write label maps without interpolation, as PNG"
        )
    if len(unknown) == 1 and unknown[0] == max(spec.raw_ids) + 1 and set(spec.raw_ids) == set(range(spec.num_classes)):
        shifted = remap(spec, {k: raw + 1 for k, raw in enumerate(spec.raw_ids)})
        if 0 not in values:
            return text + f"all values look one too large: {shifted}"
        ignored = "`--data.ignore 0`" if spec.name == FOLDERS else "`ignore: [0]`"
        return text + f"a class name is missing, or 0 means unlabelled and classes begin at 1: {shifted} and {ignored}"
    if spec.name == FOLDERS:
        flags = " ".join(f"--data.ignore {value}" for value in (*spec.ignore, *unknown[:3]))
        return text + f"add it as a class, `--data.classes NAME={unknown[0]}`, or ignore it, `{flags}`"
    ignore = [*spec.ignore, *unknown[:10]]
    return text + f"is this the right spec? In a spec of your own, add the class, or write `ignore: {ignore}`"


def remap(spec: DatasetSpec, raw_ids: dict[int, int]) -> str:
    """What to type so that class k has the value raw_ids[k] in the files."""
    rows = [(spec.classes[k] if k < spec.num_classes else "thing", raw) for k, raw in raw_ids.items()]
    if spec.name == FOLDERS:
        return "type `" + " ".join(f"--data.classes {name}={raw}" for name, raw in rows) + "`"
    return "write in the spec `classes: [" + ", ".join(f"{{name: {name}, raw: {raw}}}" for name, raw in rows) + "]`"


def open_dataset(config: DataConfig, split: Literal["train", "val"], *, size: int = 256) -> Samples:
    """The pairs to train on or to validate on.

    Two folders without `val_images` are split by a hash of the names: the same pairs on every machine, and a pair stays
    where it is when others are added (nearly: the share is kept exactly). Frames of one film may fall on both sides:
    give `val_images` then.

    Args:
        config: where the files lie.
        split: which of `config.train_split` and `config.val_split` to open.
        size: side in pixels of the procedural scenes (spec "shapes" without a root); unused by files.

    Raises:
        UserError: nothing or contradictory things are given, folders are missing or empty, or pairs are incomplete.
    """
    spec = resolve_spec(config)
    if config.spec == PROCEDURAL and config.root is None:
        from segvit.data.shapes import ShapesDataset

        return ShapesDataset(length=SHAPES_LENGTH[split], size=size, seed=SHAPES_SEED[split])
    if spec.name == FOLDERS and config.spec is None:
        return SegmentationDataset(spec, _folder_pairs(config, spec, split))
    if config.root is None:
        raise UserError(f"dataset {config.spec!r} needs the folder it lies in: type `--data.root FOLDER`")
    name = config.train_split if split == "train" else config.val_split
    if name not in spec.splits:
        raise UserError(
            f"dataset {config.spec!r} has no split {name!r} but {', '.join(spec.splits) or 'none'}; "
            f"set data.{split}_split, or add the split to the spec"
        )
    options = (f"`images` of split {name}", f"`labels` of split {name}")
    return SegmentationDataset(
        spec, find_pairs(config.root, spec.splits[name], what=f"dataset {spec.name!r}, split {name!r}", options=options)
    )


def _folder_pairs(config: DataConfig, spec: DatasetSpec, split: Literal["train", "val"]) -> list[Pair]:
    """The pairs of two plain folders, or the share of them that belongs to `split`."""

    def find(found: Split, prefix: str) -> list[Pair]:
        options = (f"data.{prefix}images", f"data.{prefix}labels")
        return find_pairs(Path(), found, what="your folders", options=options)

    if "val" in spec.splits:
        return find(spec.splits[split], "val_" if split == "val" else "")
    if not 0 <= config.val_fraction < 1:
        raise UserError(f"data.val_fraction is {config.val_fraction}; give a share from 0 up to but not including 1")
    pairs = find(spec.splits["train"], "")
    if config.val_fraction == 0:
        if split == "val":
            raise UserError("nothing to validate on: data.val_fraction is 0 and data.val_images is not given")
        return pairs
    if len(pairs) < 2:
        raise UserError(
            f"{pairs[0].image} is the only pair, so none can be kept for validation; give data.val_images and "
            "data.val_labels (the same folders will do for a trial)"
        )
    kept = min(max(round(len(pairs) * config.val_fraction), 1), len(pairs) - 1)
    ordered = sorted(pairs, key=lambda pair: hashlib.sha256(pair.name.encode()).digest())
    return sorted(ordered[:kept] if split == "val" else ordered[kept:])


class TrainingSamples(Dataset[tuple[torch.Tensor, torch.Tensor, int] | UserError]):
    """Augmented crops, addressed by (index, draw); the draw and the seed alone decide the augmentation."""

    def __init__(self, samples: Samples, transform: TrainTransform, *, seed: int) -> None:
        self.samples = samples
        self.transform = transform
        self.seed = seed

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor, int] | UserError:
        """Image uint8 (3, crop, crop), labels int64 (crop, crop), and the index, to name the file in messages.

        A sample that cannot be read is its error, for the main process to raise: a worker would wrap it in a traceback.
        """
        index, draw = key
        try:
            image, labels, _ = self.samples.read(index)
        except UserError as error:
            return error
        generator = torch.Generator().manual_seed(mix(self.seed, draw, "augment"))
        image, labels = self.transform(image, labels, generator)
        return image, labels, index


def collate(samples: list[Any]) -> Any:
    """A batch of tensors, or the first error among the samples."""
    return next((sample for sample in samples if isinstance(sample, UserError)), None) or default_collate(samples)


class EndlessBatches(Sampler[list[tuple[int, int]]]):
    """Batches of (index, draw) for one rank, over epochs that are seeded permutations, without an end.

    Step s takes the draws s * batch_size to (s + 1) * batch_size - 1 of the run; draw t is sample
    permutation(t // length)[t % length]. So an order depends on neither ranks nor workers, and starting late is free.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        *,
        seed: int,
        start_step: int = 0,
        rank: int = 0,
        world_size: int = 1,
        steps: int | None = None,
    ) -> None:
        """Set the order.

        Args:
            length: samples of the dataset.
            batch_size: samples per step over all ranks.
            seed: of the permutations.
            start_step: first step to give, counted from the run's start.
            rank: this process takes every world_size-th sample of a global batch, from this one.
            world_size: number of processes.
            steps: steps of the whole run (not those left); None never ends.

        Raises:
            UserError: the batch cannot be dealt out evenly.
        """
        if length < 1:
            raise UserError("the training set is empty")
        if batch_size < 1 or batch_size % world_size:
            raise UserError(
                f"batch_size {batch_size} cannot be dealt out evenly to {world_size} processes; "
                f"make it a multiple of {world_size}"
            )
        assert 0 <= rank < world_size and start_step >= 0
        self.length = length
        self.batch_size = batch_size
        self.seed = seed
        self.start_step = start_step
        self.rank = rank
        self.world_size = world_size
        self.steps = steps

    def __len__(self) -> int:
        if self.steps is None:
            raise TypeError("endless batches have no length")
        return max(self.steps - self.start_step, 0)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        step, epoch, order = self.start_step, -1, torch.empty(0)
        while self.steps is None or step < self.steps:
            batch = []
            for draw in range(step * self.batch_size + self.rank, (step + 1) * self.batch_size, self.world_size):
                if draw // self.length != epoch:
                    epoch = draw // self.length
                    order = self.permutation(epoch)
                batch.append((int(order[draw % self.length]), draw))
            yield batch
            step += 1

    def permutation(self, epoch: int) -> torch.Tensor:
        """The order of the samples (length,) in an epoch."""
        generator = torch.Generator().manual_seed(mix(self.seed, epoch, "order"))
        return torch.randperm(self.length, generator=generator)


def mix(seed: int, number: int, purpose: str) -> int:
    """A 64-bit seed in which neighbouring (seed, number) have nothing in common."""
    return int.from_bytes(hashlib.blake2b(f"{purpose} {seed} {number}".encode(), digest_size=8).digest(), "little")

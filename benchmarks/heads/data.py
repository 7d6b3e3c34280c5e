"""Image sets of the comparison: CamVid, and people in four classes, with crops that are drawn once for all rows.

    train, val = open_sets("clothing", Path("clothing"))
    Drawn(train, views=3, transform=transform)          # the same crops in every epoch, so that features can be kept

Letters: H W image.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torchvision import tv_tensors

from segvit.config import DataConfig
from segvit.data.augment.transform import TrainTransform
from segvit.data.dataset import open_dataset
from segvit.data.sample import Sample, Samples
from segvit.data.spec import IGNORE_INDEX, DatasetSpec

SETS = ("camvid", "clothing")
PEOPLE = DatasetSpec(
    name="people",
    classes=("background", "skin", "hair", "clothes"),
    palette=((0, 0, 0), (230, 160, 120), (120, 70, 30), (60, 120, 200)),
    raw_ids=(0, 1, 2, 3),
    ignore=(IGNORE_INDEX,),  # crops pad with it
)
"""Clothing Co-Parsing in four classes: what is worn or carried is clothes."""
HELD_OUT = 5
"""Learning rates are chosen on the last of this many parts of the training set. Frames of one film are neighbours."""


class People:
    """Clothing Co-Parsing with its 59 classes merged into those of `PEOPLE`."""

    spec = PEOPLE

    def __init__(self, samples: Samples) -> None:
        self.samples = samples
        own = {"null": 0, "skin": 1, "hair": 2}
        self.table = torch.tensor([own.get(name, 3) for name in samples.spec.classes])

    def __len__(self) -> int:
        return len(self.samples)

    def describe(self, index: int) -> str:
        """Return the files of a sample."""
        return self.samples.describe(index)

    def read(self, index: int) -> Sample:
        """Read a sample, with labels 0..3."""
        image, labels, name = self.samples.read(index)
        return Sample(image, tv_tensors.Mask(self.table[labels.as_subclass(torch.Tensor)]), name)


class InMemory:
    """Samples that are read once."""

    def __init__(self, spec: DatasetSpec, samples: Sequence[Sample]) -> None:
        self.spec = spec
        self.samples = list(samples)

    def __len__(self) -> int:
        return len(self.samples)

    def describe(self, index: int) -> str:
        """Return the name of a sample."""
        return self.samples[index].name

    def read(self, index: int) -> Sample:
        """Return a sample."""
        image, labels, name = self.samples[index]
        return Sample(image, tv_tensors.Mask(labels.long()), name)


def open_sets(name: str, root: Path) -> tuple[Samples, Samples]:
    """Open the training and the validation set of one of SETS in the folder `root`."""
    config = DataConfig(spec=name, root=root)
    train, val = (open_dataset(config, split) for split in ("train", "val"))
    return (People(train), People(val)) if name == "clothing" else (train, val)


def in_memory(samples: Samples, indices: Sequence[int]) -> InMemory:
    """Read some samples at their own size."""
    return InMemory(samples.spec, [_small(*samples.read(index)) for index in indices])


def drawn(samples: Samples, indices: Sequence[int], *, views: int, transform: TrainTransform) -> InMemory:
    """Read some samples and draw `views` crops of each, the same for the same indices."""
    crops = []
    for index in indices:
        image, labels, name = samples.read(index)
        for view in range(views):
            generator = torch.Generator().manual_seed(1000 * index + view)
            crops.append(_small(*transform(image, labels, generator), f"{name}.{view}"))
    return InMemory(samples.spec, crops)


def _small(image: torch.Tensor, labels: torch.Tensor, name: str) -> Sample:
    """Pack an image and labels, which hold one byte a pixel."""
    return Sample(tv_tensors.Image(image), tv_tensors.Mask(labels.as_subclass(torch.Tensor).byte()), name)

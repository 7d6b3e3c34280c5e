"""What a training run draws: augmented crops, and what is put in the place of those that cannot be read.

crops = TrainingSamples(samples, transform, seed=0)
image, labels, index = crops[index, draw]
DataLoader(crops, batch_sampler=EndlessBatches(...), collate_fn=collate)
"""

from typing import Any, NamedTuple

import torch
from torch.utils.data import Dataset, default_collate

from segvit.data.sample import Samples
from segvit.data.sampling.order import mix
from segvit.data.sampling.rare_classes import RareClasses
from segvit.data.sampling.unreadable import read_or_replace
from segvit.data.transforms import TrainTransform
from segvit.errors import UserError


class Replaced(NamedTuple):
    """A sample, or a batch, in which others were unreadable."""

    content: Any
    """As it is without that."""
    unreadable: tuple[str, ...]
    """What was said of them."""


class TrainingSamples(Dataset[tuple[torch.Tensor, torch.Tensor, int] | Replaced | UserError]):
    """Augmented crops, addressed by (index, draw); the draw and the seed alone decide the augmentation.

    Up to `skip_unreadable` samples that cannot be read are replaced, each time by one that they decide as well.
    """

    def __init__(
        self,
        samples: Samples,
        transform: TrainTransform,
        *,
        seed: int,
        rare: RareClasses | None = None,
        skip_unreadable: int = 0,
    ) -> None:
        self.samples = samples
        self.transform = transform
        self.seed = seed
        self.rare = rare
        self.skip_unreadable = skip_unreadable

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor, int] | Replaced | UserError:
        """Image uint8 (3, crop, crop), labels int64 (crop, crop), and the index, to name the file in messages.

        Where `rare` binds the draw to a class, it is another sample, whose index is given. A sample that cannot be read
        is its error, for the main process to raise: a worker would wrap it in a traceback.
        """
        index, draw = key
        bound = self.rare.choose(draw) if self.rare else None
        index, wanted = bound or (index, None)

        def another(attempt: int) -> int:
            return mix(self.seed, draw, f"in place of an unreadable sample, {attempt}") % len(self.samples)

        try:
            found = read_or_replace(self.samples, index, another=another, limit=self.skip_unreadable)
        except UserError as error:
            return error
        generator = torch.Generator().manual_seed(mix(self.seed, draw, "augment"))
        wanted = None if found.unreadable else wanted  # another sample need not show that class
        image, labels = self.transform(found.sample.image, found.sample.labels, generator, wanted=wanted)
        drawn = (image, labels, found.chosen)
        return Replaced(drawn, found.unreadable) if found.unreadable else drawn


def collate(samples: list[Any]) -> Any:
    """A batch of tensors, what was unreadable beside it, or the first error among the samples."""
    if error := next((sample for sample in samples if isinstance(sample, UserError)), None):
        return error
    unreadable = tuple(text for sample in samples if isinstance(sample, Replaced) for text in sample.unreadable)
    batch = default_collate([sample.content if isinstance(sample, Replaced) else sample for sample in samples])
    return Replaced(batch, unreadable) if unreadable else batch

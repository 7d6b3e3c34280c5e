"""Draw augmented crops for training, and replace samples that cannot be read.

crops = TrainingSamples(samples, transform, seed=0)
image, labels, index = crops[index, draw]
DataLoader(crops, batch_sampler=EndlessBatches(...), collate_fn=collate)
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.utils.data import Dataset, default_collate

from segvit.data.augment.mixing import Crop, keeping
from segvit.data.augment.transform import TrainTransform
from segvit.data.sample import Samples
from segvit.data.sampling.order import mix
from segvit.data.sampling.partners import Partners
from segvit.data.sampling.rare_classes import RareClasses
from segvit.data.sampling.unreadable import Readable, read_or_replace
from segvit.errors import UserError


class CropKey(NamedTuple):
    """Key of a crop: with the seed, it determines the crop if the sample can be read."""

    sample: int
    """Position in the dataset."""
    view: int
    """Number of its crop: that of the draw, or one below `views`."""
    wanted: int | None
    """Class that the crop must show."""


class Replaced(NamedTuple):
    """A sample or a batch that replaces unreadable samples."""

    content: Any
    """The sample or the batch itself."""
    unreadable: tuple[str, ...]
    """Error texts of the unreadable samples."""


class TrainingSamples(Dataset[tuple[torch.Tensor, torch.Tensor, int] | Replaced | UserError]):
    """Augmented crops by (index, draw). The draw and the seed alone determine the augmentation.

    With `views`, each sample has that many crops. Epoch e shows number e modulo `views`.

    Up to `skip_unreadable` samples that cannot be read are replaced. The draw and the seed determine by which.
    """

    def __init__(
        self,
        samples: Samples,
        transform: TrainTransform,
        *,
        seed: int,
        rare: RareClasses | None = None,
        partners: Partners | None = None,
        skip_unreadable: int = 0,
        views: int | None = None,
    ) -> None:
        self.samples = samples
        self.transform = transform
        self.seed = seed
        self.rare = rare
        self.partners = partners
        self.skip_unreadable = skip_unreadable
        self.views = views

    def __len__(self) -> int:
        return len(self.samples)

    def crop_key(self, index: int, draw: int) -> CropKey:
        """Return the key of a draw's crop. If `rare` assigns a class to it, the sample is the one that `rare` chose."""
        bound = self.rare.choose(draw) if self.rare else None
        index, wanted = bound or (index, None)
        return CropKey(index, draw if self.views is None else draw // len(self) % self.views, wanted)

    def __getitem__(self, key: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor, int] | Replaced | UserError:
        """Return the image uint8 (3, crop, crop), the labels int64 (crop, crop), and the index for messages.

        If `rare` assigns a class to the draw, the sample and its index are those that `rare` chose. If a sample cannot
        be read or augmented, its error is returned for the main process to raise, because a worker would wrap it in a
        traceback. Crops of `partners` are mixed into the sample's, unless this would remove the assigned class.
        """
        index, view, wanted = self.crop_key(*key)
        purpose = "augment" if self.views is None else None
        try:
            found = self._read(index, draw=key[1])
            purpose = purpose or f"augment sample {found.chosen} for class {wanted}"
            generator = torch.Generator().manual_seed(mix(self.seed, view, purpose))
            wanted = None if found.unreadable else wanted  # the replacement need not show that class
            crop, unreadable = self._crop(found, generator, wanted), found.unreadable
            for partner in self.partners.choose(generator) if self.partners else ():
                second = self._read(partner.sample, draw=key[1])
                other = self._crop(second, partner.generator, None if second.unreadable else partner.wanted)
                crop, unreadable = keeping(wanted, crop, partner.mix(crop, other)), unreadable + second.unreadable
        except UserError as error:
            return error
        drawn = (*crop, found.chosen)
        return Replaced(drawn, unreadable) if unreadable else drawn

    def _read(self, index: int, *, draw: int) -> Readable:
        """Read a sample, or one in its place that depends on the draw and the seed."""

        def another(attempt: int) -> int:
            return mix(self.seed, draw, f"in place of an unreadable sample, {attempt}") % len(self.samples)

        return read_or_replace(self.samples, index, another=another, limit=self.skip_unreadable)

    def _crop(self, found: Readable, generator: torch.Generator, wanted: int | None) -> Crop:
        """Return the augmented crop of a sample."""
        return self.transform(found.sample.image, found.sample.labels, generator, wanted=wanted)


def collate(samples: list[Any], join: Callable[[list[Any]], Any] = default_collate) -> Any:
    """Return a batch of tensors, with the errors of replaced samples, or the first error among the samples.

    Args:
        samples: of `TrainingSamples`.
        join: makes a batch of their contents.
    """
    if error := next((sample for sample in samples if isinstance(sample, UserError)), None):
        return error
    unreadable = tuple(text for sample in samples if isinstance(sample, Replaced) for text in sample.unreadable)
    batch = join([sample.content if isinstance(sample, Replaced) else sample for sample in samples])
    return Replaced(batch, unreadable) if unreadable else batch

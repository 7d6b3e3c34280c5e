"""Choose the second crops that CutMix and copy-paste mix into a crop.

    partners = Partners(config.augment, length=len(samples), rare=rare)
    for partner in partners.choose(generator):
        crop = partner.mix(crop, other)         # other: the crop of sample number partner.sample

The generator of the first crop determines the second one. So the choice depends on neither workers nor ranks, and
resuming needs no state.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch

from segvit.config import AugmentConfig
from segvit.data.augment.draws import chance, stream, whole
from segvit.data.augment.mixing import Crop, cut_and_mixed, pasted
from segvit.data.sampling.rare_classes import RareClasses


class Partner(NamedTuple):
    """A second crop and how it is mixed into the first."""

    sample: int
    """Position in the dataset."""
    wanted: int | None
    """Class that the crop must show."""
    generator: torch.Generator
    """Source of randomness of the crop."""
    mix: Callable[[Crop, Crop], Crop]
    """Mixes the second crop into the first."""


class Partners:
    """The choice of second crops."""

    def __init__(self, augment: AugmentConfig, *, length: int, rare: RareClasses | None = None) -> None:
        """Set the odds.

        Args:
            augment: probabilities of both methods.
            length: number of samples in the dataset.
            rare: odds of the classes that copy-paste takes; needed for it alone.
        """
        assert rare is not None or not augment.copy_paste
        self.augment = augment
        self.length = length
        self.rare = rare

    def choose(self, generator: torch.Generator) -> Iterator[Partner]:
        """Yield the crops to mix into that of a generator, in order: none, one or two."""
        draws = stream(generator, "copy-paste")
        if self.rare and chance(draws, self.augment.copy_paste):
            sample, wanted = self.rare.draw(draws)
            yield Partner(sample, wanted, stream(generator, "copied crop"), partial(pasted, class_index=wanted))
        draws = stream(generator, "cutmix")
        if chance(draws, self.augment.cutmix):
            mix = partial(cut_and_mixed, generator=draws)
            yield Partner(whole(draws, self.length), None, stream(generator, "cut crop"), mix)

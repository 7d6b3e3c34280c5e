"""Force a share of the crops to contain a class. Rare classes are picked more often.

    rare = RareClasses(take_census(samples), probability=0.5, seed=0)
    rare.choose(draw)                           # (index, class), or None: the draw is not changed

The choice depends on the draw and the seed alone, and not on the process that loads it.

Letters: K classes.
"""

from collections.abc import Sequence

import numpy as np
import torch

from segvit.data.sampling.class_counts import Census
from segvit.data.sampling.order import mix
from segvit.errors import UserError
from segvit.utils.text import percentage

NAMED = 8
"""Number of classes whose odds are printed."""


class RareClasses:
    """The draws that must show a class, with the class and the image."""

    def __init__(self, census: Census, *, probability: float, seed: int) -> None:
        """Set the odds.

        Args:
            census: class counts of the training set.
            probability: probability that a draw must show a class.
            seed: seed of the run.

        Raises:
            UserError: no label map shows any class.
        """
        self.probability = probability
        self.seed = seed
        self.samples = [np.flatnonzero(column) for column in census.shown.T]  # indices, for each class
        inverse = np.divide(1.0, census.pixels, out=np.zeros(len(census.pixels)), where=census.pixels > 0)
        if not inverse.any():
            raise UserError(
                "augment.rare_class_probability or augment.copy_paste: no label map of the training set shows any class"
            )
        self.odds = torch.from_numpy(inverse / inverse.sum())
        """(K,) probability of each class, proportional to 1 / its number of pixels."""

    def describe(self, classes: Sequence[str]) -> str:
        """Return the odds in one line, the likeliest classes first."""
        order = self.odds.argsort(descending=True, stable=True)[:NAMED].tolist()
        shares = [(classes[k], float(self.odds[k])) for k in order if self.odds[k] > 0]
        odds = ", ".join(f"{name} {percentage(share, '.0f' if share >= 0.1 else '.2g')}" for name, share in shares)
        more = ", ..." * (len(classes) > NAMED)
        share = percentage(self.probability, "g")
        return f"{share} of the crops show a class drawn by its rarity: {odds}{more}"

    def choose(self, draw: int) -> tuple[int, int] | None:
        """Return the sample and the class that draw number `draw` of the run must show. None for an ordinary draw."""
        generator = torch.Generator().manual_seed(mix(self.seed, draw, "rare class"))
        if float(torch.rand((), generator=generator)) >= self.probability:
            return None
        return self.draw(generator)

    def draw(self, generator: torch.Generator) -> tuple[int, int]:
        """Draw a class by its rarity and a sample that shows it, and return the sample and the class."""
        wanted = int(torch.multinomial(self.odds, 1, generator=generator))
        holders = self.samples[wanted]
        return int(holders[int(torch.randint(len(holders), (), generator=generator))]), wanted

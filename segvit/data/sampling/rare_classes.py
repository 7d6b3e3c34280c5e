"""Crops that show rare classes: now and then, a draw of the training set is bound to a class drawn by its rarity.

    rare = RareClasses(take_census(samples), probability=0.5, seed=0)
    rare.choose(draw)                           # (index, class), or None: the draw stays as it is

A draw and the seed alone decide, whoever loads it.

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
"""Classes whose odds are told."""


class RareClasses:
    """Which draws must show which class, and in which image."""

    def __init__(self, census: Census, *, probability: float, seed: int) -> None:
        """Set the odds.

        Args:
            census: of the training set.
            probability: that a draw is bound to a class.
            seed: of the run.

        Raises:
            UserError: no label map shows any class.
        """
        self.probability = probability
        self.seed = seed
        self.samples = [np.flatnonzero(column) for column in census.shown.T]  # indices, for each class
        inverse = np.divide(1.0, census.pixels, out=np.zeros(len(census.pixels)), where=census.pixels > 0)
        if not inverse.any():
            raise UserError("augment.rare_class_probability: no label map of the training set shows any class")
        self.odds = torch.from_numpy(inverse / inverse.sum())
        """(K,) probability of each class, by 1 / its pixels."""

    def describe(self, classes: Sequence[str]) -> str:
        """The odds in a line, the likeliest classes first."""
        order = self.odds.argsort(descending=True, stable=True)[:NAMED].tolist()
        told = ", ".join(f"{classes[k]} {percentage(float(self.odds[k]), '.2g')}" for k in order if self.odds[k] > 0)
        more = ", ..." * (len(classes) > NAMED)
        return f"{percentage(self.probability, 'g')} of the crops show a class drawn by its rarity: {told}{more}"

    def choose(self, draw: int) -> tuple[int, int] | None:
        """Sample and class that draw number `draw` of the run must show; None where it is like any other."""
        generator = torch.Generator().manual_seed(mix(self.seed, draw, "rare class"))
        if float(torch.rand((), generator=generator)) >= self.probability:
            return None
        wanted = int(torch.multinomial(self.odds, 1, generator=generator))
        holders = self.samples[wanted]
        return int(holders[int(torch.randint(len(holders), (), generator=generator))]), wanted

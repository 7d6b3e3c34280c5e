"""The learning rate finder: a short run whose learning rate grows at every step, until the loss grows too.

    found = find_learning_rate(config, num_steps=100)
    found.suggested

It trains as `train` does (same data, losses, precision and parameter groups, whose rates all grow alike), in a
temporary folder. It suggests the rate at which the smoothed loss falls fastest: the steepest slope over the logarithm
of the rate, between the first steps and the lowest loss.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from segvit.config import TrainConfig
from segvit.errors import UserError
from segvit.training.train import NotFinite, Trainer
from segvit.utils.launcher import started_processes
from segvit.utils.progress import Progress

if TYPE_CHECKING:
    from rich.table import Table

    from segvit.utils.tables import Fitted

SMOOTHING = 0.9
"""Share of the old value in the running mean of the loss, corrected for its start at 0."""
DIVERGED = 2.0
"""Multiple of its lowest value at which the running mean ends the sweep."""
WINDOW = 7
"""Number of losses in a centred mean."""
LEAST_STEPS = 10
ROWS = 16
"""Largest number of rows in the table."""


@dataclass(frozen=True, kw_only=True)
class LearningRates:
    """Rates and losses of a sweep."""

    rates: tuple[float, ...]
    """optim.lr at each step."""
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    """Centred means of the losses."""
    suggested: float
    diverged: bool
    """True if the loss ended the sweep before its last rate."""

    @property
    def lowest(self) -> int:
        """Step of the lowest smoothed loss."""
        return int(np.argmin(self.smoothed))

    def table(self) -> "Fitted":
        """Return evenly spaced steps as a table for a terminal. A narrow one gets no lines."""
        from segvit.utils.tables import Fitted

        return Fitted(self._draw, levels=2)

    def _draw(self, level: int, *, ascii: bool) -> "Table":
        """Draw the table; at level 1 without lines."""
        from rich.table import Table

        from segvit.utils.tables import COMPACT

        count = len(self.rates)
        shown = {i * (count - 1) // (ROWS - 1) for i in range(ROWS)} | {self.lowest}
        table = Table(**COMPACT if level else {})
        for heading in ("step", "optim.lr", "loss", "smoothed", ""):
            table.add_column(heading, no_wrap=True)
        for step in sorted(shown):
            note = "lowest" if step == self.lowest else ""
            table.add_row(
                str(step + 1), f"{self.rates[step]:.2e}", f"{self.losses[step]:.3f}", f"{self.smoothed[step]:.3f}", note
            )
        return table


def find_learning_rate(
    config: TrainConfig,
    *,
    start: float = 1e-7,
    end: float = 1.0,
    num_steps: int = 100,
    progress: Progress | None = None,
) -> LearningRates:
    """Sweep optim.lr over a range, with a constant factor from step to step.

    Args:
        config: the run that needs a rate. Its schedule and number of steps are ignored.
        start: first rate.
        end: last rate, unless the loss ends the sweep before.
        num_steps: steps over the whole range.
        progress: called after each step.

    Raises:
        UserError: settings or data that cannot be trained on, an impossible range, or a loss that is not finite in the
            first steps.
    """
    if started_processes() > 1:
        raise UserError("lr-find sweeps in one process: type `segvit lr-find ...` without torchrun")
    if not 0 < start < end:
        raise UserError(f"rates from {start:g} to {end:g}: give two above 0, the lower one first")
    if num_steps < LEAST_STEPS:
        raise UserError(f"{num_steps} steps are too few to see a slope: give {LEAST_STEPS} or more")
    rates = np.geomspace(start, end, num_steps)
    losses: list[float] = []
    diverged = False
    with TemporaryDirectory() as folder:
        optim = replace(config.optim, lr=1.0)  # so that the schedule's factor is the rate itself
        trainer = Trainer(
            replace(config, optim=optim, steps=num_steps, output=Path(folder), loggers=(), early_stop=None),
            resume=False,
        )
        trainer.guard = replace(trainer.guard, saves=False)  # a loss that is not finite ends a sweep
        trainer.schedule = lambda step: float(rates[step])
        trainer.progress.console.quiet = True  # the table shows losses and rates
        try:
            for step, (images, labels, indices) in trainer.batches():
                losses.append(float(trainer.step(step, images, labels, indices).total))
                if progress:
                    progress(step + 1, num_steps)
                smoothed = smooth(losses)
                if diverged := smoothed[-1] > DIVERGED * min(smoothed):
                    break
        except NotFinite:
            if len(losses) < LEAST_STEPS:
                raise
            diverged = True
        trainer.log.close()
    smoothed = centred_means(losses)
    return LearningRates(
        rates=tuple(rates[: len(losses)].tolist()),
        losses=tuple(losses),
        smoothed=tuple(smoothed),
        suggested=steepest(rates[: len(losses)].tolist(), smoothed),
        diverged=diverged,
    )


def smooth(losses: list[float]) -> list[float]:
    """Return the running mean of losses, each with `SMOOTHING` times the weight of the next."""
    mean, result = 0.0, []
    for count, loss in enumerate(losses, start=1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        result.append(mean / (1 - SMOOTHING**count))
    return result


def centred_means(losses: list[float]) -> list[float]:
    """Return means over `WINDOW` losses around each, fewer at the ends. Unlike a running mean, they do not lag."""
    half = WINDOW // 2
    return [float(np.mean(losses[max(0, step - half) : step + half + 1])) for step in range(len(losses))]


def steepest(rates: list[float], smoothed: list[float]) -> float:
    """Return the rate at which the smoothed loss falls fastest over the logarithm of the rate, up to its lowest value.

    Raises:
        UserError: it never falls.
    """
    lowest = int(np.argmin(smoothed))
    if lowest < 2:
        raise UserError(
            f"the loss rises from the first rate on ({rates[0]:.1e}), so no rate can be suggested: start lower "
            "(--start)"
        )
    slopes = np.gradient(np.array(smoothed[: lowest + 1]), np.log(rates[: lowest + 1]))
    return rates[int(np.argmin(slopes))]

"""Random numbers of the augmentation. A crop's generator is their only source.

    degrees = uniform(stream(generator, "rotation"), -10, 10)

Each optional step draws from a stream of its own, seeded by the crop's seed and the name of the step. If one step is
turned on or off, the others draw the same numbers as before.
"""

import torch

from segvit.data.sampling.order import mix


def stream(generator: torch.Generator, name: str) -> torch.Generator:
    """Return a new generator, seeded by the seed of `generator` and a name. The state of `generator` has no effect."""
    return torch.Generator().manual_seed(mix(generator.initial_seed(), 0, name))


def uniform(generator: torch.Generator, low: float, high: float) -> float:
    """Return a number that is uniform in low .. high."""
    return low + (high - low) * float(torch.rand((), generator=generator))


def chance(generator: torch.Generator, probability: float) -> bool:
    """Return True with that probability."""
    return float(torch.rand((), generator=generator)) < probability


def maybe(generator: torch.Generator, low: float, high: float, *, neutral: float) -> float:
    """Return a uniform number with probability 0.5, else `neutral`. An empty range always gives `neutral`."""
    value = uniform(generator, low, high)  # always drawn, so that one part does not change the others' numbers
    return value if chance(generator, 0.5) and low < high else neutral


def whole(generator: torch.Generator, count: int) -> int:
    """Return one of the numbers 0 .. count - 1."""
    return int(torch.randint(count, (), generator=generator))

"""A running average of the weights (EMA): often a better model than the last step's, for the memory of a second copy.

    average = create_average(model, decay=0.9999)
    average.update_parameters(model)            # after every step
    average.module                              # the model to validate and save

torch's AveragedModel does the work. It averages parameters and copies buffers (mean and deviation, which never change).
Its state_dict also holds the number of updates, so that a resumed run continues to the bit.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def decay_at(num_averaged: int, decay: float) -> float:
    """Return the share of its old value that the average keeps at an update: min(decay, (1 + n) / (10 + n)).

    Without this warm-up, an average with decay 0.9999 would be mostly the first step's weights for 10,000 steps.

    Args:
        num_averaged: number n of steps in the average, 1 or more.
        decay: after the warm-up.
    """
    return min(decay, (1 + num_averaged) / (10 + num_averaged))


def create_average(model: nn.Module, *, decay: float) -> AveragedModel:
    """Create the average of a model's weights, in float32. Its first update copies the weights.

    Create it before the model is compiled or wrapped.
    """
    average = AveragedModel(model, multi_avg_fn=_towards(decay))
    average.module.float().requires_grad_(False).eval()
    return average


def _towards(decay: float) -> Callable[[Any, Any, Tensor | int], None]:
    """Return the function with which AveragedModel updates averages in place, given weights and number of updates."""

    @torch.no_grad()
    def move(averages: Sequence[Tensor], weights: Sequence[Tensor], num_averaged: Tensor | int) -> None:
        share = 1 - decay_at(int(num_averaged), decay)
        torch._foreach_lerp_(list(averages), [weight.float() for weight in weights], share)

    return move

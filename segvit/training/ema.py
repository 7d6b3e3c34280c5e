"""A running average of the weights (EMA): often a better model than the last step's, at the price of a second copy.

    average = create_average(model, decay=0.9999)
    average.update_parameters(model)            # after every step
    average.module                              # the model to validate and to write

torch's AveragedModel does the work: parameters are averaged, buffers (mean and deviation, which never change) are
copied, and its state_dict holds the number of updates as well, so that a resumed run goes on to the bit.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def decay_at(num_averaged: int, decay: float) -> float:
    """The share of its old value that the average keeps at an update: min(decay, (1 + n) / (10 + n)).

    Without the warm-up, an average with decay 0.9999 would be mostly the first step's weights for 10,000 steps.

    Args:
        num_averaged: steps n that it holds already, 1 or more.
        decay: in the long run.
    """
    return min(decay, (1 + num_averaged) / (10 + num_averaged))


def create_average(model: nn.Module, *, decay: float) -> AveragedModel:
    """The average of a model's weights, in float32, before its first update; that takes the weights as they are.

    To be made before the model is compiled or wrapped.
    """
    average = AveragedModel(model, multi_avg_fn=_towards(decay))
    average.module.float().requires_grad_(False).eval()
    return average


def _towards(decay: float) -> Callable[[Any, Any, Tensor | int], None]:
    """What AveragedModel calls with averages, weights and the number of updates: move the averages, in place."""

    @torch.no_grad()
    def move(averages: Sequence[Tensor], weights: Sequence[Tensor], num_averaged: Tensor | int) -> None:
        share = 1 - decay_at(int(num_averaged), decay)
        torch._foreach_lerp_(list(averages), [weight.float() for weight in weights], share)

    return move

"""Numbers of a step over its parts and over all processes; every process must call each of these."""

from collections.abc import Sequence

import torch
import torch.distributed
from accelerate import Accelerator
from torch import Tensor

from segvit.losses import Losses, Normalizers


def mean_divisors(divisors: Sequence[Normalizers], accelerator: Accelerator) -> Normalizers:
    """The divisors as means over parts and processes, so that the losses equal those of one large batch."""
    mean = torch.stack([torch.stack([each.num_masks, each.class_weight]) for each in divisors]).mean(dim=0)
    num_masks, class_weight = accelerator.reduce(mean, reduction="mean")
    return Normalizers(num_masks=num_masks, class_weight=class_weight)


def mean_losses(losses: Sequence[Losses], accelerator: Accelerator) -> Losses:
    """The losses averaged over parts and processes, without their graphs."""
    terms = torch.stack([torch.stack([each.classes, each.focal, each.dice]).detach() for each in losses])
    classes, focal, dice = accelerator.reduce(terms.mean(dim=0), reduction="mean")
    return Losses(classes=classes, focal=focal, dice=dice)


def highest(value: float, accelerator: Accelerator) -> Tensor:
    """The highest of the values that the processes have, a scalar."""
    shared = torch.tensor(value, device=accelerator.device)
    if accelerator.num_processes > 1:
        torch.distributed.all_reduce(shared, torch.distributed.ReduceOp.MAX)
    return shared


def anywhere(here: bool, accelerator: Accelerator) -> bool:
    """Whether something is so in any process."""
    return bool(highest(float(here), accelerator))

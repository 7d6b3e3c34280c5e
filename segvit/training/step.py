"""The arithmetic of a training step: what it sees, and forward, criterion and backward over its parts.

    inputs = StepInput(step=0, number=0, images=images, labels=labels, ...)
    seed_dropout(config.seed, inputs.number)
    losses = run_step(model, inputs, config, criterion=segvit.criterion, backward=Tensor.backward)

Training, the replay of a step that went wrong, and the plan of a run's memory all call `run_step`.

Letters: B images of this process, H, W size of a crop, K classes.
"""

import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from segvit.config import TrainConfig
from segvit.data.sampling.order import mix
from segvit.errors import UserError
from segvit.losses import Criterion, Losses, Normalizers
from segvit.reports.records import OWN_KEYS

Context = Callable[[], AbstractContextManager[Any]]


NUMBERED = re.compile(r"_\d+$")
"""End of a key of metrics.jsonl that numbers a supervised output."""


@dataclass(frozen=True, kw_only=True)
class StepInput:
    """Everything that a step's numbers depend on in one process, besides weights and config."""

    step: int
    """Steps done before."""
    number: int
    """Seed of the dropout, different for each step and process."""
    images: Tensor
    """(B, 3, H, W) uint8, or with cached features (B, L) float16, on the device."""
    labels: Tensor
    """(B, H, W) int64, on the device."""
    indices: Tensor
    """(B,) positions of the training samples."""
    divisors: Normalizers
    """Divisors of the criterion, over all parts and processes."""
    class_weights: Tensor | None
    """(K,) class weights of the criterion."""


def seed_dropout(seed: int, number: int) -> None:
    """Seed the random numbers of a step in a process, given the run's seed and `StepInput.number`."""
    torch.manual_seed(mix(seed, number, "dropout"))


def run_step(
    model: nn.Module,
    inputs: StepInput,
    config: TrainConfig,
    *,
    criterion: Criterion,
    backward: Callable[[Tensor], None],
    check: Callable[[Losses], None] = lambda losses: None,
    autocast: Context = nullcontext,
    hold: Context = nullcontext,
) -> list[Losses]:
    """Run forward, criterion and backward over the parts of a step, and return the losses of each part.

    Args:
        model: maps the images of `inputs` (B, 3, H, W), or their features (B, L), to a SegOutput.
        inputs: images and labels of the step.
        config: gives the number of parts (`accumulate`) and the settings of the criterion.
        criterion: `segvit.criterion` or another.
        backward: takes a part's share of the total loss back to the gradients.
        check: sees the losses of a part before its backward pass.
        autocast: makes the context of each forward pass.
        hold: makes the context of every part but the last, in which processes do not exchange gradients.

    Raises:
        UserError: a criterion of your own gives something else than `Losses`, or a term that cannot be logged.
    """
    images, labels = (tensor.chunk(config.accumulate) for tensor in (inputs.images, inputs.labels))
    found = []
    for part, (part_images, part_labels) in enumerate(zip(images, labels, strict=True), start=1):
        with nullcontext() if part == len(images) else hold():
            with autocast():
                output = model(part_images)
            losses = criterion(
                output,
                part_labels,
                config=config.loss,
                divisors=inputs.divisors,
                class_weights=inputs.class_weights,
            )
            del output  # the graph keeps what the backward pass needs
            check_terms(losses)
            check(losses)
            backward(losses.total / len(images))
        found.append(losses)
    return found


def check_terms(losses: Losses) -> None:
    """Refuse losses that cannot be logged.

    Raises:
        UserError: no `Losses`, or a term that is neither a scalar nor (S,), or whose name the log uses in another way.
    """
    if not isinstance(losses, Losses):
        raise UserError(
            f"the criterion gave {type(losses).__name__}: return segvit.Losses, such as those of segvit.criterion with "
            "a term of your own added"
        )
    for name, term in losses.items():
        if name in OWN_KEYS:
            raise UserError(f"the loss term {name!r} has a name that metrics.jsonl uses for something else: rename it")
        if NUMBERED.search(name):
            raise UserError(
                f"the loss term {name!r} ends like a supervised output in metrics.jsonl (dice_1): end it in a letter"
            )
        if not isinstance(term, Tensor):
            raise UserError(
                f"the loss term {name!r} is {type(term).__name__}: give a tensor, a scalar or of shape (S,)"
            )
        if term.ndim > 1:
            raise UserError(
                f"the loss term {name!r} has shape {tuple(term.shape)}: give a scalar, or a value for each supervised "
                "output, shape (S,)"
            )

"""Switch a model to evaluation and back, and gradient checkpointing on and off.

with evaluating(model):
    labels = image_labels(model, image)
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Protocol

from torch import nn

from segvit.errors import UserError
from segvit.models.query_cache import cached_queries


class HasModes(Protocol):
    """A model that can be switched between training and evaluation: a SegViT, or an exported graph."""

    training: bool

    def train(self, mode: bool = True) -> Any:
        """Switch to training, or to evaluation."""


@contextmanager
def evaluating(model: HasModes) -> Iterator[None]:
    """Switch to evaluation inside the block, and back after it. The weights must not change inside."""
    training = model.training
    model.train(False)
    try:
        with cached_queries(model) if isinstance(model, nn.Module) else nullcontext():
            yield
    finally:
        model.train(training)


def set_grad_checkpointing(backbone: Any, on: bool) -> None:
    """Let a backbone store only the input of each block and recompute the rest in the backward pass, or all.

    Raises:
        UserError: `on`, and the backbone has no such switch.
    """
    if hasattr(backbone, "grad_checkpointing"):
        backbone.grad_checkpointing = on
    elif on:
        raise UserError(
            f"grad_checkpointing: the backbone {type(backbone).__name__} has no attribute of that name; give it one, "
            "or set grad_checkpointing to false"
        )

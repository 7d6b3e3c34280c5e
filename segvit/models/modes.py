"""Switch a model to evaluation, and back.

with evaluating(model):
    labels = image_labels(model, image)
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Protocol

from torch import nn

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

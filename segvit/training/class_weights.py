"""Class weights of the cross entropy: turns the text in `loss.class_weights` into a number for each class.

Letters: K classes.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from segvit.data.sampling.class_counts import Census
from segvit.data.spec import DatasetSpec
from segvit.errors import UserError

BALANCED = "balanced"


def resolve_class_weights(given: Sequence[str], spec: DatasetSpec, census: Callable[[], Census]) -> Tensor | None:
    """Return weights (K,) float32, or None if none are given.

    Args:
        given: see `LossConfig.class_weights`.
        spec: the classes.
        census: counts the training set; only called for `balanced`.

    Raises:
        UserError: an unknown class, a class twice, too many or too few weights, or a weight that is not above 0.
    """
    if not given:
        return None
    if list(given) == [BALANCED]:
        return balanced(census())
    named = ["=" in word for word in given]
    if not any(named):
        if len(given) != spec.num_classes:
            raise UserError(
                f"loss.class_weights: {len(given)} numbers for the {spec.num_classes} classes of {spec.name!r}: give "
                f"one for each, in order, or NAME=WEIGHT for some, such as {spec.classes[0]}=2, or the word {BALANCED}"
            )
        return torch.tensor([_number(word, word) for word in given])
    if not all(named):
        raise UserError(f"loss.class_weights {' '.join(given)}: some have a name and some have none; give one kind")
    weights: dict[str, float] = {}
    for word in given:
        name, _, value = word.rpartition("=")
        if name not in spec.classes:
            raise UserError(f"loss.class_weights {word}: no class {name!r} but {', '.join(spec.classes)}")
        if name in weights:
            raise UserError(f"loss.class_weights: {name!r} has two weights; leave one out")
        weights[name] = _number(value, word)
    return torch.tensor([weights.get(name, 1.0) for name in spec.classes])


def balanced(census: Census) -> Tensor:
    """Return all labelled pixels / (number of classes * pixels of the class), (K,), whose mean over pixels is 1.

    Classes without a pixel have weight 1 and have no effect.
    """
    pixels = census.pixels
    found = pixels > 0
    weights = np.divide(pixels.sum(), found.sum() * pixels, out=np.ones(len(pixels)), where=found)
    return torch.from_numpy(weights).float()


def describe_class_weights(weights: Sequence[float], classes: Sequence[str]) -> str:
    """Return the range of the weights in one line."""
    (low, least), (high, most) = min(zip(weights, classes, strict=True)), max(zip(weights, classes, strict=True))
    return f"class weights from {low:.3g} ({least}) to {high:.3g} ({most})"


def _number(text: str, word: str) -> float:
    """Parse a weight as typed."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise UserError(f"loss.class_weights {word}: a weight is a number above 0")
    return value

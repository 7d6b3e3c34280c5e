"""Boundary IoU: how well two label maps agree near the edges of their regions (docs/method.md section 6).

    band of a class     its pixels that have a pixel of another class, or the outside of the image, within d pixels
    boundary IoU        |band in the labels and in the prediction| / |band in either|, both summed over the set

d is 2 % of the image's diagonal. "Within d pixels" means inside the square of 2 d + 1 pixels around a pixel. So the
band is the mask minus the mask eroded d times by a square of 3 x 3. A mask has an edge where the border of the image
cuts it. Both follow the published code of the metric's authors.

The paper does not mention ignored pixels. Here they are taken out of both maps first. They are in no band, and are no
other class to their neighbours. So a prediction that is right at every labelled pixel scores 1, whatever it is
elsewhere. A strip of ignored pixels along an edge hides no band that is wider than the strip.

Letters: K classes, H W image.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from segvit.data.spec import IGNORE_INDEX

BAND = 0.02
"""Width of the band as a share of the image's diagonal."""


def band_width(height: int, width: int) -> int:
    """Return the distance d in pixels for an image's size, at least 1."""
    return max(1, round(BAND * math.hypot(height, width)))


def boundary_counts(predicted: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Count pixels per class in the bands of both maps, of the labels, and of the prediction: (3, K) int64.

    Args:
        predicted: (..., H, W) int64, 0..K-1.
        labels: of the same shape; 255 = ignored.
        num_classes: K.
    """
    distance = band_width(labels.shape[-2], labels.shape[-1])
    kept = labels != IGNORE_INDEX
    small = torch.uint8 if num_classes < 255 else torch.int16  # the work is bound by memory: small numbers are fast
    ours, theirs = ((classes.to(small) + 1) * kept for classes in (labels, predicted))  # 1..K, ignored 0
    in_labels = band(ours, num_classes, distance=distance)
    in_predicted = band(theirs, num_classes, distance=distance)
    in_both = in_labels & in_predicted & (ours == theirs)
    chosen = (ours * in_both, ours * in_labels, theirs * in_predicted)
    return torch.stack([torch.bincount(classes.flatten(), minlength=num_classes + 1)[1:] for classes in chosen])


def band(classes: Tensor, num_classes: int, *, distance: int) -> Tensor:
    """Find the pixels within `distance` of another class or of the outside: (..., H, W) bool, for all classes at once.

    A pixel is in the band of its own class if the greatest or the least class in the square around it is not its own.
    So the cost does not depend on the number of classes, and only logarithmically on the distance.

    Args:
        classes: (..., H, W) integers that can hold K + 1: classes as 1..K, and 0 = ignored.
        num_classes: K.
        distance: in pixels.
    """
    kept = classes > 0
    found = torch.zeros_like(kept)
    for order in (classes, (num_classes + 1 - classes) * kept):  # the least class is the greatest in reverse order
        greatest = F.pad(order, (distance,) * 4, value=num_classes + 1)  # the outside differs from every class
        for dim in (-1, -2):
            greatest = _window_maximum(greatest, 2 * distance + 1, dim=dim)
        found |= greatest != order
    return found & kept


def _window_maximum(values: Tensor, width: int, *, dim: int) -> Tensor:
    """Return the greatest of each `width` neighbours along `dim`, which gets shorter by width - 1."""
    span = 1  # values[i] is the greatest of `span` neighbours from i on
    while span < width:
        step = min(span, width - span)
        length = values.shape[dim] - step
        values = torch.maximum(values.narrow(dim, 0, length), values.narrow(dim, step, length))
        span += step
    return values

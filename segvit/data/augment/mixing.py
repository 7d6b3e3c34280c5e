"""Areas of a crop that are erased, or replaced by those of a second crop of the same size.

    crop = erased(crop, share=(0.02, 0.2), fill=fill, generator=generator)
    crop = cut_and_mixed(crop, other, generator=generator)          # CutMix
    crop = pasted(crop, other, class_index=7)                       # copy-paste

Letters: N bands, c side of a crop.
"""

import math

import torch

from segvit.data.augment.draws import uniform, whole
from segvit.data.spec import IGNORE_INDEX

Crop = tuple[torch.Tensor, torch.Tensor]
"""Image (N, c, c), uint8 or float in 0..1, and labels int64 (c, c)."""
ERASED_ASPECT = 3.0
"""Largest ratio of the two sides of an erased rectangle."""


def erased(crop: Crop, *, share: tuple[float, float], fill: torch.Tensor, generator: torch.Generator) -> Crop:
    """Erase a rectangle: the image gets the fill, and the labels `IGNORE_INDEX`.

    The pixels show nothing, so a label there would teach the model to guess. The method is that of Zhong et al. (2020),
    Random Erasing, without its random colours.

    Args:
        crop: image and labels.
        share: smallest and largest area, as a share of the crop.
        fill: (N, 1, 1), of the image's type.
        generator: source of randomness.
    """
    image, labels = crop
    side = len(labels)
    area = uniform(generator, *share) * side**2
    ratio = ERASED_ASPECT ** uniform(generator, -1, 1)
    rows, columns = _box(side, math.sqrt(area * ratio), math.sqrt(area / ratio), generator)
    image, labels = image.clone(), labels.clone()
    image[:, rows, columns], labels[rows, columns] = fill, IGNORE_INDEX
    return image, labels


def cut_and_mixed(crop: Crop, other: Crop, *, generator: torch.Generator) -> Crop:
    """Replace a square of a crop by that of another one, with its labels: Yun et al. (2019), CutMix.

    Its area is a uniform share of the crop, and it is always inside.
    """
    image, labels = (part.clone() for part in crop)
    side = len(labels) * math.sqrt(uniform(generator, 0, 1))
    rows, columns = _box(len(labels), side, side, generator)
    image[:, rows, columns], labels[rows, columns] = other[0][:, rows, columns], other[1][rows, columns]
    return image, labels


def pasted(crop: Crop, other: Crop, *, class_index: int) -> Crop:
    """Replace the pixels of a crop at which another one shows a class by those of the other, with their label.

    The method is that of Ghiasi et al. (2021), Simple Copy-Paste, for classes in place of instances.
    """
    there = other[1] == class_index
    return torch.where(there, other[0], crop[0]), torch.where(there, other[1], crop[1])


def keeping(wanted: int | None, before: Crop, after: Crop) -> Crop:
    """Return the crop `after`, or `before` if that alone shows the class `wanted`."""
    if wanted is None or (after[1] == wanted).any() or not (before[1] == wanted).any():
        return after
    return before


def _box(side: int, height: float, width: float, generator: torch.Generator) -> tuple[slice, slice]:
    """Draw the rows and columns of a rectangle inside a crop, rounded to whole pixels."""
    spans = []
    for wanted in (height, width):
        length = min(round(wanted), side)
        start = whole(generator, side - length + 1)
        spans.append(slice(start, start + length))
    return spans[0], spans[1]

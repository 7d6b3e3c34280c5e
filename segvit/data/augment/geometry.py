"""Geometry of the augmentation: image and labels move together. Nothing is computed outside the crop.

    window = random_crop(labels, size=size, crop=512, max_class_share=0.75, generator=generator)
    image, labels = turned_window(image, labels, size, window, degrees=8.0, fill=fill)

The crop is chosen on the label map first, and `resize` fills only that window. Images are interpolated bilinearly, and
labels take the nearest pixel.

Letters: N bands, H, W size of the image, h, w size after the resize or of the crop, c side of the crop.
"""

import math

import torch
import torch.nn.functional as F

from segvit.data.augment.draws import chance, whole
from segvit.data.augment.levels import from_levels, to_levels
from segvit.data.spec import IGNORE_INDEX
from segvit.utils.resize import Window, resize, resize_labels

CROP_TRIES = 10
"""Number of windows drawn before the last is accepted unconditionally (docs/method.md section 5)."""


def stretched(size: tuple[int, int], *, aspect: float, generator: torch.Generator) -> tuple[int, int]:
    """Stretch one side of a size (h, w) against the other, and keep the area.

    The ratio of the two sides is multiplied by a factor that is log-uniform in 1 / aspect .. aspect.
    """
    share = 2 * float(torch.rand((), generator=generator)) - 1
    root = math.sqrt(aspect**share)
    return max(1, round(size[0] * root)), max(1, round(size[1] / root))


def random_crop(
    labels: torch.Tensor,
    *,
    size: tuple[int, int],
    crop: int,
    max_class_share: float,
    wanted: int | None = None,
    generator: torch.Generator,
) -> Window:
    """Draw a random window of the resized label map, at most crop x crop.

    It is drawn again until it shows more than one class, and none exceeds `max_class_share` of its labelled pixels. The
    tenth window is accepted unconditionally. With a share of 1, the first is accepted.

    Args:
        labels: (H, W), before the resize.
        size: height and width (h, w) after the resize.
        crop: side c of the window.
        max_class_share: 0..1.
        wanted: class that each window must show, if the resize leaves a pixel of it. One of its pixels is drawn, and
            then a window that contains it.
        generator: source of randomness.
    """
    height, width = min(crop, size[0]), min(crop, size[1])
    places = None if wanted is None else (resize_labels(labels, size) == wanted).nonzero()  # (n, 2): row, column
    tops, lefts = (0, size[0] - height), (0, size[1] - width)  # first and last
    for _ in range(CROP_TRIES):
        if places is not None and len(places):
            row, column = places[int(torch.randint(len(places), (), generator=generator))].tolist()
            tops = (max(0, row - height + 1), min(row, size[0] - height))
            lefts = (max(0, column - width + 1), min(column, size[1] - width))
        top = int(torch.randint(tops[0], tops[1] + 1, (), generator=generator))
        left = int(torch.randint(lefts[0], lefts[1] + 1, (), generator=generator))
        window = Window(top, left, height, width)
        if max_class_share >= 1:
            break
        counts = torch.bincount(resize_labels(labels, size, window).flatten(), minlength=IGNORE_INDEX + 1)
        counts[IGNORE_INDEX] = 0
        total, largest = int(counts.sum()), int(counts.max())
        if largest < total and largest <= max_class_share * total:
            break
    return window


def turned_window(
    image: torch.Tensor,
    labels: torch.Tensor,
    size: tuple[int, int],
    window: Window,
    *,
    degrees: float,
    fill: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cut a window out of a resized pair, turned about the centre of the window.

    The corners show the image beyond the window. Only pixels outside the image have the fill and `IGNORE_INDEX`.

    Args:
        image: (N, H, W), before the resize.
        labels: (H, W), before the resize.
        size: (h, w) after the resize.
        window: of the resized pair.
        degrees: angle by which the content turns, counterclockwise.
        fill: (N, 1, 1), of the image's type.
    """
    y, x = _sources(window, math.radians(degrees))  # places in the resized pair
    top, bottom = _span(y, size[0])
    left, right = _span(x, size[1])
    around = Window(top, left, bottom - top, right - left)
    colors, wide = to_levels(resize(image, size, around)), resize_labels(labels, size, around)
    inside = (y >= -0.5) & (y < size[0] - 0.5) & (x >= -0.5) & (x < size[1] - 0.5)
    y, x = y - top, x - left
    grid = torch.stack([(2 * x + 1) / around.width - 1, (2 * y + 1) / around.height - 1], dim=-1)  # (h, w, 2), -1 .. 1
    turned = F.grid_sample(colors[None], grid.float()[None], padding_mode="border", align_corners=False)[0]
    rows, columns = (y + 0.5).floor().long(), (x + 0.5).floor().long()
    turned_labels = wide[rows.clamp(0, around.height - 1), columns.clamp(0, around.width - 1)]
    image = torch.where(inside, from_levels(turned.clamp_(0, 255), image.dtype), fill)
    return image, torch.where(inside, turned_labels, IGNORE_INDEX)


def _sources(window: Window, angle: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the row and the column (h, w), float64, that each pixel of a window turned by radians shows."""
    middle = window.top + (window.height - 1) / 2, window.left + (window.width - 1) / 2
    down = torch.arange(window.height, dtype=torch.float64)[:, None] - (window.height - 1) / 2
    right = torch.arange(window.width, dtype=torch.float64)[None] - (window.width - 1) / 2
    cosine, sine = math.cos(angle), math.sin(angle)
    return middle[0] + cosine * down + sine * right, middle[1] + cosine * right - sine * down


def _span(places: torch.Tensor, length: int) -> tuple[int, int]:
    """Return the first pixel of a side that bilinear interpolation at some places needs, and one past the last."""
    first = min(max(math.floor(float(places.min())) - 1, 0), length - 1)
    return first, max(first + 1, min(math.ceil(float(places.max())) + 2, length))


def flip(
    image: torch.Tensor, labels: torch.Tensor, *, probability: float, generator: torch.Generator, axis: int = -1
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mirror (N, h, w) and (h, w) with that probability: left and right, or top and bottom with the axis -2."""
    if chance(generator, probability):
        return image.flip(axis), labels.flip(axis)
    return image, labels


def quarter_turns(
    image: torch.Tensor, labels: torch.Tensor, *, probability: float, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn by 90, 180 or 270 degrees with that probability, each as likely: (N, h, w) and (h, w), or sides swapped."""
    if chance(generator, probability):
        turns = 1 + whole(generator, 3)
        return torch.rot90(image, turns, (-2, -1)), torch.rot90(labels, turns, (-2, -1))
    return image, labels


def pad_to(
    image: torch.Tensor, labels: torch.Tensor, *, size: int, fill: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Extend right and bottom to size x size: the image with `fill` (N, 1, 1), the labels with `IGNORE_INDEX`."""
    height, width = labels.shape
    if (height, width) == (size, size):
        return image.contiguous(), labels.contiguous()
    padded = fill.expand(len(image), size, size).clone()
    padded[:, :height, :width] = image
    padded_labels = labels.new_full((size, size), IGNORE_INDEX)
    padded_labels[:height, :width] = labels
    return padded, padded_labels

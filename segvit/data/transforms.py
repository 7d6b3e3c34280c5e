"""Augment training pairs (docs/method.md section 5), by pure functions of tensors and a random generator.

The order is: resize with the ratio kept, random crop, horizontal flip, photometric distortion, pad. The model
normalises. Nothing is computed outside the crop: it is chosen on the label map first, and `resize` fills only that
window.

Letters: N bands, H, W size of the image, h, w size after the resize, c side of the crop.
"""

from collections.abc import Sequence

import torch

from segvit.config import AugmentConfig
from segvit.data.bands.reading import COLORS
from segvit.data.spec import IGNORE_INDEX
from segvit.errors import UserError
from segvit.utils.resize import Window, resize, resize_labels, to_uint8
from segvit.utils.sizes import fit_size

CROP_TRIES = 10
"""Number of windows drawn before the last is accepted unconditionally (docs/method.md section 5)."""


class TrainTransform:
    """The paper's augmentation of one pair. The given generator is its only source of randomness."""

    def __init__(self, crop: int, augment: AugmentConfig, fill: Sequence[float]) -> None:
        """Set the recipe.

        Args:
            crop: side c of the result in pixels.
            augment: sizes, probabilities and ranges.
            fill: value of each band in the padding, 0..255: the model's mean, which is 0 once normalised.

        Raises:
            UserError: a setting is out of range.
        """
        _check(augment)
        self.crop = crop
        self.augment = augment
        self.fill = torch.tensor(fill, dtype=torch.float32).view(-1, 1, 1)

    def __call__(
        self, image: torch.Tensor, labels: torch.Tensor, generator: torch.Generator, *, wanted: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Turn image uint8 or float 0..1 (N, H, W) and labels int64 (H, W) into (N, c, c) and (c, c).

        The crop shows the class `wanted`, if the resize leaves a pixel of it.
        """
        augment = self.augment
        image, labels = image.as_subclass(torch.Tensor), labels.as_subclass(torch.Tensor)  # plain ones are faster
        height, width = labels.shape
        long, short = augment.resize_long, augment.resize_short
        if long is not None and short is None:
            short = self.crop
        ratio = _uniform(generator, *augment.scale)
        size = fit_size(height, width, long=long, short=short, ratio=ratio)
        window = random_crop(
            labels,
            size=size,
            crop=self.crop,
            max_class_share=augment.max_class_share,
            wanted=wanted,
            generator=generator,
        )
        image, labels = resize(image, size, window), resize_labels(labels, size, window)
        image, labels = flip(image, labels, probability=augment.flip, generator=generator)
        image = photometric(
            image,
            brightness=augment.brightness,
            contrast=augment.contrast,
            saturation=augment.saturation,
            hue=augment.hue,
            generator=generator,
        )
        return pad_to(image, labels, size=self.crop, fill=in_dtype(self.fill, image.dtype))


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


def flip(
    image: torch.Tensor, labels: torch.Tensor, *, probability: float, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mirror left and right with that probability: (N, h, w) and (h, w)."""
    if _chance(generator, probability):
        return image.flip(-1), labels.flip(-1)
    return image, labels


def photometric(
    image: torch.Tensor,
    *,
    brightness: float,
    contrast: float,
    saturation: float,
    hue: float,
    generator: torch.Generator,
) -> torch.Tensor:
    """Distort the colours of (N, h, w). Each part is applied with probability 0.5, and never if its range is 0.

    Brightness adds, and contrast multiplies. Contrast comes before or after saturation and hue, at random. Saturation
    and hue are those of the HSV cone, and apply to three bands alone. Values are clipped to 0..255 after each part.
    uint8 is rounded once at the end.

    Args:
        image: uint8, or float in 0..1.
        brightness: largest shift, on the scale of 0..255.
        contrast: half width of the factor's range, 1 - contrast .. 1 + contrast.
        saturation: half width of the factor's range, 1 - saturation .. 1 + saturation.
        hue: largest shift, where 180 is the full circle.
        generator: source of randomness.
    """
    shift = _maybe(generator, -brightness, brightness, neutral=0.0)
    gain = _maybe(generator, 1 - contrast, 1 + contrast, neutral=1.0)
    contrast_first = _chance(generator, 0.5)
    saturation_gain = _maybe(generator, 1 - saturation, 1 + saturation, neutral=1.0)
    turn = _maybe(generator, -hue, hue, neutral=0.0)
    if len(image) != COLORS:
        saturation_gain, turn = 1.0, 0.0
    if (shift, gain, saturation_gain, turn) == (0.0, 1.0, 1.0, 0.0):
        return image
    floats = image.dtype != torch.uint8
    colors = image * 255 if floats else image.float()
    if shift != 0:
        colors = colors.add_(shift).clamp_(0, 255)
    if gain != 1 and contrast_first:
        colors = colors.mul_(gain).clamp_(0, 255)
    if saturation_gain != 1:
        colors = saturate(colors, saturation_gain)
    if turn != 0:
        colors = turn_hue(colors, turn / 180)
    if gain != 1 and not contrast_first:
        colors = colors.mul_(gain).clamp_(0, 255)
    return colors.div_(255) if floats else to_uint8(colors)


def saturate(colors: torch.Tensor, factor: float) -> torch.Tensor:
    """Multiply the HSV saturation, up to 1, and keep hue and value: float (3, h, w) in 0..255."""
    value = colors.amax(dim=0, keepdim=True)
    chroma = value - colors.amin(dim=0, keepdim=True)
    # each channel is value * saturation * f(hue) below the value, so that gap scales with the saturation
    factors = (value / chroma.clamp_(min=1e-6)).clamp_(max=factor)
    return value - (value - colors) * factors


def turn_hue(colors: torch.Tensor, turns: float) -> torch.Tensor:
    """Shift the HSV hue by a share of the full circle, and keep saturation and value: float (3, h, w) in 0..255."""
    red, green, blue = colors
    value, low = colors.amax(dim=0), colors.amin(dim=0)
    chroma = value - low
    safe = chroma.clamp(min=1e-6)
    # sixths of the circle, counted from the channel that is the largest
    sixth = _choose(
        value == red,
        (green - blue).div_(safe),
        _choose(value == green, (blue - red).div_(safe).add_(2), (red - green).div_(safe).add_(4)),
    )
    offsets = torch.tensor([5.0, 3.0, 1.0]).view(3, 1, 1)
    position = sixth + (offsets + 6 * turns)  # (3, h, w)
    # the remainder of 6, at a third of the cost of `remainder`; a full circle may give 6 for 0, where the gap is 0 too
    position.sub_((position / 6).floor_().mul_(6))
    gap = torch.minimum(position, 4 - position).clamp_(0, 1)
    return torch.sub(value, gap.mul_(chroma), out=gap)


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


def in_dtype(fill: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Convert values (...) in 0..255 to images of that dtype: rounded for uint8, 0..1 for floats."""
    return to_uint8(fill.clone()) if dtype == torch.uint8 else (fill / 255).to(dtype)


def _choose(first: torch.Tensor, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return `torch.where` of finite numbers to the bit, without its branch for every pixel."""
    return torch.lerp(other, one, first.to(one.dtype))


def _uniform(generator: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def _chance(generator: torch.Generator, probability: float) -> bool:
    return float(torch.rand((), generator=generator)) < probability


def _maybe(generator: torch.Generator, low: float, high: float, *, neutral: float) -> float:
    """Return a uniform number with probability 0.5, else `neutral`. An empty range always gives `neutral`."""
    value = _uniform(generator, low, high)  # always drawn, so that one part does not change the others' numbers
    return value if _chance(generator, 0.5) and low < high else neutral


def _check(augment: AugmentConfig) -> None:
    """Refuse settings out of their range."""
    low, high = augment.scale
    rules = {
        "scale": (0 < low <= high, "two numbers, 0 < smallest <= largest"),
        "max_class_share": (augment.max_class_share > 0, "above 0; 1 accepts any crop"),
        "rare_class_probability": (0 <= augment.rare_class_probability <= 1, "a probability in 0..1"),
        "flip": (0 <= augment.flip <= 1, "a probability in 0..1"),
        "brightness": (0 <= augment.brightness <= 255, "in 0..255"),
        "contrast": (0 <= augment.contrast <= 1, "in 0..1"),
        "saturation": (0 <= augment.saturation <= 1, "in 0..1"),
        "hue": (0 <= augment.hue <= 90, "in 0..90"),
        "views": (augment.views is None or augment.views > 0, "1 or more"),
        "resize_long": (augment.resize_long is None or augment.resize_long > 0, "above 0 pixels"),
        "resize_short": (augment.resize_short is None or augment.resize_short > 0, "above 0 pixels"),
    }
    for key, (good, needed) in rules.items():
        if not good:
            raise UserError(f"augment.{key} is {getattr(augment, key)}; it must be {needed}")

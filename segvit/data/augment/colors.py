"""Colours and quality of the augmentation. They change the image and leave the labels.

    image = photometric(image, brightness=32, contrast=0.5, saturation=0.5, hue=18, generator=generator)
    image = blurred(image, sigma=2.0, generator=stream(generator, "blur"))

Each part is applied with probability 0.5.

Images are uint8, or float in 0..1. Ranges of brightness and noise are on the scale 0..255 for both.

Letters: N bands, h, w size of the crop.
"""

import math

import torch
import torch.nn.functional as F
from torchvision.io import ImageReadMode, decode_jpeg, encode_jpeg

from segvit.data.augment.draws import chance, maybe, whole
from segvit.data.augment.levels import from_levels, to_levels
from segvit.data.bands.names import COLORS
from segvit.utils.resize import to_uint8


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
    shift = maybe(generator, -brightness, brightness, neutral=0.0)
    gain = maybe(generator, 1 - contrast, 1 + contrast, neutral=1.0)
    contrast_first = chance(generator, 0.5)
    saturation_gain = maybe(generator, 1 - saturation, 1 + saturation, neutral=1.0)
    turn = maybe(generator, -hue, hue, neutral=0.0)
    if len(image) != COLORS:
        saturation_gain, turn = 1.0, 0.0
    if (shift, gain, saturation_gain, turn) == (0.0, 1.0, 1.0, 0.0):
        return image
    colors = to_levels(image)
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
    return from_levels(colors, image.dtype)


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


def gamma_corrected(image: torch.Tensor, *, gamma: float, generator: torch.Generator) -> torch.Tensor:
    """Raise the values of (N, h, w), on the scale 0..1, to a power, with probability 0.5.

    The exponent is log-uniform in 1 / (1 + gamma) .. 1 + gamma.
    """
    share = maybe(generator, -1.0, 1.0, neutral=0.0)
    if share == 0:
        return image
    exponent = (1 + gamma) ** share
    if image.dtype != torch.uint8:
        return image.pow(exponent)
    shades = 255 * (torch.arange(256, dtype=torch.float64) / 255) ** exponent
    return to_uint8(shades)[image.long()]


def blurred(image: torch.Tensor, *, sigma: float, generator: torch.Generator) -> torch.Tensor:
    """Blur (N, h, w) by a Gaussian, with probability 0.5. The border repeats its pixels outwards.

    The standard deviation is uniform in 0 .. sigma pixels.
    """
    width = maybe(generator, 0.0, sigma, neutral=0.0)
    if width == 0:
        return image
    reach = math.ceil(3 * width)
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / width) ** 2)
    weights = weights / weights.sum()
    colors = F.pad(to_levels(image)[:, None], (reach, reach, reach, reach), mode="replicate")  # (N, 1, h + 2r, w + 2r)
    colors = F.conv2d(F.conv2d(colors, weights.view(1, 1, -1, 1)), weights.view(1, 1, 1, -1))
    return from_levels(colors[:, 0].clamp_(0, 255), image.dtype)


def noisy(image: torch.Tensor, *, noise: float, generator: torch.Generator) -> torch.Tensor:
    """Add Gaussian noise to each value of (N, h, w), with probability 0.5.

    Its standard deviation is uniform in 0 .. noise, on the scale of 0..255.
    """
    width = maybe(generator, 0.0, noise, neutral=0.0)
    if width == 0:
        return image
    levels = to_levels(image).add_(width * torch.randn(image.shape, generator=generator))
    return from_levels(levels.clamp_(0, 255), image.dtype)


def recompressed(image: torch.Tensor, *, quality: int, generator: torch.Generator) -> torch.Tensor:
    """Write (3, h, w) as JPEG of 8 bits and read it again, with probability 0.5. The quality is `quality` .. 100."""
    drawn = quality + whole(generator, 101 - quality)
    if not chance(generator, 0.5):
        return image
    picture = to_uint8(to_levels(image)).contiguous()
    compressed: torch.Tensor = decode_jpeg(encode_jpeg(picture, quality=drawn), mode=ImageReadMode.RGB)
    return from_levels(compressed.float(), image.dtype)


def _choose(first: torch.Tensor, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return `torch.where` of finite numbers to the bit, without its branch for every pixel."""
    return torch.lerp(other, one, first.to(one.dtype))

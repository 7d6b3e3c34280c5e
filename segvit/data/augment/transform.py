"""Augment training pairs (docs/training.md), by pure functions of tensors and a random generator.

    transform = TrainTransform(512, AugmentConfig(), fill=(124, 116, 104))
    image, labels = transform(image, labels, generator)

The order is: resize, random crop, rotation, flips, quarter turns, photometric distortion, gamma, blur, noise, JPEG,
pad, your own transform, erasing. The model normalises. With the defaults these are the paper's steps alone
(docs/method.md section 5). CutMix and copy-paste need a second crop: see segvit/data/sampling/partners.py.

Letters: N bands, H, W size of the image, c side of the crop.
"""

from collections.abc import Sequence

import torch

from segvit.config import AugmentConfig
from segvit.data.augment import colors
from segvit.data.augment.draws import chance, stream, uniform
from segvit.data.augment.geometry import (
    flip,
    pad_to,
    quarter_turns,
    random_crop,
    stretched,
    turned_window,
)
from segvit.data.augment.levels import from_levels
from segvit.data.augment.limits import check_augment
from segvit.data.augment.mixing import Crop, erased, keeping
from segvit.data.augment.own import OwnTransform
from segvit.data.bands.names import COLORS
from segvit.errors import UserError
from segvit.utils.resize import Window, resize, resize_labels
from segvit.utils.sizes import fit_size


class TrainTransform:
    """The augmentation of one pair. The given generator is its only source of randomness."""

    def __init__(
        self, crop: int, augment: AugmentConfig, fill: Sequence[float], *, own: OwnTransform | None = None
    ) -> None:
        """Set the recipe.

        Args:
            crop: side c of the result in pixels.
            augment: sizes, probabilities and ranges.
            fill: value of each band in the padding, on the scale 0..255: the model's mean, 0 once normalised.
            own: your own transform of the padded crop.

        Raises:
            UserError: a setting is out of range.
        """
        check_augment(augment)
        if augment.jpeg_quality < 100 and len(fill) != COLORS:
            raise UserError(
                f"augment.jpeg_quality is {augment.jpeg_quality}, but images have {len(fill)} bands, and JPEG has "
                f"{COLORS}: set it to 100"
            )
        self.crop = crop
        self.augment = augment
        self.fill = torch.tensor(fill, dtype=torch.float32).view(-1, 1, 1)
        self.own = own

    def __call__(
        self, image: torch.Tensor, labels: torch.Tensor, generator: torch.Generator, *, wanted: int | None = None
    ) -> Crop:
        """Turn image uint8 or float 0..1 (N, H, W) and labels int64 (H, W) into (N, c, c) and (c, c).

        The crop shows the class `wanted`, if the resize leaves a pixel of it. A rotation or an erased area that would
        remove it is left out.
        """
        augment = self.augment
        image, labels = image.as_subclass(torch.Tensor), labels.as_subclass(torch.Tensor)  # plain ones are faster
        fill = from_levels(self.fill.clone(), image.dtype)
        size = self._size(labels, generator)
        window = random_crop(
            labels,
            size=size,
            crop=self.crop,
            max_class_share=augment.max_class_share,
            wanted=wanted,
            generator=generator,
        )
        image, labels = self._cut(image, labels, size, window, generator, fill=fill, wanted=wanted)
        image, labels = flip(image, labels, probability=augment.flip, generator=generator)
        image, labels = flip(
            image, labels, probability=augment.vertical_flip, generator=stream(generator, "vertical flip"), axis=-2
        )
        image, labels = quarter_turns(
            image, labels, probability=augment.rot90, generator=stream(generator, "quarter turns")
        )
        image = self._colored(image, generator)
        image, labels = pad_to(image, labels, size=self.crop, fill=fill)
        if self.own:
            image, labels = self.own(image, labels, stream(generator, "own transform").initial_seed())
        draws = stream(generator, "erase")
        if chance(draws, augment.erase):
            crop = image, labels
            return keeping(wanted, crop, erased(crop, share=augment.erase_share, fill=fill, generator=draws))
        return image, labels

    def _size(self, labels: torch.Tensor, generator: torch.Generator) -> tuple[int, int]:
        """Draw the size that an image with labels (H, W) is resized to."""
        augment = self.augment
        long, short = augment.resize_long, augment.resize_short
        if long is not None and short is None:
            short = self.crop
        ratio = uniform(generator, *augment.scale)
        size = fit_size(labels.shape[0], labels.shape[1], long=long, short=short, ratio=ratio)
        if augment.aspect > 1:
            size = stretched(size, aspect=augment.aspect, generator=stream(generator, "aspect"))
        return size

    def _cut(
        self,
        image: torch.Tensor,
        labels: torch.Tensor,
        size: tuple[int, int],
        window: Window,
        generator: torch.Generator,
        *,
        fill: torch.Tensor,
        wanted: int | None,
    ) -> Crop:
        """Cut a window out of the pair resized to `size`, turned if the recipe turns."""
        most = self.augment.rotation
        degrees = uniform(stream(generator, "rotation"), -most, most) if most else 0.0
        if degrees:
            turned = turned_window(image, labels, size, window, degrees=degrees, fill=fill)
            if wanted is None or (turned[1] == wanted).any():
                return turned
        straight = resize(image, size, window), resize_labels(labels, size, window)
        return keeping(wanted, straight, turned) if degrees else straight

    def _colored(self, image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Distort the colours and the quality of an image (N, h, w)."""
        augment = self.augment
        image = colors.photometric(
            image,
            brightness=augment.brightness,
            contrast=augment.contrast,
            saturation=augment.saturation,
            hue=augment.hue,
            generator=generator,
        )
        if augment.gamma > 0:
            image = colors.gamma_corrected(image, gamma=augment.gamma, generator=stream(generator, "gamma"))
        if augment.blur > 0:
            image = colors.blurred(image, sigma=augment.blur, generator=stream(generator, "blur"))
        if augment.noise > 0:
            image = colors.noisy(image, noise=augment.noise, generator=stream(generator, "noise"))
        if augment.jpeg_quality < 100:
            image = colors.recompressed(image, quality=augment.jpeg_quality, generator=stream(generator, "jpeg"))
        return image

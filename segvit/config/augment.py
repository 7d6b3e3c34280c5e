"""Settings of the training augmentation, and its presets.

AugmentConfig(preset="aerial", rotation=0.0)        # the preset's values, except for those that are given
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any, Literal

from segvit.errors import UserError

Preset = Literal["photo", "aerial", "microscopy"]

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "photo": {
        "rotation": 8.0,
        "aspect": 1.2,
        "gamma": 0.3,
        "blur": 1.5,
        "noise": 6.0,
        "jpeg_quality": 50,
    },
    "aerial": {
        "scale": (0.75, 1.5),
        "vertical_flip": 0.5,
        "rot90": 0.75,
        "rotation": 15.0,
        "hue": 6.0,
        "saturation": 0.3,
        "gamma": 0.2,
        "blur": 1.0,
    },
    "microscopy": {
        "scale": (0.75, 1.33),
        "vertical_flip": 0.5,
        "rot90": 0.75,
        "rotation": 45.0,
        "contrast": 0.3,
        "saturation": 0.3,
        "hue": 9.0,
        "gamma": 0.3,
        "blur": 2.0,
        "noise": 8.0,
    },
}
"""Settings of each preset that differ from the defaults. docs/training.md gives the reasons."""


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Training augmentation, in the order of its steps. The defaults are the paper's, without any further step."""

    preset: Preset | None = None
    """Defaults of this section for a kind of image: photo, aerial or microscopy. Other settings override them. Default:
    the paper's."""
    resize_long: int | None = 2048
    """Largest longer side in pixels: the image is resized to fit, keeping its ratio. No resizing if this and
    `resize_short` are None."""
    resize_short: int | None = None
    """Largest shorter side in pixels of the same resizing. Default: the crop, if `resize_long` is set."""
    scale: tuple[float, float] = (0.5, 2.0)
    """Range of the random factor on the resized size."""
    aspect: float = 1.0
    """Largest random factor on the ratio of the two sides, which keeps the area. 1: keep the ratio."""
    max_class_share: float = 0.75
    """Largest share of one class among the labelled pixels of a crop. A crop with more is drawn again, up to 10 times.
    1: accept any crop."""
    rare_class_probability: float = 0.0
    """Share of the crops that is forced to contain a class; rare classes are picked more often (1 / their pixels in the
    training set). The crop comes from a random image with that class. Label maps are counted once and the counts
    kept."""
    rotation: float = 0.0
    """Largest rotation either way in degrees. Pixels outside the image get the mean colour and are ignored."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    vertical_flip: float = 0.0
    """Probability of a vertical flip."""
    rot90: float = 0.0
    """Probability of a turn by 90, 180 or 270 degrees."""
    brightness: float = 32.0
    """Largest shift of the brightness, on the scale 0..255."""
    contrast: float = 0.5
    """Range x of the contrast factor, drawn from 1 - x .. 1 + x."""
    saturation: float = 0.5
    """Range x of the saturation factor, drawn from 1 - x .. 1 + x."""
    hue: float = 18.0
    """Largest shift of the hue, on the scale 0..180."""
    gamma: float = 0.0
    """Range x of the exponent on the values, drawn from 1 / (1 + x) .. 1 + x for half of the crops."""
    blur: float = 0.0
    """Largest standard deviation in pixels of a Gaussian blur of half of the crops."""
    noise: float = 0.0
    """Largest standard deviation of Gaussian noise on half of the crops, on the scale 0..255."""
    jpeg_quality: int = 100
    """Lowest JPEG quality at which half of the crops are compressed. 100: no compression."""
    module: str | None = None
    """Your own transform of the finished crop as `package:function`, such as a pipeline of torchvision's v2 or of
    Albumentations (docs/training.md)."""
    erase: float = 0.0
    """Probability that a rectangle of the crop is erased: it gets the mean colour and is ignored."""
    erase_share: tuple[float, float] = (0.02, 0.2)
    """Smallest and largest area of that rectangle, as a share of the crop."""
    copy_paste: float = 0.0
    """Probability that the pixels of a class are pasted into the crop from a random other one. Rare classes are picked
    more often (1 / their pixels in the training set)."""
    cutmix: float = 0.0
    """Probability that a random square of the crop is replaced by that of another one (CutMix)."""
    views: int | None = None
    """Number of different crops of each image; epoch e shows number e modulo `views`. Default: a new crop in each
    epoch."""


def preset_values(name: str | None) -> Mapping[str, Any]:
    """Return the settings of a preset. None has none.

    Raises:
        UserError: no preset has this name.
    """
    if name is None:
        return {}
    if name not in PRESETS:
        raise UserError(f"augment.preset {name!r}: give {', '.join(PRESETS)}")
    return PRESETS[name]


def under_preset(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in the values of the preset that settings by dotted name choose, below those settings."""
    values = preset_values(settings.get("augment.preset"))
    return {**{f"augment.{name}": value for name, value in values.items()}, **settings}


def below_preset(content: Mapping[str, Any], preset: str | None) -> dict[str, Any]:
    """Return the sections of a file without the settings that a preset sets which a flag chooses, as flags go first.

    The values of the file's own preset go too, unless the file changes them.
    """
    if preset is None or "augment" not in content:
        return dict(content)
    augment, values = content["augment"], preset_values(preset)
    before = AugmentConfig(**preset_values(augment.get("preset")))
    of_preset = {
        name for name in preset_values(augment.get("preset")) if augment.get(name) == plain_value(before, name)
    }
    kept = {key: value for key, value in augment.items() if key not in values and key not in of_preset}
    return {**content, "augment": kept}


def plain_value(augment: "AugmentConfig", name: str) -> Any:
    """Return a setting as a file holds it."""
    value = getattr(augment, name)
    return list(value) if isinstance(value, tuple) else value


_init = AugmentConfig.__init__


@wraps(_init)
def _init_under_preset(self: AugmentConfig, **given: Any) -> None:
    """Set the given settings over those of the preset.

    Raises:
        UserError: every setting is given, as by `dataclasses.replace`, so that the preset would have no effect.
    """
    values = preset_values(given.get("preset"))
    _init(self, **{**values, **given})
    if values and values.keys() <= given.keys() and all(getattr(self, name) != values[name] for name in values):
        raise UserError(
            f"augment.preset {given['preset']!r} has no effect, because every setting of it is given another value: "
            f'write AugmentConfig(preset="{given["preset"]}"), with only the settings that differ from it'
        )


AugmentConfig.__init__ = _init_under_preset  # type: ignore[method-assign]

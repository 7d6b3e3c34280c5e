"""Ranges of the settings of the augmentation.

check_augment(config.augment)
"""

from segvit.config import AugmentConfig
from segvit.errors import UserError

PROBABILITIES = ("rare_class_probability", "flip", "vertical_flip", "rot90", "erase", "cutmix", "copy_paste")


def check_augment(augment: AugmentConfig) -> None:
    """Check that all settings are in range.

    Raises:
        UserError: one is not, with the range.
    """
    low, high = augment.scale
    least, most = augment.erase_share
    probabilities = {name: (0 <= getattr(augment, name) <= 1, "a probability in 0..1") for name in PROBABILITIES}
    rules = {
        "scale": (0 < low <= high, "two numbers, 0 < smallest <= largest"),
        "max_class_share": (augment.max_class_share > 0, "above 0; 1 accepts any crop"),
        **probabilities,
        "rotation": (0 <= augment.rotation <= 180, "in 0..180 degrees"),
        "aspect": (1 <= augment.aspect <= 4, "in 1..4; 1 keeps the ratio"),
        "brightness": (0 <= augment.brightness <= 255, "in 0..255"),
        "contrast": (0 <= augment.contrast <= 1, "in 0..1"),
        "saturation": (0 <= augment.saturation <= 1, "in 0..1"),
        "hue": (0 <= augment.hue <= 90, "in 0..90"),
        "gamma": (0 <= augment.gamma <= 4, "in 0..4"),
        "blur": (0 <= augment.blur <= 50, "in 0..50 pixels"),
        "noise": (0 <= augment.noise <= 255, "in 0..255"),
        "jpeg_quality": (1 <= augment.jpeg_quality <= 100, "in 1..100; 100 does not compress"),
        "erase_share": (0 < least <= most <= 1, "two numbers, 0 < smallest <= largest <= 1"),
        "views": (augment.views is None or augment.views > 0, "1 or more"),
        "resize_long": (augment.resize_long is None or augment.resize_long > 0, "above 0 pixels"),
        "resize_short": (augment.resize_short is None or augment.resize_short > 0, "above 0 pixels"),
    }
    for key, (good, needed) in rules.items():
        if not good:
            raise UserError(f"augment.{key} is {getattr(augment, key)}; it must be {needed}")

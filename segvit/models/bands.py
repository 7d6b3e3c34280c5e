"""Number of bands of a model, mean and deviation of each, and the check that images have them.

check_images("photo.jpg", 3)       # UserError: ... type segvit.predict(model, 'photo.jpg')
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from segvit.config import ModelConfig
from segvit.data.bands.names import COLORS, check_bands
from segvit.data.spec import DatasetSpec
from segvit.errors import UserError


def resolve_bands(bands: int | None, spec: DatasetSpec | None) -> int | None:
    """Return the number of bands of a model, from its settings or its spec. None: red, green, blue.

    Raises:
        UserError: it is below 1, or not the number that the spec names.
    """
    named = () if spec is None else spec.bands
    if bands is not None:
        check_bands(bands, named)
    return bands or len(named) or None


def per_band(name: str, config: ModelConfig, weights: Mapping[str, Any]) -> tuple[float, ...]:
    """Return the mean or the deviation of each band: the settings', or those of timm's weights.

    The backbone's three values are averaged for other bands than red, green, blue.

    Raises:
        UserError: the settings give another number of values.
    """
    given, bands = getattr(config, name), config.bands or COLORS
    if given is not None:
        if len(given) != bands:
            raise UserError(f"model.{name} has {len(given)} values, and the images {bands} bands: give one for each")
        return tuple(given)
    own = tuple(weights[name])
    return own if bands == len(own) else (sum(own) / len(own),) * bands


def check_images(images: object, bands: int) -> None:
    """Refuse anything but a batch of images of that number of bands.

    Raises:
        UserError: not a tensor (B, bands, H, W).
    """
    if not isinstance(images, Tensor):
        came, photo = (repr(images),) * 2 if isinstance(images, str) else (f"a {type(images).__name__}", "photo")
        raise UserError(
            f"model(...) takes a tensor (B, {bands}, H, W) and got {came}: to label photos, type "
            f"segvit.predict(model, {photo})"
        )
    if images.ndim != 4 or images.shape[1] != bands:
        batch = "; type images[None] for a batch of one" if images.ndim == 3 and images.shape[0] == bands else ""
        raise UserError(f"images of shape {tuple(images.shape)}: expected (B, {bands}, H, W){batch}")

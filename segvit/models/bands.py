"""Number of bands of a model, and mean and deviation of each, from settings, the data and timm's weights."""

from collections.abc import Mapping
from typing import Any

from segvit.config import ModelConfig
from segvit.data.bands.reading import COLORS
from segvit.data.spec import DatasetSpec
from segvit.errors import UserError


def resolve_bands(bands: int | None, spec: DatasetSpec | None) -> int | None:
    """Return the number of bands of a model, from its settings or its spec. None: red, green, blue.

    Raises:
        UserError: it is below 1, or not the number that the spec names.
    """
    named = len(spec.bands) if spec is not None and spec.bands else None
    if bands is not None and bands < 1:
        raise UserError(f"model.bands is {bands}: give the number of bands of the images, 1 or more")
    if bands is not None and named is not None and bands != named:
        raise UserError(f"model.bands is {bands}, but the spec names {named}: leave model.bands out")
    return bands or named


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

"""Number of bands of a model, and mean and deviation of each, from settings, the data and timm's weights."""

from collections.abc import Mapping
from typing import Any

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

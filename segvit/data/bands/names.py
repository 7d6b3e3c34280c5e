"""Names of bands: which of them are colours, and the errors for numbers of bands that contradict each other.

are_colors(("nir", "red", "green"))         # False
check_bands(5, ("red", "green", "blue"), source="model.bands")
"""

from collections.abc import Sequence

from segvit.errors import UserError
from segvit.utils.text import counted

COLORS = 3
"""Number of bands of a photo: red, green, blue."""
COLOR_NAMES = (("red", "green", "blue"), ("r", "g", "b"))
"""Names of the bands of a photo, in order."""


def are_colors(names: Sequence[str]) -> bool:
    """True if bands are red, green, blue in this order: by their names, or because they have none."""
    return not names or tuple(name.strip().casefold() for name in names) in COLOR_NAMES


def check_bands(bands: int, named: Sequence[str], *, source: str = "model.bands") -> None:
    """Refuse a number of bands that is below 1, or not the number of those that the data name.

    Args:
        bands: the number.
        named: names of the bands in the data; none if they give no names.
        source: where the number comes from: `model.bands`, or the name of a model.

    Raises:
        UserError: such a number.
    """
    typed = source == "model.bands"
    if bands < 1:
        raise UserError(f"model.bands is {bands}: give the number of bands of the images, 1 or more")
    if not named or len(named) == bands:
        return
    names = f"the data name {len(named)}: {', '.join(named)}"
    if typed:
        remedy = "leave model.bands out, or correct data.bands (or `bands` in the spec)"
        raise UserError(f"model.bands is {bands}, but {names}; {remedy}")
    found = counted(bands, "band")
    raise UserError(f"{source} takes images of {found}, but {names}; give images of {found}, or another model")

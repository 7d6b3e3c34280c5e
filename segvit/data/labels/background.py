"""Know the names of the class of everything else, which labelling tools leave without a shape."""

from collections.abc import Iterable

BACKGROUND = "background"
"""Name of this class in files and texts that segvit writes."""
NAMES = (BACKGROUND, "_background_", "bg")
"""Its names in lower case. LabelMe writes the second."""


def is_background(name: str) -> bool:
    """Return True for a name of the background, in any case and with blanks around it."""
    return name.strip().lower() in NAMES


def background_of(names: Iterable[str]) -> str | None:
    """Return the name of the background among class names, `background` itself first. None if there is none."""
    found = [name for name in names if is_background(name)]
    return BACKGROUND if BACKGROUND in found else next(iter(found), None)

"""Count what the files of a labelling tool hold, for messages and for the names of the classes."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from segvit.data.annotations.shapes import Shape
from segvit.data.labels.background import is_background
from segvit.data.pairs import first
from segvit.utils.text import counted


@dataclass(kw_only=True)
class Summary:
    """The shapes in all files of one folder, or in one file."""

    files: int = 0
    """Number of label files."""
    images: int = 0
    """Number of images that they describe."""
    declared: tuple[str, ...] = ()
    """Class names that the files list, in their order. Empty if they list none."""
    names: Counter[str] = field(default_factory=Counter)
    """Number of areas by class name."""
    kinds: Counter[str] = field(default_factory=Counter)
    """Number of areas by kind."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Number of shapes that are no areas, by kind."""
    remarks: Counter[str] = field(default_factory=Counter)
    """Number of other things in the files that a user should know, by a text that starts with a singular noun."""
    unreadable: list[str] = field(default_factory=list)
    """Error texts of files that cannot be read."""
    background: bool = True
    """True if pixels outside every shape are background. False if the tool leaves them without a class."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names: those that the files list, then the others by name.

        Background is left out if it means the pixels outside every shape.
        """
        found = dict.fromkeys((*self.declared, *sorted(self.names)))
        return tuple(name for name in found if name and not (self.background and is_background(name)))

    def add(self, shapes: Iterable[Shape]) -> None:
        """Count areas."""
        for shape in shapes:
            self.kinds[shape.kind] += 1
            if not shape.ignored:
                self.names[shape.name] += 1


def remark(count: int, text: str) -> str:
    """Return a remark with its count, such as "2 classes without a name" for "class without a name"."""
    thing, _, rest = text.partition(" ")
    return f"{counted(count, thing)} {rest}"


def spelled(counts: Mapping[str, int], most: int = 6) -> str:
    """Return counts as text, the largest first, such as "3 x point, 1 x polyline"."""
    return first([f"{count} x {kind}" for kind, count in Counter(counts).most_common()], most)

"""Define the contract of a label format: its options in a spec, and how its files are found and read.

A format is one subclass of `LabelFormat`. Hand in an instance, or add the class to `FORMATS` (known_formats.py), so
that a spec in YAML can name it. docs/extending.md has a worked example.

    samples = open_dataset(config, "train", labels=MyLabels())

Letters: H, W size of a label map.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol, Self

import numpy.typing as npt

from segvit.data.labels.memory import LabelMemory
from segvit.data.member import File
from segvit.data.pairs import Orphans, Pair, Place, find_pairs
from segvit.data.palette import Color
from segvit.data.yaml_values import check_keys
from segvit.errors import UserError
from segvit.utils.text import suggest

IGNORED = "ignore"
"""Word in place of a class name for pixels that are ignored."""
OTHERS = "others"
"""Word in place of a name for everything that is not given."""
FOLDERS = "folders"
"""Name of the spec of two plain folders, whose users type flags and have no YAML."""
MAX_RAW = 65_535
"""Largest raw value a label file may hold (16 bits)."""


class Classes(Protocol):
    """The part of a `DatasetSpec` that label formats use."""

    @property
    def name(self) -> str:
        """Short name of the dataset."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names."""

    @property
    def palette(self) -> tuple[Color, ...]:
        """Colour of each class."""

    @property
    def ignore(self) -> tuple[int, ...]:
        """Raw values that are ignored."""

    @property
    def others(self) -> str | None:
        """Class of all other raw values, or `ignore`. None makes such a value an error."""

    def raw_of(self, name: str) -> int:
        """Return the raw value to write for a class, or for the word `ignore`."""

    def unknown(self, values: Iterable[int]) -> list[int]:
        """Return the raw `values` that are neither a class nor ignored."""


class Guess(NamedTuple):
    """The pixels of one label map whose class was guessed from the nearest known colour."""

    pixels: int
    """Number of such pixels."""
    color: Color
    """The commonest of their colours."""
    of_color: int
    """Number of pixels of that colour."""
    becomes: str
    """Class that this colour becomes, or `ignore`."""


class LabelFormat(ABC):
    """One form of label files.

    Make a subclass a frozen dataclass: its fields are the options of the format, and its repr tells two apart.
    """

    name: ClassVar[str]
    """Word for the format in a spec: `labels: {format: NAME}`."""
    suffixes: ClassVar[Sequence[str]] = ()
    """Suffixes of the label files, in lower case, with their dot."""
    class_keys: ClassVar[Mapping[str, str]] = {}
    """Keys that each class of a spec in YAML must have (`raw`, `color`), with the reason for error texts."""
    slow_to_decode: ClassVar[bool] = False
    """True if a folder of decoded label maps (`data.cache`) makes reading faster."""

    @property
    def required_keys(self) -> Mapping[str, str]:
        """Keys that each class must have under the options given: by default `class_keys`."""
        return self.class_keys

    @classmethod
    def parse(cls, options: Mapping[str, Any], where: str) -> Self:
        """Return the format with the options that the section `labels` of a spec gives.

        Args:
            options: the section without `format`.
            where: name of the section in error texts.

        Raises:
            UserError: an option is missing, unknown or of the wrong type.
        """
        check_keys(options, {}, where)
        return cls()

    def check(self, classes: Classes, where: str) -> None:  # noqa: B027  # by default, all classes fit
        """Check that this format can serve the classes of a spec.

        Raises:
            UserError: it cannot. The text begins with `where`.
        """

    def find(self, place: Place, classes: Classes, memory: LabelMemory) -> tuple[list[Pair], Orphans]:
        """Find the complete pairs of a split, and the files without a partner: one label file per image by default.

        Raises:
            UserError: a folder is missing or empty, a name occurs twice, or no pair is complete.
        """
        return find_pairs(place, suffixes=self.suffixes)

    @abstractmethod
    def read(self, pair: Pair, classes: Classes, memory: LabelMemory) -> npt.NDArray[Any]:
        """Read the raw values (H, W) of one image's labels, in an integer type and upright like the displayed image.

        Args:
            pair: the image and its label file.
            classes: the spec that the values belong to.
            memory: the files that this dataset has read before.

        Raises:
            UserError: the labels cannot be read. Raise `Unreadable` if only this file is at fault.
        """

    def painted_colors(self, path: File) -> dict[Color, int] | None:
        """Count the pixels of each colour in a label file that `read` refused for its colours.

        Return None if the file is something else, and an empty dict for a photo. `segvit check-data` proposes a spec of
        painted labels with these colours.
        """
        return None

    def guessed(self, pair: Pair, classes: Classes, memory: LabelMemory) -> Guess | None:
        """Count the pixels whose class `read` guesses. None if there are none. `segvit check-data` reports them.

        Raises:
            UserError: the labels cannot be read.
        """
        return None


def check_class_or_ignored(name: str, classes: Classes, key: str, where: str) -> None:
    """Check that `name` under `key` is a class or the word `ignore`.

    Raises:
        UserError: it is neither.
    """
    if name != IGNORED and name not in classes.classes:
        hint = suggest(name, [*classes.classes, IGNORED])
        raise UserError(f"{where}: `{key}` names {name!r}{hint}; give a class of the spec, or {IGNORED}")


def check_ignored_value(key: str, classes: Classes, where: str) -> None:
    """Check that there is an ignored raw value for the labels that the option `key` drops.

    Raises:
        UserError: there is none.
    """
    if not classes.ignore:
        raise UserError(
            f"{where}: labels that `{key}` drops need a raw value that is ignored; "
            "write `ignore: [VALUE]` with a value that no class has"
        )

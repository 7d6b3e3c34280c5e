"""The contract of a label format: what a spec says of it, and how label files are found and read.

A format is one subclass of `LabelFormat`. Hand in an instance, or name the class in `FORMATS` (formats.py) so that a
spec in YAML can ask for it. docs/extending.md has a worked example.

    samples = open_dataset(config, "train", labels=MyLabels())
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy.typing as npt

from segvit.data.labels.memory import LabelMemory
from segvit.data.pairs import Orphans, Pair, Place, find_pairs
from segvit.data.palette import Color
from segvit.data.yaml_values import check_keys
from segvit.errors import UserError
from segvit.utils.text import suggest

IGNORED = "ignore"
"""What stands in the place of a class name for pixels that count for nothing."""
MAX_RAW = 65_535
"""Largest raw value a label file may hold (16 bits)."""


class Classes(Protocol):
    """The part of a `DatasetSpec` that label formats use."""

    @property
    def name(self) -> str: ...
    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def palette(self) -> tuple[Color, ...]: ...
    @property
    def ignore(self) -> tuple[int, ...]: ...
    @property
    def others(self) -> str | None: ...
    def raw_of(self, name: str) -> int: ...
    def unknown(self, values: Iterable[int]) -> list[int]: ...


class LabelFormat(ABC):
    """One form of label files.

    Make a subclass a frozen dataclass: its fields are the options of the format, and its repr tells two apart.
    """

    name: ClassVar[str]
    """Word for the format in a spec: `labels: {format: NAME}`."""
    suffixes: ClassVar[Sequence[str]] = ()
    """Suffixes of the label files, in lower case, with their dot."""
    class_keys: ClassVar[Mapping[str, str]] = {}
    """Keys that each class of a spec in YAML must have (`raw`, `color`), with the reason, which error texts give."""
    slow_to_decode: ClassVar[bool] = False
    """True if reading pays for a folder of decoded label maps (`data.cache`)."""

    @classmethod
    def parse(cls, options: Mapping[str, Any], where: str) -> Self:
        """Return the format with the options that the section `labels` of a spec gives.

        Args:
            options: the section without `format`.
            where: name of the section in error texts.

        Raises:
            UserError: an option is missing, unknown or ill-typed.
        """
        check_keys(options, {}, where)
        return cls()

    def check(self, classes: Classes, where: str) -> None:  # noqa: B027  # by default, all classes fit
        """Check that the classes of a spec fit this format.

        Raises:
            UserError: they do not. The text begins with `where`.
        """

    def find(self, place: Place, classes: Classes, memory: LabelMemory) -> tuple[list[Pair], Orphans]:
        """Find the complete pairs of a split, and the files without a partner: one label file per image by default.

        Raises:
            UserError: a folder is missing or empty, a name occurs twice, or no pair is complete.
        """
        return find_pairs(place, suffixes=self.suffixes)

    @abstractmethod
    def read(self, pair: Pair, classes: Classes, memory: LabelMemory) -> npt.NDArray[Any]:
        """Read the raw values (H, W) of one image's labels, of an integer type, upright as the image is displayed.

        Args:
            pair: the files.
            classes: the spec that the values belong to.
            memory: what this dataset has read before.

        Raises:
            UserError: the labels cannot be read. `Unreadable` if only this file is at fault.
        """

    def painted_colors(self, path: Path) -> dict[Color, int] | None:
        """Count the pixels of each colour in a label file that `read` refused for its colours.

        None means that the file is something else; an empty result, a photo. `segvit check-data` proposes a spec for
        painted labels with these colours.
        """
        return None


def check_class_or_ignored(name: str, classes: Classes, key: str, where: str) -> None:
    """Refuse a `name` under `key` that is neither a class nor the word `ignore`."""
    if name != IGNORED and name not in classes.classes:
        hint = suggest(name, [*classes.classes, IGNORED])
        raise UserError(f"{where}: `{key}` names {name!r}{hint}; give a class of the spec, or {IGNORED}")


def check_ignored_value(key: str, classes: Classes, where: str) -> None:
    """Refuse classes without an ignored raw value, which the labels that the option `key` drops would take."""
    if not classes.ignore:
        raise UserError(
            f"{where}: labels that `{key}` drops need a raw value that is ignored; "
            "write `ignore: [VALUE]` with one that no class has"
        )

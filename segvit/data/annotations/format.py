"""Define label formats whose files hold shapes: their options, their summary, and how their shapes become classes.

A tool is one module with one subclass, listed in recognise.py. `FileLabels` is for tools with one file per image, and
`SharedLabels` for tools with one file for many images. A subclass turns the tool's files into `Drawing`s, and has
`recognises`, which finds the tool by the content of a file:

    class MyToolLabels(FileLabels):
        name = "mytool"
        title = "My Tool"
        suffixes = (".json",)

        @classmethod
        def recognises(cls, content): ...
        def draw(self, path): ...

In a spec, `labels: {format: mytool}` names it. Classes are found by name.

Letters: H, W size of a label map.
"""

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy.typing as npt

from segvit.data.annotations.name_list import NO_LABELS
from segvit.data.annotations.names import NameTable, match_names
from segvit.data.annotations.parse import State, release_json, state_of
from segvit.data.annotations.shapes import Drawing, Shape, paint
from segvit.data.annotations.summary import Summary, spelled
from segvit.data.images import Unreadable, read_size
from segvit.data.labels.background import background_of, is_background
from segvit.data.labels.format import IGNORED, Classes, LabelFormat, check_class_or_ignored, check_ignored_value
from segvit.data.labels.memory import LabelMemory
from segvit.data.pairs import Orphans, Pair, Place, find_images, find_pairs
from segvit.data.yaml_values import check_keys, read_text, read_texts
from segvit.errors import UserError
from segvit.utils.text import suggest


class Content(NamedTuple):
    """One file that may be a labelling tool's."""

    path: Path
    value: Any
    """Parsed JSON, or the first characters of any other text."""


@dataclass(frozen=True, kw_only=True)
class ShapeLabels(LabelFormat):
    """Files of a labelling tool that hold shapes. The raw value of a class is its position, unless a spec lists it."""

    title: ClassVar[str]
    """Name of the tool in messages."""
    slow_to_decode: ClassVar[bool] = True
    nameless: ClassVar[str | None] = None
    """Name of the only class of files without class names. Any other name may be typed in its place."""
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {"no_areas": ("error", "skip"), "missing": ("error", "skip")}
    """Options of a few words, and the words."""
    lenient: ClassVar[Mapping[str, Any]] = {"no_areas": "skip", "missing": "skip"}
    """Options of files that are recognised without a spec. What they leave out is a warning."""

    unlabeled: str | None = None
    """Class of the pixels outside every shape, or `ignore`. Default: the class `background`, else `ignore`."""
    ignore: tuple[str, ...] = ()
    """Names in the files whose shapes are ignored."""
    merge: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Further names of a class in the files, by the class."""
    no_areas: Literal["error", "skip"] = "error"
    """Treatment of points, lines and other shapes that are no areas: an error, or leave them out."""
    missing: Literal["error", "skip"] = "error"
    """Treatment of labels without an image and images without labels: an error, or leave them out."""

    @classmethod
    def parse(cls, options: Mapping[str, Any], where: str) -> Self:
        """Read the options, none of which must be given.

        Raises:
            UserError: an option is unknown or of the wrong type.
        """
        check_keys(options, {option.name: False for option in fields(cls)}, where)
        values = dict(options)
        for key, words in cls.choices.items():
            if key in values and values[key] not in words:
                raise UserError(f"{where}: `{key}` is {values[key]!r}; give {' or '.join(words)}")
        if "ignore" in values:
            values["ignore"] = read_texts(values["ignore"], "ignore", where)
        if "merge" in values:
            if not isinstance(values["merge"], Mapping):
                raise UserError(f"{where}: `merge` is {values['merge']!r}; give names by class, as in {{car: [van]}}")
            values["merge"] = {
                str(key): read_texts(names, f"merge: {key}", where) for key, names in values["merge"].items()
            }
        if values.get("unlabeled") is not None:
            values["unlabeled"] = read_text(values["unlabeled"], "unlabeled", where)
        return cls(**values)

    @classmethod
    @abstractmethod
    def recognises(cls, content: Content) -> bool:
        """Return True if a file is one of this tool."""

    @classmethod
    def names_file(cls, labels: Path) -> Path | None:
        """Return the file that names the classes of the labels in a folder. None if the label files do it."""
        return None

    @classmethod
    def remedy(cls, summary: Summary, images: Path, labels: str) -> str:
        """Return what else helps if no shape in the files labels pixels, to end an error text. By default, nothing."""
        return ""

    @abstractmethod
    def summarise(self, labels: Sequence[Path]) -> Summary:
        """Count what label files hold, without reading images.

        Raises:
            UserError: a file cannot be read.
        """

    @abstractmethod
    def drawing(self, pair: Pair, memory: LabelMemory) -> Drawing:
        """Return the shapes of one image.

        Raises:
            UserError: its labels cannot be read.
        """

    def check(self, classes: Classes, where: str) -> None:
        """Check that `unlabeled` and `merge` name classes, and that dropped pixels have an ignored value."""
        if self.unlabeled is not None:
            check_class_or_ignored(self.unlabeled, classes, "labels: unlabeled", where)
        for name in self.merge:
            check_class_or_ignored(name, classes, "labels: merge", where)
        if self.rest(classes) == IGNORED:
            check_ignored_value("unlabeled", classes, where)
        if self.ignore or classes.others == IGNORED:
            check_ignored_value("ignore" if self.ignore else "others", classes, where)

    def read(self, pair: Pair, classes: Classes, memory: LabelMemory) -> npt.NDArray[Any]:
        """Paint the shapes of one image, (H, W)."""
        values = [(name, classes.raw_of(name)) for name in classes.classes]
        return memory.decoded(
            pair.labels,
            lambda: self._paint(pair, classes, memory),
            item=pair.name,
            settings=f"{self!r} {values} {classes.ignore} {classes.others}",
        )

    def ordered(self, drawing: Drawing, classes: Classes) -> Drawing:
        """Return the shapes in the order in which they are painted: by default, that of the tool."""
        return drawing

    def rest(self, classes: Classes) -> str:
        """Return the class of pixels outside every shape, or the word `ignore`."""
        if self.unlabeled is not None:
            return self.unlabeled
        return background_of(classes.classes) or IGNORED

    def class_of(self, shape: Shape, classes: Classes) -> str | None:
        """Return the class of a shape, or the word `ignore`. None if the spec does not know its name."""
        if shape.ignored or shape.name in self.ignore:
            return IGNORED
        joined = next((name for name, others in self.merge.items() if shape.name in others), None)
        if joined is not None or shape.name in classes.classes:
            return joined or shape.name
        return self.rest(classes) if is_background(shape.name) else classes.others

    def value_of(self, shape: Shape, classes: Classes, where: str) -> int:
        """Return the raw value of a shape. `where` is the file in error texts.

        Raises:
            UserError: the spec does not know its name, or has no raw value that is ignored.
        """
        name = self.class_of(shape, classes)
        if name is None:
            raise UserError(
                f"{where}: a {shape.kind} is {shape.name!r}{suggest(shape.name, classes.classes)}, which is no class "
                f"of {classes.name!r}: add it to the classes, or write `ignore: [{shape.name}]` or "
                f"`merge: {{CLASS: [{shape.name}]}}` under `labels`"
            )
        if name == IGNORED and not classes.ignore:
            raise UserError(f"{where}: a {shape.kind} is ignored, but no raw value is; write `ignore: [255]`")
        return classes.raw_of(name)

    def _paint(self, pair: Pair, classes: Classes, memory: LabelMemory) -> npt.NDArray[Any]:
        """Return the raw values (H, W) of one image."""
        drawing = self.ordered(self.drawing(pair, memory), classes)
        if drawing.skipped and self.no_areas == "error":
            raise UserError(
                f"{drawing.where}: {spelled(drawing.skipped)} label no pixels; remove them, or write "
                f"`labels: {{format: {self.name}, no_areas: skip}}` to leave them out"
            )
        size = drawing.size or read_size(pair.image)
        rest = classes.raw_of(self.rest(classes))
        return paint(drawing, size, lambda shape: self.value_of(shape, classes, drawing.where), unlabeled=rest)

    def _kept(self, pairs: list[Pair], orphans: Orphans) -> tuple[list[Pair], Orphans]:
        """Return the pairs without the files that `missing` leaves out."""
        return (pairs, Orphans()) if self.missing == "skip" else (pairs, orphans)


class FileLabels(ShapeLabels):
    """A tool that writes one file per image, with the image's name."""

    no_labels: ClassVar[Collection[str]] = NO_LABELS
    """Files with a suffix of labels that are no labels of an image."""

    @abstractmethod
    def draw(self, path: Path) -> Drawing:
        """Return the shapes in one file.

        Raises:
            UserError: it cannot be read. Raise `Unreadable` if only this file is at fault.
        """

    def find(self, place: Place, classes: Classes, memory: LabelMemory) -> tuple[list[Pair], Orphans]:
        """Find the complete pairs of a split, and the files without a partner."""
        return self._kept(*find_pairs(place, suffixes=self.suffixes, label_name=self._labelled))

    def image_of(self, name: str) -> str:
        """Return the name of the image that a label file belongs to, by the name of the file without suffix."""
        return name

    def remarks(self, labels: Sequence[Path], names: Mapping[str, int]) -> Counter[str]:
        """Count what a user should know about some files whose areas have these class names. By default, nothing."""
        return Counter()

    def _labelled(self, name: str) -> str:
        """Return the name of the image of a file, or an empty text for a file that is no label file."""
        own = name.rpartition("/")[2]
        return "" if any(own + suffix in self.no_labels for suffix in self.suffixes) else self.image_of(name)

    def drawing(self, pair: Pair, memory: LabelMemory) -> Drawing:
        """Return the shapes of one image."""
        return self.draw(pair.label_path)

    def summarise(self, labels: Sequence[Path]) -> Summary:
        """Count the shapes in all files."""
        labels = [path for path in labels if path.name not in self.no_labels]
        summary = Summary(files=len(labels), images=len(labels))
        for path in labels:
            try:
                drawing = self.draw(path)
            except Unreadable as error:  # one file among many: the check of the dataset reports it
                summary.unreadable.append(str(error))
                continue
            summary.add(drawing.shapes)
            summary.skipped.update(drawing.skipped)
        return summary


@dataclass
class Index:
    """A parsed file that describes many images. What it holds of an image is kept as bytes, to be small in memory."""

    summary: Summary
    images: dict[str, bytes] = field(default_factory=dict)
    """Content of each image by its name (`names.image_name`), as the tool's module writes and reads it."""
    lookup: NameTable = field(init=False)
    """Names of the images, to be matched with those of a folder."""

    def __post_init__(self) -> None:
        self.lookup = NameTable(self.images)
        self.summary.files, self.summary.images = 1, len(self.images)


MOST_PARSED = 4
"""Number of parsed files that a process keeps: those of two splits, under two sets of options."""
_PARSED: dict[tuple[str, State], Index] = {}
"""The newest parsed files, by the format with its options and the state of the file."""


class SharedLabels(ShapeLabels):
    """A tool that writes one file for many images."""

    @abstractmethod
    def index(self, path: Path) -> Index:
        """Parse the whole file once.

        Raises:
            UserError: it cannot be read.
        """

    @abstractmethod
    def draw(self, entry: bytes, path: Path, name: str) -> Drawing:
        """Return the shapes of one image.

        Args:
            entry: the image's content in the index.
            path: the file.
            name: name of the image in the file.

        Raises:
            UserError: the entry is malformed.
        """

    def find(self, place: Place, classes: Classes, memory: LabelMemory) -> tuple[list[Pair], Orphans]:
        """Find the images that the file describes: by the path, or by the file's own name if the folders differ."""
        described = self.indexed(place.root / place.split.labels, memory).images
        matched = match_names(described, find_images(place))
        return self._kept(*find_pairs(place, suffixes=self.suffixes, described=matched.values()))

    def drawing(self, pair: Pair, memory: LabelMemory) -> Drawing:
        """Return the shapes of one image.

        Raises:
            UserError: the file does not describe it, or its entry is malformed.
        """
        index = self.indexed(pair.label_path, memory)
        name = index.lookup.match(pair.name)
        if name is None:
            raise UserError(f"{pair.labels}: describes no image {pair.name!r}")
        return self.draw(index.images[name], pair.label_path, name)

    def summarise(self, labels: Sequence[Path]) -> Summary:
        """Count the shapes in the only file."""
        (path,) = labels
        return self._parsed(path).summary

    def indexed(self, path: Path, memory: LabelMemory) -> Index:
        """Return the parsed file, which is read once.

        Raises:
            UserError: the file cannot be read.
        """
        make: Callable[[], Index] = lambda: self._parsed(path)  # noqa: E731  # typed, so that `once` knows the result
        return memory.once((self.name, path), make)

    def _parsed(self, path: Path) -> Index:
        """Return the parsed file. A process parses it once for each state of it, however many datasets it opens."""
        plain = replace(self, unlabeled=None, ignore=(), merge={})  # these three change how shapes are painted, alone
        key = (repr(plain), state_of([path]) if path.is_file() else ())
        if key not in _PARSED or not key[1]:
            index = self.index(path)
            release_json()
            while len(_PARSED) >= MOST_PARSED:
                _PARSED.pop(next(iter(_PARSED)), None)
            _PARSED[key] = index
        return _PARSED[key]

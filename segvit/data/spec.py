"""Describe a dataset: class names, colours, the value of each class in the files, and the folders of the files.

A spec is a YAML file, shipped (`segvit/data/specs`) or your own (docs/data.md describes it in full):

    name: street
    classes:                                                 # raw: values in the files (default: the position)
      - road
      - {name: car, raw: [7, 9], color: [64, 0, 128]}
    ignore: [255]                                            # raw values that are ignored
    others: ignore                                           # class of all other values, or ignored (default: error)
    bands: [red, green, blue, nir]                           # bands of the images (default: red, green, blue)
    white: 4095                                              # value of white in images of more than 8 bits
    labels: {format: index}                                  # format of the label files (labels/known_formats.py)
    splits:
      train: {images: images/train, labels: labels/train}    # folders or globs under the root
      val: {images: images/val, labels: labels/val, list: val.txt}

Model files contain the same plain form (`to_dict`). folder_spec.py makes a spec of two plain folders.
"""

import copy
import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segvit.data.annotations.tools.yolo_yaml import is_yolo, spec_content
from segvit.data.bands.reading import check_white
from segvit.data.labels.format import IGNORED, MAX_RAW, LabelFormat, check_class_or_ignored
from segvit.data.labels.index import IndexLabels
from segvit.data.labels.known_formats import format_to_dict, read_format
from segvit.data.pairs import Split
from segvit.data.palette import Color, default_palette
from segvit.data.yaml_values import check_color, check_keys, doubled, is_whole, parse_yaml, read_color, read_text
from segvit.errors import UserError
from segvit.utils.files import expanded
from segvit.utils.text import suggest

IGNORE_INDEX = 255
"""Value of a pixel without a class in every label map in memory. Hence there are at most 255 classes."""
UNKNOWN = -1
"""Value in `DatasetSpec.lookup` of a raw value that is neither a class nor ignored."""
DEFAULT_IGNORE = (255,)
"""Raw values that are ignored by default, unless a class has them."""


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """Classes 0..K-1 of a dataset, with their names, colours and values in its files.

    Raises:
        UserError: there is no class or more than 255, a name or raw value occurs twice, a value is both a class and
            ignored, a colour is wrong, or the spec names a class that it does not have.
    """

    name: str
    """Short name of the dataset."""
    classes: tuple[str, ...]
    """Class names (K,), in the order of the model's outputs."""
    palette: tuple[Color, ...]
    """Red, green, blue of each class (K,), 0..255."""
    raw_ids: tuple[int, ...]
    """Value of each class in the label files (K,), or the first of its values."""
    merged: tuple[tuple[int, ...], ...] = ()
    """Further raw values of each class (K,). Empty if no class has any."""
    ignore: tuple[int, ...] = ()
    """Raw values that become `IGNORE_INDEX`."""
    others: str | None = None
    """Class of all other raw values, or `ignore`. None makes such a value an error."""
    bands: tuple[str, ...] = ()
    """Names of the bands of the images (N,). Empty for red, green, blue."""
    white: float | None = None
    """Value of white in images of more than 8 bits. Default: the largest value of the depth."""
    label_format: LabelFormat = field(default_factory=IndexLabels)
    """Format of the label files."""
    splits: Mapping[str, Split] = field(default_factory=dict)
    """Splits by name. Empty if a model file contains the spec without them."""
    val_fraction: float | None = None
    """Share of the training split that is held out if there is no validation split. None holds out nothing."""

    def __post_init__(self) -> None:
        where = f"dataset {self.name!r}"
        if not 1 <= len(self.classes) <= IGNORE_INDEX:
            raise UserError(f"{where}: has {len(self.classes)} classes; 1 to {IGNORE_INDEX} are supported")
        if not len(self.classes) == len(self.palette) == len(self.raw_ids):
            raise UserError(
                f"{where}: {len(self.classes)} classes, {len(self.palette)} colours, {len(self.raw_ids)} raw values; "
                "give as many of each"
            )
        if self.merged and len(self.merged) != len(self.classes):
            raise UserError(f"{where}: {len(self.classes)} classes, but `merged` has {len(self.merged)} entries")
        if twice := doubled(self.classes):
            raise UserError(f"{where}: class name {twice[0]!r} is given more than once; make the names distinct")
        _check_values(self, where)
        for name, color in zip(self.classes, self.palette, strict=True):
            check_color(color, f"class {name!r}", where)
        if twice := doubled(self.bands):
            raise UserError(f"{where}: band {twice[0]!r} is given more than once; make the names distinct")
        check_white(self.white, f"{where}: `white`")
        self.label_format.check(self, where)

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return len(self.classes)

    def raw_values(self, index: int) -> tuple[int, ...]:
        """Return every raw value of class number `index`. The first is the one to write."""
        return (self.raw_ids[index], *(self.merged[index] if self.merged else ()))

    @functools.cached_property
    def listed(self) -> Mapping[int, int]:
        """Class index or `IGNORE_INDEX` of every raw value that the spec lists."""
        classes = {raw: k for k in range(self.num_classes) for raw in self.raw_values(k)}
        return dict.fromkeys(self.ignore, IGNORE_INDEX) | classes

    def unknown(self, values: Iterable[int]) -> list[int]:
        """Return the raw `values` that are neither a class nor ignored."""
        listed = self.listed
        return [v for v in values if v not in listed and (self.others is None or not 0 <= v <= MAX_RAW)]

    def class_of(self, value: int) -> int:
        """Return the class index or `IGNORE_INDEX` of a raw value that is not unknown."""
        listed = self.listed
        return listed[value] if value in listed or self.others is None else self.index_of(self.others)

    def lookup(self) -> npt.NDArray[np.int16]:
        """Return the table (65536,) from raw value to class index, `IGNORE_INDEX` or `UNKNOWN`."""
        rest = UNKNOWN if self.others is None else self.index_of(self.others)
        table = np.full(MAX_RAW + 1, rest, dtype=np.int16)
        listed = self.listed
        table[list(listed)] = list(listed.values())
        return table

    def index_of(self, name: str) -> int:
        """Return the index of a class of this spec, or `IGNORE_INDEX` for the word `ignore`."""
        return IGNORE_INDEX if name == IGNORED else self.classes.index(name)

    def raw_of(self, name: str) -> int:
        """Return the raw value to write for a class of this spec, or for the word `ignore`."""
        return self.ignore[0] if name == IGNORED else self.raw_ids[self.classes.index(name)]

    def to_dict(self) -> dict[str, Any]:
        """Return the spec in the plain form of its YAML, for JSON. `from_dict` turns it back into a spec."""
        raws = [values[0] if len(values := self.raw_values(k)) == 1 else list(values) for k in range(self.num_classes)]
        rows = zip(self.classes, raws, self.palette, strict=True)
        content: dict[str, Any] = {
            "name": self.name,
            "classes": [{"name": name, "raw": raw, "color": list(color)} for name, raw, color in rows],
            "ignore": list(self.ignore),
            "splits": {
                name: {key: value for key, value in vars(split).items() if value not in (None, False)}
                for name, split in self.splits.items()
            },
        }
        if self.others is not None:
            content["others"] = self.others
        if self.bands:
            content["bands"] = list(self.bands)
        if self.white is not None:
            content["white"] = self.white
        if self.label_format != IndexLabels():
            content["labels"] = format_to_dict(self.label_format)
        if self.val_fraction is not None:
            content["val_fraction"] = self.val_fraction
        return content

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], *, source: str = "dataset spec") -> "DatasetSpec":
        """Build a spec from the plain form of its YAML.

        Args:
            content: the keys of the module's example. `name` and `classes` are required.
            source: name of the spec in error texts, such as the file's path.

        Raises:
            UserError: a key is missing, unknown (the text gives the nearest known one) or of the wrong type.
        """
        optional = ("ignore", "others", "bands", "white", "labels", "splits", "val_fraction")
        check_keys(content, {"name": True, "classes": True, **dict.fromkeys(optional, False)}, source)
        label_format = read_format(content["labels"], source) if "labels" in content else IndexLabels()
        classes = content["classes"]
        if not isinstance(classes, list) or not classes:
            raise UserError(f"{source}: `classes` is {classes!r}; give a list of names, such as [road, car]")
        names, raws, palette = zip(
            *(_read_class(item, position, label_format, source) for position, item in enumerate(classes)), strict=True
        )
        ignore, others, fraction = content.get("ignore"), content.get("others"), content.get("val_fraction")
        if ignore is not None and not (isinstance(ignore, list) and all(is_whole(value) for value in ignore)):
            raise UserError(f"{source}: `ignore` is {ignore!r}; give a list of raw values, such as [255], or []")
        if fraction is not None and not (isinstance(fraction, float) and 0 < fraction < 1):
            raise UserError(f"{source}: `val_fraction` is {fraction!r}; give a share between 0 and 1, such as 0.1")
        bands, white = content.get("bands", []), content.get("white")
        if not isinstance(bands, list):
            raise UserError(f"{source}: `bands` is {bands!r}; give a list of names, such as [red, green, blue, nir]")
        if white is not None and (isinstance(white, bool) or not isinstance(white, int | float)):
            raise UserError(f"{source}: `white` is {white!r}; give a number, such as 4095 for 12 bits")
        splits = content.get("splits") or {}
        if not isinstance(splits, Mapping):
            raise UserError(
                f"{source}: `splits` is {splits!r}; write `train: {{images: FOLDER, labels: FOLDER}}` below"
            )
        read_splits = {str(name): _read_split(split, str(name), source) for name, split in splits.items()}
        name = read_text(content["name"], "name", source)
        try:
            return cls(
                name=name,
                classes=names,
                palette=palette,
                raw_ids=tuple(raw[0] for raw in raws),
                merged=tuple(raw[1:] for raw in raws) if any(raw[1:] for raw in raws) else (),
                ignore=default_ignore(value for raw in raws for value in raw) if ignore is None else tuple(ignore),
                others=None if others is None else read_text(others, "others", source),
                bands=tuple(read_text(band, "bands", source) for band in bands),
                white=white,
                label_format=label_format,
                splits=read_splits,
                val_fraction=fraction,
            )
        except UserError as error:
            raise UserError(f"{source}: {error}") from None


def load_spec(name_or_path: str | Path) -> DatasetSpec:
    """Load the shipped spec of that name, or the spec in a YAML file.

    Examples:
        >>> import segvit
        >>> segvit.load_spec("camvid").classes[:3]
        ('sky', 'building', 'pole')

    Raises:
        UserError: neither exists (the text lists the shipped names), or the file is not a valid spec.
    """
    shipped = shipped_specs()
    name = str(name_or_path)
    if name in shipped:
        return DatasetSpec.from_dict(copy.deepcopy(_shipped_values(name)), source=name)
    path = Path(expanded(name_or_path))
    if not path.is_file():
        raise UserError(
            f"no dataset spec {name!r}{suggest(name, shipped)}; give one of the shipped names "
            f"({', '.join(sorted(shipped))}) or a YAML file that describes your dataset"
        )
    content = parse_yaml(path, name)
    return DatasetSpec.from_dict(spec_content(content, path) if is_yolo(content) else content, source=name)


@functools.cache
def _shipped_values(name: str) -> Any:
    """Return the values of a shipped spec, whose file is parsed once in a process."""
    return parse_yaml(shipped_specs()[name], name)


def shipped_specs() -> dict[str, Traversable]:
    """Return the file of each shipped spec by its name."""
    folder = files("segvit.data").joinpath("specs")
    return {Path(item.name).stem: item for item in folder.iterdir() if item.name.endswith(".yaml")}


def default_ignore(raw_values: Iterable[int]) -> tuple[int, ...]:
    """Return `DEFAULT_IGNORE` without the values of classes."""
    taken = set(raw_values)
    return tuple(value for value in DEFAULT_IGNORE if value not in taken)


def _check_values(spec: DatasetSpec, where: str) -> None:
    """Refuse raw values that collide or are out of range, and an `others` that is not a class."""
    owners: dict[int, str] = {}
    for index, name in enumerate(spec.classes):
        for value in spec.raw_values(index):
            if value in owners:
                raise UserError(f"{where}: raw value {value} is given more than once; list it for one class only")
            owners[value] = name
    for value in (*owners, *spec.ignore):
        if not 0 <= value <= MAX_RAW:
            raise UserError(f"{where}: raw value {value} is out of range; give values in 0..{MAX_RAW}")
    if both := sorted(set(owners) & set(spec.ignore)):
        raise UserError(
            f"{where}: raw value {both[0]} is class {owners[both[0]]!r} and is ignored too; remove it from one of them"
        )
    if spec.others is not None:
        check_class_or_ignored(spec.others, spec, "others", where)


def _read_class(item: Any, position: int, label_format: LabelFormat, source: str) -> tuple[str, tuple[int, ...], Color]:
    """Read the name, the raw values and the colour of one entry of `classes`."""
    where = f"{source}: classes, entry {position + 1}"
    if not isinstance(item, Mapping):
        item = {"name": item}
    check_keys(item, {"name": True, "raw": False, "color": False}, where)
    for key, why in label_format.required_keys.items():
        if key not in item:
            raise UserError(f"{where}: `{key}` is missing; {why}")
    raw, color = item.get("raw", position), item.get("color")
    values = raw if isinstance(raw, list) else [raw]
    if not values or not all(is_whole(value) for value in values):
        raise UserError(
            f"{where}: `raw` is {raw!r}; give the class's value in the label files, a whole number, or a list of them"
        )
    color = default_palette(position + 1)[position] if color is None else read_color(color, "color", where)
    return read_text(item["name"], "name", where), tuple(values), color


def _read_split(content: Any, name: str, source: str) -> Split:
    """Read one entry of `splits`."""
    where = f"{source}: split {name!r}"
    check_keys(content, {"images": True, "labels": True, "list": False, "labeled_only": False}, where)
    labeled_only = content.get("labeled_only", False)
    if not isinstance(labeled_only, bool):
        raise UserError(f"{where}: `labeled_only` is {labeled_only!r}; give true or false")
    texts = {key: expanded(read_text(value, key, where)) for key, value in content.items() if key != "labeled_only"}
    return Split(**texts, labeled_only=labeled_only)

"""What a dataset is: class names, colours, the value of each class in the files, and where the files lie.

A spec is a YAML file, shipped (`segvit/data/specs`) or a user's own:

    name: street
    classes: [road, {name: car, raw: 7, color: [64, 0, 128]}]   # raw: value in the files; default: the position
    ignore: [255]                                               # raw values that count for nothing
    splits:
      train: {images: images/train, labels: labels/train}       # folders or globs under the root
      val: {images: images/val, labels: labels/val, list: val.txt}

Two plain folders give a spec as well (`folder_spec`). The same plain form travels in model files (`to_dict`).
"""

import difflib
import functools
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import yaml

from segvit.errors import UserError

if TYPE_CHECKING:
    from segvit.config import DataConfig

Color = tuple[int, int, int]

IGNORE_INDEX = 255
"""Value of a pixel without a class in every label map in memory; hence at most 255 classes."""
UNKNOWN = -1
"""What `DatasetSpec.lookup` gives for a raw value that is neither a class nor ignored."""
MAX_RAW = 65_535
"""Largest raw value a label file may hold (16 bits)."""
DEFAULT_IGNORE = (255,)
"""Raw values ignored where nothing else is said; a class that has one of them takes it."""
FOLDERS = "folders"
"""Name of the spec of two plain folders."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """Where the pairs of one split lie."""

    images: str
    """Folder (searched with its sub-folders) or glob, relative to the root."""
    labels: str
    """The same for label maps. Pairs share their path below the folder without suffix, or what the glob's * match."""
    list: str | None = None
    """Text file, relative to the root, with one name a line: only these pairs are used. Default: every file."""


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """Classes 0..K-1 of a dataset, their names, colours and values in its files.

    Raises:
        UserError: no class or more than 255, doubled names or raw values, a value both class and ignored, bad colours.
    """

    name: str
    """Short name of the dataset."""
    classes: tuple[str, ...]
    """Class names (K,), in the order of the model's outputs."""
    palette: tuple[Color, ...]
    """Red, green, blue of each class (K,), 0..255."""
    raw_ids: tuple[int, ...]
    """raw_ids[k] is the value of class k in the label files (K,)."""
    ignore: tuple[int, ...] = ()
    """Raw values that become `IGNORE_INDEX`."""
    splits: Mapping[str, Split] = field(default_factory=dict)
    """Splits by name; empty where the spec travels in a model file without them."""

    def __post_init__(self) -> None:
        where = f"dataset {self.name!r}"
        if not 1 <= len(self.classes) <= IGNORE_INDEX:
            raise UserError(f"{where}: has {len(self.classes)} classes; 1 to {IGNORE_INDEX} are supported")
        if not len(self.classes) == len(self.palette) == len(self.raw_ids):
            raise UserError(
                f"{where}: {len(self.classes)} classes, {len(self.palette)} colours, {len(self.raw_ids)} raw values; "
                "give as many of each"
            )
        for what, doubled in (("class name", _doubled(self.classes)), ("raw value", _doubled(self.raw_ids))):
            if doubled:
                raise UserError(f"{where}: {what} {doubled[0]!r} is given to more than one class; make them distinct")
        for value in (*self.raw_ids, *self.ignore):
            if not 0 <= value <= MAX_RAW:
                raise UserError(f"{where}: raw value {value} is not in 0..{MAX_RAW}")
        if both := sorted(set(self.raw_ids) & set(self.ignore)):
            name = self.classes[self.raw_ids.index(both[0])]
            raise UserError(
                f"{where}: raw value {both[0]} is class {name!r} and is ignored too; take it out of one of them"
            )
        for name, color in zip(self.classes, self.palette, strict=True):
            if len(color) != 3 or not all(0 <= part <= 255 for part in color):
                raise UserError(f"{where}: colour {list(color)} of class {name!r} is not three numbers in 0..255")

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.classes)

    def lookup(self) -> npt.NDArray[np.int16]:
        """Table (65536,) from raw value to class index, `IGNORE_INDEX` or `UNKNOWN`."""
        table = np.full(MAX_RAW + 1, UNKNOWN, dtype=np.int16)
        table[list(self.ignore)] = IGNORE_INDEX
        table[list(self.raw_ids)] = np.arange(self.num_classes)
        return table

    def to_dict(self) -> dict[str, Any]:
        """The spec in the plain form of its YAML, fit for JSON; `from_dict` gives it back."""
        rows = zip(self.classes, self.raw_ids, self.palette, strict=True)
        return {
            "name": self.name,
            "classes": [{"name": name, "raw": raw, "color": list(color)} for name, raw, color in rows],
            "ignore": list(self.ignore),
            "splits": {
                name: {key: value for key, value in vars(split).items() if value is not None}
                for name, split in self.splits.items()
            },
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], *, source: str = "dataset spec") -> "DatasetSpec":
        """Build a spec from the plain form of its YAML.

        Args:
            content: keys name, classes, and optionally ignore and splits, as in the module's example.
            source: what error texts call it, such as the file's path.

        Raises:
            UserError: a missing, unknown or ill-typed key, named with its place and the nearest known one.
        """
        _check_keys(content, {"name": True, "classes": True, "ignore": False, "splits": False}, source)
        classes = content["classes"]
        if not isinstance(classes, list) or not classes:
            raise UserError(f"{source}: `classes` is {classes!r}; give a list of names, such as [road, car]")
        names, raw_ids, palette = zip(
            *(_read_class(item, position, source) for position, item in enumerate(classes)), strict=True
        )
        ignore = content.get("ignore")
        if ignore is not None and not (isinstance(ignore, list) and all(_is_int(value) for value in ignore)):
            raise UserError(f"{source}: `ignore` is {ignore!r}; give a list of raw values, such as [255], or []")
        splits = content.get("splits") or {}
        if not isinstance(splits, Mapping):
            raise UserError(
                f"{source}: `splits` is {splits!r}; write `train: {{images: FOLDER, labels: FOLDER}}` below"
            )
        read_splits = {str(name): _read_split(split, str(name), source) for name, split in splits.items()}
        name = _text(content["name"], "name", source)
        try:
            return cls(
                name=name,
                classes=names,
                palette=palette,
                raw_ids=raw_ids,
                ignore=_default_ignore(raw_ids) if ignore is None else tuple(ignore),
                splits=read_splits,
            )
        except UserError as error:
            raise UserError(f"{source}: {error}") from None


def load_spec(name_or_path: str | Path) -> DatasetSpec:
    """The shipped spec of that name, or the spec in a YAML file.

    Raises:
        UserError: neither exists (the shipped names are listed), or the file is no valid spec.
    """
    shipped = {
        Path(item.name).stem: item
        for item in files("segvit.data").joinpath("specs").iterdir()
        if item.name.endswith(".yaml")
    }
    name = str(name_or_path)
    if name in shipped:
        return DatasetSpec.from_dict(_parse(shipped[name], name), source=name)
    path = Path(name_or_path)
    if not path.is_file():
        raise UserError(
            f"no dataset spec {name!r}{_suggest(name, shipped)}; give one of the shipped names "
            f"({', '.join(sorted(shipped))}) or a YAML file that describes your dataset"
        )
    return DatasetSpec.from_dict(_parse(path, name), source=name)


def folder_spec(config: "DataConfig") -> DatasetSpec:
    """The spec of two plain folders, `config.images` and `config.labels`, with the classes of `config.classes`.

    A class is `name`, whose value in the files is its position, or `name=VALUE`. The default `ignore` of 255 gives way
    to a class with that value; any other value that is both is an error.
    The split "val" is there only where `val_images` is given; otherwise `open_dataset` keeps a share of the pairs.

    Raises:
        UserError: a folder or the classes are missing, a class is ill-formed, or values collide.
    """
    train = _folder_split(config.images, config.labels, "images", "labels")
    if not config.classes:
        raise UserError(
            "two folders need class names, in the order of the values in the label files: type "
            "`--data.classes background --data.classes thing`, or `--data.classes thing=7` where a value is no position"
        )
    names, raw_ids = [], []
    for position, text in enumerate(config.classes):
        name, equals, value = text.rpartition("=")
        if equals and not (name and value.strip().isdecimal()):
            raise UserError(f"data.classes: {text!r} is not `name=VALUE` with a whole number, such as `thing=255`")
        names.append(name.strip() if equals else text)
        raw_ids.append(int(value) if equals else position)
    splits = {"train": train}
    if config.val_images is not None or config.val_labels is not None:
        splits["val"] = _folder_split(config.val_images, config.val_labels, "val_images", "val_labels")
    untouched = tuple(config.ignore) == DEFAULT_IGNORE
    return DatasetSpec(
        name=FOLDERS,
        classes=tuple(names),
        palette=default_palette(len(names)),
        raw_ids=tuple(raw_ids),
        ignore=_default_ignore(raw_ids) if untouched else tuple(config.ignore),
        splits=splits,
    )


def resolve_spec(config: "DataConfig") -> DatasetSpec:
    """The spec that `config` asks for: `data.spec`, or two folders.

    Raises:
        UserError: neither or both are given, or a setting of one goes with the other.
    """
    folders = {key: getattr(config, key) for key in ("images", "labels", "val_images", "val_labels")}
    given = [key for key, value in folders.items() if value is not None]
    if config.spec is None:
        if not given:
            raise UserError(
                "no dataset given; type `--data.spec NAME --data.root FOLDER` for a known one, or "
                "`--data.images FOLDER --data.labels FOLDER --data.classes NAME ...` for two folders of your own"
            )
        if config.root is not None:
            raise UserError("data.root goes with data.spec; with two folders give their whole paths and no data.root")
        return folder_spec(config)
    if config.classes:
        given.append("classes")
    if tuple(config.ignore) != DEFAULT_IGNORE:
        given.append("ignore")
    if given:
        raise UserError(
            f"data.spec {config.spec!r} says the folders and classes itself, yet data.{given[0]} is given as well; "
            "drop one of them (a copy of the spec as a YAML file of yours can be changed freely)"
        )
    return load_spec(config.spec)


def default_palette(num_classes: int) -> tuple[Color, ...]:
    """Distinct colours (K,), the first 255 also under red-green colour blindness; a class has the same for every K."""
    colors = dict.fromkeys(_palette())
    codes = (step * 0x9E3779 % 2**24 for step in itertools.count(1))  # an odd factor: each of the 2**24 comes once
    while len(colors) < num_classes:
        code = next(codes)
        colors[code >> 16, code >> 8 & 255, code & 255] = None
    return tuple(colors)[:num_classes]


OKABE_ITO = ((0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (213, 94, 0), (240, 228, 66))
"""The colour-blind-safe palette of Okabe and Ito (2008), without black."""
DEFICIENCY = np.array(
    [
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    ]
)
"""Protanopia and deuteranopia as maps of linear RGB (Machado et al. 2009)."""


@functools.cache
def _palette() -> tuple[Color, ...]:
    """255 colours: Okabe-Ito, then always the colour of a 9 x 9 x 9 grid farthest from all before, black and white."""
    levels = np.linspace(0, 255, 9).round()
    taken = np.array([(0, 0, 0), (255, 255, 255), *OKABE_ITO], dtype=np.float64)
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    seen_grid, seen_taken = _perceived(grid), _perceived(taken)

    def distance(color: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        normal, *deficient = np.linalg.norm(seen_grid - color[:, None], axis=-1)  # (3 visions, 729)
        return np.asarray(normal + 2 * np.minimum(*deficient))  # > 0 for any other colour, so none comes twice

    nearest = np.min([distance(seen_taken[:, i]) for i in range(len(taken))], axis=0)
    colors: list[Color] = list(OKABE_ITO)
    while len(colors) < IGNORE_INDEX:
        best = int(nearest.argmax())
        red, green, blue = (int(part) for part in grid[best])
        colors.append((red, green, blue))
        nearest = np.minimum(nearest, distance(seen_grid[:, best]))
    return tuple(colors)


def _perceived(colors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """CIE Lab (3, N, 3) of sRGB colours (N, 3) as seen by normal, protanope and deuteranope eyes."""
    scaled = colors / 255
    linear = np.where(scaled <= 0.04045, scaled / 12.92, ((scaled + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.stack([linear, *(linear @ matrix.T for matrix in DEFICIENCY)]), 0, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = seen @ to_xyz.T / to_xyz.sum(axis=1)  # relative to white
    root = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = np.moveaxis(root, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def _parse(file: Traversable, source: str) -> Mapping[str, Any]:
    """The mapping in a YAML file."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{source}: not a YAML file: {error}") from error
    if not isinstance(content, Mapping):
        raise UserError(f"{source}: a spec is `name: ...`, `classes: [...]`, `splits: ...`; found {repr(content)[:80]}")
    return content


def _check_keys(content: Any, known: Mapping[str, bool], source: str) -> None:
    """Refuse keys outside `known` and the absence of those marked True."""
    if not isinstance(content, Mapping):
        raise UserError(f"{source}: expected keys {', '.join(known)}; found {repr(content)[:80]}")
    for key in content:
        if key not in known:
            raise UserError(f"{source}: unknown key {key!r}{_suggest(str(key), known)}; known keys: {', '.join(known)}")
    for key, required in known.items():
        if required and key not in content:
            raise UserError(f"{source}: key `{key}` is missing")


def _read_class(item: Any, position: int, source: str) -> tuple[str, int, Color]:
    """Name, raw value and colour of one entry of `classes`."""
    where = f"{source}: classes, entry {position + 1}"
    if not isinstance(item, Mapping):
        item = {"name": item}
    _check_keys(item, {"name": True, "raw": False, "color": False}, where)
    raw, color = item.get("raw", position), item.get("color")
    if not _is_int(raw):
        raise UserError(f"{where}: `raw` is {raw!r}; give the class's value in the label files, a whole number")
    if color is None:
        color = _palette()[position % IGNORE_INDEX]
    elif not (isinstance(color, Sequence) and len(color) == 3 and all(_is_int(part) for part in color)):
        raise UserError(f"{where}: `color` is {color!r}; give red, green, blue in 0..255, such as [128, 64, 128]")
    return _text(item["name"], "name", where), raw, (color[0], color[1], color[2])


def _read_split(content: Any, name: str, source: str) -> Split:
    """One entry of `splits`."""
    where = f"{source}: split {name!r}"
    _check_keys(content, {"images": True, "labels": True, "list": False}, where)
    return Split(**{key: _text(value, key, where) for key, value in content.items()})


def _folder_split(images: Path | None, labels: Path | None, images_key: str, labels_key: str) -> Split:
    """The split of two plain folders, of which neither may be missing."""
    if images is None or labels is None:
        missing, other = (images_key, labels_key) if images is None else (labels_key, images_key)
        raise UserError(f"data.{other} is given without data.{missing}; type `--data.{missing} FOLDER`")
    return Split(images=str(images), labels=str(labels))


def _default_ignore(raw_ids: Iterable[int]) -> tuple[int, ...]:
    return tuple(value for value in DEFAULT_IGNORE if value not in set(raw_ids))


def _text(value: Any, key: str, source: str) -> str:
    if isinstance(value, str) and value.strip():
        return value
    raise UserError(f"{source}: `{key}` is {value!r}; give text, in quotes where YAML reads it otherwise, such as 'no'")


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _doubled(items: Sequence[Any]) -> list[Any]:
    return [item for position, item in enumerate(items) if item in items[:position]]


def _suggest(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""

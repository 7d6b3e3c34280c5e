"""Find the class names of a packed dataset: in id2label.json, in a file of names, or in a column of ClassLabel.

found = find_packed_names(config)
found.classes, found.origin                 # ("sky=0", "road=1"), "user/dataset: id2label.json"
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from segvit.config import DataConfig
from segvit.data.labels.format import MAX_RAW
from segvit.data.packed.hub_source import fetch_text, open_tables
from segvit.data.packed.keys import LABEL_NAMES
from segvit.data.packed.ranges import is_url
from segvit.errors import UserError

ID2LABEL = "id2label.json"
"""File of transformers: an object from values to names."""
CLASS_COLUMNS = ("classes", "class_names", "categories", "category", *LABEL_NAMES)
"""Names of columns whose ClassLabel names the classes of the label maps. Others may name scenes or photographers."""


class FoundNames(NamedTuple):
    """Class names and their origin."""

    classes: tuple[str, ...]
    """Classes as `data.classes` takes them, `NAME=VALUE`."""
    origin: str
    """File or column with the names."""


def folder_of_names(config: DataConfig) -> Path | None:
    """Return the local folder that may hold a file of class names. None for a repository or URLs."""
    if config.hub is not None:
        return Path(config.hub) if Path(config.hub).is_dir() else None
    shards = str(config.shards)
    if is_url(shards):
        return None
    return Path(shards) if Path(shards).is_dir() else Path(shards).parent


def find_packed_names(config: DataConfig) -> FoundNames | None:
    """Return the class names that come with a packed dataset, or None if there are none.

    Raises:
        UserError: the names cannot be read.
    """
    folder = folder_of_names(config)
    source = config.hub if config.hub is not None else str(folder) if folder is not None else None
    if source is not None and (text := fetch_text(source, ID2LABEL)) is not None:
        return FoundNames(read_id2label(text, f"{source}: {ID2LABEL}"), f"{source}: {ID2LABEL}")
    return _names_in_columns(config) if config.hub is not None else None


def read_id2label(text: str, where: str) -> tuple[str, ...]:
    """Read `{"0": "sky", "1": "road"}` as classes, in the order of the values.

    Raises:
        UserError: the text is not JSON, or not an object from whole numbers to names.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON ({error}); correct it, or give --data.classes") from error
    if not isinstance(content, dict) or not content:
        raise UserError(f'{where}: not an object such as {{"0": "sky"}}; correct it, or give --data.classes')
    names: dict[int, str] = {}
    for value, name in content.items():
        known = value.isascii() and value.isdecimal() and len(value) <= len(str(MAX_RAW)) and int(value) <= MAX_RAW
        if not known or not isinstance(name, str) or not name.strip():
            raise UserError(
                f"{where}: the entry {value!r}: {str(name)[:80]!r} is not a value in 0..{MAX_RAW} and a name; "
                "correct it, or give --data.classes"
            )
        if int(value) in names:
            raise UserError(f"{where}: the value {int(value)} is named twice; correct it, or give --data.classes")
        names[int(value)] = name.strip()
    return tuple(f"{names[value]}={value}" for value in sorted(names))


def _names_in_columns(config: DataConfig) -> FoundNames | None:
    """Return the names of the only column of ClassLabel that names classes."""
    rows = next(iter(open_tables(config).values()))
    found = {name: names for name, kind in rows.features.items() if (names := _class_label(kind)) is not None}
    found = {name: names for name, names in found.items() if name.lower() in CLASS_COLUMNS}
    if len(found) != 1:
        return None
    ((column, names),) = found.items()
    classes = tuple(f"{name}={value}" for value, name in enumerate(names))
    return FoundNames(classes, f"{config.hub}: ClassLabel of the column {column!r}")


def _class_label(feature: Any) -> list[str] | None:
    """Return the names of a ClassLabel, also inside lists. None for other features."""
    from datasets import ClassLabel

    while not isinstance(feature, ClassLabel):
        if isinstance(feature, list) and feature:
            feature = feature[0]
        elif hasattr(feature, "feature"):
            feature = feature.feature
        else:
            return None
    return list(feature.names)

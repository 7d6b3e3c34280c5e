"""In what form the labels of a dataset lie on disk: the section `labels` of a spec.

    labels: {format: mat, key: S}

The readers are in labels.py; what each format means to a user is in docs/data.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from segvit.data.palette import Color
from segvit.data.yaml_values import check_keys, read_color, read_text
from segvit.errors import UserError
from segvit.utils.text import suggest

IGNORED = "ignore"
"""What stands in the place of a class name for pixels that count for nothing."""


@dataclass(frozen=True, kw_only=True)
class IndexLabels:
    """Pictures of one channel: the raw value of each pixel, or its index in a palette."""


@dataclass(frozen=True, kw_only=True)
class MatLabels:
    """MATLAB files, each with a matrix (H, W) of raw values."""

    key: str
    """Name of the matrix; `outer.inner` for a field of a structure."""


@dataclass(frozen=True, kw_only=True)
class ColorLabels:
    """Pictures painted in the colours of the classes."""

    ignore: tuple[Color, ...] = ()
    """Colours that count for nothing."""
    merge: Mapping[str, tuple[Color, ...]] = field(default_factory=dict)
    """Further colours of a class, by its name."""


@dataclass(frozen=True, kw_only=True)
class CocoLabels:
    """One JSON file per split with polygons and run-length masks; raw values are its category ids."""

    unlabeled: str
    """Class of the pixels outside every annotation, or `ignore`."""
    crowd: Literal["class", "ignore"] = "class"
    """Whether regions marked `iscrowd` belong to their class or count for nothing."""


LabelFormat = IndexLabels | MatLabels | ColorLabels | CocoLabels
FORMATS: dict[str, type[LabelFormat]] = {
    "index": IndexLabels,
    "mat": MatLabels,
    "color": ColorLabels,
    "coco": CocoLabels,
}


def read_format(content: Any, source: str) -> LabelFormat:
    """The format that the section `labels` of a spec describes.

    Raises:
        UserError: an unknown format, or a missing, unknown or ill-typed option of it.
    """
    where = f"{source}: labels"
    name = content.get("format") if isinstance(content, Mapping) else content
    if not isinstance(name, str) or name not in FORMATS:
        hint = suggest(str(name), FORMATS)
        raise UserError(f"{where}: format is {name!r}{hint}; give `labels: {{format: ...}}` with {', '.join(FORMATS)}")
    options = {key: value for key, value in content.items() if key != "format"} if isinstance(content, Mapping) else {}
    if name == "mat":
        check_keys(options, {"key": True}, where)
        return MatLabels(key=read_text(options["key"], "key", where))
    if name == "color":
        check_keys(options, {"ignore": False, "merge": False}, where)
        merge = options.get("merge", {})
        if not isinstance(merge, Mapping):
            raise UserError(
                f"{where}: `merge` is {merge!r}; give further colours by class, such as {{car: [[0, 0, 9]]}}"
            )
        return ColorLabels(
            ignore=_colors(options.get("ignore", []), "ignore", where),
            merge={str(key): _colors(value, f"merge: {key}", where) for key, value in merge.items()},
        )
    if name == "coco":
        check_keys(options, {"unlabeled": True, "crowd": False}, where)
        crowd = options.get("crowd", "class")
        if crowd not in ("class", "ignore"):
            raise UserError(f"{where}: `crowd` is {crowd!r}; give class or ignore")
        return CocoLabels(unlabeled=read_text(options["unlabeled"], "unlabeled", where), crowd=crowd)
    check_keys(options, {}, where)
    return IndexLabels()


def format_to_dict(label_format: LabelFormat) -> dict[str, Any]:
    """The section `labels` of a spec; `read_format` gives the format back."""
    name = next(name for name, kind in FORMATS.items() if type(label_format) is kind)
    return {"format": name} | {
        option.name: _plain(getattr(label_format, option.name)) for option in fields(label_format)
    }


def _colors(value: Any, key: str, where: str) -> tuple[Color, ...]:
    """A list of colours."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise UserError(f"{where}: `{key}` is {value!r}; give a list of colours, such as [[0, 0, 0]]")
    return tuple(read_color(color, key, where) for color in value)


def _plain(value: Any) -> Any:
    """Tuples as lists, all the way down."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value

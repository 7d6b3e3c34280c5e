"""The label formats by the names that a spec gives them, and the section `labels` of a spec.

    labels: {format: mat, key: S}

docs/data.md says what each format means to a user.
"""

from collections.abc import Mapping
from dataclasses import Field, dataclass, fields, is_dataclass
from typing import Any, ClassVar

import numpy.typing as npt

from segvit.data.labels.coco import CocoLabels
from segvit.data.labels.color import ColorLabels
from segvit.data.labels.format import Classes, LabelFormat
from segvit.data.labels.index import IndexLabels
from segvit.data.labels.mat import MatLabels
from segvit.data.labels.memory import LabelMemory
from segvit.data.pairs import Orphans, Pair, Place
from segvit.errors import UserError
from segvit.utils.text import suggest

FORMATS: dict[str, type[LabelFormat]] = {kind.name: kind for kind in (IndexLabels, MatLabels, ColorLabels, CocoLabels)}
"""Add a class of your own here to name it in a spec."""
HANDED_IN = "handed_in"
"""Key that marks a format which was handed in as an object, and which no name stands for."""


@dataclass(frozen=True, kw_only=True)
class HandedInLabels(LabelFormat):
    """A format that was handed in when a model was trained, as the model's file remembers it: by its name alone."""

    name: ClassVar[str] = HANDED_IN
    format: str
    """Name of the format that was handed in."""

    def find(self, place: Place, classes: Classes, memory: LabelMemory) -> tuple[list[Pair], Orphans]:
        raise self._error(place.what)

    def read(self, pair: Pair, classes: Classes, memory: LabelMemory) -> npt.NDArray[Any]:
        raise self._error(pair.source)

    def _error(self, where: str) -> UserError:
        return UserError(
            f"{where}: the labels are of the format {self.format!r}, which was handed in as an object of your own; "
            "hand it in again with `open_dataset(config, split, labels=...)`"
        )


def read_format(content: Any, source: str) -> LabelFormat:
    """The format that the section `labels` of a spec describes.

    Raises:
        UserError: an unknown format, or a missing, unknown or ill-typed option of it.
    """
    where = f"{source}: labels"
    name = content.get("format") if isinstance(content, Mapping) else content
    if isinstance(content, Mapping) and content.get(HANDED_IN) is True:
        return HandedInLabels(format=str(name))
    if not isinstance(name, str) or name not in FORMATS:
        hint = suggest(str(name), FORMATS)
        raise UserError(f"{where}: format is {name!r}{hint}; give `labels: {{format: ...}}` with {', '.join(FORMATS)}")
    options = {key: value for key, value in content.items() if key != "format"} if isinstance(content, Mapping) else {}
    return FORMATS[name].parse(options, where)


def format_to_dict(label_format: LabelFormat) -> dict[str, Any]:
    """The section `labels` of a spec; `read_format` gives the format back."""
    if FORMATS.get(label_format.name) is not type(label_format):
        name = label_format.format if isinstance(label_format, HandedInLabels) else label_format.name
        return {"format": name, HANDED_IN: True}
    options: tuple[Field[Any], ...] = fields(label_format) if is_dataclass(label_format) else ()
    return {"format": label_format.name} | {
        option.name: _plain(getattr(label_format, option.name)) for option in options
    }


def _plain(value: Any) -> Any:
    """Tuples as lists, all the way down."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value

"""Name the label formats, and read and write the section `labels` of a spec.

    labels: {format: mat, key: S}

docs/data.md describes each format for users.
"""

from collections.abc import Mapping
from dataclasses import Field, dataclass, fields, is_dataclass
from typing import Any, ClassVar

import numpy.typing as npt

from segvit.data.annotations.recognise import TOOLS
from segvit.data.annotations.tools.class_masks import ClassMaskLabels
from segvit.data.labels.color import ColorLabels
from segvit.data.labels.format import Classes, LabelFormat
from segvit.data.labels.index import IndexLabels
from segvit.data.labels.mat import MatLabels
from segvit.data.labels.memory import LabelMemory
from segvit.data.pairs import Orphans, Pair, Place
from segvit.errors import UserError
from segvit.utils.text import suggest

FORMATS: dict[str, type[LabelFormat]] = {
    **{kind.name: kind for kind in (IndexLabels, MatLabels, ColorLabels)},
    **{tool.name: tool for tool in TOOLS},
    ClassMaskLabels.name: ClassMaskLabels,
}
"""The formats by their names in a spec. Add a class of your own here to name it in YAML."""
HANDED_IN = "handed_in"
"""Key that marks a format that was handed in as an object and is not in `FORMATS`."""


@dataclass(frozen=True, kw_only=True)
class HandedInLabels(LabelFormat):
    """A format that was handed in when a model was trained. The model's file keeps only its name."""

    name: ClassVar[str] = HANDED_IN
    format: str
    """Name of the format that was handed in."""

    def find(self, place: Place, classes: Classes, memory: LabelMemory) -> tuple[list[Pair], Orphans]:
        """Raise an error, because the class of the format is unknown here."""
        raise self._error(place.what)

    def read(self, pair: Pair, classes: Classes, memory: LabelMemory) -> npt.NDArray[Any]:
        """Raise an error instead of the labels (H, W), because the class of the format is unknown here."""
        raise self._error(pair.source)

    def _error(self, where: str) -> UserError:
        return UserError(
            f"{where}: the labels have the format {self.format!r}, which was handed in as an object; "
            "hand it in again with `open_dataset(config, split, labels=...)`"
        )


def read_format(content: Any, source: str) -> LabelFormat:
    """Return the format that the section `labels` of a spec describes.

    Raises:
        UserError: the format is unknown, or an option of it is missing, unknown or of the wrong type.
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
    """Return the section `labels` of a spec. `read_format` turns it back into the format."""
    if FORMATS.get(label_format.name) is not type(label_format):
        name = label_format.format if isinstance(label_format, HandedInLabels) else label_format.name
        return {"format": name, HANDED_IN: True}
    options: tuple[Field[Any], ...] = fields(label_format) if is_dataclass(label_format) else ()
    return {"format": label_format.name} | {
        option.name: _plain(getattr(label_format, option.name)) for option in options
    }


def _plain(value: Any) -> Any:
    """Return tuples as lists, at every depth."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value

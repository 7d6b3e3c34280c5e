"""What to type next: the settings of a dataset as flags, and settings that mend what a check found."""

import shlex
from collections.abc import Collection, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path

from segvit.config import DataConfig
from segvit.data.resolve import FOLDERS, resolve_spec
from segvit.data.spec import IGNORE_INDEX, DatasetSpec
from segvit.errors import UserError

EMPTY = "empty-"
"""What makes a flag mean: none at all."""
FEW = 3
"""Unknown values up to which it is proposed to ignore them."""


def command(verb: str, config: DataConfig, *more: str, settings: Path | None = None) -> str:
    """A whole command line on a dataset.

    Args:
        verb: such as `check-data`.
        config: the dataset.
        more: further words.
        settings: the file of --config that the dataset came from.
    """
    given = ["--config", str(settings)] if settings else []
    return shlex.join(["segvit", verb, *given, *data_flags(config), *more])


def data_flags(config: DataConfig) -> list[str]:
    """The flags that say what differs from the defaults."""
    words: list[str] = []
    for setting in fields(DataConfig):
        value, flag = getattr(config, setting.name), setting.name.replace("_", "-")
        if value == setting.default:
            continue
        if isinstance(value, tuple):
            words += [f"--data.{flag}", *map(str, value)] if value else [f"--data.{EMPTY}{flag}"]
        else:
            words += [f"--data.{flag}", str(value)]
    return words


def mend_values(config: DataConfig, values: Collection[int]) -> DataConfig | None:
    """Settings of two folders under which every raw value found means something; None where none is at hand.

    Args:
        config: settings under which some are unknown, or all but one class is ignored.
        values: all that occur.
    """
    spec = resolve_spec(config)
    if spec.name != FOLDERS:
        return None
    for classes, ignore in _candidates(spec, values):
        try:
            mended = replace(config, classes=tuple(classes), ignore=ignore)
            result = resolve_spec(mended)
        except UserError:
            continue
        if not result.unknown(values) and {result.class_of(value) for value in values} != {IGNORE_INDEX}:
            return mended
    return None


def _candidates(spec: DatasetSpec, values: Collection[int]) -> Iterator[tuple[Sequence[str], tuple[int, ...]]]:
    """Classes and ignored values to try, the likeliest first."""
    unknown = spec.unknown(sorted(values))
    if set(values) <= {0, 255}:
        second = spec.classes[1] if spec.num_classes > 1 else "thing"
        yield (f"{spec.classes[0]}=0", f"{second}=255"), (255,)  # the default, which gives way to the class
        return
    if unknown == [spec.num_classes] and spec.raw_ids == tuple(range(spec.num_classes)):
        ignore = tuple(dict.fromkeys((*spec.ignore, *([0] if 0 in values else []))))
        yield [f"{name}={raw + 1}" for name, raw in zip(spec.classes, spec.raw_ids, strict=True)], ignore
    if len(unknown) <= FEW:
        kept = [name if raw == k else f"{name}={raw}" for k, (name, raw) in enumerate(_rows(spec))]
        yield kept, (*spec.ignore, *unknown)


def _rows(spec: DatasetSpec) -> Iterator[tuple[str, int]]:
    return zip(spec.classes, spec.raw_ids, strict=True)

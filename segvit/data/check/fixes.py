"""Explain pairs and label values that cannot be used, and find the flags or settings that fix them."""

import shlex
from collections.abc import Collection, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path

from segvit.config import DataConfig
from segvit.data.annotations.format import ShapeLabels
from segvit.data.folder_spec import resolve_spec
from segvit.data.labels.background import BACKGROUND, is_background
from segvit.data.labels.format import FOLDERS
from segvit.data.pairs import Pair, first
from segvit.data.spec import DEFAULT_IGNORE, IGNORE_INDEX, DatasetSpec
from segvit.data.yaml_values import quoted
from segvit.errors import UserError

EMPTY = "empty-"
"""Prefix of a flag that sets an empty list."""
TAKE_FOLDERS = ("train", "check-data")
"""Commands that take the folders of photos and masks without flags."""
FEW = 3
"""Largest number of unknown values that we propose to ignore."""
MANY_VALUES = 20
"""Number of unknown values above which a label file is taken for a photo."""
NEAR = 16
"""Largest distance from 255 to which compression takes the values of a mask."""


def explain_sizes(pair: Pair, image: tuple[int, int], labels: tuple[int, int]) -> str:
    """Return the text for a pair whose sizes (height, width) differ."""
    text = (
        f"{pair.image} is {image[1]} x {image[0]} pixels (width x height as displayed), but its label map "
        f"{pair.source} is {labels[1]} x {labels[0]}; "
    )
    if image == labels[::-1]:
        return text + "one of them is turned by 90 degrees (segvit applies the EXIF orientation); save both upright"
    return text + "resize one of them (label maps without interpolation), or remove the pair"


def explain_values(values: Sequence[int], spec: DatasetSpec, *, what: str = "the file holds") -> str:
    """Return the text for label files that hold `values` (distinct, sorted), some of them unknown to `spec`."""
    unknown = spec.unknown(values)
    names = ", ".join(f"{raw} {name}" for name, raw in zip(spec.classes[:6], spec.raw_ids[:6], strict=False))
    text = (
        f"label value {first(unknown, 10)} is not a class of {spec.name!r} "
        f"({names}{', ...' if spec.num_classes > 6 else ''}; ignored: {first(spec.ignore, 10) or 'none'}); "
        f"{what} {first(values, 20)}; "
    )
    if set(values) <= {0, 255}:
        return text + f"it looks like a 0/255 mask: {remap(spec, {0: 0, 1: 255})}"
    if _is_soft(spec, values):
        return text + (
            "it looks like a 0/255 mask whose edges were blurred by compression (JPEG) or smooth resizing: sharpen "
            "them in Python, `from PIL import Image; "
            "Image.open(FILE).point(lambda value: 255 * (value > 127)).save(FILE)`, "
            f"then {remap(spec, {0: 0, 1: 255})}"
        )
    if len(unknown) > MANY_VALUES:
        return text + (
            "so many values look like a photo, or like a mask that was resized with smoothing or saved with "
            "compression: write label maps without interpolation, as PNG (if the values are correct, drop them with "
            "`others: ignore` in a spec)"
        )
    if len(unknown) == 1 and unknown[0] == max(spec.raw_ids) + 1 and set(spec.raw_ids) == set(range(spec.num_classes)):
        shifted = remap(spec, {k: raw + 1 for k, raw in enumerate(spec.raw_ids)})
        if 0 not in values:
            return text + f"all values seem one too large: {shifted}"
        ignored = "`--data.ignore 0`" if spec.name == FOLDERS else "`ignore: [0]`"
        add = f" (add `NAME={unknown[0]}` to --data.classes)" if spec.name == FOLDERS else ""
        return (
            f"{text}a class name is missing{add}, or 0 means unlabelled and classes start at 1: {shifted} and {ignored}"
        )
    if spec.num_classes > 2 and (ordered := _in_order(spec, values)):  # one file of two classes proves too little
        return text + f"there are as many values as classes: if they are in the same order, {remap(spec, ordered)}"
    if spec.name == FOLDERS:
        flags = " ".join(f"--data.ignore {value}" for value in (*spec.ignore, *unknown[:3]))
        return text + f"add it as a class, `--data.classes NAME={unknown[0]}`, or ignore it, `{flags}`"
    ignore = f"`ignore: {[*spec.ignore, *unknown[:10]]}` or `others: ignore`"
    return text + f"check that this is the right spec; in a spec of your own, add the class, or write {ignore}"


def explain_one_class(values: Sequence[int], spec: DatasetSpec) -> str:
    """Return the text for a dataset of a single class, whose label files hold `values` (distinct, sorted)."""
    text = f"{spec.classes[0]!r} is the only class, so there is nothing to learn: every model would score mIoU 1"
    if spec.name == FOLDERS and isinstance(spec.label_format, ShapeLabels):
        return f"{text}; for the pixels outside the shapes, type `--data.classes {BACKGROUND} {spec.classes[0]}`"
    if spec.name != FOLDERS:
        return f"{text}; add a class for the rest to the spec, such as {BACKGROUND}"
    if names := split_at_commas(spec.classes[0]):
        return f"{text}; separate class names by blanks: `--data.classes {shlex.join(names)}`"
    if classes := _with_background(values, spec):
        return f"{text}; for these label maps type `--data.classes {shlex.join(classes)}`"
    return f"{text}; the label maps hold {first(values, 10)}: give each value a class, such as {BACKGROUND}=0"


def split_at_commas(name: str) -> list[str]:
    """Return the names in a class name with commas, or nothing if it has none."""
    names = [part.strip() for part in name.split(",") if part.strip()]
    return names if len(names) > 1 else []


def _with_background(values: Collection[int], spec: DatasetSpec) -> list[str]:
    """Return the classes of masks with two values, for a spec whose only class is the thing. Else nothing."""
    two = sorted(values if len(values) == 2 else set(values) - set(DEFAULT_IGNORE))
    name = "thing" if is_background(spec.classes[0]) else spec.classes[0]
    return [f"{BACKGROUND}={two[0]}", f"{name}={two[1]}"] if len(two) == 2 else []


def remap(spec: DatasetSpec, raw_ids: dict[int, int]) -> str:
    """Return the instruction that gives class k the value raw_ids[k] in the files."""
    rows = [(spec.classes[k] if k < spec.num_classes else "thing", raw) for k, raw in raw_ids.items()]
    if spec.name == FOLDERS:
        return "type `" + " ".join(f"--data.classes {shlex.quote(f'{name}={raw}')}" for name, raw in rows) + "`"
    listed = ", ".join(f"{{name: {quoted(name)}, raw: {raw}}}" for name, raw in rows)
    return f"write in the spec `classes: [{listed}]`"


def _is_soft(spec: DatasetSpec, values: Collection[int]) -> bool:
    """True if the values look like 0/255 masks to which compression or smoothing added values between."""
    near = any(255 - NEAR <= value < 255 for value in spec.unknown(values))
    return near and {0, 255} <= set(values) and spec.num_classes <= 2


def _in_order(spec: DatasetSpec, values: Collection[int]) -> dict[int, int] | None:
    """Return label values by class if there are as many as classes, and at most one (such as 0) has a class already."""
    if sum(value in values for k in range(spec.num_classes) for value in spec.raw_values(k)) > 1:
        return None
    for found in (set(values), set(values) - set(DEFAULT_IGNORE)):
        if len(found) == spec.num_classes:
            return dict(enumerate(sorted(found)))
    return None


def command(verb: str, config: DataConfig, *more: str, settings: Path | None = None) -> str:
    """Return a complete command line for a dataset. Two folders follow the command itself.

    Args:
        verb: command of segvit, such as `check-data`.
        config: the dataset.
        more: further arguments.
        settings: file of --config that the dataset came from.
    """
    given = ["--config", str(settings)] if settings else []
    folders: list[str] = []
    if verb in TAKE_FOLDERS and config.images is not None and config.labels is not None:
        folders = [str(config.images), str(config.labels)]
        config = replace(config, images=None, labels=None)
    return shlex.join(["segvit", verb, *folders, *given, *data_flags(config), *more])


def data_flags(config: DataConfig) -> list[str]:
    """Return the flags for all settings that differ from their defaults."""
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


def fix_values(config: DataConfig, values: Collection[int]) -> DataConfig | None:
    """Return settings of two folders that give every raw value a meaning, or None if we know of none.

    Args:
        config: settings under which some values are unknown, or all classes but one are ignored.
        values: all raw values that occur.
    """
    spec = resolve_spec(config)
    if spec.name != FOLDERS:
        return None
    for classes, ignore in _candidates(spec, values, config.classes):
        try:
            fixed = replace(config, classes=tuple(classes), ignore=ignore)
            result = resolve_spec(fixed)
        except UserError:
            continue
        if result.unknown(values):
            continue
        if len({result.class_of(value) for value in values} - {IGNORE_INDEX}) > 1:  # one leaves nothing to learn
            return fixed
    return None


def _candidates(
    spec: DatasetSpec, values: Collection[int], given: Sequence[str]
) -> Iterator[tuple[Sequence[str], tuple[int, ...]]]:
    """Yield classes and ignored values to try, the likeliest first."""
    unknown = spec.unknown(sorted(values))
    if spec.num_classes == 1:
        if names := split_at_commas(spec.classes[0]):
            yield names, DEFAULT_IGNORE
            yield [f"{name}={value}" for name, value in zip(names, sorted(values), strict=False)], DEFAULT_IGNORE
        yield _with_background(values, spec), DEFAULT_IGNORE
        return
    if _is_soft(spec, values):  # no setting helps
        return
    if set(values) <= {0, 255}:
        second = spec.classes[1] if spec.num_classes > 1 else "thing"
        yield (f"{spec.classes[0]}=0", f"{second}=255"), (255,)  # the default, which gives way to the class
        return
    if (
        given and all("=" in text for text in given) and len(unknown) <= MANY_VALUES
    ):  # the values are known, such as those of a table of Roboflow's
        yield [*given, *(f"value_{value}={value}" for value in unknown)], spec.ignore
        return
    if unknown == [spec.num_classes] and spec.raw_ids == tuple(range(spec.num_classes)):
        ignore = tuple(dict.fromkeys((*spec.ignore, *([0] if 0 in values else []))))
        yield [f"{name}={raw + 1}" for name, raw in zip(spec.classes, spec.raw_ids, strict=True)], ignore
    if ordered := _in_order(spec, values):
        yield [f"{spec.classes[k]}={raw}" for k, raw in ordered.items()], DEFAULT_IGNORE
    if len(unknown) <= FEW:
        kept = [name if raw == k else f"{name}={raw}" for k, (name, raw) in enumerate(_rows(spec))]
        yield kept, (*spec.ignore, *unknown)


def _rows(spec: DatasetSpec) -> Iterator[tuple[str, int]]:
    return zip(spec.classes, spec.raw_ids, strict=True)

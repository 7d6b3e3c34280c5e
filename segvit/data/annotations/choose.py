"""Choose the classes of recognised labels by `data.classes`, and make their spec.

    --data.classes background person          classes, in this order; every name of a shape must be given
    --data.classes person car van=car         shapes called van become cars
    --data.classes person car=ignore          shapes called car are ignored
    --data.classes person others=ignore       all shapes of other names are ignored

Pixels outside every shape are background if `background` is given, else ignored. Without `data.classes`, the classes
are those of the files.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from segvit.config import DataConfig
from segvit.data.annotations.format import ShapeLabels
from segvit.data.annotations.recognise import Recognised
from segvit.data.labels.background import background_of, is_background
from segvit.data.labels.format import IGNORED, OTHERS, LabelFormat
from segvit.data.pairs import Split, first
from segvit.data.palette import default_palette
from segvit.data.spec import DEFAULT_IGNORE, DatasetSpec, default_ignore
from segvit.errors import UserError
from segvit.utils.text import suggest


class Choice(NamedTuple):
    """The classes of recognised labels."""

    classes: tuple[str, ...]
    label_format: LabelFormat
    """Format that joins and ignores the other names."""
    others: str | None = None
    """Class of all names that are not given, or `ignore`. None if every name is given."""


def spec_of(
    config: DataConfig, found: Sequence[Recognised], *, name: str, given: Sequence[str], fraction: float
) -> DatasetSpec:
    """Return the spec of recognised labels.

    Args:
        config: the folders.
        found: what the training labels hold, and the validation labels if there are any.
        name: name of the spec.
        given: classes as typed. Empty takes those of the files.
        fraction: share that is held out if there are no validation labels.

    Raises:
        UserError: a class is in no file, a name in the files is not given, two tools are mixed, or `data.ignore` is
            set.
    """
    if len({type(each.label_format) for each in found}) > 1:
        names = " and ".join(each.label_format.name for each in found)
        raise UserError(f"data.labels and data.val_labels are of two tools, {names}: export both in one form")
    label_format = found[0].label_format
    if tuple(config.ignore) != DEFAULT_IGNORE:
        raise UserError(
            f"data.ignore lists values of label maps, and {label_format.name} has names; to ignore a class, "
            "write NAME=ignore in --data.classes"
        )
    classes, label_format, others = _choose(found, given)
    pairs = zip(("train", "val"), (config.images, config.val_images), found, strict=False)
    return DatasetSpec(
        name=name,
        classes=classes,
        palette=default_palette(len(classes)),
        raw_ids=tuple(range(len(classes))),
        ignore=default_ignore(range(len(classes))),
        others=others,
        label_format=label_format,
        splits={split: Split(images=str(images), labels=each.labels) for split, images, each in pairs},
        val_fraction=None if len(found) > 1 else fraction,
    )


def _choose(found: Sequence[Recognised], given: Sequence[str]) -> Choice:
    """Return the classes as typed, or those of the files if none are."""
    label_format, where = found[0].label_format, found[0].labels
    known = tuple(dict.fromkeys(name for each in found for name in each.classes))
    if not isinstance(label_format, ShapeLabels):
        return Choice(known, label_format)
    given = given or known
    if IGNORED in given:
        raise UserError(
            f"{where} has a class called {IGNORED!r}, which is the word for pixels that are left out: rename it in the "
            f"labelling tool, or type {IGNORED}=CLASS in --data.classes to join it to another class, or "
            f"{IGNORED}={IGNORED} to leave out its pixels"
        )
    typed = _name_for_nameless(label_format, known, given)
    known = tuple(typed if typed and name == label_format.nameless else name for name in known)
    classes = tuple(text for text in given if text in known or is_background(text))
    targets: dict[str, list[str]] = {name: [] for name in (IGNORED, *classes)}  # names in the files by what they become
    if typed and label_format.nameless:
        targets[typed].append(label_format.nameless)
    others = None
    for text in given:
        if text in classes:
            continue
        name, target = _read_target(text, known, classes, where)
        if name == OTHERS and OTHERS not in known:
            others = target
        else:
            targets[target].append(name)
    used = {*classes, *(name for names in targets.values() for name in names)}
    names = {name for each in found for name in each.summary.names if not is_background(name)}
    drawn = sorted(names - used)
    if drawn and others is None:
        raise UserError(
            f"{where} also has {first(drawn, 10)}: add {'it' if len(drawn) == 1 else 'them'} to --data.classes, or "
            f"type there {drawn[0]}={IGNORED} to ignore the pixels of one, or {OTHERS}={IGNORED} to ignore all others"
        )
    merge = {name: tuple(names) for name, names in targets.items() if names and name != IGNORED}
    like_others = not all(each.summary.background for each in found) and background_of(known) is not None
    outside = IGNORED if like_others else background_of(classes) or IGNORED
    chosen = replace(label_format, unlabeled=outside, ignore=tuple(targets[IGNORED]), merge=merge)
    return Choice(classes, chosen, others)


def _name_for_nameless(label_format: ShapeLabels, known: Sequence[str], given: Sequence[str]) -> str | None:
    """Return the typed name of the only class, if the files have no names."""
    typed = [text for text in given if text not in known and not is_background(text) and "=" not in text]
    unnamed = label_format.nameless in known and label_format.nameless not in given
    return typed[0] if unnamed and len(typed) == 1 else None


def _read_target(text: str, known: Sequence[str], classes: Sequence[str], where: str) -> tuple[str, str]:
    """Return a name in the files, or the word `others`, and the class or the word `ignore` that it becomes."""
    name, equals, target = text.rpartition("=")
    if not equals:
        raise UserError(
            f"data.classes: {text!r} is no class in {where}{suggest(text, known)}; it has {first(known, 20)}. A "
            "class that no shape has yet can be listed in classes.txt beside the labels"
        )
    if name not in known and name != OTHERS:
        raise UserError(f"data.classes: {text!r}: {name!r} is no class in {where}{suggest(name, known)}")
    if target != IGNORED and target not in classes:
        raise UserError(
            f"data.classes: {text!r}: write {name}={IGNORED}, or {name}=CLASS with another class that you list; "
            f"{where} has names, and no values"
        )
    return name, target

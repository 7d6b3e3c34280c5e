"""Choose the classes of recognised labels by `data.classes`, and make their spec.

    --data.classes background person          classes, in this order; every name in the files must be given
    --data.classes person car van=car         shapes called van become cars
    --data.classes person car=ignore          shapes called car are ignored

Pixels outside every shape are background if `background` is given, else ignored. Without `data.classes`, the classes
are those of the files.
"""

from collections.abc import Sequence
from dataclasses import replace

from segvit.config import DataConfig
from segvit.data.annotations.format import BACKGROUNDS, ShapeLabels
from segvit.data.annotations.recognise import Recognised
from segvit.data.labels.format import IGNORED, LabelFormat
from segvit.data.pairs import Split, first
from segvit.data.palette import default_palette
from segvit.data.spec import DEFAULT_IGNORE, DatasetSpec, default_ignore
from segvit.errors import UserError
from segvit.utils.text import suggest


def spec_of(config: DataConfig, found: Sequence[Recognised], *, given: Sequence[str], fraction: float) -> DatasetSpec:
    """Return the spec of recognised labels.

    Args:
        config: the folders.
        found: what the training labels hold, and the validation labels if there are any.
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
    known = tuple(dict.fromkeys(name for each in found for name in each.classes))
    classes = known
    if isinstance(label_format, ShapeLabels):
        background = all(each.summary.background for each in found)
        label_format, known = _named(label_format, known, given)
        classes, label_format = _choose(label_format, known, given or known, background, found[0].labels)
    pairs = zip(("train", "val"), (config.images, config.val_images), found, strict=False)
    return DatasetSpec(
        name=label_format.name,
        classes=classes,
        palette=default_palette(len(classes)),
        raw_ids=tuple(range(len(classes))),
        ignore=default_ignore(range(len(classes))),
        label_format=label_format,
        splits={name: Split(images=str(images), labels=each.labels) for name, images, each in pairs},
        val_fraction=None if len(found) > 1 else fraction,
    )


def _named(
    label_format: ShapeLabels, known: tuple[str, ...], given: Sequence[str]
) -> tuple[ShapeLabels, tuple[str, ...]]:
    """Return the format and its class names with the typed name of the only class, if the files have no names."""
    old = label_format.nameless
    typed = [text for text in given if text not in (*known, *BACKGROUNDS) and "=" not in text]
    if old not in known or old in given or len(typed) != 1:
        return label_format, known
    names = tuple(typed[0] if name == old else name for name in known)
    return replace(label_format, merge={typed[0]: (str(old),)}), names


def _choose(
    label_format: ShapeLabels, known: Sequence[str], given: Sequence[str], background: bool, where: str
) -> tuple[tuple[str, ...], LabelFormat]:
    """Return the classes, and the format that merges and ignores the others.

    Args:
        label_format: format of the files.
        known: class names in the files.
        given: classes as typed.
        background: True if the tool means background by pixels outside every shape.
        where: the files, in error texts.
    """
    classes = tuple(text for text in given if text in known or text in BACKGROUNDS)
    ignore: list[str] = []
    merge: dict[str, tuple[str, ...]] = dict(label_format.merge)
    for text in given:
        if text in classes:
            continue
        name, equals, target = text.rpartition("=")
        if not equals:
            raise UserError(
                f"data.classes: {text!r} is no class in {where}{suggest(text, known)}; it has {first(known, 20)}. A "
                "class that no shape has yet can be listed in classes.txt beside the labels"
            )
        if name not in known:
            raise UserError(f"data.classes: {text!r}: {name!r} is no class in {where}{suggest(name, known)}")
        if target == IGNORED:
            ignore.append(name)
        elif target in classes:
            merge[target] = (*merge.get(target, ()), name)
        else:
            raise UserError(
                f"data.classes: {text!r}: write {name}={IGNORED}, or {name}=CLASS with another class that you list; "
                f"{where} has names, and no values"
            )
    used = {*classes, *ignore, *(name for names in merge.values() for name in names), *BACKGROUNDS}
    if rest := [name for name in known if name not in used]:
        raise UserError(
            f"{where} also has {first(rest, 10)}: add {'it' if len(rest) == 1 else 'them'} to --data.classes, or type "
            f"{' '.join(f'{name}={IGNORED}' for name in rest[:10])} there to ignore the pixels"
        )
    drawn = any(name in known for name in BACKGROUNDS) and not background  # a class like any other
    outside = next((name for name in classes if name in BACKGROUNDS and not drawn), IGNORED)
    return classes, replace(label_format, unlabeled=outside, ignore=tuple(ignore), merge=merge)

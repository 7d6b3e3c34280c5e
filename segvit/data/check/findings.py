"""Turn the sums of a check into findings: errors, which stop training, and warnings, which may be intended."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from segvit.data.annotations.format import ShapeLabels
from segvit.data.check.depths import judge_depths, judge_white
from segvit.data.check.finding import Finding
from segvit.data.check.fixes import explain_one_class, explain_values, remap
from segvit.data.check.name_files import find_names
from segvit.data.check.scan import Tally
from segvit.data.labels.format import FOLDERS
from segvit.data.pairs import first
from segvit.data.palette import Color
from segvit.data.spec import IGNORE_INDEX, DatasetSpec
from segvit.data.yaml_values import quoted
from segvit.utils.text import counted, counted_are, percentage

SHOWN = 5
"""Number of findings of one kind that a report spells out. The others are counted."""
MOSTLY_IGNORED = 0.5
"""Share of ignored pixels above which the report warns."""
MANY_COLORS = 255
"""Number of colours above which painted label maps are taken for photos."""


def judge(tally: Tally, *, checked: int, extends: bool = False) -> Iterator[Finding]:
    """Yield the findings, errors first.

    Args:
        tally: sums over the samples.
        checked: number of samples.
        extends: the classes are added to those of a model, so one is enough, and most pixels show none.
    """
    yield from _files(tally)
    yield from _values(tally, enough=1 if extends else 2)
    yield from _classes(tally, checked)
    yield from _label_maps(tally, extends=extends)
    yield from judge_white(tally.unscaled)
    yield from judge_depths(tally.depths)


def _files(tally: Tally) -> Iterator[Finding]:
    """Report files that cannot be read or do not match."""
    for texts, what, kind in (
        (tally.unreadable, "unreadable files", "unreadable"),
        (tally.mismatches, "pairs of unequal size", "size-mismatch"),
    ):
        for text in texts[:SHOWN]:
            yield Finding(kind=kind, level="error", text=text)
        if len(texts) > SHOWN:
            rest = len(texts) - SHOWN
            yield Finding(kind=kind, level="error", text=f"and {rest} more {what}", count=rest)
    if tally.painted:
        yield Finding(kind="painted", level="error", text=_explain_painted(tally), count=len(tally.painted))


def _values(tally: Tally, *, enough: int) -> Iterator[Finding]:
    """Report values without a class, and values that leave nothing to learn: fewer than `enough` classes."""
    spec = tally.spec
    if spec.num_classes < enough and tally.pixels:
        text = explain_one_class(sorted(tally.pixels), spec)
        yield Finding(kind="one-class", level="error", text=text)
    elif tally.unknown:
        text = explain_values(sorted(tally.pixels), spec, what="all files together hold")
        count = tally.strange.count
        yield Finding(
            kind="unknown-values",
            level="error",
            text=f"{first(tally.strange.names)} ({count} in all): {text}",
            count=count,
        )
    if tally.pixels and not tally.images and not tally.unknown and spec.num_classes >= enough:
        values = first(sorted(tally.pixels), 10)
        text = f"every pixel is ignored (values {values}): correct `ignore`"
        yield Finding(kind="all-ignored", level="error", text=text)
    elif set(tally.pixels) == {0, 255} and 255 in spec.ignore and not isinstance(spec.label_format, ShapeLabels):
        text = (
            f"the label maps hold only 0 and 255, and 255 is ignored, so the model would learn only "
            f"{spec.classes[0]!r}; for 0/255 masks {remap(spec, {0: 0, 1: 255})}"
        )
        yield Finding(kind="mask-0-255", level="error", text=text)


def _classes(tally: Tally, checked: int) -> Iterator[Finding]:
    """Report classes that never occur, and a likely cause."""
    spec = tally.spec
    absent = [k for k in range(spec.num_classes) if not tally.images[k]]
    if absent:
        names = first([f"{spec.raw_ids[k]} {spec.classes[k]}" for k in absent], 10)
        text = f"{len(absent)} of {spec.num_classes} classes are in none of the {checked} label maps: {names}"
        yield Finding(kind="absent-classes", level="warning", text=text, count=len(absent))
    last = spec.num_classes
    counted_from_one = not spec.merged and spec.raw_ids == tuple(range(1, last + 1))
    if counted_from_one and 0 in spec.ignore and last > 2 and set(range(last)) == set(tally.pixels) - {255}:
        shifted = remap(spec, {k: k for k in range(last)})
        text = (
            f"the label maps hold 0..{last - 1} but never {last} ({spec.classes[-1]}), while the classes start at 1 "
            f"and 0 is ignored: the labels may be one too small; if 0 means {spec.classes[0]!r}, {shifted}"
        )
        yield Finding(kind="off-by-one", level="warning", text=text)


def _label_maps(tally: Tally, *, extends: bool) -> Iterator[Finding]:
    """Report label maps with one class or none or with guesses, and photos that are animations or may be turned."""
    if tally.uniform and not extends:
        wholly = f" (in {tally.empty.count} of them every pixel is ignored)" if tally.empty.count else ""
        maps = "1 label map shows" if len(tally.uniform) == 1 else f"{len(tally.uniform)} label maps show"
        text = f"{maps} one class or none{wholly}: {first(tally.uniform)}"
        yield Finding(kind="uniform", level="warning", text=text, count=len(tally.uniform))
    if tally.animations.count:
        text = (
            f"{counted_are(tally.animations.count, 'image')} read by the first frame of an animation alone: "
            f"{first(tally.animations.names)}; check that their label maps belong to that frame"
        )
        yield Finding(kind="animations", level="warning", text=text, count=tally.animations.count)
    if tally.guesses:
        yield Finding(kind="guessed", level="warning", text=_explain_guesses(tally), count=len(tally.guesses))
    share = ignored_share(tally)
    if share > MOSTLY_IGNORED and not extends:
        text = f"{percentage(share, '.0f')} of the pixels are ignored (values {first(tally.spec.ignore, 10)})"
        yield Finding(kind="mostly-ignored", level="warning", text=text)
    if tally.turned.count:
        text = (
            f"{'1 photo has' if tally.turned.count == 1 else f'{tally.turned.count} photos have'} an EXIF orientation "
            "and their label maps have none; the sizes match either way, so check that they are upright (--sheet FILE "
            f"shows them first): {first(tally.turned.names)}"
        )
        yield Finding(kind="exif", level="warning", text=text, count=tally.turned.count)


def _explain_guesses(tally: Tally) -> str:
    """Return the text for pixels that count as the nearest known colour. Their commonest colour may be a class."""
    total = sum(guess.pixels for guess in tally.guesses.values())
    where, worst = max(tally.guesses.items(), key=lambda item: item[1].of_color)
    share = percentage(total / max(tally.pixels.total(), 1), ".2f")
    return (
        f"{counted(total, 'pixel')} ({share}) in {counted(len(tally.guesses), 'label map')} without a known colour, "
        f"counted as the nearest; the commonest is {list(worst.color)}, in {counted(worst.of_color, 'pixel')} of "
        f"{where}, which becomes "
        f"{worst.becomes!r}: if that is a class of its own, add it to the spec"
    )


def ignored_share(tally: Tally) -> float:
    """Return the share of ignored pixels, 0..1."""
    spec = tally.spec
    ignored = sum(
        count
        for value, count in tally.pixels.items()
        if value not in tally.unknown and spec.class_of(value) == IGNORE_INDEX
    )
    return ignored / max(tally.pixels.total(), 1)


def _explain_painted(tally: Tally) -> str:
    """Return the text for label maps with colours in them, and a spec that reads them."""
    found = f"{tally.painted[0]}; {counted(len(tally.painted), 'label map')} with colour channels"
    grey = all(color[0] == color[1] == color[2] for color in tally.colors)
    if grey or len(tally.colors) > MANY_COLORS:
        return found
    return found + (
        f", with {len(tally.colors)} colours; save this spec as painted.yaml, correct the class names, and "
        f"give `--data.spec painted.yaml --data.root .`:\n{painted_spec(tally.colors, tally.spec)}"
    )


def painted_spec(colors: Counter[Color], spec: DatasetSpec) -> str:
    """Return a spec in YAML that reads painted label maps: one class per colour, the commonest first.

    A colour has the name that the spec, or a file of names beside the masks, gives it. Others are numbered.
    """
    known = _colors_of(spec)
    lines = ["name: painted", "labels: {format: color}", "classes:"]
    for number, (color, pixels) in enumerate(colors.most_common(), start=1):
        name = known.get(color, f"class_{number}")
        lines.append(f"  - {{name: {quoted(name)}, color: {list(color)}}}  # {pixels} pixels")
    lines.append("splits:")
    for split, where in spec.splits.items():
        lines.append(f"  {split}: {{images: {quoted(where.images)}, labels: {quoted(where.labels)}}}")
    if spec.val_fraction is not None:
        lines.append(f"val_fraction: {spec.val_fraction}")
    return "\n".join(lines)


def _colors_of(spec: DatasetSpec) -> dict[Color, str]:
    """Return class names by colour. Two plain folders have none of their own, but a file beside the masks may."""
    if spec.name != FOLDERS:
        return dict(zip(spec.palette, spec.classes, strict=True))
    file = find_names(Path(spec.splits["train"].labels))
    return dict(zip(file.colors, file.names, strict=True)) if file and file.colors else {}

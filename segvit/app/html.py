"""Build the HTML of the page: heading, results, batches, notices. All text is escaped (segvit/reports/html.py)."""

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from segvit.app.limits import Limits
from segvit.app.messages import About, Labelled, Seen
from segvit.app.photo import formats_told
from segvit.app.service import Batch, Result, Row
from segvit.app.serving.routes import RESULTS
from segvit.data.palette import Color
from segvit.reports.html import join, tag
from segvit.utils.text import percentage

NO_BREAK = "\u00a0"
"""A space at which a line does not end."""
LARGEST = 4
"""Number of classes named in a row of a batch."""
LONG = 10_000
"""Milliseconds from which a time is shown in seconds."""


def heading(models: Sequence[About]) -> Markup:
    """Return the heading: name, dataset, score and licence of the models."""
    names = [about.name for about in models]
    title = tag("h1", names[0] if len(models) == 1 else " · ".join(names))
    return tag("div", title, *(_facts(about, named=len(models) > 1) for about in models), class_="heading")


def _facts(about: About, *, named: bool) -> Markup:
    """Return one line on a model, and one on its licence if that is known."""
    classes = f"{len(about.classes)} classes" + (f" of {about.dataset}" if about.dataset else "")
    facts = [classes]
    if about.miou is not None:
        on = f" on {about.images} validation images" if about.images else ""
        facts.append(f"mIoU {percentage(about.miou)}{on}")
    facts += [f"{about.backbone}, {about.structure}", about.place]
    line = [tag("strong", about.name) if named else None, *(tag("span", fact) for fact in facts)]
    licence = tag("p", f"Licence of the weights: {about.licence}", class_="licence") if about.licence else None
    return join(tag("p", *line, class_="facts"), licence)


def limits_told(limits: Limits) -> Markup:
    """Return the note on which photos are accepted and how long they are kept."""
    return tag(
        "p",
        f"{formats_told()}, {limits.told}. Photos and results are deleted {limits.keep_minutes:g} minutes after their "
        "last use.",
        class_="limits",
    )


def empty(text: str = "The label map appears here.") -> Markup:
    """Return the placeholder of a result."""
    return tag("div", tag("p", text), class_="empty")


def notice(text: str) -> Markup:
    """Return the message shown instead of a result."""
    return tag("div", tag("p", text), class_="notice", role="alert")


def result_panels(result: Result) -> Markup:
    """Return the results of the models, side by side."""
    labelled = result.labelled
    several = len(labelled.seen) > 1
    panels = [_panel(seen, labelled, result) for seen in labelled.seen]
    notes = [tag("p", note, class_="note") for note in labelled.notes]
    return join(*notes, tag("div", *panels, class_="panels several" if several else "panels"))


def _panel(seen: Seen, labelled: Labelled, result: Result) -> Markup:
    """Return the result of one model: viewer, which has the title, time, downloads."""
    time = f"{seen.milliseconds:.0f} ms" if seen.milliseconds < LONG else f"{seen.milliseconds / 1000:.0f} s"
    told = f"{labelled.width} × {labelled.height} px in {time}"
    if seen.agreement is not None:
        told += f", {percentage(seen.agreement)} of the pixels as {labelled.seen[0].model}"
    frame = None
    if seen.viewer is not None:
        frame = tag(
            "iframe",
            src=_address(seen.viewer, result),
            title=f"Label map of {labelled.name} by {seen.model}",
            sandbox="allow-scripts allow-downloads",
        )
    files = (("Overlay with legend", seen.overlay), ("Polygons, JSON", seen.polygons))
    links = [tag("a", text, href=_address(file, result), download=file.name) for text, file in files if file]
    style = f"--ratio:{labelled.width / labelled.height:.4f}"
    footer = tag("footer", tag("span", told), *links)
    return tag("section", frame, footer, class_="panel", style=style)


def batch_table(batch: Batch, about: About) -> Markup:
    """Return the state of a batch: progress, the classes in each finished photo, and the archive at the end."""
    failed = sum(row.result is None for row in batch.rows)
    done = len(batch.rows)
    if done < batch.total:
        status = tag("p", f"{done} of {batch.total} photos", class_="status", role="status")
    else:
        words = f"{done - failed} of {done} photos labelled"
        status = tag("p", words + (f", {failed} failed: see below" if failed else ""), class_="status", role="status")
    bar = tag("progress", max=batch.total, value=done) if done < batch.total else None
    link = None
    if batch.archive is not None:
        place = f"{RESULTS.lstrip('/')}{batch.archive.parent.name}/{batch.archive.name}"
        link = tag("a", "Download all as ZIP", href=place, download=batch.archive.name, class_="zip")
    colors = dict(zip(about.classes, about.palette, strict=True))
    rows = [_row(row, colors) for row in batch.rows]
    return tag("div", tag("div", status, link, class_="head"), bar, tag("ul", *rows), class_="batch")


def _row(row: Row, colors: dict[str, Color]) -> Markup:
    """Return the row of a photo: a thumbnail that opens the viewer, the share of each class, the largest by name."""
    if row.result is None:
        return tag(
            "li", tag("b", row.name), tag("span", (row.error or "").removeprefix(f"{row.name}: "), class_="error")
        )
    (seen,) = row.result.labelled.seen
    shares = seen.shares
    strip = [
        tag("i", style=f"flex:{share:.4f};background:rgb{colors[name]}", title=f"{name} {percentage(share)}")
        for name, share in shares.items()
    ]
    largest = list(shares.items())[:LARGEST]
    names = [f"{name}{NO_BREAK}{percentage(share).replace(' ', NO_BREAK)}" for name, share in largest]
    swatches = [tag("i", style=f"background:rgb{colors[name]}") for name, _ in largest]
    named = [tag("span", swatch, name) for swatch, name in zip(swatches, names, strict=True)]
    rest = tag("span", f"and {len(shares) - LARGEST} more") if len(shares) > LARGEST else None
    notes = [tag("small", note) for note in row.result.labelled.notes]
    return tag(
        "li",
        _opener(row.name, seen, row.result),
        tag("span", *strip, class_="strip", role="img", aria_label=", ".join(names)),
        tag("span", *named, rest, *notes, class_="shares"),
    )


def _opener(name: str, seen: Seen, result: Result) -> Markup:
    """Return the thumbnail and the name of a photo, which open its viewer."""
    assert seen.viewer is not None and seen.thumbnail is not None
    picture = tag("img", src=_address(seen.thumbnail, result), alt="", loading="lazy")
    return tag(
        "a",
        picture,
        tag("b", name),
        href=_address(seen.viewer, result),
        target="_blank",
        title=f"Open the label map of {name}",
        class_="open",
    )


def _address(file: Path, result: Result) -> str:
    """Return the address of a file of a result, relative to the page."""
    return f"{RESULTS.lstrip('/')}{result.folder.name}/{file.relative_to(result.folder).as_posix()}"

"""Build the HTML of the page: heading, results, batches, notices. All text is escaped (segvit/reports/html.py)."""

from collections.abc import Sequence

from markupsafe import Markup

from segvit.app.limits import Limits
from segvit.app.messages import About, Labelled, Seen
from segvit.app.request_filter import RESULTS
from segvit.app.service import Batch, Result, Row
from segvit.data.palette import Color
from segvit.reports.html import join, tag
from segvit.utils.text import percentage

LARGEST = 4
"""Number of classes named in a row of a batch."""


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
        f"JPEG, PNG, WebP, TIFF, GIF, BMP or AVIF, {limits.told}. Photos stay on this server for "
        f"{limits.keep_minutes:g} minutes at most.",
        class_="limits",
    )


def empty() -> Markup:
    """Return the placeholder of the result."""
    return tag("div", tag("p", "The label map appears here."), class_="empty")


def notice(text: str) -> Markup:
    """Return the message shown instead of a result."""
    return tag("div", tag("p", text), class_="notice", role="alert")


def result_panels(result: Result) -> Markup:
    """Return the results of the models, side by side."""
    labelled = result.labelled
    several = len(labelled.seen) > 1
    panels = [_panel(seen, labelled, result, named=several) for seen in labelled.seen]
    notes = [tag("p", note, class_="note") for note in labelled.notes]
    return join(*notes, tag("div", *panels, class_="panels several" if several else "panels"))


def _panel(seen: Seen, labelled: Labelled, result: Result, *, named: bool) -> Markup:
    """Return the result of one model: viewer, time, downloads."""
    told = f"{labelled.width} × {labelled.height} px in {seen.milliseconds:.0f} ms"
    head = None
    if named:
        same = seen.agreement
        words = None if same is None else f"{percentage(same)} of the pixels as {labelled.seen[0].model}"
        head = tag("header", tag("h3", seen.model), tag("span", words) if words else None)
    place = f"{RESULTS.lstrip('/')}{result.folder.name}/"
    frame = None
    if seen.viewer is not None:
        frame = tag(
            "iframe",
            src=place + seen.viewer.relative_to(result.folder).as_posix(),
            title=f"Label map of {labelled.name} by {seen.model}",
            sandbox="allow-scripts allow-downloads",
        )
    files = (("Overlay with legend", seen.overlay), ("Polygons, JSON", seen.polygons))
    links = [
        tag("a", text, href=place + file.relative_to(result.folder).as_posix(), download=file.name)
        for text, file in files
    ]
    # Height of the viewer if it is too narrow to fill the frame: the picture, and the legend with a row for "more".
    style = f"--ratio:{labelled.width / labelled.height:.4f};--rows:{len(seen.shares) + 1}"
    footer = tag("footer", tag("span", told), *links)
    return tag("section", head, frame, footer, class_="panel", style=style)


def batch_table(batch: Batch, about: About) -> Markup:
    """Return the state of a batch: progress, the classes in each finished photo, and the archive at the end."""
    failed = sum(row.labelled is None for row in batch.rows)
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
    """Return the row of a photo: a strip with the share of each class in its colour, and the names of the largest."""
    if row.labelled is None:
        return tag(
            "li", tag("b", row.name), tag("span", (row.error or "").removeprefix(f"{row.name}: "), class_="error")
        )
    shares = row.labelled.seen[0].shares
    strip = [
        tag("i", style=f"flex:{share:.4f};background:rgb{colors[name]}", title=f"{name} {percentage(share)}")
        for name, share in shares.items()
    ]
    names = [f"{name} {percentage(share)}" for name, share in list(shares.items())[:LARGEST]]
    rest = f" and {len(shares) - LARGEST} more" if len(shares) > LARGEST else ""
    return tag(
        "li",
        tag("b", row.name),
        tag("span", *strip, class_="strip", role="img", aria_label=", ".join(names)),
        tag("span", ", ".join(names) + rest, class_="shares"),
    )


ORIGIN = "http://SERVER"
"""Placeholder for the address of this page in the examples; the browser replaces it."""
PYTHON = """\
# pip install gradio_client
from gradio_client import Client, handle_file

client = Client("{origin}")
labels, facts, polygons = client.predict(handle_file("photo.jpg"), "{model}", api_name="/predict")
print(facts["shares"])"""
CURL = """\
path=$(curl -s -F files=@photo.jpg {origin}/gradio_api/upload | jq -r '.[0]')
file="{{\\"path\\": \\"$path\\", \\"meta\\": {{\\"_type\\": \\"gradio.FileData\\"}}}}"
event=$(curl -s {origin}/gradio_api/call/predict -H 'Content-Type: application/json' \\
  -d "{{\\"data\\": [$file, \\"{model}\\"]}}" | jq -r .event_id)
curl -sN {origin}/gradio_api/call/predict/$event"""
ADDRESSES = (
    ("/predict", "a photo and the name of a model", "label map (PNG), facts (JSON), polygons (JSON)"),
    ("/models", "nothing", "the models with classes and colours, in the order of class numbers; the limits"),
)
ANSWERS = (
    ("label map", "The class number of every pixel, in the same bytes as the file that segvit predict writes."),
    ("facts", "width, height, milliseconds, the share of each class present, notes."),
    ("polygons", "The outlines of all regions in COCO format; filled again, they give the label map exactly."),
)


def programs(model: str) -> Markup:
    """Return the description of the API, with examples."""
    known = {"origin": ORIGIN, "model": model}
    rows = [tag("tr", tag("td", tag("code", name)), tag("td", given), tag("td", got)) for name, given, got in ADDRESSES]
    head = tag("tr", *(tag("th", text, scope="col") for text in ("address", "takes", "gives")))
    return tag(
        "div",
        tag("p", "Programs can request everything that this page shows."),
        tag("div", tag("table", tag("thead", head), tag("tbody", *rows)), class_="scroll"),
        tag("dl", *(tag("div", tag("dt", name), tag("dd", text)) for name, text in ANSWERS)),
        tag("h2", "In Python"),
        tag("pre", PYTHON.format(**known)),
        tag("h2", "With curl and jq"),
        tag("pre", CURL.format(**known)),
        tag(
            "p",
            "If a photo is refused, the answer gives the reason. ",
            tag("a", "openapi.json", href="gradio_api/openapi.json"),
            " describes the addresses for other tools.",
        ),
        class_="programs",
    )

"""Sections of a run's page as HTML: key numbers, curves, scores of classes and images.

tiles(config, records)
validation_section(facts.validation)
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from segvit.config import TrainConfig
from segvit.data.palette import Color
from segvit.evaluation.examples import COLUMNS
from segvit.reports.charts import Points, confusion_chart, line_chart
from segvit.reports.facts import Validation
from segvit.reports.html import Markup, join, table, tag
from segvit.reports.records import loss_terms
from segvit.reports.viewer import fragment
from segvit.utils.text import percentage

NUM_CONFUSIONS = 10
"""Maximum number of confused pairs of classes in the table."""


def tiles(config: TrainConfig, records: Sequence[Mapping[str, Any]]) -> Markup:
    """Return the key numbers: scores, steps and loss."""
    scored = [record for record in records if "miou" in record]
    trained = [record for record in records if "loss" in record]
    done = trained[-1]["step"] if trained else 0
    tiles = [("steps", f"{done:,} of {config.steps:,}", "done" if done >= config.steps else "so far")]
    if scored:
        best = max(scored, key=lambda record: record["miou"])
        tiles.insert(0, ("best mIoU", percentage(best["miou"], ".2f"), f"step {best['step']:,}"))
        tiles.insert(1, ("last mIoU", percentage(scored[-1]["miou"], ".2f"), f"step {scored[-1]['step']:,}"))
    if trained:
        last = [record["loss"] for record in trained[-100:]]
        tiles.append(("loss", f"{np.mean(last):.3f}", f"mean of the last {len(last)} steps"))
    return join(*(_tile(*tile) for tile in tiles))


def _tile(name: str, value: str, note: str) -> Markup:
    return tag("div", tag("span", name), tag("strong", value), tag("span", note, class_="quiet"), class_="tile")


def curves(records: Sequence[Mapping[str, Any]], last_step: int) -> Markup:
    """Draw the loss, its terms, scores, learning rate and gradient norm over the steps."""
    steps = [(record["step"], loss_terms(record)) for record in records]
    names = dict.fromkeys(name for _, terms in steps for name in terms)
    terms = {name: [(step, terms[name]) for step, terms in steps if name in terms] for name in names}
    keys = ("loss", "lr", "gradient_norm", "miou", "overall_accuracy")
    of = {key: _points(records, lambda record, key=key: record.get(key)) for key in keys}
    scores = {"mIoU": of["miou"], "pixel accuracy": of["overall_accuracy"]}
    charts = {
        "Loss": line_chart({"loss": of["loss"]}, last_step=last_step),
        "Loss terms, each summed over the outputs": line_chart(terms, last_step=last_step),
        "Validation": line_chart(scores, last_step=last_step, top=1, percent=True, dots=True),
        "Learning rate of the backbone": line_chart({"lr": of["lr"]}, last_step=last_step),
        "Gradient norm before clipping": line_chart({"norm": of["gradient_norm"]}, last_step=last_step),
    }
    return join(*(tag("figure", tag("figcaption", name), chart) for name, chart in charts.items()))


def _points(records: Sequence[Mapping[str, Any]], value_of: Any) -> Points:
    found = ((record["step"], value_of(record)) for record in records)
    return [(step, value) for step, value in found if value is not None]


def validation_section(validation: Validation) -> Markup:
    """Return the table of classes, the confusion matrix, and the best and worst images."""
    counts = np.array(validation.confusion)
    classes = validation.scores["classes"]
    protocol = ", ".join(f"{key} {value}" for key, value in validation.protocol.items())
    return join(
        tag("p", f"{validation.name}: {validation.scores['images']:,} images, {protocol}.", class_="quiet"),
        tag("h3", "Classes"),
        _class_table(validation),
        tag("h3", "Confusion matrix: true classes (rows), predicted classes (columns), % of each true class"),
        tag("div", confusion_chart(counts, classes), _confusions(counts, classes), class_="confusion"),
        tag("h3", "Worst images"),
        _images(validation.worst, validation, first_open=True),
        tag("h3", "Best images"),
        _images(validation.best, validation),
    )


def _class_table(validation: Validation) -> Markup:
    """Return the scores of all classes, with their means in the last row. The page's script sorts the table."""
    scores = validation.scores
    columns = ("IoU", "accuracy", "Dice", "boundary IoU", "share")
    values = [scores[key] for key in ("iou", "accuracy", "dice", "boundary_iou", "labelled")]
    head = [tag("button", name, type="button") for name in ("class", *columns)]
    body = []
    for name, color, row in zip(scores["classes"], validation.palette, zip(*values, strict=True), strict=True):
        chip = tag("i", class_="chip", style=f"background:rgb({','.join(map(str, map(int, color)))})")
        cells = [tag("td", _percent(value), data_value="" if value is None else value) for value in row]
        body.append(tag("tr", tag("th", chip, name, scope="row", data_value=name), *cells))
    means = [scores[key] for key in ("miou", "mean_accuracy", "mean_dice", "mean_boundary_iou")]
    foot = tag("tr", tag("th", "mean", scope="row"), *(tag("td", _percent(value)) for value in means), tag("td"))
    parts = (
        tag("thead", tag("tr", *(tag("th", cell, scope="col") for cell in head))),
        tag("tbody", *body),
        tag("tfoot", foot),
    )
    return tag("div", tag("table", *parts, class_="sortable"), class_="scroll tall")


def _confusions(counts: Any, classes: Sequence[str]) -> Markup | None:
    """Return the most frequent confusions; None if no pixel is wrong."""
    wrong = counts * (1 - np.eye(len(counts), dtype=counts.dtype))
    rows: list[list[object]] = []
    for place in np.argsort(-wrong, axis=None, kind="stable")[:NUM_CONFUSIONS]:
        row, column = divmod(int(place), len(counts))
        if wrong[row, column] > 0:
            shares = (wrong[row, column] / counts[row].sum(), wrong[row, column] / counts.sum())
            rows.append([f"{classes[row]} predicted as {classes[column]}", *map(_percent, shares)])
    if not rows:
        return None
    return table(["most frequent errors", "% of the class", "% of all pixels"], rows)


def _images(images: Sequence[Mapping[str, Any]], validation: Validation, *, first_open: bool = False) -> Markup:
    """Show each image as photo, labels, prediction and errors; it opens as a viewer if its maps were stored."""
    if not images:
        return tag("p", "None.", class_="quiet")
    shown = []
    for place, image in enumerate(images):
        pictures = [
            tag("figure", tag("img", src=uri, alt=f"{kind} of {image['name']}"), tag("figcaption", kind))
            for kind, uri in zip(COLUMNS, image["pictures"], strict=True)
        ]
        scores = f"mIoU {_percent(image['miou'])} %, pixel accuracy {_percent(image['accuracy'])} %"
        title = (tag("strong", image["name"], dir="auto"), " ", tag("span", scores, class_="quiet"))
        row = tag("div", *pictures, class_="row")
        if "maps" in image:
            look = tag("summary", tag("span", *title), row)
            opened = "" if first_open and place == 0 else None
            shown.append(tag("details", look, _viewer(image, validation), open=opened, class_="image"))
        else:
            shown.append(tag("div", tag("p", *title), row, class_="image"))
    return join(*shown)


def _viewer(image: Mapping[str, Any], validation: Validation) -> Markup:
    """Return the viewer of an image: prediction, labels and errors."""
    maps = image["maps"]
    palette: list[Color] = [(red, green, blue) for red, green, blue in validation.palette]
    return fragment(
        maps["photo"],
        base64.b64decode(maps["prediction"]),
        validation.scores["classes"],
        palette,
        ratio=maps["ratio"],
        title=image["name"],
        truth_png=base64.b64decode(maps["labels"]),
    )


def pairs(values: Mapping[str, str]) -> Markup:
    """Return a table of names and values."""
    return table([], [[key, value] for key, value in values.items()], class_="facts")


def _percent(value: float | None) -> str:
    """Format a share in 0..1 as a percentage; None becomes a dash."""
    return "–" if value is None else f"{100 * value:.2f}"

"""Contents of a run's page for its template: key numbers, curves, scores of classes and images.

tiles(config, records)
validation_values(facts.validation)
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from segvit.config import TrainConfig
from segvit.data.palette import Color
from segvit.evaluation.examples import COLUMNS
from segvit.reports.charts import Points, confusion_chart, line_chart
from segvit.reports.facts import Validation
from segvit.reports.records import loss_terms
from segvit.reports.viewer import fragment
from segvit.utils.text import percentage

NUM_CONFUSIONS = 10
"""Maximum number of confused pairs of classes in the table."""


def tiles(config: TrainConfig, records: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """Return the key numbers, scores, steps and loss, as triples of name, value and note."""
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
    return tiles


def curves(records: Sequence[Mapping[str, Any]], last_step: int) -> dict[str, Markup]:
    """Draw the loss, its terms, scores, learning rate and gradient norm over the steps: chart by title."""
    steps = [(record["step"], loss_terms(record)) for record in records]
    names = dict.fromkeys(name for _, terms in steps for name in terms)
    terms = {name: [(step, terms[name]) for step, terms in steps if name in terms] for name in names}
    keys = ("loss", "lr", "gradient_norm", "miou", "overall_accuracy")
    of = {key: _points(records, lambda record, key=key: record.get(key)) for key in keys}
    scores = {"mIoU": of["miou"], "pixel accuracy": of["overall_accuracy"]}
    return {
        "Loss": line_chart({"loss": of["loss"]}, last_step=last_step),
        "Loss terms, each summed over the outputs": line_chart(terms, last_step=last_step),
        "Validation": line_chart(scores, last_step=last_step, top=1, percent=True, dots=True),
        "Learning rate of the backbone": line_chart({"lr": of["lr"]}, last_step=last_step),
        "Gradient norm before clipping": line_chart({"norm": of["gradient_norm"]}, last_step=last_step),
    }


def _points(records: Sequence[Mapping[str, Any]], value_of: Any) -> Points:
    found = ((record["step"], value_of(record)) for record in records)
    return [(step, value) for step, value in found if value is not None]


def validation_values(validation: Validation) -> dict[str, Any]:
    """Return the table of classes, the confusion matrix, and the best and worst images."""
    scores, counts = validation.scores, np.array(validation.confusion)
    protocol = ", ".join(f"{key} {value}" for key, value in validation.protocol.items())
    columns = {
        "IoU": "iou",
        "accuracy": "accuracy",
        "Dice": "dice",
        "boundary IoU": "boundary_iou",
        "share": "labelled",
    }
    values = zip(*(scores[key] for key in columns.values()), strict=True)
    colors = [",".join(map(str, color)) for color in validation.palette]
    return {
        "summary": f"{validation.name}: {scores['images']:,} images, {protocol}.",
        "columns": list(columns),
        "rows": list(zip(scores["classes"], colors, values, strict=True)),
        "means": [scores[key] for key in ("miou", "mean_accuracy", "mean_dice", "mean_boundary_iou")],
        "confusion": confusion_chart(counts, scores["classes"]),
        "confusions": _confusions(counts, scores["classes"]),
        "worst": [_image(image, validation) for image in validation.worst],
        "best": [_image(image, validation) for image in validation.best],
    }


def _confusions(counts: Any, classes: Sequence[str]) -> list[tuple[str, float, float]]:
    """Return the most frequent confusions: text, share of the true class, share of all pixels."""
    wrong = counts * (1 - np.eye(len(counts), dtype=counts.dtype))
    rows = []
    for place in np.argsort(-wrong, axis=None, kind="stable")[:NUM_CONFUSIONS]:
        row, column = divmod(int(place), len(counts))
        if wrong[row, column] > 0:
            pair = f"{classes[row]} predicted as {classes[column]}"
            rows.append((pair, wrong[row, column] / counts[row].sum(), wrong[row, column] / counts.sum()))
    return rows


def _image(image: Mapping[str, Any], validation: Validation) -> dict[str, Any]:
    """Return the name, scores and titled pictures of an image, and its viewer if its maps were stored."""
    pictures = list(zip(COLUMNS, image["pictures"], strict=True))
    viewer = _viewer(image, validation) if "maps" in image else None
    return {key: image[key] for key in ("name", "miou", "accuracy")} | {"pictures": pictures, "viewer": viewer}


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

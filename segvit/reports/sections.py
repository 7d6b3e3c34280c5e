"""Contents of a run's page for its template: key numbers, scores of classes and images.

tiles(run)
validation_values(facts.validation)
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from segvit.data.palette import Color
from segvit.evaluation.examples import COLUMNS
from segvit.reports.facts import Validation
from segvit.reports.matrix import confusion_chart
from segvit.reports.run_files import RunFiles
from segvit.reports.viewer import fragment
from segvit.utils.text import counted, percentage
from segvit.utils.time_left import duration

NUM_CONFUSIONS = 10
"""Maximum number of confused pairs of classes in the table."""


def tiles(run: RunFiles) -> list[tuple[str, str, str]]:
    """Return the key numbers of a run, scores, steps, loss, time and speed, as triples of name, value and note."""
    scored, trained = run.scored, run.trained
    done, steps = run.steps_done, run.config.steps
    tiles = [("steps", f"{done:,} of {steps:,}", "done" if done >= steps else "so far")]
    if scored:
        best = max(scored, key=lambda record: record["miou"])
        tiles.insert(0, ("best mIoU", percentage(best["miou"], ".2f"), f"step {best['step']:,}"))
        tiles.insert(1, ("last mIoU", percentage(scored[-1]["miou"], ".2f"), f"step {scored[-1]['step']:,}"))
    if trained:
        last = [record["loss"] for record in trained[-100:]]
        tiles.append(("loss", f"{np.mean(last):.3f}", f"mean of the last {counted(len(last), 'step')}"))
    if run.times:
        validation = run.seconds("validation_seconds", "pictures_seconds")
        total = run.seconds("seconds") + validation
        tiles.append(("time", spent(total), f"{spent(validation)} of it for validation"))
    if pace := run.pace():
        tiles.append(
            ("images/s", f"{run.config.batch_size / pace:.3g}", f"{pace:.3g} s per step of {run.config.batch_size}")
        )
    return tiles


def spent(seconds: float) -> str:
    """Return a duration in words: in seconds if it is short."""
    return f"{seconds:.0f} s" if seconds < 90 else duration(seconds)


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
        "summary": f"{validation.name}: {counted(scores['images'], 'image', ',')}, {protocol}.",
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

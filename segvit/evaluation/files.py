"""Files of an evaluation: tables for spreadsheets, and pictures of the mistakes.

    write_csv(result, Path("scores.csv"), about={"model": "best.safetensors"})
    write_pictures(result, Path("seen"), model=model, dataset=dataset, config=config)

Tables are UTF-8 with a byte order mark for spreadsheets, and hold scores in 0..1. A missing score is an empty cell.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from segvit.config import EvalConfig, PrecisionChoice
from segvit.data.dataset import Samples
from segvit.evaluation.boundary import BAND
from segvit.evaluation.examples import COLUMNS, take_shots
from segvit.evaluation.result import EvalResult, ImageScore
from segvit.inference.network import Network
from segvit.inference.precision import computing_in, resolve_precision
from segvit.pictures import confusion_matrix, contact_sheet, with_legend
from segvit.utils.files import writing
from segvit.utils.text import percentage

NUM_WORST = 12
"""Number of images on the sheet of the worst."""
TEXT_SIZE = 24
"""Height in pixels of the text on that sheet."""


def write_csv(result: EvalResult, path: Path, *, about: Mapping[str, str]) -> None:
    """Write one row per class, then the means and the accuracy over all pixels. Every row has columns of the protocol.

    Args:
        result: scores to write.
        path: of the table.
        about: further columns, such as the model and the dataset.

    Raises:
        UserError: the disk does not take it.
    """
    setting = {**about, "images": str(result.images), **result.protocol_values(), "boundary_band": f"{BAND:g}"}
    head = ("class", "iou", "accuracy", "dice", "boundary_iou", "share", *setting)
    means = ("mean", (*result.mean_row(), None))
    overall = ("all pixels", (None, result.metrics.overall_accuracy, None, None, None))
    rows = [(name, *values, *setting.values()) for name, values in [*result.rows(), means, overall]]
    with writing(path, "give another file"):
        _write_table(path, head, rows)


def write_pictures(
    result: EvalResult,
    folder: Path,
    *,
    model: Network,
    dataset: Samples,
    config: EvalConfig,
    precision: PrecisionChoice | None = None,
) -> None:
    """Write how the pixels of each class were predicted, and the worst images.

    Writes confusion.png and confusion.csv (pixels), images.csv (scores of every image, worst first) and worst.png
    (the 12 worst, predicted anew).

    Args:
        config, precision: of the result.

    Raises:
        UserError: the disk does not take them.
    """
    with writing(folder, "give another folder"):
        folder.mkdir(parents=True, exist_ok=True)
        _write_scores(result, folder)
        if worst := result.worst()[:NUM_WORST]:
            with computing_in(resolve_precision(model, precision), model.mean.device):
                sheet = worst_sheet(worst, model=model, dataset=dataset, config=config)
            sheet.save(folder / "worst.png")


def _write_scores(result: EvalResult, folder: Path) -> None:
    """Write the confusion matrix as a picture and a table, and the scores of every image as a table."""
    counts = result.matrix.counts.cpu().numpy()
    confusion_matrix(counts, result.classes, folder / "confusion.png")
    rows = [(name, *row.tolist()) for name, row in zip(result.classes, counts, strict=True)]
    _write_table(folder / "confusion.csv", ("true \\ predicted", *result.classes), rows)
    unscored = [score for score in result.per_image if score.miou is None]
    _write_table(
        folder / "images.csv",
        ("image", "miou", "accuracy", "boundary_iou"),
        [(score.name, score.miou, score.accuracy, score.boundary_iou) for score in [*result.worst(), *unscored]],
    )


def worst_sheet(scores: Sequence[ImageScore], *, model: Network, dataset: Samples, config: EvalConfig) -> Image.Image:
    """Draw photo, labels, prediction and errors of some images, one below the other, above a legend of their
    classes."""
    spec = dataset.spec
    shots = list(take_shots([score.index for score in scores], model=model, dataset=dataset, config=config))
    captions = [_caption(place, score) for place, score in enumerate(scores, start=1)]
    fractions = np.mean([shot.shares for shot in shots], axis=0)
    sheet = contact_sheet([shot.pictures for shot in shots], titles=COLUMNS, captions=captions, text_size=TEXT_SIZE)
    return with_legend(sheet, spec.classes, spec.palette, fractions, numbers=False, text_size=TEXT_SIZE)


def _caption(place: int, score: ImageScore) -> str:
    """Return the caption of an image that has a score."""
    assert score.miou is not None and score.accuracy is not None
    return f"{place}. {score.name}: mIoU {percentage(score.miou)}, {percentage(score.accuracy)} of the pixels right"


def _write_table(path: Path, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file, and create its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(rows)

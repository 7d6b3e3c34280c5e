"""Compare exported files with PyTorch on a dataset by mIoU, time per image and file size."""

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from segvit.data.dataset import Samples
from segvit.evaluation.evaluate import evaluate
from segvit.inference.network import Network
from segvit.inference.protocol import image_labels
from segvit.utils.progress import Progress
from segvit.utils.text import percent_cell

if TYPE_CHECKING:
    from rich.table import Table

    from segvit.utils.tables import Fitted

MOST_ROUNDS = 5
"""Maximum number of images timed."""
COLUMNS = ("mIoU", "change", "ms per image", "x", "MB")
"""Columns of the table behind the names."""
NARROWER: tuple[tuple[str, ...], ...] = ((), ("x",), ("x", "MB"))
"""Columns that the table leaves out, the narrower the terminal the more."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A model in one runtime."""

    name: str
    network: Network
    num_bytes: int
    """Size of its file in bytes."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """Result of one candidate."""

    name: str
    miou: float | None
    """Mean IoU over the whole dataset, 0..1; None if every pixel is ignored."""
    seconds: float
    """Median time from an image to its label map under the model's test protocol."""
    num_bytes: int
    """Size of its file in bytes."""


def score(
    candidates: Sequence[Candidate],
    dataset: Samples,
    *,
    workers: int = 1,
    progress: Progress | None = None,
) -> list[Score]:
    """Evaluate candidates on every sample of a dataset, each under its own protocol, and time them.

    Args:
        candidates: at least one.
        dataset: samples with the model's classes.
        workers: number of processes that read images.
        progress: called with (images done, total images), counted over all candidates.

    Raises:
        UserError: the dataset has other classes than the model, or cannot be read.
    """
    seconds = _seconds(candidates, dataset)
    scores = []
    for number, candidate in enumerate(candidates):

        def report(done: int, _: int, before: int = number * len(dataset)) -> None:
            if progress:
                progress(before + done, len(candidates) * len(dataset))

        result = evaluate(candidate.network, dataset, workers=workers, progress=report)
        scores.append(
            Score(
                name=candidate.name,
                miou=result.miou,
                seconds=seconds[candidate.name],
                num_bytes=candidate.num_bytes,
            )
        )
    return scores


def _seconds(candidates: Sequence[Candidate], dataset: Samples) -> Mapping[str, float]:
    """Time each candidate: the median over images. Candidates take turns, so that load on the machine affects all."""
    times: dict[str, list[float]] = {candidate.name: [] for candidate in candidates}
    indices = [0, *range(min(MOST_ROUNDS, len(dataset)))]  # the first round warms up
    for round_, index in enumerate(indices):
        image = dataset.read(index).image
        for candidate in candidates:
            start = time.perf_counter()
            image_labels(candidate.network, image)
            if round_:
                times[candidate.name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def table(scores: Sequence[Score], *, title: str) -> "Fitted":
    """Build a table of scores for the terminal, each compared with the first. A narrow one gets fewer columns."""
    from segvit.utils.tables import Fitted

    return Fitted(partial(_draw, scores, title=title), levels=len(NARROWER))


def _draw(scores: Sequence[Score], level: int, *, title: str, ascii: bool) -> "Table":
    """Draw the table without the columns that `NARROWER` names for a level."""
    from rich.table import Table

    from segvit.utils.tables import COMPACT, too_narrow_for

    left_out, first = NARROWER[level], scores[0]
    result = Table(title=title, caption=too_narrow_for(left_out), **COMPACT if level else {})
    result.add_column("", overflow="fold")
    kept = [column for column in COLUMNS if column not in left_out]
    for column in kept:
        result.add_column(column, justify="right", no_wrap=True)
    for row in scores:
        numbers = (
            percent_cell(row.miou, missing="-"),
            "-" if row.miou is None or first.miou is None else f"{100 * (row.miou - first.miou):+.2f}",
            f"{1000 * row.seconds:.0f}",
            f"{row.seconds / first.seconds:.2f}",
            f"{row.num_bytes / 1e6:.1f}",
        )
        cells = dict(zip(COLUMNS, numbers, strict=True))
        result.add_row(row.name, *(cells[column] for column in kept))
    return result

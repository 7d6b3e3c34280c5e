"""What an export costs and gains on a dataset: mIoU, time and size of PyTorch and of exported files, side by side."""

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from segvit.data.dataset import Samples
from segvit.evaluation.evaluate import evaluate
from segvit.inference.network import Network
from segvit.inference.protocol import image_labels
from segvit.utils.progress import Progress

if TYPE_CHECKING:
    from rich.table import Table

MOST_ROUNDS = 5
"""Images that are timed."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A model in some runtime."""

    name: str
    network: Network
    num_bytes: int
    """Of its file."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """How a candidate fared."""

    name: str
    miou: float
    """Over the whole dataset, 0..1."""
    seconds: float
    """From an image to its label map under the model's test protocol, median."""
    num_bytes: int


def score(
    candidates: Sequence[Candidate],
    dataset: Samples,
    *,
    workers: int = 1,
    progress: Progress | None = None,
) -> list[Score]:
    """Score candidates on every sample of a dataset, under each one's own protocol, and time them.

    Args:
        candidates: at least one.
        dataset: of the model's classes.
        workers: processes that read images.
        progress: called with (images done, images in all, over the candidates).

    Raises:
        UserError: the dataset's classes are not the model's, or it cannot be read.
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
    """Median time of an image; every round runs each candidate once, so that noise of the machine falls on all."""
    times: dict[str, list[float]] = {candidate.name: [] for candidate in candidates}
    indices = [0, *range(min(MOST_ROUNDS, len(dataset)))]  # the first one warms up
    for round_, index in enumerate(indices):
        image = dataset.read(index).image
        for candidate in candidates:
            start = time.perf_counter()
            image_labels(candidate.network, image)
            if round_:
                times[candidate.name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def table(scores: Sequence[Score], *, title: str) -> "Table":
    """Scores for a terminal, each beside the first one."""
    from rich.table import Table

    result = Table(title=title)
    result.add_column("")
    for column in ("mIoU", "change", "ms an image", "x", "MB"):
        result.add_column(column, justify="right")
    first = scores[0]
    for row in scores:
        result.add_row(
            row.name,
            f"{100 * row.miou:.2f}",
            f"{100 * (row.miou - first.miou):+.2f}",
            f"{1000 * row.seconds:.0f}",
            f"{row.seconds / first.seconds:.2f}",
            f"{row.num_bytes / 1e6:.1f}",
        )
    return result

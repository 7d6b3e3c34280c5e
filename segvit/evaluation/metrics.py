"""Scores of label maps, computed from counts of pixels over the whole dataset (docs/method.md section 6).

    matrix = ConfusionMatrix(num_classes)
    matrix.update(predicted, labels)      # of every image
    matrix.all_reduce()                   # if several processes share the images
    metrics = matrix.compute()

    IoU                    hits / (labelled + predicted - hits)           of each class, hits on the diagonal
    Dice                   2 hits / (labelled + predicted)
    accuracy               hits / labelled
    boundary IoU           as IoU, of the pixels near the edges (see segvit.evaluation.boundary)
    overall accuracy       all hits / all labelled

Letters: K classes; row = true class, column = predicted class.
"""

from dataclasses import dataclass

import torch
import torch.distributed
from torch import Tensor

from segvit.data.spec import IGNORE_INDEX
from segvit.evaluation.boundary import boundary_counts


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Scores in 0..1. A class in neither labels nor predictions has no score and is left out of the means.

    A mean is None if no class has a score: all of them if every pixel is ignored.
    """

    miou: float | None
    """Mean over the classes of intersection over union."""
    mean_accuracy: float | None
    """Mean over the labelled classes of the share of their pixels that was predicted right."""
    overall_accuracy: float | None
    """Share of all labelled pixels that was predicted right."""
    mean_dice: float | None
    """Mean over the classes of Dice."""
    mean_boundary_iou: float | None
    """Mean of boundary IoU over the classes that have a boundary in labels or predictions."""
    iou: tuple[float | None, ...]
    """IoU per class; None if the class is absent."""
    accuracy: tuple[float | None, ...]
    """Accuracy per class; None if the class is in no label."""
    dice: tuple[float | None, ...]
    """Dice per class; None if the class is absent."""
    boundary_iou: tuple[float | None, ...]
    """Boundary IoU per class; None if the class has no boundary in labels and predictions."""
    labelled: tuple[float, ...]
    """Share of each class in the labelled pixels."""

    @property
    def absent(self) -> tuple[int, ...]:
        """Classes in neither labels nor predictions."""
        return tuple(index for index, value in enumerate(self.iou) if value is None)


class ConfusionMatrix:
    """Counts of (true, predicted) over any number of label maps, and of their boundaries.

    Attributes:
        counts: (K, K) int64 pixels.
        boundary: (3, K) int64 pixels in the boundary band of both maps, of the labels, of the prediction.
    """

    def __init__(self, num_classes: int, device: torch.device | None = None) -> None:
        self.num_classes = num_classes
        self.counts = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)
        self.boundary = torch.zeros(3, num_classes, dtype=torch.int64, device=device)

    def update(self, predicted: Tensor, labels: Tensor) -> None:
        """Count label maps (..., H, W) of one shape, both int64; pixels whose label is 255 are left out."""
        assert predicted.shape == labels.shape
        kept = labels != IGNORE_INDEX
        cells = (labels.int() * self.num_classes + predicted.int() + 1) * kept  # 0 = ignored; small numbers are fast
        found = torch.bincount(cells.flatten(), minlength=self.num_classes**2 + 1)[1:]
        self.counts += found.view_as(self.counts)
        self.boundary += boundary_counts(predicted, labels, self.num_classes)

    def add(self, other: "ConfusionMatrix") -> None:
        """Add the counts of another matrix with the same classes."""
        self.counts += other.counts
        self.boundary += other.boundary

    def all_reduce(self) -> None:
        """Sum the counts over all processes; every process must call it. A single process keeps its counts."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            sums = torch.cat([self.counts, self.boundary])
            torch.distributed.all_reduce(sums)
            self.counts, self.boundary = sums[: self.num_classes], sums[self.num_classes :]

    def compute(self) -> Metrics:
        """Compute the scores from the counts."""
        counts = self.counts.cpu().double()
        hits, labelled, predicted = counts.diag(), counts.sum(dim=1), counts.sum(dim=0)
        iou, accuracy = hits / (labelled + predicted - hits), hits / labelled  # NaN where a class is absent
        dice = 2 * hits / (labelled + predicted)
        in_both, in_labels, in_predicted = self.boundary.cpu().double()
        boundary_iou = in_both / (in_labels + in_predicted - in_both)
        total = labelled.sum()
        return Metrics(
            miou=_mean(iou),
            mean_accuracy=_mean(accuracy),
            overall_accuracy=float(hits.sum() / total) if total else None,
            mean_dice=_mean(dice),
            mean_boundary_iou=_mean(boundary_iou),
            iou=_optional(iou),
            accuracy=_optional(accuracy),
            dice=_optional(dice),
            boundary_iou=_optional(boundary_iou),
            labelled=tuple((labelled / total.clamp(min=1)).tolist()),
        )


def _mean(values: Tensor) -> float | None:
    """Return the mean of the values that are not NaN; None if there are none."""
    present = values[~values.isnan()]
    return float(present.mean()) if len(present) else None


def _optional(values: Tensor) -> tuple[float | None, ...]:
    """Return the values with None for NaN."""
    return tuple(None if value != value else value for value in values.tolist())

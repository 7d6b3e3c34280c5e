"""Scores of label maps, all from one confusion matrix over the whole dataset.

Letters: K classes; row = true class, column = predicted class.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from segvit.data.spec import IGNORE_INDEX


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Scores in 0..1. A class that is in neither labels nor predictions has no score and stays out of the means."""

    miou: float
    """Mean over the classes of intersection over union."""
    mean_accuracy: float
    """Mean over the classes that are labelled of the share of their pixels found."""
    overall_accuracy: float
    """Share of all labelled pixels found."""
    iou: tuple[float | None, ...]
    """Per class; None where the class is absent."""
    accuracy: tuple[float | None, ...]
    """Per class; None where the class is in no label."""
    labelled: tuple[float, ...]
    """Share of the labelled pixels that is each class."""

    @property
    def absent(self) -> tuple[int, ...]:
        """Classes in neither labels nor predictions."""
        return tuple(index for index, value in enumerate(self.iou) if value is None)


class ConfusionMatrix:
    """Counts of (true, predicted) over any number of label maps.

    Attributes:
        counts: (K, K) int64.
    """

    def __init__(self, num_classes: int, device: torch.device | None = None) -> None:
        self.num_classes = num_classes
        self.counts = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)

    def update(self, predicted: Tensor, labels: Tensor) -> None:
        """Count label maps of one shape, both int64; pixels whose label is 255 are left out."""
        assert predicted.shape == labels.shape
        kept = labels != IGNORE_INDEX
        cells = labels[kept] * self.num_classes + predicted[kept]
        self.counts += torch.bincount(cells, minlength=self.num_classes**2).view_as(self.counts)

    def compute(self) -> Metrics:
        """The scores of all that was counted."""
        counts = self.counts.cpu().double()
        hits, labelled, predicted = counts.diag(), counts.sum(dim=1), counts.sum(dim=0)
        iou, accuracy = hits / (labelled + predicted - hits), hits / labelled  # NaN where a class is absent
        total = labelled.sum().clamp(min=1)
        return Metrics(
            miou=_mean(iou),
            mean_accuracy=_mean(accuracy),
            overall_accuracy=float(hits.sum() / total),
            iou=_optional(iou),
            accuracy=_optional(accuracy),
            labelled=tuple((labelled / total).tolist()),
        )


def _mean(values: Tensor) -> float:
    """Mean of the values that are numbers; 0 where none is."""
    present = values[~values.isnan()]
    return float(present.mean()) if len(present) else 0.0


def _optional(values: Tensor) -> tuple[float | None, ...]:
    """NaN told as None."""
    return tuple(None if value != value else value for value in values.tolist())

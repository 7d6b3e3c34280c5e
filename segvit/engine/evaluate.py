"""Scores of a model on a dataset, with the protocol that they were measured under.

result = segvit.evaluate(model, dataset)
rich.print(result.table())
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from segvit.config import EvalConfig, EvalMode
from segvit.data.dataset import Sample, Samples
from segvit.engine.infer import image_labels, resolve_protocol
from segvit.errors import UserError
from segvit.metrics import ConfusionMatrix, Metrics
from segvit.models.segvit import SegViT

if TYPE_CHECKING:
    from rich.table import Table

Progress = Callable[[int, int], None]
"""Called with the number of images done and in all."""


@dataclass(frozen=True, kw_only=True)
class EvalResult:
    """The scores, and how they came about."""

    metrics: Metrics
    classes: tuple[str, ...]
    """Names, in the order of the per-class scores."""
    protocol: dict[str, object]
    """Mode, resize, window and stride in pixels."""
    images: int
    """Images evaluated."""

    @property
    def miou(self) -> float:
        """Mean intersection over union, 0..1."""
        return self.metrics.miou

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            **asdict(self.metrics),
            "absent": [self.classes[index] for index in self.metrics.absent],
            "classes": list(self.classes),
            "protocol": self.protocol,
            "images": self.images,
        }

    def protocol_line(self) -> str:
        """The protocol in a line."""
        settings = [f"{key} {value}" for key, value in self.protocol.items() if value is not None]
        return (
            f"{self.images} images, {', '.join(settings)}; one confusion matrix over the set, ignored pixels left out"
        )

    def table(self) -> "Table":
        """IoU, accuracy and share of every class, for a terminal."""
        from rich.table import Table

        metrics = self.metrics
        table = Table(title="per class", caption=self.protocol_line())
        table.add_column("class")
        for column in ("IoU", "accuracy", "share"):
            table.add_column(column, justify="right")
        for name, iou, accuracy, share in zip(
            self.classes, metrics.iou, metrics.accuracy, metrics.labelled, strict=True
        ):
            table.add_row(name, _percent(iou), _percent(accuracy), _percent(share))
        table.add_section()
        table.add_row("mean", _percent(metrics.miou), _percent(metrics.mean_accuracy), "")
        table.add_row("all pixels", "", _percent(metrics.overall_accuracy), "")
        return table


def evaluate(
    model: SegViT,
    dataset: Samples,
    *,
    mode: EvalMode | None = None,
    config: EvalConfig | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> EvalResult:
    """Evaluate a model on every sample of a dataset.

    Args:
        model: on the device where it shall run.
        dataset: see `segvit.data.dataset.open_dataset`.
        mode: overrides the protocol's.
        config: the protocol. Default: the model's own.
        workers: processes that read images; 0 reads in this one.
        progress: called after each image.

    Raises:
        UserError: the dataset's classes are not the model's.
    """
    check_classes(model, dataset)
    config = config or model.protocol
    config = replace(config, mode=mode) if mode else config
    matrix = confusion(model, dataset, range(len(dataset)), config=config, workers=workers, progress=progress)
    return EvalResult(
        metrics=matrix.compute(),
        classes=dataset.spec.classes,
        protocol=resolve_protocol(model, config),
        images=len(dataset),
    )


def confusion(
    model: SegViT,
    dataset: Samples,
    indices: Sequence[int],
    *,
    config: EvalConfig,
    workers: int,
    progress: Progress | None = None,
) -> ConfusionMatrix:
    """The confusion matrix over the samples `indices`: one process's share of an evaluation."""
    device = model.mean.device
    matrix = ConfusionMatrix(model.num_classes, device)
    loader = DataLoader(_Reader(dataset, indices), batch_size=None, num_workers=min(workers, len(indices)))
    for done, read in enumerate(loader, start=1):
        if isinstance(read, UserError):
            raise read
        image, labels = read
        matrix.update(image_labels(model, image, config), labels.to(device))
        if progress:
            progress(done, len(indices))
    return matrix


def check_classes(model: SegViT, dataset: Samples) -> None:
    """Refuse a dataset whose classes are not the model's.

    Raises:
        UserError: another number of classes, or other names in some place.
    """
    theirs = dataset.spec.classes
    if len(theirs) != model.num_classes:
        raise UserError(
            f"the model has {model.num_classes} classes, the dataset {dataset.spec.name!r} has {len(theirs)}: "
            "evaluate on the dataset that the model was trained for (--data.spec)"
        )
    ours = model.spec.classes if model.spec else theirs
    for index, (own, other) in enumerate(zip(ours, theirs, strict=True)):
        if own != other:
            raise UserError(
                f"class {index} is {own!r} in the model and {other!r} in the dataset {dataset.spec.name!r}: "
                "evaluate on the dataset that the model was trained for (--data.spec)"
            )


class _Reader(Dataset[tuple[Tensor, Tensor] | UserError]):
    """Whole images and labels as plain tensors, read by worker processes."""

    def __init__(self, samples: Samples, indices: Sequence[int]) -> None:
        self.samples = samples
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor] | UserError:
        try:
            sample: Sample = self.samples.read(self.indices[position])
        except UserError as error:  # the main process raises it: a worker would wrap it in a traceback
            return error
        return sample.image.as_subclass(torch.Tensor), sample.labels.as_subclass(torch.Tensor)


def _percent(value: float | None) -> str:
    """A share in 0..1 as a percentage, or a dash where there is none."""
    return "-" if value is None else f"{100 * value:.2f}"

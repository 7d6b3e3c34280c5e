"""Scores of a model on a dataset, with the protocol that they were measured under.

    result = segvit.evaluate(model, dataset)
    rich.print(result.table())

Under torchrun the processes share the images, and each gets the same result:

    torchrun --nproc-per-node 8 -m segvit.cli.main evaluate MODEL --data.spec ... --data.root ...
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from segvit.config import EvalConfig, EvalMode, PrecisionChoice
from segvit.data.dataset import Sample, Samples
from segvit.data.files import Unreadable
from segvit.data.sampling.unreadable import explain_too_many
from segvit.errors import UserError
from segvit.evaluation.boundary import BAND
from segvit.evaluation.metrics import ConfusionMatrix, Metrics
from segvit.inference.compiled import is_compiled
from segvit.inference.network import Network
from segvit.inference.precision import computing_in, resolve_precision
from segvit.inference.protocol import image_labels, resolve_protocol
from segvit.models.segvit import evaluating
from segvit.utils.distributed import gather, rank, world_size
from segvit.utils.progress import Progress
from segvit.utils.text import percentage
from segvit.utils.threads import in_order, threads

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True, kw_only=True)
class ImageScore:
    """How one image fared. None where it has no labelled pixel, or no boundary."""

    index: int
    """In the dataset."""
    name: str
    """Relative path without suffix."""
    miou: float | None
    """Mean intersection over union of the classes in its labels or its prediction, 0..1."""
    accuracy: float | None
    """Share of its labelled pixels found."""
    boundary_iou: float | None
    """Mean boundary IoU of the classes with a boundary in its labels or its prediction, 0..1."""


@dataclass(frozen=True, kw_only=True)
class EvalResult:
    """The scores, and how they came about."""

    metrics: Metrics
    classes: tuple[str, ...]
    """Names, in the order of the per-class scores."""
    protocol: dict[str, object]
    """Mode, resize, window and stride in pixels, scales, flip, precision and a note on it (or None); compiled where the
    model was."""
    images: int
    """Images evaluated."""
    unreadable: tuple[str, ...] = ()
    """What was said of images that could not be read, and were left out."""
    matrix: ConfusionMatrix = field(repr=False, compare=False)
    """The counts that the scores are from."""
    per_image: tuple[ImageScore, ...] = ()
    """In the order of the dataset; empty for a validation while training."""

    @property
    def miou(self) -> float:
        """Mean intersection over union, 0..1."""
        return self.metrics.miou

    def worst(self) -> list[ImageScore]:
        """The images that have a score, the lowest mIoU first."""
        scored = [(score.miou, score.index, score) for score in self.per_image if score.miou is not None]
        return [score for _, _, score in sorted(scored)]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            **asdict(self.metrics),
            "absent": [self.classes[index] for index in self.metrics.absent],
            "classes": list(self.classes),
            "protocol": self.protocol,
            "boundary_band": BAND,
            "images": self.images,
            "unreadable": list(self.unreadable),
        }

    def protocol_values(self) -> dict[str, str]:
        """The protocol as words: what is set, and how."""
        told = {key: _word(value) for key, value in self.protocol.items() if value is not None}
        if note := told.pop("precision_note", None):
            told["precision"] += f" ({note})"
        return told

    def protocol_line(self) -> str:
        """The protocol in a line."""
        settings = ", ".join(f"{key} {value}" for key, value in self.protocol_values().items())
        left_out = f" ({len(self.unreadable)} that cannot be read left out)" if self.unreadable else ""
        return (
            f"{self.images} images{left_out}, {settings}; one confusion matrix over the set, ignored pixels left out; "
            f"boundary IoU in a band of {percentage(BAND, 'g')} of the diagonal"
        )

    def rows(self) -> list[tuple[str, tuple[float | None, ...]]]:
        """Name, and IoU, accuracy, Dice, boundary IoU and share of every class."""
        seen = self.metrics
        columns = (seen.iou, seen.accuracy, seen.dice, seen.boundary_iou, seen.labelled)
        return list(zip(self.classes, zip(*columns, strict=True), strict=True))

    def mean_row(self) -> tuple[float, ...]:
        """IoU, accuracy, Dice and boundary IoU, each the mean over the classes that have one."""
        seen = self.metrics
        return (seen.miou, seen.mean_accuracy, seen.mean_dice, seen.mean_boundary_iou)

    def table(self) -> "Table":
        """Scores and share of every class, for a terminal."""
        from rich.table import Table
        from rich.text import Text

        table = Table(title="per class", caption=self.protocol_line())
        table.add_column("class")
        for column in ("IoU", "accuracy", "Dice", "boundary IoU", "share"):
            table.add_column(column, justify="right")
        for name, values in self.rows():
            table.add_row(Text(name), *map(_percent, values))
        table.add_section()
        table.add_row("mean", *map(_percent, self.mean_row()), "")
        table.add_row("all pixels", "", _percent(self.metrics.overall_accuracy), "", "", "")
        return table


def evaluate(
    model: Network,
    dataset: Samples,
    *,
    mode: EvalMode | None = None,
    scales: tuple[float, ...] | None = None,
    flip: bool | None = None,
    config: EvalConfig | None = None,
    precision: PrecisionChoice | None = None,
    workers: int = 1,
    skip_unreadable: int = 0,
    progress: Progress | None = None,
) -> EvalResult:
    """Evaluate a model on every sample of a dataset.

    In a process group (torchrun) every process must call this: it does its share of the images, and each gets the
    scores of the whole.

    Args:
        model: on the device where it shall run.
        dataset: see `segvit.data.dataset.open_dataset`.
        mode: overrides the protocol's.
        scales: overrides the protocol's.
        flip: overrides the protocol's.
        config: the protocol. Default: the model's own.
        precision: what the model computes in: fp32, bf16, fp16 (not on a CPU), or auto, what its device is fast at.
            Default: fp32, or as the model was exported.
        workers: threads that read images while the model works, which one more thread then scores. 0: one after the
            other in this thread, for a dataset whose `read` must stay in it.
        skip_unreadable: images that may be unreadable: they are left out, and named in the result.
        progress: called after each image of this process's share.

    Raises:
        UserError: the dataset's classes are not the model's, a precision that the device lacks, processes that are in
            no group, more images that cannot be read, or one that the model cannot take.
    """
    check_classes(model, dataset)
    given = {"mode": mode, "scales": scales, "flip": flip}
    changes: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    config = replace(config or model.protocol, **changes)
    chosen = resolve_precision(model, precision)
    protocol = resolve_protocol(model, config) | {"precision": chosen.name, "precision_note": chosen.note}
    if is_compiled(model):
        protocol["compiled"] = True
    share = range(rank(), len(dataset), world_size())
    matrix = ConfusionMatrix(model.num_classes, model.mean.device)
    scores = []
    unreadable: list[str] | None = [] if skip_unreadable else None
    with computing_in(chosen, model.mean.device), evaluating(model):
        for score, counted in _score_images(model, dataset, share, config, workers, progress, unreadable):
            matrix.add(counted)
            scores.append(score)
    matrix.all_reduce()
    left_out = sorted(gather(unreadable or []))  # threads find them in any order
    if len(left_out) > skip_unreadable or len(left_out) == len(dataset):
        raise UserError(explain_too_many(left_out, limit=skip_unreadable))
    return EvalResult(
        metrics=matrix.compute(),
        classes=dataset.spec.classes,
        protocol=protocol,
        images=len(dataset) - len(left_out),
        unreadable=tuple(left_out),
        matrix=matrix,
        per_image=tuple(sorted(gather(scores), key=lambda score: score.index)),
    )


def _score_images(
    model: Network,
    dataset: Samples,
    indices: Sequence[int],
    config: EvalConfig,
    workers: int,
    progress: Progress | None,
    unreadable: list[str] | None,
) -> Iterator[tuple[ImageScore, ConfusionMatrix]]:
    """Score and confusion matrix of each of the samples `indices`, in their order.

    What cannot be read is left out, and said in `unreadable`; without such a list it is an error.

    Threads read ahead of the model and count behind it, so that it waits for neither.
    """
    device = model.mean.device

    def read(index: int) -> tuple[int, Sample] | None:
        with _naming(dataset, index):
            try:
                return index, dataset.read(index)
            except Unreadable as error:
                if unreadable is None:
                    raise
                unreadable.append(str(error))
                return None

    def label(index: int, sample: Sample) -> tuple[int, str, Tensor, Tensor]:
        with _naming(dataset, index):
            try:
                predicted = image_labels(model, sample.image.as_subclass(torch.Tensor), config)
            except UserError as error:  # such as an image too small for the model, which knows no files
                raise UserError(f"{dataset.describe(index)}: {error}") from error
        return index, sample.name, predicted, sample.labels.as_subclass(torch.Tensor)

    def count(labelled: tuple[int, str, Tensor, Tensor]) -> tuple[ImageScore, ConfusionMatrix]:
        index, name, predicted, labels = labelled
        matrix = ConfusionMatrix(model.num_classes, device)
        with _naming(dataset, index):
            matrix.update(predicted, labels.to(device))
        return _image_score(index, name, matrix), matrix

    with threads(workers) as readers, threads(min(workers, 1)) as counter:
        samples = in_order(readers, read, indices, ahead=workers)
        labelled = (label(*found) for found in samples if found is not None)
        for done, scored in enumerate(in_order(counter, count, labelled, ahead=1), start=1):
            yield scored
            if progress:
                progress(done, len(indices))


@contextmanager
def _naming(dataset: Samples, index: int) -> Iterator[None]:
    """Say beside an error that is nobody's wording, such as memory that ran out, which sample it befell."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        error.add_note(f"while evaluating {dataset.describe(index)}")
        raise


def _image_score(index: int, name: str, counted: ConfusionMatrix) -> ImageScore:
    """The scores of one image from its own counts."""
    seen = counted.compute()
    labelled, bounded = any(seen.labelled), any(value is not None for value in seen.boundary_iou)
    return ImageScore(
        index=index,
        name=name,
        miou=seen.miou if labelled else None,
        accuracy=seen.overall_accuracy if labelled else None,
        boundary_iou=seen.mean_boundary_iou if bounded else None,
    )


def check_classes(model: Network, dataset: Samples) -> None:
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


def _percent(value: float | None) -> str:
    """A share in 0..1 as a percentage, or a dash where there is none."""
    return "-" if value is None else f"{100 * value:.2f}"


def _word(value: object) -> str:
    """A setting as words: yes, no, or its values with blanks between them, as on the command line."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)

"""Evaluate a model on a dataset.

    result = segvit.evaluate(model, dataset)
    rich.print(result.table())

Under torchrun the processes share the images, and each gets the same result:

    torchrun --nproc-per-node 8 -m segvit evaluate MODEL --data.spec ... --data.root ...
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from segvit.config import DataConfig, EvalConfig, EvalMode, PrecisionChoice
from segvit.data.bands.names import COLOR_NAMES, check_bands
from segvit.data.dataset import Sample, Samples, SegmentationDataset, open_dataset, open_folders
from segvit.data.given import data_of
from segvit.data.images import Unreadable
from segvit.data.sampling.unreadable import explain_too_many
from segvit.errors import UserError
from segvit.evaluation.metrics import ConfusionMatrix
from segvit.evaluation.result import EvalResult, ImageScore
from segvit.inference.compiled import is_compiled
from segvit.inference.network import Network
from segvit.inference.precision import computing_in, resolve_precision
from segvit.inference.protocol import image_labels, resolve_protocol
from segvit.models.modes import evaluating
from segvit.utils.distributed import gather, rank, world_size
from segvit.utils.keywords import refuse_others
from segvit.utils.progress import Progress
from segvit.utils.threads import in_order, threads
from segvit.weights.load import load_network


def evaluate(
    model: Network | str | Path,
    dataset: Samples | DataConfig | str | Path | None = None,
    *,
    images: str | Path | None = None,
    labels: str | Path | None = None,
    split: Literal["train", "val"] = "val",
    mode: EvalMode | None = None,
    scales: tuple[float, ...] | None = None,
    flip: bool | None = None,
    config: EvalConfig | None = None,
    precision: PrecisionChoice | None = None,
    workers: int = 1,
    skip_unreadable: int = 0,
    progress: Progress | None = None,
    **others: Any,
) -> EvalResult:
    """Evaluate a model on every sample of a dataset.

    Examples:
        >>> import segvit
        >>> model = segvit.load_model("best.safetensors")
        >>> result = segvit.evaluate(model, images="photos", labels="masks")
        >>> result.images
        6
        >>> 0 <= result.miou <= 1
        True

    In a process group (torchrun) every process must call this. It evaluates its share of the images and gets the scores
    of the whole dataset.

    Args:
        model: a model, on the device that it runs on, or the name of one as in `segvit.load_model`.
        dataset: what `segvit.open_dataset` returns, the settings of a dataset, the name of a shipped one, or a YAML
            file that describes one or holds the settings of a run.
        images: folder of photos, all of which are scored, in place of `dataset`.
        labels: folder of their masks, with the values that the masks of the model's training had.
        split: the split that is scored if `dataset` names a dataset.
        mode: overrides the protocol's.
        scales: overrides the protocol's.
        flip: overrides the protocol's.
        config: the protocol. Default: the model's own.
        precision: fp32, bf16, fp16 (not on a CPU), or auto, the fastest that the device supports. Default: fp32, or the
            precision that the model was exported in.
        workers: threads that read images ahead of the model; one more thread then scores its output. 0: read and score
            in this thread, for a dataset whose `read` must stay in it.
        skip_unreadable: number of images that may be unreadable. They are left out, and named in the result.
        progress: called after each image of this process's share.
        others: refused, with what to write.

    Raises:
        UserError: no dataset or two, the dataset's classes are not the model's, the device does not support the
            precision, the processes are in no group, too many images cannot be read, or the model cannot take one.
    """
    refuse_others("segvit.evaluate", evaluate, others)
    model = load_network(model, device="cpu") if isinstance(model, str | Path) else model
    dataset = as_model_reads(model, _open(model, dataset, images, labels, split))
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
    scores: list[ImageScore] = []
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


def _open(
    model: Network,
    dataset: Samples | DataConfig | str | Path | None,
    images: str | Path | None,
    labels: str | Path | None,
    split: Literal["train", "val"],
) -> Samples:
    """Open the dataset in the arguments of `evaluate`.

    Raises:
        UserError: none or two are given, or a dataset that cannot be opened.
    """
    if images is None and labels is None:
        if dataset is None:
            raise UserError(
                'no dataset to score on: write segvit.evaluate(model, images="photos", labels="masks"), or '
                'segvit.evaluate(model, "people.yaml")'
            )
        return open_dataset(data_of(dataset), split) if isinstance(dataset, DataConfig | str | Path) else dataset
    if dataset is not None or images is None or labels is None:
        raise UserError('give a dataset, or both images="photos" and labels="masks"')
    if model.spec is None:
        raise UserError("the model has no class names: write segvit.evaluate(model, dataset) with a dataset of its own")
    return open_folders(model.spec, Path(images), Path(labels))


def as_model_reads(model: Network, dataset: Samples) -> Samples:
    """Return a dataset whose files are read as the model's training data were, where its own spec leaves that open.

    Raises:
        UserError: the dataset has other bands than the model.
    """
    if isinstance(dataset, SegmentationDataset):
        spec = model.spec
        dataset = dataset.read_like(() if spec is None else spec.bands, None if spec is None else spec.white)
    check_bands(len(model.mean), dataset.spec.bands or COLOR_NAMES[0], source="the model")
    return dataset


def _score_images(
    model: Network,
    dataset: Samples,
    indices: Sequence[int],
    config: EvalConfig,
    workers: int,
    progress: Progress | None,
    unreadable: list[str] | None,
) -> Iterator[tuple[ImageScore, ConfusionMatrix]]:
    """Yield score and confusion matrix of each of the samples `indices`, in their order.

    A sample that cannot be read is left out and noted in `unreadable`. Without such a list it is an error.

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
    """Add the name of the sample to an error that is not ours, such as running out of memory."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        error.add_note(f"while evaluating {dataset.describe(index)}")
        raise


def _image_score(index: int, name: str, counted: ConfusionMatrix) -> ImageScore:
    """Return the scores of one image from its own counts."""
    seen = counted.compute()
    return ImageScore(
        index=index,
        name=name,
        miou=seen.miou,
        accuracy=seen.overall_accuracy,
        boundary_iou=seen.mean_boundary_iou,
    )


def check_classes(model: Network, dataset: Samples) -> None:
    """Check that a dataset has the model's classes.

    Raises:
        UserError: the number of classes differs, or a name.
    """
    theirs = dataset.spec.classes
    remedy = "evaluate on the dataset that the model was trained for (--data.spec)"
    if len(theirs) != model.num_classes:
        raise UserError(
            f"the model has {model.num_classes} classes, the dataset {dataset.spec.name!r} has {len(theirs)}: {remedy}"
        )
    ours = model.spec.classes if model.spec else theirs
    for index, (own, other) in enumerate(zip(ours, theirs, strict=True)):
        if own != other:
            raise UserError(
                f"class {index} is {own!r} in the model and {other!r} in the dataset {dataset.spec.name!r}: {remedy}"
            )

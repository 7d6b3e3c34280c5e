"""A validation: the scores, pictures of some images in the loggers, and the report of the run.

result = score(model, val_set, config, progress=progress, leave=lambda: None)
show_validation(log, step, result, model=model, dataset=val_set, num_train=367, processes=1)
"""

from collections.abc import Callable
from typing import Any

from segvit.config import TrainConfig
from segvit.data.sample import Samples
from segvit.evaluation.evaluate import evaluate
from segvit.evaluation.result import EvalResult
from segvit.models.segvit import SegViT
from segvit.reports.facts import Facts, describe_validation, environment, origin
from segvit.reports.run_report import take_pictures, write_report
from segvit.training.loader_guard import going_on
from segvit.training.loggers import RunLog, TrainProgress
from segvit.utils.distributed import rank, world_size
from segvit.utils.text import counted

NUM_PICTURES = 4
"""Validation images that are drawn at each validation, the same ones each time."""


def picture_indices(length: int) -> list[int]:
    """Choose which of `length` validation images are drawn: evenly spread ones."""
    count = min(NUM_PICTURES, length)
    return [(2 * place + 1) * length // (2 * count) for place in range(count)]


def score(
    model: SegViT, samples: Samples, config: TrainConfig, *, progress: TrainProgress, leave: Callable[[], None]
) -> EvalResult:
    """Score a model on the validation set; every process does its share and gets the scores of the whole.

    Args:
        model: to score.
        samples: the validation set.
        config: of the run.
        progress: shows how far this process is.
        leave: called after each image; it may end the run.
    """
    with progress.task("validating", len(range(rank(), len(samples), world_size()))) as count:

        def after_image(done: int, total: int) -> None:
            count(done, total)
            leave()

        return evaluate(
            model,
            samples,
            config=config.eval,
            precision=config.precision,
            workers=config.data.workers,
            skip_unreadable=config.data.skip_unreadable,
            progress=after_image,
        )


def record_of(result: EvalResult) -> dict[str, Any]:
    """Return the scores of a validation for metrics.jsonl: the means that exist, and the IoU of each class by name."""
    scores = {"miou": result.miou, "overall_accuracy": result.metrics.overall_accuracy}
    return {name: value for name, value in scores.items() if value is not None} | {
        "iou": dict(zip(result.classes, result.metrics.iou, strict=True))
    }


def show_validation(
    log: RunLog, step: int, result: EvalResult, *, model: SegViT, dataset: Samples, num_train: int, processes: int
) -> None:
    """Draw some images of a validation, pass them to the loggers, and write the report of the run again.

    Args:
        log: of the run.
        step: steps done.
        result: of the validation.
        model: that was scored.
        dataset: that it was scored on.
        num_train: training images.
        processes: that train.
    """
    drawn = [result.per_image[place].index for place in picture_indices(len(result.per_image))]
    shots = take_pictures(result, drawn, model=model, dataset=dataset, config=log.config.eval)
    log.pictures(step, [shots[index] for index in drawn], dataset.spec)
    images = counted(len(dataset), "validation image", ",")
    about = origin(model, f"{dataset.spec.name}: {num_train:,} training and {images}")
    where = environment(model.mean.device, processes=processes)
    name = f"The {'averaged ' if log.config.ema_decay else ''}weights after step {step:,}"
    validation = describe_validation(name, result, palette=dataset.spec.palette, shots=shots)
    facts = Facts(about=about, environment=where, validation=validation)
    log.lap(step, "pictures_seconds")
    write_report(log.output, facts, log.config, remedy=f"make room, then {going_on(log.output)}")

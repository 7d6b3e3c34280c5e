"""Label maps of files and folders of images, by any number of processes, in as many goes as it takes.

    done = predict_files(model, ["photos"], Path("seen"))

What an earlier run with the same settings has done is skipped. Threads read ahead of the model and write behind it.
Under torchrun the processes share out what is left: rank 0 finds it, the others are told, and none needs another until
its share is done.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from segvit.config import DataConfig, EvalConfig, PrecisionChoice
from segvit.data.files import IMAGE_SUFFIXES, read_image
from segvit.engine.distributed import decided_by_first, gather, rank, world_size
from segvit.engine.infer import resolve_protocol
from segvit.engine.outputs import (
    ENDINGS,
    LABELS,
    claim,
    fingerprint,
    is_done,
    left_by_us,
    model_digest,
    named,
    write_outputs,
)
from segvit.engine.overlap import in_order, threads
from segvit.engine.precision import computing_in, resolve_precision
from segvit.engine.predict import Prediction, predict
from segvit.errors import UserError
from segvit.inference.network import Network
from segvit.models.segvit import evaluating

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Failure:
    """An input that gave no label map, and why."""

    path: Path
    reason: str


class Done(NamedTuple):
    """What has become of the inputs, each in their order."""

    written: list[Path]
    """Label maps written now."""
    skipped: list[Path]
    """Label maps that were there already."""
    failures: list[Failure]


class _Job(NamedTuple):
    """An image to label."""

    path: Path
    target: Path
    """Of its outputs, without suffix."""
    fingerprint: str


def predict_files(
    model: Network,
    inputs: Sequence[str | Path],
    output: Path,
    *,
    config: EvalConfig | None = None,
    precision: PrecisionChoice | None = None,
    opacity: float = 0.6,
    confidence: bool = False,
    raw_ids: bool = False,
    overwrite: bool = False,
    workers: int = DataConfig.workers,
    progress: Callable[[int, int], None] | None = None,
) -> Done:
    """Label maps, overlays and shares of files and folders, written below `output`.

    For `a/photo.jpg` in a folder input `a`: photo.png (class indices with a palette), photo_overlay.png, photo.json,
    and photo_confidence.png where asked for; subfolders are mirrored. An image is skipped whose outputs are all there,
    made of the file as it is now with the same model and settings; `output`/predict.yaml keeps the latter.

    In a process group (torchrun) every process must call this: it does its share, and each is told of all.

    Args:
        model: on the device where it shall run.
        inputs: files and folders.
        output: folder to write to.
        config: how the images are cut. Default: as the model was trained to be tested.
        precision: see `predict`.
        opacity: of the overlay's colours.
        confidence: write confidence maps too.
        raw_ids: write the dataset's own ids instead of class indices.
        overwrite: compute all anew, whatever is there.
        workers: threads that read, and as many that write, while the model works. 0: one after the other.
        progress: called with the number of images done and in all, of this process's share of what is left.

    Raises:
        UserError: an input that does not exist or holds no image; an output that would be written over an input or
            over another input's output, or that was made with other settings; a precision that the device lacks; a
            disk that takes no more; or processes that are in no group.
    """
    chosen = resolve_precision(model, precision)
    settings: dict[str, Any] = resolve_protocol(model, config) | {
        "precision": chosen.name,
        "ids": "raw" if raw_ids else "index",
        "opacity": float(opacity),
        "confidence": confidence,
    }
    ids = _raw_ids(model) if raw_ids else None
    processes = world_size()

    def label(image: npt.NDArray[np.uint8]) -> Prediction:
        return predict(model, image, config=config, precision=precision, confidence=confidence)

    def write(job: _Job, result: Prediction) -> Path:
        return write_outputs(
            result, job.target, source=job.path, fingerprint=job.fingerprint, opacity=opacity, raw_ids=ids
        )

    # By one, before any writes: else another would find less left.
    left, skipped = decided_by_first(lambda: _find_jobs(model, inputs, output, settings, overwrite=overwrite))
    share = range(rank(), len(left), processes)
    outcomes = []
    with computing_in(chosen, model.mean.device), evaluating(model):  # what is worked out once serves all images
        for index, outcome in zip(share, _run([left[i] for i in share], label, write, workers), strict=True):
            outcomes.append((index, outcome))
            if progress:
                progress(len(outcomes), len(share))
    found = [outcome for _, outcome in sorted(gather(outcomes), key=lambda pair: pair[0])]
    failures = [outcome for outcome in found if isinstance(outcome, Failure)]
    return Done([outcome for outcome in found if not isinstance(outcome, Failure)], skipped, failures)


def _find_jobs(
    model: Network, inputs: Sequence[str | Path], output: Path, settings: dict[str, Any], *, overwrite: bool
) -> tuple[list[_Job], list[Path]]:
    """What is left to do, and the label maps that are there; from now on the output folder is ours."""
    images = find_images(inputs, output)
    _check_outputs(images, output)
    made_with = {"model": model_digest(model), **settings}
    jobs = [_Job(path, output / stem, fingerprint(path, made_with)) for path, stem in images]
    claim(output, made_with, [job.target for job in jobs], overwrite=overwrite)
    left, skipped = [], []
    for job in jobs:
        if not overwrite and is_done(job.target, job.fingerprint, confidence=settings["confidence"]):
            skipped.append(named(job.target, LABELS))
        else:
            left.append(job)
    return left, skipped


def _run(
    jobs: Sequence[_Job],
    label: Callable[[npt.NDArray[np.uint8]], Prediction],
    write: Callable[[_Job, Prediction], Path],
    workers: int,
) -> Iterator[Path | Failure]:
    """The label map of each job, or why there is none, in their order; read ahead of `label`, and written behind it."""

    def read(job: _Job) -> tuple[_Job, npt.NDArray[np.uint8] | Failure]:
        return job, _attempt(job.path, lambda: np.asarray(read_image(job.path)))

    def look(job: _Job, image: npt.NDArray[np.uint8] | Failure) -> tuple[_Job, Prediction | Failure]:
        return job, image if isinstance(image, Failure) else _attempt(job.path, lambda: label(image))

    def finish(labelled: tuple[_Job, Prediction | Failure]) -> Path | Failure:
        job, result = labelled
        return result if isinstance(result, Failure) else write(job, result)

    with threads(workers) as readers, threads(workers) as writers:
        images = in_order(readers, read, jobs, ahead=workers)
        labelled = (look(job, image) for job, image in images)
        yield from in_order(writers, finish, labelled, ahead=workers)


def _attempt(path: Path, work: Callable[[], T]) -> T | Failure:
    """What some work on an image gives, or its UserError; another kind of error is told which image it befell."""
    try:
        return work()
    except UserError as error:
        return Failure(path=path, reason=str(error))
    except Exception as error:
        error.add_note(f"while predicting {path}")
        raise


def _raw_ids(model: Network) -> tuple[int, ...]:
    """The dataset's own values of the classes (K,)."""
    if model.spec is None:
        raise UserError("--ids raw: this model carries no dataset spec, so its raw ids are unknown; leave it out")
    return tuple(model.spec.raw_ids)


def find_images(inputs: Sequence[str | Path], output: Path) -> list[tuple[Path, Path]]:
    """The image files among files and folders, each with its place below an output folder, without suffix.

    Args:
        inputs: files and folders.
        output: where the outputs go; what an earlier run wrote into such a folder inside an input is no input.

    Raises:
        UserError: see `predict_files`.
    """
    jobs: dict[Path, Path] = {}
    for path, stem in _walk(inputs, output):
        if stem in jobs:
            raise UserError(
                f"{jobs[stem]} and {path} would both be written as {stem}.png: predict them into two --output folders"
            )
        jobs[stem] = path
    return [(path, stem) for stem, path in jobs.items()]


def _check_outputs(jobs: Sequence[tuple[Path, Path]], output: Path) -> None:
    """Refuse to write over a photo, or two pictures to one file (photo_overlay.jpg lies beside photo.jpg)."""
    sources = {path.resolve() for path, _ in jobs}
    taken: dict[Path, Path] = {}
    for path, stem in jobs:
        for target in (named(output / stem, ending) for ending in ENDINGS):
            if target.resolve() in sources:
                raise UserError(f"{target} is one of the images and would be written over: give another --output")
            if target in taken:
                raise UserError(
                    f"{taken[target]} and {path} would both be written as {target}: predict them into two --output "
                    "folders, or rename one"
                )
            taken[target] = path


def _walk(inputs: Sequence[str | Path], output: Path) -> Iterator[tuple[Path, Path]]:
    """Every image below the inputs, sorted, with its name relative to its input."""
    for given in map(Path, inputs):
        if given.is_file():
            yield given, Path(given.stem)
            continue
        if not given.is_dir():
            raise UserError(f"no such file or folder: {given}")
        found = sorted(path for path in given.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
        found = [path for path in found if not any(part.startswith(".") for part in path.relative_to(given).parts)]
        if output.resolve() == given.resolve():
            ours = left_by_us(found)
            found = [path for path in found if path not in ours]
        else:
            found = [path for path in found if not path.resolve().is_relative_to(output.resolve())]
        if not found:
            raise UserError(f"{given} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
        for path in found:
            yield path, path.relative_to(given).with_suffix("")

"""Label maps of files and folders of images and videos, by any number of processes, in as many goes as it takes.

    done = predict_files(model, ["photos", "clip.mp4"], Path("seen"))

What an earlier run with the same settings has done is skipped. Threads read ahead of the model and write behind it.
Under torchrun the processes share out what is left, images one by one and videos whole: rank 0 finds it, the others are
told, and none needs another until its share is done.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from segvit.config import DataConfig, EvalConfig, PrecisionChoice
from segvit.data.images import Unreadable, read_image
from segvit.errors import UserError
from segvit.inference.network import Network
from segvit.inference.precision import computing_in, resolve_precision
from segvit.inference.protocol import resolve_protocol
from segvit.models.segvit import evaluating
from segvit.prediction.inputs import Input, check_outputs, find_images, find_inputs
from segvit.prediction.outputs import LABELS, claim, fingerprint, is_done, model_digest, named, write_outputs
from segvit.prediction.predict import Prediction, predict
from segvit.prediction.video import VideoDone, predict_video
from segvit.prediction.video_options import VideoOptions
from segvit.prediction.video_outputs import OVERLAY, facts_if_done
from segvit.utils.distributed import decided_by_first, gather, rank, world_size
from segvit.utils.progress import FrameProgress, Progress
from segvit.utils.threads import in_order, threads
from segvit.video.address import Address, parse_address

__all__ = ["Done", "Failure", "find_images", "predict_files"]

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Failure:
    """An input that gave no label map, or a video not all of them, and why."""

    path: Path
    reason: str


@dataclass(frozen=True, kw_only=True)
class Done:
    """What has become of the inputs, each in their order."""

    written: list[Path]
    """Label maps of images written now."""
    skipped: list[Path]
    """Label maps of images that were there already."""
    failures: list[Failure]
    """Of images."""
    videos: list[VideoDone]
    """Written now, those that broke off too."""
    skipped_videos: list[Path]
    """Overlays of videos that were there already."""
    video_failures: list[Failure]
    """Videos that could not be read, or broke off: now, or when they were labelled."""


class _Job(NamedTuple):
    """An image or a video to label."""

    source: str
    target: Path
    """Of its outputs, without suffix."""
    fingerprint: str


class _Plan(NamedTuple):
    """What is to be done, and what need not be."""

    images: list[_Job]
    videos: list[_Job]
    skipped: list[Path]
    skipped_videos: list[Path]
    broken: list[Failure]
    """Of skipped videos."""


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
    video: VideoOptions | None = None,
    overwrite: bool = False,
    workers: int = DataConfig.workers,
    progress: Progress | None = None,
    watch: Callable[[str], AbstractContextManager[FrameProgress]] | None = None,
) -> Done:
    """Label maps, overlays and shares of files and folders, written below `output`.

    For `a/photo.jpg` in a folder input `a`: photo.png (class indices with a palette), photo_overlay.png, photo.json,
    and photo_confidence.png where asked for; subfolders are mirrored. For a video, see `predict_video`. An input is
    skipped whose outputs are all there, made of the file as it is now with the same model and settings;
    `output`/predict.yaml keeps the latter. A webcam or stream is recorded anew each time, under the time of its start.

    In a process group (torchrun) every process must call this: it does its share, and each is told of all.

    Args:
        model: on the device where it shall run.
        inputs: files and folders; or one webcam or stream.
        output: folder to write to.
        config: how the images are cut. Default: as the model was trained to be tested.
        precision: see `predict`.
        opacity: of the overlay's colours.
        confidence: write confidence maps too.
        raw_ids: write the dataset's own ids instead of class indices.
        video: how videos are labelled.
        overwrite: compute all anew, whatever is there.
        workers: threads that read, and as many that write, while the model works. 0: one after the other.
        progress: called with the number of images done and in all, of this process's share of what is left.
        watch: called with the name of a video, gives what is told of its frames as they are done.

    Raises:
        UserError: an input that does not exist or holds no image or video; an output that would be written over an
            input or over another input's output, or that was made with other settings; an option for what is not
            there; a precision that the device lacks; a disk that takes no more; or processes that are in no group.
    """
    chosen, video = resolve_precision(model, precision), video or VideoOptions()
    video.check()
    settings: dict[str, Any] = resolve_protocol(model, config) | {
        "precision": chosen.name,
        "ids": "raw" if raw_ids else "index",
        "opacity": float(opacity),
        "confidence": confidence,
    }
    ids = _raw_ids(model) if raw_ids else None
    processes = world_size()
    look: Any = {"config": config, "precision": precision, "confidence": confidence}

    def label(image: npt.NDArray[np.uint8]) -> Prediction:
        return predict(model, image, **look)

    def write(job: _Job, result: Prediction) -> Path:
        made: Any = {"source": Path(job.source), "fingerprint": job.fingerprint}
        return write_outputs(result, job.target, **made, opacity=opacity, raw_ids=ids)

    def label_video(job: _Job, progress: FrameProgress | None) -> VideoDone:
        return predict_video(
            model, job.source, job.target, options=video, fingerprint=job.fingerprint, opacity=opacity, raw_ids=ids,
            workers=workers, progress=progress, **look,
        )  # fmt: skip

    # By one, before any writes: else another would find less left.
    plan = decided_by_first(lambda: _plan(model, inputs, output, settings, video, overwrite=overwrite))
    images, videos = (range(rank(), len(jobs), processes) for jobs in (plan.images, plan.videos))
    outcomes: list[tuple[int, Path | Failure]] = []
    with computing_in(chosen, model.mean.device), evaluating(model):  # what is worked out once serves all images
        for index, outcome in zip(images, _run([plan.images[i] for i in images], label, write, workers), strict=True):
            outcomes.append((index, outcome))
            if progress:
                progress(len(outcomes), len(images))
        seen = [(index, _attempt_video(plan.videos[index], label_video, watch)) for index in videos]
    found, shown = _collected(outcomes), _collected(seen)
    return Done(
        written=[outcome for outcome in found if not isinstance(outcome, Failure)],
        skipped=plan.skipped,
        failures=[outcome for outcome in found if isinstance(outcome, Failure)],
        videos=[outcome for outcome, _ in shown if outcome is not None],
        skipped_videos=plan.skipped_videos,
        video_failures=plan.broken + [failure for _, failure in shown if failure is not None],
    )


def _collected(outcomes: Sequence[tuple[int, T]]) -> list[T]:
    """The outcomes of all processes, in the order of their numbers."""
    return [outcome for _, outcome in sorted(gather(outcomes), key=lambda pair: pair[0])]


def _plan(
    model: Network,
    inputs: Sequence[str | Path],
    output: Path,
    settings: dict[str, Any],
    video: VideoOptions,
    *,
    overwrite: bool,
) -> _Plan:
    """What is left to do, and what is there; from now on the output folder is ours."""
    address = _only_address(inputs)
    found = [] if address else find_inputs(inputs, output)
    check_outputs(found, output)
    _check_options(found, address, settings, video)
    made_with = {"model": model_digest(model), **settings}
    filmed_with = made_with | video.settings
    claim(output, filmed_with, [file for item in found for file in item.outputs(output)], overwrite=overwrite)
    plan = _Plan([], [], [], [], [])
    if address:
        plan.videos.append(_Job(str(inputs[0]), output / f"{address.stem}_{datetime.now():%Y%m%d-%H%M%S}", ""))
    for item in found:
        target, made = output / item.stem, filmed_with | {"seconds": video.seconds} if item.video else made_with
        job = _Job(str(item.path), target, fingerprint(item.path, made))
        if item.video:
            facts = facts_if_done(target, job.fingerprint, video, confidence=settings["confidence"])
            if overwrite or facts is None:
                plan.videos.append(job)
                continue
            plan.skipped_videos.append(named(target, OVERLAY))
            if facts.get("broken"):
                plan.broken.append(_broken(job.source, target, facts["broken"], facts["labelled"]))
        elif not overwrite and is_done(target, job.fingerprint, confidence=settings["confidence"]):
            plan.skipped.append(named(target, LABELS))
        else:
            plan.images.append(job)
    return plan


def _only_address(inputs: Sequence[str | Path]) -> Address | None:
    """The webcam or stream that is the input, if it is one."""
    addresses = [address for given in inputs if (address := parse_address(given))]
    if not addresses:
        return None
    if len(inputs) > 1 or world_size() > 1:
        raise UserError(
            f"{addresses[0].name}: a webcam or stream is given alone, to one process; start a second command for what "
            "else there is"
        )
    return addresses[0]


def _check_options(
    found: Sequence[Input], address: Address | None, settings: dict[str, Any], video: VideoOptions
) -> None:
    """Refuse options for what is not among the inputs."""
    if not address and not any(item.video for item in found):
        chosen = video.settings | ({} if video.seconds is None else {"seconds": video.seconds})
        if chosen:
            raise UserError(f"{_flags(chosen)}: for videos, and there is none among the inputs; leave it out")
    if settings["ids"] == "raw" and not video.frames and all(item.video for item in found):
        raise UserError("--ids raw is for label maps, which videos get with --frames: add that, or leave --ids out")


def _flags(chosen: dict[str, Any]) -> str:
    """Options as they are typed."""
    words = {True: "--{}", False: "--no-{}"}
    return ", ".join(
        (words[value] if isinstance(value, bool) else "--{} {}").format(name, value) for name, value in chosen.items()
    )


def _attempt_video(
    job: _Job,
    label: Callable[[_Job, FrameProgress | None], VideoDone],
    watch: Callable[[str], AbstractContextManager[FrameProgress]] | None,
) -> tuple[VideoDone | None, Failure | None]:
    """What a video gave, and what was wrong with it; another kind of error is told which one it befell."""
    address = parse_address(job.source)
    name = address.name if address else job.source
    try:
        with watch(Path(name).name) if watch else nullcontext() as progress:
            done = label(job, progress)
    except Unreadable as error:
        return None, Failure(path=Path(name), reason=str(error))
    except UserError:
        raise
    except Exception as error:
        error.add_note(f"while predicting {name}")
        raise
    return done, _broken(name, job.target, done.broken, done.frames) if done.broken else None


def _broken(name: str, target: Path, reason: str, frames: int) -> Failure:
    """What is told of a video that broke off."""
    kept = f"what came before, {frames} labelled frames, is in {named(target, OVERLAY)}"
    return Failure(path=Path(name), reason=f"{name}: {reason}; {kept}")


def _run(
    jobs: Sequence[_Job],
    label: Callable[[npt.NDArray[np.uint8]], Prediction],
    write: Callable[[_Job, Prediction], Path],
    workers: int,
) -> Iterator[Path | Failure]:
    """The label map of each job, or why there is none, in their order; read ahead of `label`, and written behind it."""

    def read(job: _Job) -> tuple[_Job, npt.NDArray[np.uint8] | Failure]:
        return job, _attempt(Path(job.source), lambda: np.asarray(read_image(Path(job.source))))

    def look(job: _Job, image: npt.NDArray[np.uint8] | Failure) -> tuple[_Job, Prediction | Failure]:
        return job, image if isinstance(image, Failure) else _attempt(Path(job.source), lambda: label(image))

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

"""Label maps of files and folders of images and videos, by any number of processes, in any number of runs.

    done = predict_files(model, ["photos", "clip.mp4"], Path("seen"))

Inputs that an earlier run with the same settings has labelled are skipped. Threads read ahead of the model and write
behind it. Under torchrun the processes share what is left: single images, and whole videos. Rank 0 plans the work
(segvit/prediction/plan.py) and sends the plan to the others. After that no process waits for another until its share
is done.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from segvit.config import DataConfig, EvalConfig, PrecisionChoice
from segvit.data.bands.reading import Pixels, image_frames, read_pixels
from segvit.data.bands.remarks import remarks
from segvit.data.images import Unreadable
from segvit.errors import UserError
from segvit.inference.network import Network, classes_of, reading_of
from segvit.inference.precision import computing_in, resolve_precision
from segvit.inference.protocol import resolve_protocol
from segvit.models.modes import evaluating
from segvit.pictures.paint import without_background
from segvit.prediction.annotations.annotate import annotate, check_stems
from segvit.prediction.annotations.kinds import SCORED, AnnotationFormat, check_annotations
from segvit.prediction.outcome import Done, Failure, gather_done, report_broken, source_name
from segvit.prediction.outputs import write_outputs
from segvit.prediction.photo import Prediction, label_photo
from segvit.prediction.plan import Broken, Job, make_plan
from segvit.prediction.scenes.predict_scene import predict_scene
from segvit.prediction.video import VideoDone, predict_video
from segvit.prediction.video_options import VideoOptions
from segvit.utils.distributed import decided_by_first, rank, world_size
from segvit.utils.progress import FrameProgress, Progress
from segvit.utils.threads import in_order, threads

T = TypeVar("T")
Watch = Callable[[str], AbstractContextManager[FrameProgress]]
"""Takes the name of a video and gives a progress callback for its frames."""


def predict_files(
    model: Network,
    inputs: Sequence[str | Path],
    output: Path | None = None,
    *,
    config: EvalConfig | None = None,
    precision: PrecisionChoice | None = None,
    opacity: float = 0.6,
    background: bool = True,
    confidence: bool = False,
    raw_ids: bool = False,
    write: Sequence[AnnotationFormat] = (),
    simplify: float = 0.0,
    video: VideoOptions | None = None,
    overwrite: bool = False,
    workers: int = DataConfig.workers,
    progress: Progress | None = None,
    watch: Watch | None = None,
    watch_scene: Watch | None = None,
) -> Done:
    """Write label maps, overlays and shares of files and folders into `output`.

    For `a/photo.jpg` in a folder input `a`, the outputs are photo.png (class indices with a palette),
    photo_overlay.png, photo.json, and photo_confidence.png if asked for. Subfolders are mirrored. `predict_video` lists
    the outputs of a video. A GeoTIFF, or a TIFF file of more than 100 megapixels, gets a GeoTIFF of labels and no
    overlay (segvit/prediction/scenes). A webcam or stream is recorded anew each time, under the time of its start.

    In a process group (torchrun) every process must call this. Each labels its share and returns the whole outcome.

    Args:
        model: on the device to run on.
        inputs: files, folders and globs, or one webcam or stream.
        output: folder to write to; its predict.yaml records the settings. Default: runs/predict, or the first of
            runs/predict-2, runs/predict-3, ... to which the results can be added.
        config: how images are resized and cut. Default: the protocol of the model.
        precision: see `predict`.
        opacity: of the overlay's colours.
        background: paint the background class in overlays.
        confidence: write confidence maps too.
        raw_ids: write the dataset's own ids instead of class indices.
        write: formats of labelling tools to write the label maps of the images in too, below `annotations`. Formats
            with scores need confidence maps, so they are written too. GeoTIFF files take `geojson` alone, in map
            coordinates, beside their label maps.
        simplify: tolerance in pixels of the polygons of `write`. 0: exact.
        video: how videos are labelled.
        overwrite: label everything again, even if the outputs exist.
        workers: number of threads that read, and of those that write, while the model works. 0: no threads.
        progress: called with the number of images done and their total, both in the share of this process.
        watch: called with the name of each video; gives the progress callback for its frames.
        watch_scene: called with the name of each GeoTIFF; gives the progress callback for its rows of tiles.

    Raises:
        UserError: what `make_plan` refuses, a precision that the device lacks, a disk that is full, or processes that
            are in no group.
    """
    chosen, video = resolve_precision(model, precision), video or VideoOptions()
    video.check()
    check_annotations(write, simplify)
    asked, confidence = confidence, confidence or any(kind in SCORED for kind in write)
    settings: dict[str, Any] = resolve_protocol(model, config) | {
        "precision": chosen.name,
        "ids": "raw" if raw_ids else "index",
        "opacity": float(opacity),
        "confidence": confidence,
        **({} if background else {"background": False}),
    }
    if not background:
        without_background(*classes_of(model))
    labeller = _Labeller(
        model=model,
        look={"config": config, "precision": precision, "confidence": confidence},
        style={"opacity": opacity, "background": background, "raw_ids": _raw_ids(model) if raw_ids else None},
        video=video,
        workers=workers,
    )
    world_size()  # refuses processes that are in no group, before anything is written
    # One process plans, before any writes: another would find less left.
    plan = decided_by_first(lambda: make_plan(model, inputs, output, settings, video, overwrite=overwrite, write=write))
    if write:
        check_stems(plan.output, (*(job.target for job in plan.images), *plan.skipped))
    with computing_in(chosen, model.mean.device), evaluating(model):  # cached casts and folds serve all images
        images = _label_images(labeller, plan.images, progress)
        images += _label_scenes(
            labeller,
            plan.scenes,
            watch_scene,
            polygons="geojson" in write,
            reuse=not overwrite,
            confidence=asked,
            first=len(plan.images),
        )
        videos = _label_videos(labeller, plan.videos, watch)
    done = gather_done(plan, images, videos, labeller.remarks)
    if write and rank() == 0:
        ids, classes = labeller.style["raw_ids"], classes_of(model)[0]
        maps = [*done.written, *done.skipped]
        done.annotations.extend(annotate(write, maps, classes, folder=plan.output, tolerance=simplify, raw_ids=ids))
    return done


@dataclass(frozen=True, kw_only=True)
class _Labeller:
    """A model and all settings that turn a job into its outputs."""

    model: Network
    look: dict[str, Any]
    """Settings of `predict`."""
    style: dict[str, Any]
    """Settings of the files written."""
    video: VideoOptions
    workers: int
    remarks: list[str] = field(default_factory=list)
    """Images that were read in another way than expected."""

    def read(self, job: Job) -> Pixels:
        """Read the image of a job as the model takes it."""
        reading = reading_of(self.model)
        frames = image_frames(Path(job.source))
        pixels = read_pixels(Path(job.source), reading)
        found = [f"an animation of {frames} frames, of which the first is labelled"] if frames > 1 else []
        self.remarks.extend(f"{job.source}: {text}" for text in [*found, *remarks(pixels, reading)])
        return pixels

    def label(self, image: Pixels) -> Prediction:
        """Label an image."""
        return label_photo(self.model, image, **self.look, warn=False)

    def write(self, job: Job, result: Prediction) -> Path:
        """Write the outputs of an image and return the path of its label map."""
        return write_outputs(result, job.target, source=Path(job.source), fingerprint=job.fingerprint, **self.style)

    def film(self, job: Job, progress: FrameProgress | None) -> VideoDone:
        """Label a video and write its outputs."""
        return predict_video(
            self.model, job.source, job.target, options=self.video, fingerprint=job.fingerprint, workers=self.workers,
            progress=progress, **self.look, **self.style,
        )  # fmt: skip


# --- images ----------------------------------------------------------------------------------------------------------


def _label_images(
    labeller: _Labeller, jobs: Sequence[Job], progress: Progress | None
) -> list[tuple[int, Path | Failure]]:
    """Label this process's share of the images; return each number with the label map's path or the failure."""
    share = range(rank(), len(jobs), world_size())
    outcomes: list[tuple[int, Path | Failure]] = []
    for index, outcome in zip(share, _outcomes(labeller, [jobs[index] for index in share]), strict=True):
        outcomes.append((index, outcome))
        if progress:
            progress(len(outcomes), len(share))
    return outcomes


def _outcomes(labeller: _Labeller, jobs: Sequence[Job]) -> Iterator[Path | Failure]:
    """Yield the outcome of each image in order, reading ahead of the model and writing behind it."""

    def read(job: Job) -> tuple[Job, Pixels | Failure]:
        return job, _attempt(Path(job.source), lambda: labeller.read(job))

    def label(job: Job, image: Pixels | Failure) -> tuple[Job, Prediction | Failure]:
        return job, image if isinstance(image, Failure) else _attempt(Path(job.source), lambda: labeller.label(image))

    def write(labelled: tuple[Job, Prediction | Failure]) -> Path | Failure:
        job, result = labelled
        return result if isinstance(result, Failure) else labeller.write(job, result)

    workers = labeller.workers
    with threads(workers) as readers, threads(workers) as writers:
        images = in_order(readers, read, jobs, ahead=workers)
        labelled = (label(job, image) for job, image in images)
        yield from in_order(writers, write, labelled, ahead=workers)


def _attempt(path: Path, work: Callable[[], T]) -> T | Failure:
    """Return the result of some work on an image, or its UserError as a failure; other errors get the path added."""
    try:
        return work()
    except UserError as error:
        return Failure(path=path, reason=str(error))
    except Exception as error:
        error.add_note(f"while predicting {path}")
        raise


# --- scenes ----------------------------------------------------------------------------------------------------------


def _label_scenes(
    labeller: _Labeller,
    jobs: Sequence[Job],
    watch: Watch | None,
    *,
    polygons: bool,
    reuse: bool,
    confidence: bool,
    first: int,
) -> list[tuple[int, Path | Failure]]:
    """Label this process's share of the scenes; return each number, counted from `first`, with its outcome."""

    def label(job: Job) -> Path:
        with watch(Path(job.source).name) if watch else nullcontext() as progress:
            done = predict_scene(
                labeller.model,
                Path(job.source),
                job.target,
                config=labeller.look["config"],
                fingerprint=job.fingerprint,
                polygons=polygons,
                reuse=reuse,
                raw_ids=labeller.style["raw_ids"],
                progress=progress,
            )
        labeller.remarks.extend(done.remarks)
        if confidence:
            labeller.remarks.append(f"{job.source}: GeoTIFF files get no confidence map")
        return done.labels

    share = range(rank(), len(jobs), world_size())
    return [(first + index, _attempt(Path(jobs[index].source), partial(label, jobs[index]))) for index in share]


# --- videos ----------------------------------------------------------------------------------------------------------


def _label_videos(
    labeller: _Labeller, jobs: Sequence[Job], watch: Watch | None
) -> list[tuple[int, tuple[VideoDone | None, Failure | None]]]:
    """Label this process's share of the videos; return each number with the outcome and the failure."""
    share = range(rank(), len(jobs), world_size())
    return [(index, _attempt_video(labeller, jobs[index], watch)) for index in share]


def _attempt_video(labeller: _Labeller, job: Job, watch: Watch | None) -> tuple[VideoDone | None, Failure | None]:
    """Return the outcome of a video and what was wrong with it; unexpected errors get its name as a note."""
    name = source_name(job)
    try:
        with watch(Path(name).name) if watch else nullcontext() as progress:
            done = labeller.film(job, progress)
    except Unreadable as error:
        return None, Failure(path=Path(name), reason=str(error))
    except UserError:
        raise
    except Exception as error:
        error.add_note(f"while predicting {name}")
        raise
    return done, report_broken(Broken(job, done.broken, done.frames)) if done.broken else None


def _raw_ids(model: Network) -> tuple[int, ...]:
    """Return the dataset's own values (K,) of the classes."""
    if model.spec is None:
        raise UserError("--ids raw: this model carries no dataset spec, so its raw ids are unknown; leave it out")
    return tuple(model.spec.raw_ids)

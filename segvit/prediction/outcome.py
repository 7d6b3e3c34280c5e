"""Outcome of a prediction, gathered from all processes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from segvit.prediction.names import VIDEO_OVERLAY, named
from segvit.prediction.plan import Broken, Job, Plan
from segvit.prediction.video import VideoDone
from segvit.utils.distributed import gather
from segvit.video.address import parse_address

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Failure:
    """An input without a label map, or a video that broke off, and the reason."""

    path: Path
    reason: str


@dataclass(frozen=True, kw_only=True)
class Done:
    """Outcome of a prediction, in the order of the inputs."""

    output: Path
    """Folder of the outputs."""
    left_out: Mapping[str, int]
    """Number of files in the inputs that are neither images nor videos, by suffix."""
    written: list[Path]
    """Label maps of images, written by this run."""
    skipped: list[Path]
    """Label maps of images that existed already."""
    failures: list[Failure]
    """Images without a label map."""
    videos: list[VideoDone]
    """Videos written by this run, including those that broke off."""
    skipped_videos: list[Path]
    """Overlays of videos that existed already."""
    video_failures: list[Failure]
    """Videos that could not be read or that broke off, in this run or when they were labelled."""
    annotations: list[Path]
    """Files or folders of annotations, one per format asked for."""
    remarks: list[str]
    """Images that were read in another way than expected, such as the first frame of an animation."""


def gather_done(
    plan: Plan,
    images: list[tuple[int, Path | Failure]],
    videos: list[tuple[int, tuple[VideoDone | None, Failure | None]]],
    remarks: list[str],
) -> Done:
    """Gather the outcomes of all processes.

    Args:
        plan: the plan that the processes share.
        images: number and label map, or failure, of each image of this process.
        videos: number, outcome and failure of each video of this process.
        remarks: on images of this process.
    """
    all_images, all_videos = _gathered(images), _gathered(videos)
    return Done(
        output=plan.output,
        left_out=plan.left_out,
        written=[outcome for outcome in all_images if not isinstance(outcome, Failure)],
        skipped=plan.skipped,
        failures=[outcome for outcome in all_images if isinstance(outcome, Failure)],
        videos=[outcome for outcome, _ in all_videos if outcome is not None],
        skipped_videos=plan.skipped_videos,
        video_failures=[report_broken(video) for video in plan.broken]
        + [failure for _, failure in all_videos if failure is not None],
        annotations=[],
        remarks=sorted(gather(remarks)),
    )


def _gathered(outcomes: Sequence[tuple[int, T]]) -> list[T]:
    """Return the outcomes of all processes, in the order of their numbers."""
    return [outcome for _, outcome in sorted(gather(outcomes), key=lambda pair: pair[0])]


def report_broken(broken: Broken) -> Failure:
    """Report a video that broke off."""
    name = source_name(broken.job)
    kept = f"the {broken.frames} frames before are labelled in {named(broken.job.target, VIDEO_OVERLAY)}"
    return Failure(path=Path(name), reason=f"{name}: {broken.reason}; {kept}")


def source_name(job: Job) -> str:
    """Return the path of a video file, or the address of a webcam or stream without its password."""
    address = parse_address(job.source)
    return address.name if address else job.source

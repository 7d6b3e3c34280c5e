"""Plan of a prediction: which images and videos are left to label, and which were labelled by an earlier run.

An input is skipped if all its outputs exist and were made from the same file, with the same model and settings.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from segvit.errors import UserError
from segvit.inference.network import Network
from segvit.prediction.folder import PHOTO_ONLY, claim, find_and_check, only_address
from segvit.prediction.names import LABELS, SCENE_LABELS, SCENE_ROWS, VIDEO_OVERLAY, named
from segvit.prediction.outputs import fingerprint, is_done, is_scene_done, model_digest
from segvit.prediction.video_options import VideoOptions
from segvit.prediction.video_outputs import facts_if_done


class Job(NamedTuple):
    """An image or a video to label."""

    source: str
    """Path of the file, or address of the webcam or stream."""
    target: Path
    """Path of its outputs, without suffix."""
    fingerprint: str
    """Digest of the file and the settings, which the outputs keep."""


class Broken(NamedTuple):
    """A video that was labelled before and that broke off then."""

    job: Job
    reason: str
    """Place and cause of the break."""
    frames: int
    """Number of frames labelled before the break."""


class Plan(NamedTuple):
    """Jobs that are left, and outputs that exist."""

    output: Path
    """Folder to write to."""
    left_out: Mapping[str, int]
    """Number of files in the inputs that are neither images nor videos, by suffix."""
    images: list[Job]
    videos: list[Job]
    skipped: list[Path]
    """Label maps of images that exist."""
    skipped_videos: list[Path]
    """Overlays of videos that exist."""
    broken: list[Broken]
    """Skipped videos that broke off."""
    scenes: list[Job]
    """Rasters that are labelled window by window."""


def make_plan(
    model: Network,
    inputs: Sequence[str | Path],
    output: Path | None,
    settings: dict[str, Any],
    video: VideoOptions,
    *,
    overwrite: bool,
    write: Sequence[str] = (),
) -> Plan:
    """Find the inputs, claim the output folder, and sort the inputs into those left and those done.

    Args:
        model: digested for the record of the output folder.
        inputs: files, folders and globs, or one webcam or stream.
        output: folder to write to. Default: the first of runs/predict, runs/predict-2, ... that accepts the results.
        settings: how label maps are made, as plain values.
        video: how videos are labelled.
        overwrite: plan every input, even if its outputs exist.
        write: formats of annotations to write. Scenes take `geojson` alone.

    Raises:
        UserError: what `find_and_check` refuses, a scene with other annotations, or a folder that cannot be written to.
    """
    made_with = {"model": model_digest(model), **settings}
    filmed_with = made_with | video.settings
    output, found = find_and_check(
        inputs, output, ids=settings["ids"], video=video, overwrite=overwrite, settings=filmed_with
    )
    if (scene := next((item.path for item in found.items if item.scene), None)) and (others := {*write} - {"geojson"}):
        raise UserError(
            f"--write {' '.join(sorted(others))}: {scene} is a GeoTIFF or a very large image, which is written as "
            "geojson alone; predict it in a command of its own"
        )
    only_scenes = bool(found.items) and all(item.scene for item in found.items)
    claim(output, filmed_with, left_open=PHOTO_ONLY if only_scenes else ())
    plan = Plan(output, found.left_out, [], [], [], [], [], [])
    if address := only_address(inputs):
        plan.videos.append(Job(str(inputs[0]), output / f"{address.stem}_{datetime.now():%Y%m%d-%H%M%S}", ""))
    for item in found.items:
        target, made = output / item.stem, filmed_with | {"seconds": video.seconds} if item.video else made_with
        if item.scene:
            made = {name: value for name, value in made.items() if name not in PHOTO_ONLY}
        job = Job(str(item.path), target, fingerprint(item.path, made))
        if item.video:
            facts = facts_if_done(target, job.fingerprint, video, confidence=settings["confidence"])
            if overwrite or facts is None:
                plan.videos.append(job)
                continue
            plan.skipped_videos.append(named(target, VIDEO_OVERLAY))
            if facts.get("broken"):
                plan.broken.append(Broken(job, facts["broken"], facts["labelled"]))
        elif item.scene and (overwrite or not is_scene_done(target, job.fingerprint, polygons="geojson" in write)):
            if overwrite:
                named(target, SCENE_ROWS).unlink(missing_ok=True)
            plan.scenes.append(job)
        elif item.scene:
            plan.skipped.append(named(target, SCENE_LABELS))
        elif not overwrite and is_done(target, job.fingerprint, confidence=settings["confidence"]):
            plan.skipped.append(named(target, LABELS))
        else:
            plan.images.append(job)
    return plan

"""Plan of a prediction: which images and videos are left to label, and which were labelled by an earlier run.

An input is skipped if all its outputs exist and were made from the same file, with the same model and settings.
"""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from segvit.errors import UserError
from segvit.inference.network import Network
from segvit.prediction.inputs import Input, check_outputs, find_inputs
from segvit.prediction.outputs import LABELS, claim, fingerprint, is_done, model_digest, named
from segvit.prediction.video_options import VideoOptions
from segvit.prediction.video_outputs import OVERLAY, facts_if_done
from segvit.utils.distributed import world_size
from segvit.video.address import Address, parse_address


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

    images: list[Job]
    videos: list[Job]
    skipped: list[Path]
    """Label maps of images that exist."""
    skipped_videos: list[Path]
    """Overlays of videos that exist."""
    broken: list[Broken]
    """Skipped videos that broke off."""


def make_plan(
    model: Network,
    inputs: Sequence[str | Path],
    output: Path,
    settings: dict[str, Any],
    video: VideoOptions,
    *,
    overwrite: bool,
) -> Plan:
    """Find the inputs, claim the output folder, and sort the inputs into those left and those done.

    Args:
        model: digested for the record of the output folder.
        inputs: files and folders, or one webcam or stream.
        output: folder to write to.
        settings: how label maps are made, as plain values.
        video: how videos are labelled.
        overwrite: plan every input, even if its outputs exist.

    Raises:
        UserError: an input that does not exist or holds no image or video, an output that would replace an input or
            another output, an output folder of other settings, or an option that fits none of the inputs.
    """
    address = _only_address(inputs)
    found = [] if address else find_inputs(inputs, output)
    check_outputs(found, output)
    _check_options(found, address, settings, video)
    made_with = {"model": model_digest(model), **settings}
    filmed_with = made_with | video.settings
    claim(output, filmed_with, [file for item in found for file in item.outputs(output)], overwrite=overwrite)
    plan = Plan([], [], [], [], [])
    if address:
        plan.videos.append(Job(str(inputs[0]), output / f"{address.stem}_{datetime.now():%Y%m%d-%H%M%S}", ""))
    for item in found:
        target, made = output / item.stem, filmed_with | {"seconds": video.seconds} if item.video else made_with
        job = Job(str(item.path), target, fingerprint(item.path, made))
        if item.video:
            facts = facts_if_done(target, job.fingerprint, video, confidence=settings["confidence"])
            if overwrite or facts is None:
                plan.videos.append(job)
                continue
            plan.skipped_videos.append(named(target, OVERLAY))
            if facts.get("broken"):
                plan.broken.append(Broken(job, facts["broken"], facts["labelled"]))
        elif not overwrite and is_done(target, job.fingerprint, confidence=settings["confidence"]):
            plan.skipped.append(named(target, LABELS))
        else:
            plan.images.append(job)
    return plan


def _only_address(inputs: Sequence[str | Path]) -> Address | None:
    """Return the webcam or stream if it is the input, else None."""
    addresses = [address for given in inputs if (address := parse_address(given))]
    if not addresses:
        return None
    if len(inputs) > 1 or world_size() > 1:
        raise UserError(
            f"{addresses[0].name}: a webcam or stream must be the only input, and runs in one process; start a second "
            "command for the other inputs"
        )
    return addresses[0]


def _check_options(
    found: Sequence[Input], address: Address | None, settings: dict[str, Any], video: VideoOptions
) -> None:
    """Refuse options that fit none of the inputs."""
    if not address and not any(item.video for item in found):
        chosen = video.settings | ({} if video.seconds is None else {"seconds": video.seconds})
        if chosen:
            raise UserError(f"{_flags(chosen)}: only for videos, and the inputs hold no video; leave it out")
    if settings["ids"] == "raw" and not video.frames and all(item.video for item in found):
        raise UserError("--ids raw: videos get label maps only with --frames; add --frames, or leave --ids out")


def _flags(chosen: dict[str, Any]) -> str:
    """Return options in the form of command-line flags."""
    words = {True: "--{}", False: "--no-{}"}
    return ", ".join(
        (words[value] if isinstance(value, bool) else "--{} {}").format(name, value) for name, value in chosen.items()
    )

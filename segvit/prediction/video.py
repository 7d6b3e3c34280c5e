"""Label a video, webcam or stream frame by frame: overlay, shares of the classes, label maps.

    done = predict_video(model, "clip.mp4", Path("seen/clip"))       # seen/clip_overlay.mp4, seen/clip_shares.csv, ...

One thread decodes ahead of the model, others paint behind it, and one encodes. Several frames run through the model
together, and each gets the labels that `segvit.predict` gives it. Memory does not grow with the length, since no step
holds more than a few frames. Of a live source the model takes the newest frame, and the ones before it are dropped.

Letters: B frames, H W size of a frame.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from segvit.config import DataConfig, EvalConfig, PrecisionChoice
from segvit.data.bands.names import COLORS
from segvit.data.bands.reading import Values
from segvit.data.bands.tensors import to_tensor
from segvit.data.images import Unreadable
from segvit.inference.network import Network, classes_of
from segvit.inference.precision import computing_in, resolve_precision
from segvit.inference.protocol import batch_labels, images_per_batch
from segvit.models.modes import evaluating
from segvit.prediction.names import VIDEO_OVERLAY, named
from segvit.prediction.newest_frame import Newest
from segvit.prediction.photo import Prediction
from segvit.prediction.predict import predict
from segvit.prediction.video_options import VideoOptions
from segvit.prediction.video_outputs import VideoOutputs
from segvit.utils.progress import FrameProgress
from segvit.utils.signals import Stop
from segvit.utils.threads import in_order, threads
from segvit.video.reader import Frame, Video, open_video


@dataclass(frozen=True, kw_only=True)
class VideoDone:
    """Outcome of a video."""

    path: Path
    """Path of the overlay."""
    frames: int
    """Number of frames that were labelled and are in the overlay."""
    dropped: int
    """Number of frames of a live source that came while the model was busy. They are in no output."""
    damaged: int
    """Number of frames that the decoder had to repair."""
    first_damaged: int | None
    """Number of the first repaired frame, or None."""
    broken: str | None
    """Place and cause if the video broke off, or None. The frames before are labelled."""


def predict_video(
    model: Network,
    source: str | Path,
    target: Path,
    *,
    options: VideoOptions | None = None,
    config: EvalConfig | None = None,
    precision: PrecisionChoice | None = None,
    opacity: float = 0.6,
    background: bool = True,
    confidence: bool = False,
    raw_ids: Sequence[int] | None = None,
    fingerprint: str = "",
    workers: int = DataConfig.workers,
    progress: FrameProgress | None = None,
) -> VideoDone:
    """Label the frames of a video and write the files that segvit/prediction/video_outputs.py lists.

    A webcam or stream ends by itself, after `options.seconds`, or at SIGINT or SIGTERM. The files are whole then too.

    Args:
        model: on the device to run on.
        source: a file, `webcam:0`, or the address of a stream.
        target: path of the outputs, without suffix. Outputs of an earlier run are replaced at the end.
        options: which frames are labelled, at what size, and which files are written.
        config: how frames are cut, and how many windows run together. Default: the protocol of the model.
        precision: see `segvit.predict`.
        opacity: of the overlay's colours.
        background: paint the background class in the overlay.
        confidence: write a grey video too, white where the model is certain. Frames then run one by one.
        raw_ids: (K,) values for the label maps that `options.frames` asks for. Default: class indices.
        fingerprint: kept in the JSON file.
        workers: number of threads that paint. 0: no threads at all.
        progress: called after each frame.

    Raises:
        UserError: a model of other bands than colours or grey, a source that cannot be opened or holds no picture, an
            impossible option, a precision that the device lacks, or a disk that is full.
    """
    options, config = options or VideoOptions(), config or model.protocol
    options.check()
    _check_bands(model, source)
    chosen = resolve_precision(model, precision)
    label = partial(_label, model, config=config, precision=precision, confidence=confidence)
    classes, palette = classes_of(model)
    style: Any = {"opacity": opacity, "background": background, "confidence": confidence, "raw_ids": raw_ids}
    with (
        open_video(source, resize=options.resize) as video,
        nullcontext() if video.is_file else Stop() as stop,
        computing_in(chosen, model.mean.device),
        evaluating(model),
        VideoOutputs(
            target, size=video.size, time_base=video.time_base, rate=video.rate, classes=classes, palette=palette,
            options=options, **style,
        ) as outputs,
    ):  # fmt: skip
        together = 1 if confidence or video.live else images_per_batch(model, config, video.size)
        with _fetched(video, options, stop, ahead=together if workers else 0) as frames:
            labelled = (pair for group in _groups(frames, together) for pair in zip(group, label(group), strict=True))
            _write(outputs, labelled, workers, progress, _total(video, options))
        done = _done(video, outputs)
        outputs.finish(_facts(video, options, done, fingerprint), end=video.end)
    return done


def _label(
    model: Network,
    frames: Sequence[Frame],
    *,
    config: EvalConfig,
    precision: PrecisionChoice | None,
    confidence: bool,
) -> list[Prediction]:
    """Label frames of one size, which run through the model together unless `confidence` is asked for."""
    pictures = [_as_model_reads(model, frame) for frame in frames]
    if confidence:
        found = [predict(model, image, config=config, precision=precision, confidence=True) for image in pictures]
        return [replace(each, image=frame.image) for each, frame in zip(found, frames, strict=True)]
    images = torch.stack([to_tensor(picture) for picture in pictures])
    classes, palette = classes_of(model)
    return [
        Prediction(image=frame.image, labels=labels.cpu().numpy(), classes=classes, palette=palette, confidence=None)
        for frame, labels in zip(frames, batch_labels(model, images, config), strict=True)
    ]


def _check_bands(model: Network, source: str | Path) -> None:
    """Refuse a model that takes other bands than colours or grey.

    Raises:
        UserError: such a model.
    """
    bands = len(model.mean)
    if bands not in (1, COLORS):
        raise Unreadable(
            f"{source}: a video has {COLORS} bands, and the model takes {bands}; give images, or a model of "
            f"{COLORS} bands"
        )


def _as_model_reads(model: Network, frame: Frame) -> Values:
    """Return a frame as uint8 (H, W, 3), or as grey (H, W, 1) for a model of one band."""
    if len(model.mean) == COLORS:
        return frame.image
    return np.asarray(Image.fromarray(frame.image).convert("L"))[..., None]


def _write(
    outputs: VideoOutputs,
    labelled: Iterator[tuple[Frame, Prediction]],
    workers: int,
    progress: FrameProgress | None,
    total: int | None,
) -> None:
    """Paint labelled frames in `workers` threads, and encode them in order in one more."""
    with threads(workers) as painters, threads(min(workers, 1)) as encoder:
        painted = in_order(painters, outputs.paint, labelled, ahead=workers)
        for count, _ in enumerate(in_order(encoder, outputs.write, painted, ahead=workers), start=1):
            if progress:
                progress(count, None if total is None else max(total, count))  # the header may give too few frames


def _done(video: Video, outputs: VideoOutputs) -> VideoDone:
    """Sum up a video whose frames are all labelled."""
    damaged, first_damaged = video.damaged
    return VideoDone(
        path=named(outputs.target, VIDEO_OVERLAY),
        frames=outputs.count,
        dropped=video.dropped,
        damaged=damaged,
        first_damaged=first_damaged,
        broken=video.broken,
    )


@contextmanager
def _fetched(video: Video, options: VideoOptions, stop: Stop | None, *, ahead: int) -> Iterator[Iterator[Frame]]:
    """Give the frames to label, decoded ahead by a thread, until the video ends or a signal comes."""

    def stopped() -> bool:
        return stop is not None and stop.wished

    if video.live:
        with Newest(video, every=options.every, seconds=options.seconds) as newest:
            yield newest.frames(stopped=stopped)
        return
    source = video.frames(every=options.every, seconds=options.seconds)

    def decoded() -> Iterator[Frame]:
        for frame in in_order(reader, lambda _: next(source, None), itertools.repeat(None), ahead=ahead):
            if frame is None or stopped():
                return
            yield frame

    with threads(min(ahead, 1)) as reader:
        yield decoded()


def _groups(frames: Iterator[Frame], size: int) -> Iterator[list[Frame]]:
    """Yield the frames, `size` at a time; the last group may be smaller."""
    while group := list(itertools.islice(frames, size)):
        yield group


def _total(video: Video, options: VideoOptions) -> int | None:
    """Return how many frames will be labelled, or None if the header does not say."""
    count = video.num_frames
    if options.seconds is not None and count is not None:
        count = min(count, math.ceil(options.seconds * video.rate))
    return None if count is None else -(-count // options.every)


def _facts(video: Video, options: VideoOptions, done: VideoDone, fingerprint: str) -> dict[str, Any]:
    """Return the facts of a video for its JSON file, except the shares of its classes."""
    height, width = video.size
    return {
        "video": str(Path(video.name).absolute()) if video.is_file else video.name,
        "width": width,
        "height": height,
        "rate": round(float(video.rate), 6),
        "decoded": video.count,
        **options.settings,
        "dropped": done.dropped,
        "damaged": done.damaged,
        "first_damaged": done.first_damaged,
        "broken": done.broken,
        "fingerprint": fingerprint,
    }

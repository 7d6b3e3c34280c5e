"""The command `segvit predict`."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from segvit.cli.flags import ProtocolFlags, check_paths
from segvit.cli.help.panels import panel
from segvit.config import DataConfig, Device, PrecisionChoice
from segvit.errors import UserError
from segvit.prediction.annotations.kinds import AnnotationFormat, check_annotations
from segvit.prediction.video_options import VideoOptions
from segvit.utils.launcher import first_process
from segvit.utils.text import counted

if TYPE_CHECKING:
    from rich.progress import TaskID

    from segvit.prediction.outcome import Done, Failure
    from segvit.utils.progress import FrameProgress


SHOWN = 5
"""Number of remarks on images that are printed. The others are counted."""


def predict(
    model: Path,
    inputs: list[str],
    *,
    output: Path | None = None,
    protocol: ProtocolFlags = ProtocolFlags(),
    precision: PrecisionChoice | None = None,
    compile: bool = False,
    opacity: float = 0.6,
    background: bool = True,
    confidence: bool = False,
    ids: Literal["index", "raw"] = "index",
    write: tuple[AnnotationFormat, ...] = (),
    simplify: float = 0.0,
    video: Annotated[VideoOptions, Parameter(name="*", group=panel("Videos"))] = VideoOptions(),
    overwrite: bool = False,
    workers: int = DataConfig.workers,
    device: Device = "auto",
) -> None:
    """Write label maps of images and videos: index PNG, overlay with a legend, share of each class.

    photo.jpg gives photo.png (class numbers), photo_overlay.png and photo.json. clip.mp4 gives clip_overlay.mp4,
    clip_shares.csv (one line per frame) and clip_video.json. A webcam or stream is labelled until it ends, you press
    Ctrl-C, or --seconds have passed. Frames that arrive too fast are dropped and counted.

    A GeoTIFF scene.tif gives scene_labels.tif, a GeoTIFF in the same place on the map, and scene.json. A scene of any
    size needs little memory, and a killed run resumes within it.

    Outputs that exist already, from the same model and settings, are skipped: run the same command again to resume.
    With torchrun --nproc-per-node N -m segvit predict ..., N processes share the images and videos.

    Parameters
    ----------
    model
        Model file (.safetensors; .onnx or .xml of `segvit export`), repository of the Hugging Face Hub (user/repo), or
        a name from the zoo.
    inputs
        Images, videos, folders and globs ("photos/*.jpg") of them; or a webcam (webcam:0) or the address of a stream
        (rtsp://..., http://...). Addresses are opened only if they are given here.
    output
        Folder to write to. Default: runs/predict, or the first of runs/predict-2, runs/predict-3, ... that holds no
        results of another model, of other settings, or of other photos of the same names.
    precision
        Precision to compute in; auto picks the fastest. Default: fp32, in which the model was scored. An exported model
        uses the precision of its export.
    compile
        Compile the model first (torch.compile). It takes a minute or two and pays off for thousands of images.
    opacity
        Opacity of the colours over the photo, from 0 to 1.
    background
        --no-background leaves the class called background unpainted in overlays.
    confidence
        Also write a confidence map, or a grey confidence video; white is certain.
    ids
        Values of the label maps: index for class numbers with a palette, raw for the dataset's own ids.
    write
        Also write the labels of images as files of labelling tools, in the subfolder annotations, with a polygon for
        each region. coco, label-studio and geojson hold a score for each region, from the confidence maps. GeoTIFF
        files take geojson alone, in map coordinates.
    simplify
        Tolerance in pixels of these polygons, such as 1. Neighbours keep their common boundary. 0: exact polygons.
    overwrite
        Compute everything again, and replace the files in the output folder.
    workers
        Number of threads that read, and of those that write, while the model runs.
    device
        Device to run on.
    """
    if not 0 <= opacity <= 1:
        raise UserError(f"--opacity {opacity}: give a number from 0 to 1")
    if workers < 0:
        raise UserError(f"--workers {workers}: give a number of threads, or 0 for none")
    from segvit.prediction.folder import find_and_check
    from segvit.weights.names import check_model_name

    video.check()
    check_annotations(write, simplify)
    protocol.check()
    check_model_name(model)
    if first_process():  # before torch is imported, which takes seconds
        folder, _ = find_and_check(inputs, output, ids=ids, video=video, overwrite=overwrite)
        check_paths(files=(), folder=folder, flag="--output")
    from segvit.inference.compiled import compile_model
    from segvit.inference.precision import resolve_precision
    from segvit.inference.runtimes import place_for
    from segvit.prediction.predict_files import predict_files
    from segvit.utils.distributed import joined, rank
    from segvit.weights.load import load_network

    with joined(place_for(model, device)) as place:
        network = load_network(model, device=place)
        chosen, main_process = resolve_precision(network, precision), rank() == 0
        if compile:
            compile_model(network)
        if main_process:
            print(f"computing in {chosen}")
        with Bars(shown=main_process) as bars:
            done = predict_files(
                network,
                inputs,
                output,
                config=protocol.over(network.protocol),
                precision=precision,
                opacity=opacity,
                background=background,
                confidence=confidence,
                raw_ids=ids == "raw",
                write=write,
                simplify=simplify,
                video=video,
                overwrite=overwrite,
                workers=workers,
                progress=bars.images,
                watch=bars.frames,
                watch_scene=bars.rows,
            )
    if main_process:
        _tell(done)


def _tell(done: "Done") -> None:
    """Print what was written, and raise an error for the inputs that could not be read.

    Raises:
        UserError: an input could not be read.
    """
    from segvit.data.images import lacking
    from segvit.prediction.inputs import list_kinds

    again = "(--overwrite computes them again)"
    any_video = done.videos or done.skipped_videos or done.video_failures
    if done.skipped:
        there = f"{len(done.skipped)} existed already {again}"
        print(f"{len(done.written)} new label maps in {done.output}; {there}")
    elif done.written or done.failures or not any_video:
        print(f"{len(done.written)} label maps in {done.output}")
    for path in done.annotations:
        print(f"annotations: {path}")
    for video in done.videos:
        print(f"{video.path}: {video.frames} frames labelled")
        if video.dropped:
            print(f"  {video.dropped} more arrived while the model was busy and were dropped")
        if video.damaged:
            print(f"  {video.damaged} frames of the video itself are damaged, the first is frame {video.first_damaged}")
    for remark in done.remarks[:SHOWN]:
        print(f"warning: {remark}")
    if len(done.remarks) > SHOWN:
        print(f"warning: and {len(done.remarks) - SHOWN} more images of this kind")
    if done.skipped_videos:
        print(f"{len(done.skipped_videos)} videos existed already {again}")
    missing = {suffix: text for suffix in done.left_out if (text := lacking(suffix))}
    if others := {suffix: count for suffix, count in done.left_out.items() if suffix not in missing}:
        print(f"left out, since they are neither images nor videos: {list_kinds(others)}")
    complaints = [f"{done.left_out[suffix]} {suffix} files left out: {text}" for suffix, text in missing.items()]
    if done.failures:
        tried = len(done.written) + len(done.failures)
        complaints.append(f"{len(done.failures)} of {tried} images could not be read:" + _reasons(done.failures))
    if (count := len(done.video_failures)) > 0:
        complaints.append(f"{counted(count, 'video')} could not be read to the end:" + _reasons(done.video_failures))
    if complaints:
        raise UserError("\n".join(complaints))


def _reasons(failures: "list[Failure]") -> str:
    return "".join(f"\n  {failure.reason}" for failure in failures)


class Bars:
    """Progress bars: one for the images, and below it one for the current video."""

    def __init__(self, *, shown: bool) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        text, speed = TextColumn("{task.description}", markup=False), TextColumn("{task.fields[speed]}")
        columns = (text, BarColumn(), MofNCompleteColumn(), speed, TimeElapsedColumn(), TimeRemainingColumn())
        self._display = Progress(*columns, transient=True, disable=not shown)
        self._images: TaskID | None = None

    def __enter__(self) -> "Bars":
        self._display.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._display.stop()

    def images(self, done: int, total: int) -> None:
        """Update the number of finished images."""
        if self._images is None:
            self._images = self._display.add_task("images", total=total, speed="")
        self._display.update(self._images, completed=done, total=total)

    def frames(self, name: str) -> "AbstractContextManager[FrameProgress]":
        """Show a bar for a video inside the block. A total of None means that its length is unknown."""
        return self._parts(name, "frames")

    def rows(self, name: str) -> "AbstractContextManager[FrameProgress]":
        """Show a bar for the rows of tiles of a GeoTIFF inside the block."""
        return self._parts(name, "rows of tiles")

    @contextmanager
    def _parts(self, name: str, parts: str) -> "Iterator[FrameProgress]":
        task = self._display.add_task(name, total=None, speed="")
        since = time.monotonic()

        def update(done: int, total: int | None) -> None:
            speed = f"{done / max(time.monotonic() - since, 1e-9):.1f} {parts}/s"
            self._display.update(task, completed=done, total=total, speed=speed)

        try:
            yield update
        finally:
            self._display.remove_task(task)

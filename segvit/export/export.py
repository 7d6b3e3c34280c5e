"""Export a model to another runtime. If its labels match PyTorch's, the file is placed; else an error leaves no file.

exported = segvit.export_model(model, "model.onnx")                         # the ending chooses the format
exported = segvit.export_model(model, "small.onnx", precision="int8", images=["photos"])
segvit.predict(segvit.load_onnx("model.onnx"), "photo.jpg")

This is the one door for all formats of segvit/export/formats/.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from segvit.errors import UserError
from segvit.export.agreement import Agreement, check_sizes, compare
from segvit.export.formats.format import Format, Run
from segvit.export.formats.table import FORMATS, choose_format
from segvit.export.graph import LabelGraph, NotExportable
from segvit.export.onnx_file import OPSET
from segvit.export.placement import place, size_in_bytes
from segvit.export.quantize import ExportPrecision, calibration_windows
from segvit.export.traced import Traced
from segvit.inference.network import image_for
from segvit.models.downsampling import STRIDE
from segvit.models.segvit import SegViT
from segvit.prediction.inputs import find_images
from segvit.utils.files import writing
from segvit.utils.text import first_line, percentage
from segvit.weights.model_file import header_text

MOST_DIFFERING: dict[ExportPrecision, float | None] = {"fp32": 0.001, "fp16": 0.01, "int8": None}
"""Maximum share of an image's pixels that may get another label than in PyTorch. None: no limit; it is only printed."""
MOST_PHOTOS = 32
"""Maximum number of user images compared. If there are more, they are picked at equal distances."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A written file or folder and its properties."""

    path: Path
    format: str
    """Name of the format."""
    precision: ExportPrecision
    size: tuple[int, int] | None
    """Fixed (H, W) in pixels, or None if it takes any size."""
    agreement: Agreement | None
    """Comparison with PyTorch. None: the format cannot be run here (`Format.unchecked`)."""
    calibrated_on: int = 0
    """Number of images that int8 was calibrated on. 0: int8 takes its ranges from each image."""
    note: str | None = None
    """Reason why the size is fixed although no size was given."""

    @property
    def num_bytes(self) -> int:
        """Size in bytes, with the files beside it."""
        return size_in_bytes(FORMATS[self.format].files(self.path))

    def lines(self) -> list[str]:
        """Describe the file to the user, in lines of text."""
        size = "any height and width" if self.size is None else f"{self.size[0]} x {self.size[1]} pixels only"
        batch = "any batch" if FORMATS[self.format].any_batch else "one image at a time"
        precision: str = self.precision
        if precision == "int8":
            ranges = f"calibrated on {self.calibrated_on} images" if self.calibrated_on else "dynamic"
            precision = f"int8 ({ranges})"
        compared = f"not compared with PyTorch: {FORMATS[self.format].unchecked}"
        lines = [
            f"{self.path}: {precision}, {self.num_bytes / 1e6:.1f} MB, {batch}, {size}",
            compared if self.agreement is None else str(self.agreement),
        ]
        lines += [f"the size is fixed: {self.note}"] if self.note else []
        return lines + FORMATS[self.format].next_steps(self.path)


@dataclass(frozen=True, kw_only=True)
class _Job:
    """An export whose arguments have been checked."""

    graph: LabelGraph
    form: Format
    path: Path
    precision: ExportPrecision
    photos: Sequence[Path]
    folder: Path
    """Temporary folder beside `path`."""


def export_model(
    model: SegViT,
    path: str | Path,
    *,
    format: str | Format | None = None,
    precision: ExportPrecision | None = None,
    size: tuple[int, int] | None = None,
    scores: bool = False,
    images: Sequence[str | Path] = (),
) -> Exported:
    """Write a model for another runtime, compare its labels with PyTorch's, and keep it only if they agree.

    The input is `images`, uint8 (B, 3, H, W) RGB; or float32 (B, N, H, W) in 0..1 for a model of other bands, or one
    whose data have a white value. The outputs are `labels`, int64 (B, H, W), the logits behind them,
    and `scores` if requested. The header of the model travels along, with the mean and std of the pixels.

    Args:
        model: model on any device; it is not changed.
        path: file or folder to write; an old one is replaced.
        format: name of a format (docs/export.md), or a format with options of its own. Default: that of the ending of
            `path`.
        precision: precision of weights and computation; see segvit/export/quantize.py. Default: the format's first.
        size: fixed (H, W) of the graph in pixels. Default: any size. If backbone or format does not allow that, the
            size of the training crop, and `Exported.note` has the reason.
        scores: return the scores (B, K, H, W) too.
        images: files and folders of your own images, on which labels are compared and int8 is calibrated. At most
            `MOST_PHOTOS` of them are used.

    Raises:
        UserError: a package is missing; format, ending or precision do not fit each other; the file cannot be written;
            an image cannot be read; the weights exceed 2 GB in a format that goes through ONNX; an operation has no
            equivalent; or labels differ from PyTorch's on more than 0.1 % of an image's pixels (1 % in half
            precision). No file is left.
    """
    path = Path(path)
    form = choose_format(path, format)
    chosen = form.choose_precision(precision, has_images=bool(images))
    form.check_target(path)
    form.check(chosen)
    photos = _photos(model, images, path)
    graph = LabelGraph(model, with_scores=scores)
    form.check_model(graph)
    with _folder_beside(path) as folder:
        return _any_size_else_crop(
            _Job(graph=graph, form=form, path=path, precision=chosen, photos=photos, folder=folder), size
        )


def export_onnx(
    model: SegViT,
    path: str | Path,
    *,
    precision: ExportPrecision = "fp32",
    size: tuple[int, int] | None = None,
    scores: bool = False,
    images: Sequence[str | Path] = (),
) -> Exported:
    """Write a model as an ONNX file: `export_model` with the format `onnx`.

    Args:
        model: as in `export_model`.
        path: .onnx file to write; an old one is replaced.
        precision: as in `export_model`.
        size: as in `export_model`.
        scores: as in `export_model`.
        images: as in `export_model`.

    Raises:
        UserError: as in `export_model`.
    """
    return export_model(model, path, format="onnx", precision=precision, size=size, scores=scores, images=images)


def export_program(
    model: SegViT,
    path: str | Path,
    *,
    size: tuple[int, int] | None = None,
    scores: bool = False,
    images: Sequence[str | Path] = (),
) -> Exported:
    """Write a model as a program of torch.export: `export_model` with the format `torch`.

    `torch.export.load(path).module()` runs it. It has the inputs and outputs of the ONNX file, as a tuple, in float32.

    Args:
        model: as in `export_model`.
        path: .pt2 file to write; an old one is replaced.
        size: as in `export_model`.
        scores: as in `export_model`.
        images: as in `export_model`.

    Raises:
        UserError: as in `export_model`.
    """
    return export_model(model, path, format="torch", size=size, scores=scores, images=images)


def _photos(model: SegViT, images: Sequence[str | Path], path: Path) -> list[Path]:
    """Return at most `MOST_PHOTOS` image files among a user's files and folders.

    Raises:
        UserError: there is no such file or folder, or an image cannot be read.
    """
    # One folder at a time: find_images would refuse equal names in two folders, which matter only if files are written.
    found = [file for given in images for file, _ in find_images([given], path)]
    count = min(len(found), MOST_PHOTOS)
    photos = [found[number * len(found) // count] for number in range(count)]
    for photo in photos:
        image_for(model, photo)  # else a bad one raises only after all the work
    return photos


def _any_size_else_crop(job: _Job, size: tuple[int, int] | None) -> Exported:
    """Write at the given size. If it is None and any size is not possible, write at the training crop.

    Raises:
        UserError: the size is too small, or the model cannot be exported.
    """
    least = STRIDE * job.graph.model.backbone.patch_size
    if size is not None and min(size) < least:
        raise UserError(f"size {size[0]} x {size[1]}: give at least {least} x {least} pixels, two patches per side")
    if size is not None or job.form.any_size:
        try:
            return _write(job, size)
        except NotExportable as error:
            if size is not None:
                raise UserError(f"the model cannot be exported at {size[0]} x {size[1]} pixels: {error}") from error
            reason = str(error)
    else:
        reason = f"{job.form.purpose} take images of one size"
    side = job.graph.model.image_size
    try:
        return replace(_write(job, (side, side)), note=reason)
    except NotExportable as error:
        raise UserError(f"the model cannot be exported: {error} (training crop), {reason} (any size)") from error


def _write(job: _Job, size: tuple[int, int] | None) -> Exported:
    """Write and check, in float32 first where the format has it, add the header, and move the result to its name."""
    form = job.form
    traced = Traced(job.graph, size, job.folder, any_batch=form.any_batch)
    calibrates = job.precision == "int8" and form.int8_images != "unused"
    windows = calibration_windows(job.graph.model, job.photos, size) if calibrates else []
    first: dict[ExportPrecision, None] = {"fp32": None} if "fp32" in form.precisions and not form.unchecked else {}
    agreement = None
    for step in first | {job.precision: None}:
        file = job.folder / ("any" if size is None else "fixed") / step / job.path.name
        file.parent.mkdir(parents=True)
        form.write(traced, file, step, windows)
        if not form.unchecked:
            agreement = _compared(job, form.run(file), step, size)
    exported = Exported(
        path=job.path,
        format=form.name,
        precision=job.precision,
        size=size,
        agreement=agreement,
        calibrated_on=len(windows),
    )
    form.add_header(file, traced, _header(job, exported))
    place(form.files(file), form.files(job.path))
    return exported


@contextmanager
def _folder_beside(path: Path) -> Iterator[Path]:
    """Make a temporary folder beside `path` for unfinished files, and remove it at the end.

    Raises:
        UserError: the folder or a file in it cannot be written.
    """
    with writing(path, "give another file"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            yield Path(folder)


def _compared(job: _Job, run: Run, precision: ExportPrecision, size: tuple[int, int] | None) -> Agreement:
    """Compare labels with PyTorch's, and check that they differ by no more than the precision's limit.

    Raises:
        NotExportable: the graph fails at some size, or its labels differ in float32.
        UserError: its labels differ in a lower precision by more than rounding explains.
    """

    def ran(images: Tensor) -> Tensor:
        try:
            return run(images) if job.form.any_batch else torch.cat([run(image[None]) for image in images])
        except Exception as error:
            height, width = images.shape[2:]
            raise NotExportable(f"the graph fails at {height} x {width}: {first_line(error)}") from error

    agreement = compare(job.graph, ran, sizes=check_sizes(job.graph, size), images=job.photos)
    limit = MOST_DIFFERING[precision]
    if limit is not None and agreement.differing > limit:
        found = f"{agreement}; {percentage(limit, 'g')} is the limit"
        if precision == "fp32":
            raise NotExportable(found)
        raise UserError(f"{precision} changes too many labels of this model: {found}. Export it in fp32 instead")
    return agreement


def _header(job: _Job, exported: Exported) -> str:
    """Return the model's header with the facts of the export."""
    model = job.graph.model
    shrink_at = getattr(model.backbone, "shrink_at", None)
    export: dict[str, Any] = {
        "format": exported.format,
        "precision": exported.precision,
        "size": exported.size,
        "mean": model.mean.tolist(),
        "std": model.std.tolist(),
        "cell": model.mask_cell,
        "least": 1 if shrink_at is None else (STRIDE - 1) * model.backbone.patch_size + 1,
        "opset": OPSET if job.form.from_onnx else None,
        "calibrated_on": exported.calibrated_on,
        "differing": None if exported.agreement is None else exported.agreement.differing,
    }
    return header_text(model, {"export": export})

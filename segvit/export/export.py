"""Export a model to one ONNX file or torch.export program whose labels match PyTorch's, or raise and leave no file.

exported = segvit.export_onnx(model, "model.onnx")                          # any batch, height and width
exported = segvit.export_onnx(model, "small.onnx", precision="int8", images=["photos"])
segvit.predict(segvit.load_onnx("model.onnx"), "photo.jpg")
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from segvit.errors import UserError
from segvit.export.agreement import Agreement, check_sizes, compare
from segvit.export.graph import OUTPUTS, LabelGraph, NotExportable, trace
from segvit.export.onnx_file import OPSET, check_bytes, onnx, set_metadata, to_onnx
from segvit.export.quantize import ExportPrecision, calibration_windows, to_half, to_int8
from segvit.inference.network import image_for
from segvit.inference.onnx_model import INPUT, open_session, runtime
from segvit.models.downsampling import STRIDE
from segvit.models.segvit import SegViT
from segvit.prediction.inputs import find_images
from segvit.utils.files import flush_file, writing
from segvit.utils.text import percentage
from segvit.weights.model_file import HEADER_KEY, header_text

MOST_DIFFERING: dict[ExportPrecision, float | None] = {"fp32": 0.001, "fp16": 0.01, "int8": None}
"""Maximum share of an image's pixels that may get another label than in PyTorch. None: no limit; it is only printed."""
MOST_PHOTOS = 32
"""Maximum number of user images compared. If there are more, they are picked at equal distances."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A written file and its properties."""

    path: Path
    precision: ExportPrecision
    size: tuple[int, int] | None
    """Fixed (H, W) in pixels, or None if it takes any size."""
    agreement: Agreement
    calibrated_on: int = 0
    """Number of images that int8 was calibrated on. 0: int8 takes its ranges from each image."""
    note: str | None = None
    """Reason why the size is fixed although no size was given."""

    @property
    def num_bytes(self) -> int:
        """Size of the file in bytes."""
        return self.path.stat().st_size

    def lines(self) -> list[str]:
        """Describe the file to the user, in lines of text."""
        size = "any height and width" if self.size is None else f"{self.size[0]} x {self.size[1]} pixels only"
        precision: str = self.precision
        if precision == "int8":
            ranges = f"calibrated on {self.calibrated_on} images" if self.calibrated_on else "dynamic"
            precision = f"int8 ({ranges})"
        lines = [f"{self.path}: {precision}, {self.num_bytes / 1e6:.1f} MB, any batch, {size}", str(self.agreement)]
        return lines + ([f"the size is fixed: {self.note}"] if self.note else [])


def export_onnx(
    model: SegViT,
    path: str | Path,
    *,
    precision: ExportPrecision = "fp32",
    size: tuple[int, int] | None = None,
    scores: bool = False,
    images: Sequence[str | Path] = (),
) -> Exported:
    """Write a model as an ONNX file, compare its labels with PyTorch's, and keep the file only if they agree.

    The input is `images`, uint8 (B, 3, H, W) RGB; or float32 (B, N, H, W) in 0..1 for a model of other bands, or one
    whose data have a white value. The outputs are `labels`, int64 (B, H, W), the logits behind them,
    and `scores` if requested. The metadata holds the header of a model file, and also the mean and std of the pixels.

    Args:
        model: model on any device; it is not changed.
        path: .onnx file to write; an old one is replaced.
        precision: precision of weights and computation; see segvit/export/quantize.py.
        size: fixed (H, W) of the graph in pixels. Default: any size. If the backbone does not allow that, the size of
            the training crop, and `Exported.note` has the reason.
        scores: return the scores (B, K, H, W) too.
        images: files and folders of your own images, on which labels are compared and int8 is calibrated. At most
            `MOST_PHOTOS` of them are used.

    Raises:
        UserError: onnx, onnxscript or onnxruntime is missing; the suffix is wrong; the file cannot be written; an image
            cannot be read; the weights exceed 2 GB; an operation has no ONNX equivalent; or labels differ from
            PyTorch's on more than 0.1 % of an image's pixels (1 % in half precision). No file is left.
    """
    if precision not in MOST_DIFFERING:
        raise UserError(f"precision {precision!r}: give {', '.join(MOST_DIFFERING)}")
    path = _target(path, ".onnx")
    onnx()
    runtime()
    photos = _photos(model, images, path)
    graph = LabelGraph(model, with_scores=scores)
    check_bytes(graph)
    with _folder_beside(path) as folder:
        return _any_size_else_crop(
            graph, size, lambda fixed: _write_onnx(graph, path, precision, fixed, photos, folder=folder)
        )


def export_program(
    model: SegViT,
    path: str | Path,
    *,
    size: tuple[int, int] | None = None,
    scores: bool = False,
    images: Sequence[str | Path] = (),
) -> Exported:
    """Write a model as a program of torch.export, and keep the file only if its labels agree with PyTorch's.

    `torch.export.load(path).module()` runs it. It has the inputs and outputs of the ONNX file, as a tuple, in float32.
    The header is the extra file `segvit`.

    Args:
        model: as in `export_onnx`.
        path: .pt2 file to write; an old one is replaced.
        size: as in `export_onnx`.
        scores: as in `export_onnx`.
        images: as in `export_onnx`.

    Raises:
        UserError: as in `export_onnx`.
    """
    path = _target(path, ".pt2")
    photos = _photos(model, images, path)
    graph = LabelGraph(model, with_scores=scores)
    with _folder_beside(path) as folder:
        return _any_size_else_crop(graph, size, lambda fixed: _write_program(graph, path, fixed, photos, folder=folder))


def _target(path: str | Path, suffix: str) -> Path:
    """Check the path of the file to write.

    Raises:
        UserError: it has another suffix, or is a folder.
    """
    path = Path(path)
    if path.suffix.lower() != suffix:
        raise UserError(f"{path}: give a file that ends in {suffix}")
    if path.is_dir():
        raise UserError(f"{path}: a folder; give a file, such as {path / f'model{suffix}'}")
    return path


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


def _any_size_else_crop(
    graph: LabelGraph, size: tuple[int, int] | None, write: Callable[[tuple[int, int] | None], Exported]
) -> Exported:
    """Write at the given size. If it is None and the model does not allow any size, write at its training crop.

    Raises:
        UserError: the size is too small, or the model cannot be exported.
    """
    if size is not None and min(size) < STRIDE * graph.model.backbone.patch_size:
        least = STRIDE * graph.model.backbone.patch_size
        raise UserError(f"size {size[0]} x {size[1]}: give at least {least} x {least} pixels, two patches per side")
    try:
        return write(size)
    except NotExportable as error:
        if size is not None:
            raise UserError(f"the model cannot be exported at {size[0]} x {size[1]} pixels: {error}") from error
        reason = str(error)
    side = graph.model.image_size
    try:
        return replace(write((side, side)), note=reason)
    except NotExportable as error:
        raise UserError(f"the model cannot be exported: {error} (any size), {reason} (training crop)") from error


def _write_onnx(
    graph: LabelGraph,
    path: Path,
    precision: ExportPrecision,
    size: tuple[int, int] | None,
    photos: Sequence[Path],
    *,
    folder: Path,
) -> Exported:
    """Translate, check in float32, change the precision, check again, and move the file from `folder` to `path`."""
    translated = to_onnx(trace(graph, size, with_valid=True), graph)
    windows = calibration_windows(graph.model, photos, size) if precision == "int8" else []
    file = folder / "fp32.onnx"
    onnx().save(translated, file)
    agreement = _agreement(graph, file, "fp32", size, photos)
    if precision == "fp16":
        onnx().save(to_half(translated), file)
    elif precision == "int8":
        to_int8(file, folder / "int8.onnx", windows)
        file = folder / "int8.onnx"
    if precision != "fp32":
        agreement = _agreement(graph, file, precision, size, photos)
    exported = Exported(path=path, precision=precision, size=size, agreement=agreement, calibrated_on=len(windows))
    finished = onnx().load(file)
    set_metadata(finished, HEADER_KEY, _header(graph, exported))
    onnx().save(finished, file)
    flush_file(file)
    file.replace(path)
    return exported


def _write_program(
    graph: LabelGraph, path: Path, size: tuple[int, int] | None, photos: Sequence[Path], *, folder: Path
) -> Exported:
    """Trace, save, check the program as loaded from the file, and move the file from `folder` to `path`."""
    program = trace(graph, size, with_valid=False)
    file = folder / "program.pt2"
    # Else PyTorch would require of later images what held for the example, such as a batch of more than one.
    program._guards_code = []
    torch.export.save(program, file)
    module = torch.export.load(file).module()
    agreement = _compared(graph, lambda images: module(images)[0], "fp32", size, photos)
    exported = Exported(path=path, precision="fp32", size=size, agreement=agreement)
    torch.export.save(program, file, extra_files={HEADER_KEY: _header(graph, exported)})
    flush_file(file)
    file.replace(path)
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


def _agreement(
    graph: LabelGraph, file: Path, precision: ExportPrecision, size: tuple[int, int] | None, photos: Sequence[Path]
) -> Agreement:
    """Compare ONNX Runtime's labels with PyTorch's."""
    session = open_session(str(file), torch.device("cpu"), source=file)

    def run(images: Tensor) -> Tensor:
        labels: Tensor = torch.from_numpy(session.run([OUTPUTS[0]], {INPUT: images.numpy()})[0])
        return labels

    return _compared(graph, run, precision, size, photos)


def _compared(
    graph: LabelGraph,
    run: Callable[[Tensor], Tensor],
    precision: ExportPrecision,
    size: tuple[int, int] | None,
    photos: Sequence[Path],
) -> Agreement:
    """Compare labels, and check that they differ by no more than the precision's limit.

    Raises:
        NotExportable: the graph fails at some size, or its labels differ in float32.
        UserError: its labels differ in a lower precision by more than rounding explains.
    """

    def ran(images: Tensor) -> Tensor:
        try:
            return run(images)
        except Exception as error:
            height, width = images.shape[2:]
            raise NotExportable(f"the graph fails at {height} x {width}: {str(error).splitlines()[0]}") from error

    agreement = compare(graph, ran, sizes=check_sizes(graph, size), images=photos)
    limit = MOST_DIFFERING[precision]
    if limit is not None and agreement.differing > limit:
        found = f"{agreement}; {percentage(limit, 'g')} is the limit"
        if precision == "fp32":
            raise NotExportable(found)
        raise UserError(f"{precision} changes too many labels of this model: {found}. Export it in fp32 instead")
    return agreement


def _header(graph: LabelGraph, exported: Exported) -> str:
    """Return the model's header with the facts of the export."""
    model = graph.model
    shrink_at = getattr(model.backbone, "shrink_at", None)
    export: dict[str, Any] = {
        "precision": exported.precision,
        "size": exported.size,
        "mean": model.mean.tolist(),
        "std": model.std.tolist(),
        "cell": model.mask_cell,
        "least": 1 if shrink_at is None else (STRIDE - 1) * model.backbone.patch_size + 1,
        "opset": OPSET if exported.path.suffix.lower() == ".onnx" else None,
        "calibrated_on": exported.calibrated_on,
        "differing": exported.agreement.differing,
    }
    return header_text(model, {"export": export})

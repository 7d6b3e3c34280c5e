"""Models out: one ONNX file or torch.export program that gives PyTorch's labels, or an error and no file.

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

from segvit.data.images import read_image
from segvit.errors import UserError
from segvit.export.agreement import Agreement, check_sizes, compare
from segvit.export.graph import OUTPUTS, LabelGraph, NotExportable, trace
from segvit.export.onnx_file import OPSET, check_bytes, onnx, set_metadata, to_onnx
from segvit.export.quantize import ExportPrecision, calibration_windows, to_half, to_int8
from segvit.inference.onnx_model import INPUT, open_session, runtime
from segvit.models.downsampling import STRIDE
from segvit.models.segvit import SegViT
from segvit.prediction.inputs import find_images
from segvit.utils.files import flush_file, writing
from segvit.utils.text import percentage
from segvit.weights.model_file import HEADER_KEY, header_text

MOST_DIFFERING: dict[ExportPrecision, float | None] = {"fp32": 0.001, "fp16": 0.01, "int8": None}
"""Share of the pixels of an image that may get another label than PyTorch's. None: whatever it is, it is told."""
MOST_PHOTOS = 32
"""Of a user's own images that are looked at; of more they are taken at even distances."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A file that was written, and what is known of it."""

    path: Path
    precision: ExportPrecision
    size: tuple[int, int] | None
    """(H, W) in pixels that it is fixed to; None: it takes any."""
    agreement: Agreement
    calibrated_on: int = 0
    """Images that int8 took its ranges from; 0: from each image anew."""
    note: str | None = None
    """Why the size is fixed although nobody asked for it."""

    @property
    def num_bytes(self) -> int:
        """Of the file."""
        return self.path.stat().st_size

    def lines(self) -> list[str]:
        """What a user should know, in words."""
        size = "any height and width" if self.size is None else f"{self.size[0]} x {self.size[1]} pixels only"
        precision: str = self.precision
        if precision == "int8":
            ranges = f"calibrated on {self.calibrated_on} images" if self.calibrated_on else "dynamic"
            precision = f"int8 ({ranges})"
        told = [f"{self.path}: {precision}, {self.num_bytes / 1e6:.1f} MB, any batch, {size}", str(self.agreement)]
        return told + ([f"the size is fixed: {self.note}"] if self.note else [])


def export_onnx(
    model: SegViT,
    path: str | Path,
    *,
    precision: ExportPrecision = "fp32",
    size: tuple[int, int] | None = None,
    scores: bool = False,
    images: Sequence[str | Path] = (),
) -> Exported:
    """Write a model as an ONNX file, whole and checked, or not at all.

    Its input is `images`, uint8 (B, 3, H, W) RGB; its outputs are `labels`, int64 (B, H, W), the logits behind them,
    and `scores` where asked for. Its metadata hold what a model file's header does, mean and std among them.

    Args:
        model: on any device; it stays as it is.
        path: of the file, .onnx; an old one is replaced.
        precision: of weights and sums; see segvit/export/quantize.py.
        size: (H, W) in pixels to fix the graph to. Default: any size; where a backbone does not allow it, the training
            crop, and `Exported.note` says why.
        scores: give the scores (B, K, H, W) too.
        images: files and folders of a user's own images, to compare labels on, and to calibrate int8 on; of more than
            `MOST_PHOTOS` so many are taken.

    Raises:
        UserError: onnx, onnxscript or onnxruntime is missing; another suffix, or a folder that cannot be written; an
            image that cannot be read; more than 2 GB of weights; an operation that has no translation; or labels that
            differ from PyTorch's on more than 0.1 % of the pixels of an image (1 % in half precision). No file is left.
    """
    if precision not in MOST_DIFFERING:
        raise UserError(f"precision {precision!r}: give {', '.join(MOST_DIFFERING)}")
    path = _target(path, ".onnx")
    onnx()
    runtime()
    photos = _photos(images, path)
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
    """Write a model as a program of torch.export, whole and checked, or not at all: `torch.export.load(path).module()`.

    It takes and gives what the ONNX file does, as a tuple, in float32. The header is the extra file `segvit`.

    Args:
        model: as in `export_onnx`.
        path: of the file, .pt2; an old one is replaced.
        size: as in `export_onnx`.
        scores: as in `export_onnx`.
        images: as in `export_onnx`.

    Raises:
        UserError: as in `export_onnx`.
    """
    path = _target(path, ".pt2")
    photos = _photos(images, path)
    graph = LabelGraph(model, with_scores=scores)
    with _folder_beside(path) as folder:
        return _any_size_else_crop(graph, size, lambda fixed: _write_program(graph, path, fixed, photos, folder=folder))


def _target(path: str | Path, suffix: str) -> Path:
    """The file to write."""
    path = Path(path)
    if path.suffix.lower() != suffix:
        raise UserError(f"{path}: give a file that ends in {suffix}")
    if path.is_dir():
        raise UserError(f"{path}: a folder; give a file, such as {path / f'model{suffix}'}")
    return path


def _photos(images: Sequence[str | Path], path: Path) -> list[Path]:
    """The image files among a user's files and folders, `MOST_PHOTOS` at most, each of which can be read.

    One folder after the other: those of two may bear the same name, for nothing is written of them.
    """
    found = [file for given in images for file, _ in find_images([given], path)]
    count = min(len(found), MOST_PHOTOS)
    photos = [found[number * len(found) // count] for number in range(count)]
    for photo in photos:
        read_image(photo)  # else a bad one is told when all the work is done
    return photos


def _any_size_else_crop(
    graph: LabelGraph, size: tuple[int, int] | None, write: Callable[[tuple[int, int] | None], Exported]
) -> Exported:
    """Write at the size asked for; where any size is and the model does not allow it, at its training crop."""
    if size is not None and min(size) < STRIDE * graph.model.backbone.patch_size:
        least = STRIDE * graph.model.backbone.patch_size
        raise UserError(f"size {size[0]} x {size[1]}: give at least {least} x {least} pixels, two patches a side")
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
    """Translate, check in float32, change the precision, check again, and move the file from `folder` to its place."""
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
    """Trace, check what a reader of the file gets, and move the file from `folder` to its place."""
    program = trace(graph, size, with_valid=False)
    file = folder / "program.pt2"
    # PyTorch would hold every later image to what it noticed of the example, such as more than one in a batch.
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
    """A folder on the disk of `path` for files that are not finished, made before any work; it vanishes in the end.

    Raises:
        UserError: the disk does not take them.
    """
    with writing(path, "give another file"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            yield Path(folder)


def _agreement(
    graph: LabelGraph, file: Path, precision: ExportPrecision, size: tuple[int, int] | None, photos: Sequence[Path]
) -> Agreement:
    """How ONNX Runtime's labels compare with PyTorch's."""
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
    """`compare`, within the limit of the precision.

    Raises:
        NotExportable: in float32: the graph fails at some size, or its labels differ.
        UserError: in a lower precision: its labels differ by more than rounding can excuse.
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
        raise UserError(f"the model does not bear {precision}: {found}. Export it in fp32")
    return agreement


def _header(graph: LabelGraph, exported: Exported) -> str:
    """The model's header, with what only the exported file knows."""
    model = graph.model
    export: dict[str, Any] = {
        "precision": exported.precision,
        "size": exported.size,
        "mean": model.mean.tolist(),
        "std": model.std.tolist(),
        "cell": model.mask_cell,
        "least": 1 if model.backbone.shrink_at is None else (STRIDE - 1) * model.backbone.patch_size + 1,
        "opset": OPSET if exported.path.suffix.lower() == ".onnx" else None,
        "calibrated_on": exported.calibrated_on,
        "differing": exported.agreement.differing,
    }
    return header_text(model, {"export": export})

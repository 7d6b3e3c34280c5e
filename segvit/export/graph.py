"""Trace a model as one graph for other runtimes: uint8 images in, label maps out, normalisation and padding inside.

Letters: B batch, K classes (and queries), H W image, h w token grid.
"""

import copy
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config as shapes

from segvit.errors import UserError
from segvit.inference.exported import LOGITS
from segvit.inference.network import reading_of
from segvit.models.merging.token_merging import merges_by_threshold
from segvit.models.scores import joint_class_logits, scores
from segvit.models.segvit import SegViT
from segvit.utils.text import first_line

OUTPUTS = ("labels", *LOGITS, "scores")
"""Names of the outputs. The last one is optional."""


class LabelGraph(nn.Module):
    """The part of a model that is exported.

    Args:
        model: copied in float32 to the CPU, in evaluation mode.
        with_scores: return the scores as well.

    Raises:
        UserError: the number of tokens that merge depends on the image.
    """

    def __init__(self, model: SegViT, *, with_scores: bool) -> None:
        super().__init__()
        if merges_by_threshold(model.backbone):
            raise UserError(
                "the number of tokens that merge by a threshold depends on the image, which no exported graph can "
                "follow. Merge fixed shares instead: type segvit merge-find MODEL fixed.safetensors --fixed --images "
                "PHOTOS, and export fixed.safetensors"
            )
        self.model = copy.deepcopy(model).to("cpu", torch.float32).eval().requires_grad_(False)
        self.with_scores = with_scores

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs, in order."""
        return OUTPUTS if self.with_scores else OUTPUTS[:-1]

    def forward(self, images: Tensor, valid: Tensor | None = None) -> tuple[Tensor, ...]:
        """Predict labels int64 (B, H, W) of images (B, N, H, W), and return the logits behind them too.

        Args:
            images: R, G, B as uint8; or float32 in 0..1 (`Reading.floats`).
            valid: int64 (2,), height and width of the image part. The rest is padded with the exact mean colour, which
                uint8 could not hold.

        Returns:
            Labels, class logits (B, K, K + 1) or (B, K, 1) of a presence head, mask logits (B, K, h, w), and scores
            (B, K, H, W) if requested.
        """
        if valid is not None:
            rows = torch.arange(images.shape[2]) < valid[0]
            columns = torch.arange(images.shape[3]) < valid[1]
            inside = rows[:, None] & columns
            unit = images if images.is_floating_point() else images.float() / 255
            images = torch.where(inside, unit, self.model.mean[:, None, None])
        output = self.model(images, deep=False)
        volume = scores(output)
        found = (volume.argmax(dim=1), joint_class_logits(output)[-1], output.mask_logits[-1])
        return (*found, volume) if self.with_scores else found


class NotExportable(Exception):
    """The model cannot be traced at this size, or the exported graph gives other labels. The text is the reason."""


def trace(
    graph: LabelGraph,
    size: tuple[int, int] | None,
    *,
    with_valid: bool,
    any_batch: bool = True,
    floats: bool | None = None,
) -> ExportedProgram:
    """Trace the graph by torch.export.

    Args:
        graph: module to trace.
        size: fixed (H, W) in pixels, or None for any size.
        with_valid: include the second input.
        any_batch: allow any batch size; otherwise one image at a time.
        floats: take images as float32 in 0..1, not as uint8. Default: as the model's data are read.

    Raises:
        NotExportable: a part of the model cannot be traced, or only at one size.
    """
    patch = graph.model.backbone.patch_size
    height, width = size or (5 * patch - patch // 3, 7 * patch - patch // 2)  # arbitrary
    dtype = torch.float32 if floats or (floats is None and reading_of(graph.model).floats) else torch.uint8
    example = (
        torch.zeros(2 if any_batch else 1, graph.model.bands, height, width, dtype=dtype),
        torch.tensor([height, width]),
    )
    dims = (0,) * any_batch + (2, 3) * (size is None)
    free: tuple[dict[int, Any], ...] = (dict.fromkeys(dims, Dim.DYNAMIC), {})
    count = 2 if with_valid else 1
    try:
        # Oblivious: properties of the example's sizes (not 1, not a multiple of the patch) do not become conditions.
        oblivious = shapes.patch(backed_size_oblivious=True)  # type: ignore[attr-defined]  # made at import
        with torch.no_grad(), quiet(), oblivious:
            return torch.export.export(graph, example[:count], dynamic_shapes=free[:count], strict=False)
    except (RuntimeError, ValueError, AssertionError) as error:
        raise NotExportable(first_line(error)) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Silence prints, bars, warnings and logs of exporters and quantizers. Errors are still raised."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)

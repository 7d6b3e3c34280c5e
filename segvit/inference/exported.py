"""A model that another runtime computes, wherever a SegViT can infer. Each runtime is one small subclass.

    model = segvit.load_onnx("model.onnx")                              # or segvit.load_openvino("model.xml")
    segvit.predict(model, "photo.jpg").overlay().save("seen.png")       # windows, scales and flips as with any model

Letters: B batch, N bands, K classes, H W image, h w token grid.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segvit.config import Device
from segvit.errors import UserError
from segvit.inference.label_map import label_map
from segvit.inference.network import classes_of, reading_of
from segvit.models.bands import check_images
from segvit.models.output import SegOutput
from segvit.models.scores import ADDED
from segvit.weights.file_kind import no_weights
from segvit.weights.model_file import facts_from_header, parse_header

INPUT, VALID = "images", "valid"
"""Input of an exported graph, and a constant that becomes an input here: height and width of the image part.
To the right of it and below, the graph pads with the exact mean colour, which uint8 could not hold."""
FACTS = {"cell", "least", "mean", "precision", "size"}
"""Keys of the header's part `export` that inference needs."""
LOGITS = ("class_logits", "mask_logits")
"""Outputs of an exported graph that inference reads. It composes the labels itself, over windows, scales and flips."""


class ExportedModel(nn.Module):
    """A graph that `segvit.export_model` wrote, with the attributes of a SegViT that inference needs.

    Args:
        path: the file.
        device: device that the runtime supports.

    Attributes:
        mean: (N,) of each band on the 0..1 scale.
        size: height and width in pixels that the graph is fixed to, or None if it takes any.
        export: facts of the export: precision, agreement with PyTorch, opset.

    Raises:
        UserError: the runtime is missing or cannot run on that device, or the file is missing, was not exported by
            segvit, or was exported by another version.
    """

    suffix: ClassVar[str]
    """Ending of the files."""
    kind: ClassVar[str]
    """Name of the format, with its article."""
    runtime_name: ClassVar[str]
    """Name of the runtime."""
    mean: Tensor

    def __init__(self, path: str | Path, *, device: torch.device | str = "cpu") -> None:
        super().__init__()
        path = Path(path)
        self._check_file(path)
        self.path = path
        metadata = self._open(path, torch.device(device))
        header = parse_header(metadata, f"{path}: {self.kind} file")
        self.export = _facts(header, path, self.kind)
        facts = facts_from_header(header, path)
        self.config, self.parts = facts.config, facts.parts
        self.num_classes, self.image_size = facts.num_classes, facts.image_size
        self.spec, self.protocol, self.extra = facts.spec, facts.protocol, facts.extra
        self.size = None if self.export["size"] is None else (self.export["size"][0], self.export["size"][1])
        self._compile(torch.device(device))  # first: its error about a device that is missing is better than torch's
        self.register_buffer("mean", torch.tensor(self.export["mean"], device=device))
        self.eval()

    @abstractmethod
    def _open(self, path: Path, device: torch.device) -> Mapping[str, str]:
        """Read the file, and return its metadata by key.

        Raises:
            UserError: it cannot be read.
        """

    @abstractmethod
    def _compile(self, device: torch.device) -> None:
        """Prepare the graph that was read, with the constant `VALID` as an input, to compute the logits alone."""

    @abstractmethod
    def _compute(self, inputs: dict[str, npt.NDArray[Any]]) -> tuple[npt.NDArray[np.float32], ...]:
        """Compute `LOGITS` of the inputs `INPUT` (B, N, H, W) and `VALID` (2,)."""

    @classmethod
    def best_device(cls) -> Device:
        """Return the device for `--device auto`."""
        return "cpu"

    @property
    def files(self) -> tuple[Path, ...]:
        """All files of the model."""
        return (self.path,)

    def forward(self, images: Tensor, deep: bool = True, canvas: tuple[int, int] | None = None) -> SegOutput:
        """Compute class and mask logits of images (B, N, H, W), in one supervised output.

        Args:
            images: R, G, B as uint8; or of a graph of floats (`Reading.floats`), float in 0..1, or uint8.
            deep: ignored; a graph has only the prediction.
            canvas: as in `SegViT.forward`.

        Raises:
            UserError: floats for a graph of uint8, other bands, another size than the graph is fixed to, or fewer than
                2 x 2 patches in a shrunk structure.
        """
        check_images(images, len(self.mean))
        if reading_of(self).floats:
            images = images.float() / 255 if images.dtype == torch.uint8 else images.float()
        elif images.dtype != torch.uint8:
            raise UserError(f"images are {images.dtype}: an exported model takes torch.uint8")
        image_size = (images.shape[2], images.shape[3])
        if canvas is not None:
            images = F.pad(images, (0, max(canvas[1] - image_size[1], 0), 0, max(canvas[0] - image_size[0], 0)))
        self._check_size((images.shape[2], images.shape[3]))
        inputs = {VALID: np.array(image_size), INPUT: np.ascontiguousarray(images.cpu().numpy())}
        class_logits, mask_logits = (
            torch.from_numpy(logits).to(self.mean.device)[None] for logits in self._compute(inputs)
        )
        cell = self.export["cell"]
        padded_size = (int(mask_logits.shape[3] * cell), int(mask_logits.shape[4] * cell))
        weights = (ADDED,) if self.config is not None and (self.config.added_head or self.config.added_classes) else ()
        return SegOutput(class_logits, mask_logits, image_size, padded_size, weights=weights)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names (K,) of the classes."""
        return classes_of(self)[0]

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        """Return the class of every pixel (B, H, W) int64 of images (B, N, H, W). `segvit.predict` labels photos.

        Raises:
            UserError: as `forward`.
        """
        return label_map(self(images))

    def _check_size(self, size: tuple[int, int]) -> None:
        """Refuse a size that the graph cannot take."""
        if self.size is not None and size != self.size:
            height, width = self.size
            square = f"use windows of that size (--mode slide --window {height})"
            raise UserError(
                f"{self.path} is fixed to images of {height} x {width} pixels and got {size[0]} x {size[1]}: "
                f"{square if height == width else 'give whole images of that size (--mode whole)'}, or export it "
                "again without --size"
            )
        least = self.export["least"]
        if min(size) < least:
            raise UserError(
                f"an image of {size[0]} x {size[1]} px cannot be shrunk: give at least {least} x {least} px, by "
                "resizing it, or use a plain model"
            )

    @classmethod
    def _check_file(cls, path: Path) -> None:
        """Check that the file exists, and is not one that has nothing to do with models.

        Raises:
            UserError: no such file, or a file of another kind, which the error names if it can be recognised.
        """
        wanted = f"give an {cls.suffix} file written by `segvit export`"
        if path.is_dir():
            raise UserError(f"{path} is a folder: {wanted}")
        if not path.is_file():
            raise UserError(f"no model file {path}: {wanted}")
        if reason := no_weights(path):
            raise UserError(f"{path}: {reason}")


def _facts(header: Mapping[str, Any], path: Path, kind: str) -> dict[str, Any]:
    """Return the part `export` of a header, with the values that inference needs.

    Raises:
        UserError: one is missing or cannot be right.
    """
    facts = header.get("export")
    lacking = FACTS - facts.keys() if isinstance(facts, dict) else FACTS
    if lacking or not isinstance(facts, dict):
        raise UserError(
            f"{path}: {kind} file of another version of segvit (no {', '.join(sorted(lacking))} under 'export' in "
            "its header): export the model again"
        )
    size, mean = facts["size"], facts["mean"]
    right = {
        "cell": _is_cell(facts["cell"]),
        "least": _is_side(facts["least"]),
        "mean": isinstance(mean, list) and bool(mean) and all(_is_finite(value) for value in mean),
        "precision": isinstance(facts["precision"], str),
        "size": size is None or (isinstance(size, list) and len(size) == 2 and all(map(_is_side, size))),
    }
    for key, valid in right.items():
        if not valid:
            raise UserError(
                f"{path}: 'export' in the header has {key} {str(facts[key])[:60]!r}, which no export writes; the file "
                "was damaged or edited: export the model again"
            )
    return facts


def _is_side(value: Any) -> bool:
    """True for a whole number of pixels that an image can have."""
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value < 2**31


def _is_cell(value: Any) -> bool:
    """True for the side of a cell in pixels: a whole number, or a quarter of one behind an upscaler of the masks."""
    return _is_finite(value) and 0 < value < 2**31 and 4 * value == int(4 * value)


def _is_finite(value: Any) -> bool:
    """True for a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

"""Run an exported model (.onnx) in ONNX Runtime, wherever a SegViT can infer.

    model = segvit.load_onnx("model.onnx")
    segvit.predict(model, "photo.jpg").overlay().save("seen.png")       # windows, scales and flips as with any model

Letters: B batch, K classes, H W image, h w token grid.
"""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segvit.config import Device
from segvit.errors import UserError
from segvit.inference.label_map import label_map
from segvit.inference.network import classes_of, reading_of
from segvit.models.inputs import check_images
from segvit.models.output import SegOutput
from segvit.utils.optional import need
from segvit.weights.file_kind import no_weights
from segvit.weights.model_file import facts_from_header, parse_header

INPUT, VALID = "images", "valid"
"""Input of an exported graph, and a constant that becomes an input here: height and width of the image part.
To the right of it and below, the graph pads with the exact mean colour, which uint8 could not hold."""
FACTS = {"cell", "least", "mean", "precision", "size"}
"""Keys of the header's part `export` that inference needs."""
LOGITS = ("class_logits", "mask_logits")
"""Outputs of an exported graph that inference reads. It composes the labels itself, over windows, scales and flips."""


class OnnxModel(nn.Module):
    """A graph that `segvit.export_onnx` wrote, with the attributes of a SegViT that inference needs.

    Args:
        path: the file.
        device: cpu or cuda.

    Attributes:
        mean: (N,) of each band on the 0..1 scale.
        size: height and width in pixels that the graph is fixed to, or None if it takes any.
        export: facts of the export: precision, agreement with PyTorch, opset.

    Raises:
        UserError: onnx or onnxruntime is missing or cannot run on that device, or the file is missing, was not
            exported by segvit, or was exported by another version.
    """

    mean: Tensor

    def __init__(self, path: str | Path, *, device: torch.device | str = "cpu") -> None:
        super().__init__()
        path = Path(path)
        graph = _read(path)
        header = parse_header({entry.key: entry.value for entry in graph.metadata_props}, f"{path}: an ONNX file")
        if lacking := FACTS - header.get("export", {}).keys():
            raise UserError(
                f"{path}: an ONNX file of another version of segvit (no {', '.join(sorted(lacking))} under 'export' in "
                "its header): export the model again"
            )
        facts = facts_from_header(header, path)
        self.config, self.parts = facts.config, facts.parts
        self.num_classes, self.image_size = facts.num_classes, facts.image_size
        self.spec, self.protocol, self.extra = facts.spec, facts.protocol, facts.extra
        self.export: dict[str, Any] = header["export"]
        self.size = None if self.export["size"] is None else (self.export["size"][0], self.export["size"][1])
        self.path = path
        self._session = open_session(_with_valid(graph), torch.device(device), source=path)
        self.register_buffer("mean", torch.tensor(self.export["mean"], device=device))
        self.eval()

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
        inputs = {VALID: np.array(image_size)}
        if canvas is not None:
            images = F.pad(images, (0, max(canvas[1] - image_size[1], 0), 0, max(canvas[0] - image_size[0], 0)))
        size = (images.shape[2], images.shape[3])
        self._check_size(size)
        options = runtime().RunOptions()
        options.only_execute_path_to_fetches = True  # skip its label map
        inputs[INPUT] = np.ascontiguousarray(images.cpu().numpy())
        found = self._session.run(LOGITS, inputs, options)
        class_logits, mask_logits = (torch.from_numpy(logits).to(self.mean.device)[None] for logits in found)
        cell = self.export["cell"]
        padded_size = (mask_logits.shape[3] * cell, mask_logits.shape[4] * cell)
        return SegOutput(class_logits, mask_logits, image_size, padded_size)

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


def load_onnx(path: str | Path, *, device: torch.device | str = "cpu") -> OnnxModel:
    """Load an exported model, for `segvit.predict` and `segvit.evaluate`.

    Args:
        path: a file that `segvit.export_onnx` wrote.
        device: cpu or cuda.

    Raises:
        UserError: see `OnnxModel`.
    """
    return OnnxModel(path, device=device)


def place_for(name: str | Path, device: Device) -> Device:
    """Resolve `--device auto` for an exported model: cuda if ONNX Runtime can use it, else cpu."""
    if device != "auto" or not is_onnx(name):
        return device
    return "cuda" if torch.cuda.is_available() and _provider("cuda") in runtime().get_available_providers() else "cpu"


def is_onnx(name: str | Path) -> bool:
    """True if the name is that of an exported model."""
    return Path(name).suffix.lower() == ".onnx"


def _read(path: Path) -> Any:
    """Read the onnx.ModelProto in a file.

    Raises:
        UserError: no such file, or a file of another kind, which the error names if it can be recognised.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder: give an .onnx file written by `segvit export`")
    if not path.is_file():
        raise UserError(f"no model file {path}: give an .onnx file written by `segvit export`")
    if reason := no_weights(path):
        raise UserError(f"{path}: {reason}")
    onnx = export_package("onnx")
    try:
        return onnx.load(path, load_external_data=False)  # our files have none
    except Exception as error:  # of protobuf's own types
        raise UserError(f"{path}: not a whole ONNX file ({error}); it was cut short, or has another format") from error


def _with_valid(graph: Any) -> bytes:
    """Return the content of a file with its constant `VALID` as an input.

    In the file it is not an input, so that other programs see a single one and their runtimes can fold the constant.
    """
    if any(weight.name == VALID for weight in graph.graph.initializer):
        onnx = export_package("onnx")
        graph.graph.input.append(onnx.helper.make_tensor_value_info(VALID, onnx.TensorProto.INT64, [2]))
    content: bytes = graph.SerializeToString()
    return content


def open_session(content: str | bytes, device: torch.device, *, source: Path) -> Any:
    """Open a session of ONNX Runtime, with as many threads as torch uses.

    Args:
        content: content of an ONNX file, or its path.
        device: device to run on.
        source: the file, for errors.

    Raises:
        UserError: onnxruntime is missing, or cannot run the file on that device.
    """
    onnxruntime = runtime()
    provider = _provider(device.type)
    if provider not in onnxruntime.get_available_providers():
        raise UserError(
            f"{source}: this onnxruntime does not run on {device.type!r}; type --device cpu, or for cuda `pip install "
            "onnxruntime-gpu` instead of onnxruntime"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Threads that spin between two windows would take the cores that compose the label map.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # errors are raised as exceptions
    try:
        return onnxruntime.InferenceSession(content, options, providers=[provider])
    except Exception as error:  # of onnxruntime's own types
        raise UserError(f"{source}: onnxruntime {onnxruntime.__version__} cannot run it ({error})") from error


def _provider(device_type: str) -> str:
    """Return ONNX Runtime's name of the provider for a kind of device."""
    return {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}.get(device_type, "none")


def runtime() -> ModuleType:
    """Import ONNX Runtime when it is used; see `need`."""
    return export_package("onnxruntime")


def export_package(name: str) -> ModuleType:
    """Import a package of the extra `export` when it is used; see `need`."""
    return need(name, ".onnx files", extra="export")

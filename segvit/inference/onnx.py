"""An exported model (.onnx) in ONNX Runtime, in the place of a SegViT in everything that infers.

    model = segvit.load_onnx("model.onnx")
    segvit.predict(model, "photo.jpg").overlay().save("seen.png")       # windows, scales and flips as with any model

Letters: B batch, K classes, H W image, h w token grid.
"""

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segvit.config import Device, EvalConfig, ModelConfig
from segvit.data.spec import DatasetSpec
from segvit.errors import UserError
from segvit.inference.network import Network
from segvit.models.load import load_model
from segvit.models.output import SegOutput
from segvit.models.weights import parse_header, settings_from_header

INPUT, VALID = "images", "valid"
"""The input of an exported graph, and a constant made an input here: height and width of the part that is image.
What is on the right of it and below is padding: the mean colour exactly, which uint8 could not hold."""
LOGITS = ("class_logits", "mask_logits")
"""Outputs of an exported graph that inference reads: it composes the labels itself, over windows, scales and flips."""


class OnnxModel(nn.Module):
    """A graph that `segvit.export_onnx` wrote, with the attributes of a SegViT that inference needs.

    Args:
        path: the file.
        device: cpu or cuda.

    Attributes:
        mean: (3,) of R, G, B on the 0..1 scale.
        size: height and width in pixels that the graph is fixed to; None: it takes any.
        export: how the graph was made: precision, agreement with PyTorch, opset.

    Raises:
        UserError: onnx or onnxruntime is missing, or cannot run on that device; no such file; or not an ONNX file of
            segvit's.
    """

    mean: Tensor

    def __init__(self, path: str | Path, *, device: torch.device | str = "cpu") -> None:
        super().__init__()
        path = Path(path)
        self._session = open_session(path, torch.device(device), with_valid=True)
        metadata = self._session.get_modelmeta().custom_metadata_map
        header = parse_header(metadata, f"{path}: an ONNX file")
        if "export" not in header:
            raise UserError(f"{path}: an ONNX file of segvit's, but its header has no 'export': export the model again")
        self.config = settings_from_header(ModelConfig, header["model"], path)
        self.protocol = settings_from_header(EvalConfig, header["protocol"], path)
        self.spec = DatasetSpec.from_dict(header["spec"], source=str(path)) if header["spec"] else None
        self.num_classes: int = header["num_classes"]
        self.export: dict[str, Any] = header["export"]
        self.size = None if self.export["size"] is None else (self.export["size"][0], self.export["size"][1])
        self.path = path
        self.register_buffer("mean", torch.tensor(self.export["mean"], device=device))
        self.eval()

    def forward(self, images: Tensor, deep: bool = True, canvas: tuple[int, int] | None = None) -> SegOutput:
        """Class and mask logits of images uint8 (B, 3, H, W), in one supervised output.

        Args:
            images: R, G, B.
            deep: as in SegViT; a graph has the prediction alone.
            canvas: as in SegViT.

        Raises:
            UserError: images of floats, or another size than the graph is fixed to.
        """
        if images.dtype != torch.uint8:
            raise UserError(f"images are {images.dtype}: an exported model takes torch.uint8")
        image_size = (images.shape[2], images.shape[3])
        inputs = {VALID: np.array(image_size)}
        if canvas is not None:
            images = F.pad(images, (0, max(canvas[1] - image_size[1], 0), 0, max(canvas[0] - image_size[0], 0)))
        size = (images.shape[2], images.shape[3])
        if self.size is not None and size != self.size:
            raise UserError(
                f"{self.path} is fixed to images of {self.size[0]} x {self.size[1]} pixels and got {size[0]} x "
                f"{size[1]}: look in windows of that size (--mode slide --window {self.size[0]}), or export it again "
                "without --size"
            )
        options = runtime().RunOptions()
        options.only_execute_path_to_fetches = True  # its label map is not worked out
        inputs[INPUT] = np.ascontiguousarray(images.cpu().numpy())
        found = self._session.run(LOGITS, inputs, options)
        class_logits, mask_logits = (torch.from_numpy(logits).to(self.mean.device)[None] for logits in found)
        cell = self.export["cell"]
        padded_size = (mask_logits.shape[3] * cell, mask_logits.shape[4] * cell)
        return SegOutput(class_logits, mask_logits, image_size, padded_size)


def load_onnx(path: str | Path, *, device: torch.device | str = "cpu") -> OnnxModel:
    """An exported model, for `segvit.predict` and `segvit.evaluate`.

    Args:
        path: a file that `segvit.export_onnx` wrote.
        device: cpu or cuda.

    Raises:
        UserError: see `OnnxModel`.
    """
    return OnnxModel(path, device=device)


def load_network(name: str | Path, *, device: torch.device | str) -> Network:
    """An exported model where the name ends in .onnx, else `segvit.load_model` of it."""
    model: Network = load_onnx(name, device=device) if _is_onnx(name) else load_model(name, device=device)
    return model


def place_for(name: str | Path, device: Device) -> Device:
    """The `--device` for a model: for an exported one, auto means cuda where ONNX Runtime can use it, else cpu."""
    if device != "auto" or not _is_onnx(name):
        return device
    return "cuda" if torch.cuda.is_available() and _provider("cuda") in runtime().get_available_providers() else "cpu"


def _is_onnx(name: str | Path) -> bool:
    """Whether the name is that of an exported model."""
    return Path(name).suffix.lower() == ".onnx"


def open_session(path: Path, device: torch.device, *, with_valid: bool) -> Any:
    """A session of ONNX Runtime over a file, with as many threads as torch uses.

    Args:
        path: of the file.
        device: where it shall run.
        with_valid: with `VALID` as a second input.

    Raises:
        UserError: see `OnnxModel`.
    """
    if not path.is_file():
        raise UserError(f"no model file {path}: give an .onnx file written by `segvit export`")
    onnxruntime = runtime()
    onnx = need("onnx") if with_valid else None
    provider = _provider(device.type)
    if provider not in onnxruntime.get_available_providers():
        raise UserError(
            f"{path}: this onnxruntime does not run on {device.type!r}; type --device cpu, or `pip install "
            "onnxruntime-gpu` in the place of onnxruntime for cuda"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Its threads would spin between two windows, on the cores that compose the label map meanwhile.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # errors come back as exceptions
    try:
        file = str(path) if onnx is None else _with_valid(path, onnx)
        return onnxruntime.InferenceSession(file, options, providers=[provider])
    except Exception as error:
        raise UserError(
            f"{path}: not a whole ONNX file ({error}); was it cut short, or is it another format?"
        ) from error


def _with_valid(path: Path, onnx: ModuleType) -> bytes:
    """The content of a file with its constant `VALID` as an input.

    In the file it is none: others should see one input, and their runtimes one constant more to work with.
    """
    model = onnx.load(path)
    if any(weight.name == VALID for weight in model.graph.initializer):
        model.graph.input.append(onnx.helper.make_tensor_value_info(VALID, onnx.TensorProto.INT64, [2]))
    content: bytes = model.SerializeToString()
    return content


def _provider(device_type: str) -> str:
    """ONNX Runtime's name of what runs on a kind of device."""
    return {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}.get(device_type, "none")


def runtime() -> ModuleType:
    """ONNX Runtime; see `need`."""
    return need("onnxruntime")


def need(name: str) -> ModuleType:
    """A package of the extra `export`, imported when it is used.

    Raises:
        UserError: it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise UserError(f".onnx files need {name} ({error}); type `pip install 'segvit[export]'`") from error

"""Runtimes of exported models, by the ending of the file.

model = load_exported("model.xml", device="cpu")
"""

from pathlib import Path

import torch

from segvit.config import Device
from segvit.inference.exported import ExportedModel
from segvit.inference.onnx_model import OnnxModel
from segvit.inference.openvino_model import OpenvinoModel
from segvit.weights.names import is_exported

RUNTIMES: dict[str, type[ExportedModel]] = {kind.suffix: kind for kind in (OnnxModel, OpenvinoModel)}
"""Class of each ending in `segvit.weights.names.EXPORTED`."""


def load_exported(path: str | Path, *, device: torch.device | str) -> ExportedModel:
    """Load an exported model.

    Raises:
        UserError: see `ExportedModel`.
    """
    return RUNTIMES[Path(path).suffix.lower()](path, device=device)


def place_for(name: str | Path, device: Device) -> Device:
    """Resolve `--device auto` for an exported model: the best device that its runtime can use."""
    return RUNTIMES[Path(name).suffix.lower()].best_device() if device == "auto" and is_exported(name) else device

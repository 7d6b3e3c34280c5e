"""Run an exported model (.onnx) in ONNX Runtime, wherever a SegViT can infer.

model = segvit.load_onnx("model.onnx")
segvit.predict(model, "photo.jpg").overlay().save("seen.png")
"""

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from segvit.config import Device
from segvit.errors import UserError
from segvit.inference.exported import LOGITS, VALID, ExportedModel
from segvit.utils.optional import need


class OnnxModel(ExportedModel):
    """An .onnx file that segvit exported, in ONNX Runtime on a CPU or on cuda; see `ExportedModel`.

    Raises:
        UserError: onnx or onnxruntime is missing or cannot run on that device, or the file is missing, was not
            exported by segvit, or was exported by another version.
    """

    suffix = ".onnx"
    kind = "an ONNX"
    runtime_name = "ONNX Runtime"

    def _open(self, path: Path, device: torch.device) -> Mapping[str, str]:
        """Read the onnx.ModelProto."""
        onnx = export_package("onnx")
        try:
            self._graph = onnx.load(path, load_external_data=False)  # our files have none
        except Exception as error:  # of protobuf's own types
            raise UserError(
                f"{path}: not a whole ONNX file ({error}); it was cut short, or has another format"
            ) from error
        return {entry.key: entry.value for entry in self._graph.metadata_props}

    def _compile(self, device: torch.device) -> None:
        """Open the session."""
        self._session = open_session(with_valid(self._graph), device, source=self.path)
        del self._graph

    def _compute(self, inputs: dict[str, npt.NDArray[Any]]) -> tuple[npt.NDArray[np.float32], ...]:
        """Run the session without the label map."""
        options = runtime().RunOptions()
        options.only_execute_path_to_fetches = True
        return tuple(self._session.run(LOGITS, inputs, options))

    @classmethod
    def best_device(cls) -> Device:
        """Return cuda if ONNX Runtime can use it, else cpu."""
        return (
            "cuda" if torch.cuda.is_available() and _provider("cuda") in runtime().get_available_providers() else "cpu"
        )


def load_onnx(path: str | Path, *, device: torch.device | str = "cpu") -> OnnxModel:
    """Load an exported model, for `segvit.predict` and `segvit.evaluate`.

    Args:
        path: an .onnx file that `segvit.export_model` wrote.
        device: cpu or cuda.

    Raises:
        UserError: see `OnnxModel`.
    """
    return OnnxModel(path, device=device)


def with_valid(graph: Any) -> bytes:
    """Return the content of an onnx.ModelProto with its constant `VALID` as an input.

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

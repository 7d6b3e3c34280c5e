"""Run an exported model (.xml and .bin) in OpenVINO, wherever a SegViT can infer.

model = segvit.load_openvino("model.xml")
segvit.predict(model, "photo.jpg").overlay().save("seen.png")
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from segvit.errors import UserError
from segvit.inference.exported import LOGITS, VALID, ExportedModel
from segvit.utils.optional import need
from segvit.weights.model_file import HEADER_KEY


class OpenvinoModel(ExportedModel):
    """An .xml file that segvit exported, with its .bin, in OpenVINO on a CPU; see `ExportedModel`.

    Raises:
        UserError: openvino is missing, the device is another, or the file or its .bin is missing, was not exported by
            segvit, or was exported by another version.
    """

    suffix = ".xml"
    kind = "an OpenVINO"
    runtime_name = "OpenVINO"

    def _open(self, path: Path, device: torch.device) -> Mapping[str, str]:
        """Read the openvino.Model."""
        if device.type != "cpu":
            raise UserError(f"{path}: segvit runs OpenVINO files on a cpu; leave --device {device.type} out")
        if not weights_file(path).is_file():
            raise UserError(f"{path}: there is no {weights_file(path).name} beside it, which holds the weights")
        try:
            self._graph = core().read_model(path)
        except Exception as error:  # of openvino's own types
            raise UserError(
                f"{path}: not a whole OpenVINO file ({reason_of(error)}); it was cut short, or has another format"
            ) from error
        return {HEADER_KEY: self._graph.get_rt_info(HEADER_KEY).astype(str)} if _has_header(self._graph) else {}

    def _compile(self, device: torch.device) -> None:
        """Keep the logits, make the constant `VALID` an input, and compile."""
        try:
            self._compiled = compile_graph(logits_alone(self._graph))
        except Exception as error:  # of openvino's own types
            raise UserError(
                f"{self.path}: OpenVINO {openvino().__version__} cannot run it ({reason_of(error)})"
            ) from error
        del self._graph

    def _compute(self, inputs: dict[str, npt.NDArray[Any]]) -> tuple[npt.NDArray[np.float32], ...]:
        """Run one request. Each has its own memory, so that threads may share the model."""
        found = self._compiled.create_infer_request().infer(inputs, share_inputs=True)
        return tuple(found[name] for name in LOGITS)

    @property
    def files(self) -> tuple[Path, ...]:
        """The graph and its weights."""
        return (self.path, weights_file(self.path))


def load_openvino(path: str | Path, *, device: torch.device | str = "cpu") -> OpenvinoModel:
    """Load an exported model, for `segvit.predict` and `segvit.evaluate`.

    Args:
        path: an .xml file that `segvit.export_model` wrote, with its .bin beside it.
        device: cpu.

    Raises:
        UserError: see `OpenvinoModel`.
    """
    return OpenvinoModel(path, device=device)


def weights_file(path: Path) -> Path:
    """Return the file of the weights beside an .xml file."""
    return path.with_suffix(".bin")


def compile_graph(graph: Any) -> Any:
    """Compile an openvino.Model for the CPU, with as many threads as torch uses.

    Products that are not int8 are float32 on every processor. By default, OpenVINO would round them to bfloat16 where
    the processor is fast at it.
    """
    return core().compile_model(
        graph,
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
            # Pinned threads of two processes would share cores, and so would those of PyTorch between two windows.
            "ENABLE_CPU_PINNING": False,
        },
    )


def logits_alone(graph: Any) -> Any:
    """Return an openvino.Model of `LOGITS`, with the constant `VALID` as an input.

    In the file it is not an input, so that other programs see a single one.
    """
    package = openvino()
    parameters = list(graph.get_parameters())
    constants = [node for node in graph.get_ops() if node.get_friendly_name() == VALID]
    for constant in constants:
        parameter = package.opset8.parameter([2], np.int64, name=VALID)
        parameter.output(0).set_names({VALID})
        constant.output(0).replace(parameter.output(0))
        parameters.append(parameter)
    results = [package.opset8.result(graph.output(name).get_node().input_value(0)) for name in LOGITS]
    return package.Model(results, parameters, "segvit")


def openvino() -> ModuleType:
    """Import OpenVINO when it is used; see `need`."""
    return need("openvino", "OpenVINO files", extra="openvino")


@cache
def core() -> Any:
    """Return the openvino.Core of this process, with its plugin for the CPU loaded.

    A plugin gives the thread that loads it another stack for signals, and puts the old one back when its Core is
    deleted. If two Cores are deleted in the order of their creation, the stack of the first comes back, which is freed
    by then. The next signal, such as that of a program that ends, would end the process. So there is one Core.
    """
    made = openvino().Core()
    made.get_property("CPU", "FULL_DEVICE_NAME")  # loads the plugin
    return made


def reason_of(error: Exception) -> str:
    """Return the last line of an error of OpenVINO, where its reason is."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _has_header(graph: Any) -> bool:
    """True if segvit wrote the file."""
    return bool(graph.has_rt_info(HEADER_KEY))

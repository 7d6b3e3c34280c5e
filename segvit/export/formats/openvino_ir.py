"""Write OpenVINO files (.xml and .bin), in float32, with weights in half precision, or in int8, and run them.

int8 is made by NNCF from a user's images, in the same form on every processor: weights have half the range, because
processors without VNNI add two products of the full range in 16 bits, where they saturate.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from segvit.export.formats.format import Format, Run
from segvit.utils.optional import need

if TYPE_CHECKING:
    from torch import Tensor

    from segvit.export.quantize import ExportPrecision
    from segvit.export.traced import Traced


class OpenvinoIr(Format):
    """OpenVINO. The header is in the model's rt_info."""

    name = "openvino"
    suffix = ".xml"
    lower_case = True
    precisions = ("fp32", "fp16", "int8")
    int8_images = "required"
    from_onnx = True
    packages = ("onnxscript", "onnx", "openvino")
    extra = "openvino"

    def files(self, path: Path) -> tuple[Path, ...]:
        """Return the graph and its weights."""
        return (path, path.with_suffix(".bin"))

    def check(self, precision: "ExportPrecision") -> None:
        """Check the packages; int8 needs NNCF too."""
        super().check(precision)
        if precision == "int8":
            nncf()

    def write(self, traced: "Traced", file: Path, precision: "ExportPrecision", windows: Sequence["Tensor"]) -> None:
        """Convert the ONNX graph; int8 is calibrated on windows (N, H, W)."""
        from segvit.inference.openvino_model import openvino

        graph = _read(traced.onnx_file)
        if precision == "int8":
            graph = _quantized(graph, windows)
        openvino().save_model(graph, file, compress_to_fp16=precision == "fp16")

    def run(self, file: Path) -> Run:
        """Run in OpenVINO on the CPU."""
        import torch

        from segvit.export.graph import OUTPUTS
        from segvit.inference.exported import INPUT
        from segvit.inference.openvino_model import compile_graph, core

        compiled = compile_graph(core().read_model(file))

        def run(images: "Tensor") -> "Tensor":
            labels: Tensor = torch.from_numpy(compiled({INPUT: images.numpy()})[OUTPUTS[0]])
            return labels

        return run

    def add_header(self, file: Path, traced: "Traced", header: str) -> None:
        """Store the header in the rt_info."""
        from segvit.inference.openvino_model import core, openvino
        from segvit.weights.model_file import HEADER_KEY

        graph = core().read_model(file)
        graph.set_rt_info(header, [HEADER_KEY])
        finished = file.with_name(f"finished-{file.name}")
        openvino().save_model(graph, finished, compress_to_fp16=False)  # the weights keep the type that they have
        del graph  # it may map the old file
        for old, new in zip(self.files(file), self.files(finished), strict=True):
            new.replace(old)


def _read(source: Path) -> Any:
    """Read an ONNX file as an openvino.Model, in which `VALID` is a constant of that name.

    It is read as an input first: OpenVINO would fold the operations behind a constant.
    """
    from segvit.export.onnx_file import onnx
    from segvit.inference.exported import VALID
    from segvit.inference.openvino_model import core, openvino

    package = openvino()
    proto = onnx().load(source)
    (value,) = (weight for weight in proto.graph.initializer if weight.name == VALID)
    everything = onnx().numpy_helper.to_array(value)
    proto.graph.initializer.remove(value)
    proto.graph.input.append(onnx().helper.make_tensor_value_info(VALID, onnx().TensorProto.INT64, everything.shape))
    graph = core().read_model(proto.SerializeToString(), b"")
    (parameter,) = (each for each in graph.get_parameters() if VALID in each.output(0).get_names())
    constant = package.opset8.constant(everything, name=VALID)
    parameter.output(0).replace(constant.output(0))
    graph.remove_parameter(parameter)
    return graph


def _quantized(graph: Any, windows: Sequence["Tensor"]) -> Any:
    """Return an openvino.Model in int8, calibrated on windows (N, H, W).

    NNCF makes Cores of its own. It runs in a thread, so that they change no other thread's stack for signals; see
    `segvit.inference.openvino_model.core`.
    """
    from segvit.export.graph import quiet
    from segvit.inference.exported import INPUT

    package = nncf()
    quantize = partial(
        package.quantize,
        graph,
        package.Dataset(list(windows), lambda window: {INPUT: window[None].numpy()}),
        preset=package.QuantizationPreset.MIXED,
        model_type=package.ModelType.TRANSFORMER,
        target_device=package.TargetDevice.CPU,
        subset_size=len(windows),
        ignored_scope=package.IgnoredScope(names=_products_of_activations(graph)),
        advanced_parameters=package.AdvancedQuantizationParameters(overflow_fix=package.OverflowFix.ENABLE),
    )
    with quiet(), ThreadPoolExecutor(1) as thread:
        return thread.submit(quantize).result()


def _products_of_activations(graph: Any) -> list[str]:
    """Name the products of two activations of an openvino.Model: the attention's, and the mask logits.

    They stay in float32, as in ONNX. OpenVINO computes an attention in one step only if its products are float32.
    """
    products = [node for node in graph.get_ops() if node.get_type_name() == "MatMul"]
    return [node.get_friendly_name() for node in products if not _is_weight(node.input_value(1).get_node())]


def _is_weight(node: Any) -> bool:
    """True if a node is a constant, or one in another type or layout."""
    while node.get_type_name() in ("Convert", "Transpose", "Reshape"):
        node = node.input_value(0).get_node()
    return bool(node.get_type_name() == "Constant")


def nncf() -> ModuleType:
    """Import NNCF when it is used, without its reports to its makers; see `need`."""
    with _no_reports():
        return need("nncf", "int8 .xml files", extra="openvino")


@contextmanager
def _no_reports() -> Iterator[None]:
    """Set the variable by which NNCF, while it is imported, leaves its telemetry out."""
    before = os.environ.get("NNCF_CI")
    os.environ["NNCF_CI"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["NNCF_CI"]
        else:
            os.environ["NNCF_CI"] = before

"""What a processor with exact 8-bit products computes with an int8 file, without that processor.

exact_session(path).run(["labels"], {"images": images})
"""

from pathlib import Path
from typing import Any

import onnx
import onnxruntime

PARTS = ("left", "right", "left_zero", "right_zero")


def exact_session(path: Path) -> Any:
    """A session that computes the products of an int8 file in floating point, with room for every sum.

    Without optimisations, a calibrated file (QuantizeLinear, DequantizeLinear, MatMul) is computed in float32. A
    dynamic file has MatMulInteger, which is replaced by a product in float64.
    """
    model = onnx.load(path)
    nodes = [part for node in model.graph.node for part in (_spelled_out(node) or [node])]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _spelled_out(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """(left - zero) @ (right - zero) in float64, for a MatMulInteger; nothing for other nodes."""
    if node.op_type != "MatMulInteger":
        return []
    name = {part: f"{node.name}_{part}" for part in (*PARTS, "left_difference", "right_difference", "product")}
    make = onnx.helper.make_node
    casts = [
        make("Cast", [source], [name[part]], to=onnx.TensorProto.DOUBLE)
        for source, part in zip(node.input, PARTS, strict=True)
    ]
    return [
        *casts,
        make("Sub", [name["left"], name["left_zero"]], [name["left_difference"]]),
        make("Sub", [name["right"], name["right_zero"]], [name["right_difference"]]),
        make("MatMul", [name["left_difference"], name["right_difference"]], [name["product"]]),
        make("Cast", [name["product"]], list(node.output), to=onnx.TensorProto.INT32),
    ]

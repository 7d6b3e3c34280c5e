"""Prepare the graphs of a page: the model without its label map, and the scores of a part of a window.

Letters: K classes, Q queries, h w token grid, y x pixels of a part of a window.
"""

from typing import Any

from segvit.export.onnx_file import IR_VERSION, OPSET, onnx
from segvit.inference.exported import LOGITS, VALID


def logits_graph(model: Any) -> Any:
    """Reduce an onnx.ModelProto to the logits, and make its constant `VALID` an input.

    The browser's runtime would compute the label map of each window, even if nobody reads it. The page composes labels
    over windows instead, as segvit does.
    """
    graph = model.graph
    kept = [output for output in graph.output if output.name in LOGITS]
    del graph.output[:]
    graph.output.extend(kept)
    _drop_unused(graph)
    graph.input.append(onnx().helper.make_tensor_value_info(VALID, onnx().TensorProto.INT64, [2]))
    return model


def _drop_unused(graph: Any) -> None:
    """Remove nodes, weights and shapes that no output of the graph depends on, and the constant `VALID`."""
    maker = {name: number for number, node in enumerate(graph.node) for name in node.output}
    needed = {output.name for output in graph.output}
    open_names, kept = list(needed), set()
    while open_names:  # not in the order of the nodes: half precision appends its casts at the end
        number = maker.get(open_names.pop())
        if number is not None and number not in kept:
            kept.add(number)
            open_names.extend(graph.node[number].input)
            needed.update(graph.node[number].input)
    nodes = [node for number, node in enumerate(graph.node) if number in kept]
    weights = [weight for weight in graph.initializer if weight.name in needed and weight.name != VALID]
    made = {name for node in nodes for name in node.output}
    shapes = [value for value in graph.value_info if value.name in made]
    for field, values in ((graph.node, nodes), (graph.initializer, weights), (graph.value_info, shapes)):
        del field[:]
        field.extend(values)


def gives_presence(model: Any) -> bool:
    """True if an onnx.ModelProto has a presence head, by the last dimension of its class logits (`is_presence`)."""
    (output,) = (output for output in model.graph.output if output.name == LOGITS[0])
    return bool(output.type.tensor_type.shape.dim[-1].dim_value == 1)


def scores_graph(*, presence: bool = False) -> Any:
    """Return the onnx.ModelProto of the scores (K, y x) of a part of a window, as in segvit/inference/tiles.py.

    Its inputs are class logits (Q, K + 1), or (K, 1) of a presence head, mask logits (Q, h, w), and the matrices that
    up-sample them: rows (y, h) and columns (w, x).
    """
    helper, kinds = onnx().helper, onnx().TensorProto

    def tensor(name: str, *shape: str) -> Any:
        return helper.make_tensor_value_info(name, kinds.FLOAT, shape)

    def whole_numbers(name: str, *values: int) -> Any:
        return helper.make_tensor(name, kinds.INT64, [len(values)], values)

    node = helper.make_node
    weighted = [
        node("Softmax", ["class_logits"], ["softmax"], axis=1),
        node("Slice", ["softmax", "first", "no_object", "class_axis"], ["probabilities"]),  # (Q, K)
        node("Transpose", ["probabilities"], ["by_class"], perm=[1, 0]),
        node("MatMul", ["by_class", "by_query"], ["scores"]),
    ]
    independent = [
        node("Sigmoid", ["class_logits"], ["probabilities"]),  # (K, 1)
        node("Mul", ["probabilities", "by_query"], ["scores"]),
    ]
    nodes = [
        node("MatMul", ["rows", "mask_logits"], ["lines"]),  # (Q, y, w)
        node("MatMul", ["lines", "columns"], ["masks"]),  # (Q, y, x)
        node("Sigmoid", ["masks"], ["sigmoid"]),
        node("Reshape", ["sigmoid", "flat"], ["by_query"]),  # (Q, y x)
        *(independent if presence else weighted),
    ]
    graph = helper.make_graph(
        nodes,
        "scores",
        [
            tensor("class_logits", "Q", "1 or K+1"),
            tensor("mask_logits", "Q", "h", "w"),
            tensor("rows", "y", "h"),
            tensor("columns", "w", "x"),
        ],
        [tensor("scores", "K", "yx")],
        [
            whole_numbers("first", 0),
            whole_numbers("no_object", -1),
            whole_numbers("class_axis", 1),
            whole_numbers("flat", 0, -1),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)

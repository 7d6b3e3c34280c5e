"""Translate a traced graph to ONNX, remove notes about this machine, and add the model's header."""

import re
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram

from segvit.errors import UserError
from segvit.export.graph import LabelGraph, NotExportable, quiet
from segvit.inference.exported import INPUT, VALID
from segvit.inference.onnx_model import export_package
from segvit.utils.text import first_line

OPSET = 18
"""Version of ONNX's operators: the first that has all we need. ONNX Runtime and TensorRT have long supported it."""
IR_VERSION = 8
"""Version of the file format: the lowest that opset 18 allows. A newer one only excludes older runtimes."""
MOST_BYTES = 2**31 - 2**24
"""Maximum size of the weights in one ONNX file: protobuf's limit, less room for the graph."""
AXES = ("batch", None, "height", "width")
"""Names of the input's dimensions."""


def onnx() -> ModuleType:
    """Import the onnx package, and check for onnxscript, which PyTorch's exporter needs; see `need`."""
    export_package("onnxscript")
    return export_package("onnx")


def check_bytes(graph: LabelGraph) -> None:
    """Check that one ONNX file can hold the weights of a model.

    Raises:
        UserError: they are too large.
    """
    size = sum(parameter.numel() * 4 for parameter in graph.parameters())
    if size > MOST_BYTES:
        raise UserError(
            f"{size / 1e9:.1f} GB of weights: an ONNX file holds 2 GB; export a .pt2 file of torch.export instead"
        )


def to_onnx(program: ExportedProgram, graph: LabelGraph) -> Any:
    """Translate a program to an onnx.ModelProto.

    Raises:
        NotExportable: an operation has no ONNX equivalent.
    """
    try:
        with quiet():
            translated = torch.onnx.export(
                program,
                (),
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT, VALID],
                output_names=list(graph.outputs),
                verbose=False,
            )
    except RuntimeError as error:  # or its subclass torch.onnx.OnnxExporterError
        raise NotExportable(first_line(error)) from error
    assert translated is not None
    model = translated.model_proto
    _clean(model)
    model.ir_version = IR_VERSION
    (valid,) = [value for value in model.graph.input if value.name == VALID]
    model.graph.input.remove(valid)  # a constant; segvit makes it an input when it opens the file
    model.graph.initializer.append(onnx().numpy_helper.from_array(np.full(2, 2**31 - 1), VALID))
    return model


def _clean(model: Any) -> None:
    """Name the dimensions, and drop the exporter's notes: stack traces and paths of this machine."""
    renamed = {}
    for name, size in zip(AXES, model.graph.input[0].type.tensor_type.shape.dim, strict=True):
        if name is not None and size.dim_param:
            renamed[size.dim_param] = name
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        value.ClearField("metadata_props")
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param:
                size.dim_param = re.sub(r"\bs\d+\b", lambda found: renamed.get(found[0], found[0]), size.dim_param)
    for part in (*model.graph.node, *model.graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for field in ("metadata_props", "doc_string"):
        model.ClearField(field)
        model.graph.ClearField(field)


def set_metadata(model: Any, key: str, text: str) -> None:
    """Set a text in the metadata of an onnx.ModelProto, replacing an older one of that key."""
    kept = [entry for entry in model.metadata_props if entry.key != key]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    model.metadata_props.add(key=key, value=text)

"""Convert an ONNX model to half precision or int8.

Half precision computes in float16. Operators that sum or saturate (norms, softmax, sigmoid) and the label map stay in
float32. Inputs and outputs keep their types. int8 computes the matrix products with weights in integers, with one scale
per channel. Dynamic int8 takes the range of the activations from each image. Calibrated int8 fixes it from a user's
images, with symmetric ranges, as TensorRT requires.

Only the inputs of products with weights are rounded. Products of two activations stay in float32: those of the
attention, and the mask logits.

int8 weights use 7 of their 8 bits, -64 to 64 (`reduce_range`). On x86 without VNNI, one instruction adds two products
of an activation (0 to 255) and a weight in 16 bits, and clips the sum. 2 x 255 x 127 does not fit, 2 x 255 x 64 does.
So every processor computes the same, exact sums. Unsigned weights would be exact with all 8 bits, but TensorRT reads
only signed ones.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from torch import Tensor

from segvit.data.augment.levels import from_levels
from segvit.export.graph import quiet
from segvit.inference.exported import INPUT
from segvit.inference.network import image_for
from segvit.inference.onnx_model import export_package, runtime
from segvit.inference.protocol import protocol_size, resolve_protocol
from segvit.models.segvit import SegViT
from segvit.utils.resize import resize

ExportPrecision = Literal["fp32", "fp16", "int8"]

KEPT_FLOAT32 = ("LayerNormalization", "Softmax", "Sigmoid", "Erf", "Div", "Sub", "ArgMax")
"""Operators that stay in float32 in half precision, besides those on onnxruntime's own list."""
PERCENTILE = 99.99
"""Share of the activations in % that the calibrated range covers. The few largest would cost all others precision."""


def to_half(model: Any) -> Any:
    """Convert an onnx.ModelProto to half precision."""
    runtime()
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    blocked = [*DEFAULT_OP_BLOCK_LIST, *KEPT_FLOAT32]
    with quiet():
        return convert_float_to_float16(model, keep_io_types=True, disable_shape_infer=True, op_block_list=blocked)


def to_int8(source: Path, target: Path, windows: Sequence[Tensor]) -> None:
    """Write an ONNX file in int8.

    Args:
        source: float32 file to read.
        target: file to write.
        windows: image windows (N, H, W) to calibrate on, cut as in inference. If empty, int8 is dynamic.
    """
    runtime()
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_dynamic,
        quantize_static,
    )

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        """Reader of the windows in a range."""

        def __init__(self) -> None:
            self.left: Iterator[Tensor] = iter(())

        def __len__(self) -> int:
            return len(windows)

        def set_range(self, start_index: int, end_index: int) -> None:
            self.left = iter(windows[start_index:end_index])

        def get_next(self) -> dict[str, npt.NDArray[np.uint8]] | None:
            window = next(self.left, None)
            return None if window is None else {INPUT: window[None].numpy()}

    with quiet():
        if not windows:
            quantize_dynamic(
                source,
                target,
                per_channel=True,
                reduce_range=True,
                weight_type=QuantType.QInt8,
                op_types_to_quantize=["MatMul"],
            )
            return
        quantize_static(
            source,
            target,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QInt8,
            op_types_to_quantize=["MatMul"],
            nodes_to_exclude=_products_of_activations(source),
            calibrate_method=CalibrationMethod.Percentile,
            extra_options={
                "ActivationSymmetric": True,
                "CalibPercentile": PERCENTILE,
                # One window at a time: else the activations of all windows are in memory, and must have one shape.
                "CalibStridedMinMax": 1,
                # A product's sums are exact: only its inputs are rounded.
                "OpTypesToExcludeOutputQuantization": ["MatMul"],
            },
        )


def _products_of_activations(source: Path) -> list[str]:
    """Name the products of two activations. onnxruntime's `MatMulConstBOnly` has no effect on calibrated files."""
    graph = export_package("onnx").load(source, load_external_data=False).graph
    weights = {weight.name for weight in graph.initializer}
    return [node.name for node in graph.node if node.op_type == "MatMul" and node.input[1] not in weights]


def calibration_windows(model: SegViT, images: Sequence[Path], size: tuple[int, int] | None) -> list[Tensor]:
    """Cut the middle window (N, H, W) of each image, resized as in the model's test protocol.

    Args:
        model: model with the protocol.
        images: image files.
        size: fixed (H, W) of the graph in pixels, to which whole images are resized, or None.
    """
    window = resolve_protocol(model).get("window")
    windows = []
    for path in images:
        image = image_for(model, path)
        seen = resize(image, size or protocol_size(image.shape[1], image.shape[2], model.protocol))
        if size is None and isinstance(window, int):
            seen = _middle(seen, window, model.mean)
        windows.append(seen)
    return windows


def _middle(image: Tensor, window: int, mean: Tensor) -> Tensor:
    """Crop the middle (N, window, window) of an image (N, H, W), padding with the mean colour if it is smaller."""
    top, left = (max(side - window, 0) // 2 for side in image.shape[1:])
    image = image[:, top : top + window, left : left + window]
    canvas = from_levels(255 * mean.cpu(), image.dtype)[:, None, None].repeat(1, window, window)
    canvas[:, : image.shape[1], : image.shape[2]] = image
    return canvas

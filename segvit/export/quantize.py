"""An ONNX model in half precision or in int8.

Half precision computes in float16, but for what sums up or saturates (norms, softmax, sigmoid) and the label map, in
float32; images and outputs stay as they are. int8 turns the matrix products with weights into whole numbers, one scale
per channel: dynamic takes the range of the activations from each image; calibrated fixes it from a user's images, with
symmetric ranges, as TensorRT wants them.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from segvit.data.images import read_image
from segvit.export.graph import quiet
from segvit.inference.onnx_model import INPUT, runtime
from segvit.inference.protocol import protocol_size, resolve_protocol
from segvit.models.segvit import SegViT
from segvit.utils.resize import resize

ExportPrecision = Literal["fp32", "fp16", "int8"]

KEPT_FLOAT32 = ("LayerNormalization", "Softmax", "Sigmoid", "Erf", "Div", "Sub", "ArgMax")
"""Operators that half precision leaves alone, besides those that onnxruntime's own list names."""
PERCENTILE = 99.99
"""Share of the activations, in %, that the calibrated range holds: the rare largest would cost all others digits."""


def to_half(model: Any) -> Any:
    """An onnx.ModelProto in half precision."""
    runtime()
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    blocked = [*DEFAULT_OP_BLOCK_LIST, *KEPT_FLOAT32]
    with quiet():
        return convert_float_to_float16(model, keep_io_types=True, disable_shape_infer=True, op_block_list=blocked)


def to_int8(source: Path, target: Path, windows: Sequence[Tensor]) -> None:
    """Write an ONNX file in int8.

    Args:
        source: file in float32.
        target: file to write.
        windows: uint8 (3, H, W), as the model will see images, to calibrate on. Empty: dynamic.
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
        """Hands out the windows of a range."""

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
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QInt8,
            op_types_to_quantize=["MatMul"],
            calibrate_method=CalibrationMethod.Percentile,
            extra_options={
                "ActivationSymmetric": True,
                "CalibPercentile": PERCENTILE,
                # Ranges one at a time: else the activations of all windows are in memory together, of one shape.
                "CalibStridedMinMax": 1,
                "MatMulConstBOnly": True,  # products of two activations stay in float32: the mask logits are one
            },
        )


def calibration_windows(model: SegViT, images: Sequence[Path], size: tuple[int, int] | None) -> list[Tensor]:
    """The middle of each image as the model's test protocol shows it: uint8 (3, H, W) each.

    Args:
        model: whose protocol it is.
        images: files.
        size: (H, W) in pixels that the graph is fixed to: images are resized to it whole.
    """
    window = resolve_protocol(model).get("window")
    windows = []
    for path in images:
        image = pil_to_tensor(read_image(path))
        seen = resize(image, size or protocol_size(image.shape[1], image.shape[2], model.protocol))
        if size is None and isinstance(window, int):
            seen = _middle(seen, window, model.mean)
        windows.append(seen)
    return windows


def _middle(image: Tensor, window: int, mean: Tensor) -> Tensor:
    """The middle of an image (3, H, W), on a window (3, window, window) of the mean colour where it is smaller."""
    top, left = (max(side - window, 0) // 2 for side in image.shape[1:])
    image = image[:, top : top + window, left : left + window]
    canvas = (mean * 255).round().to(image.dtype)[:, None, None].repeat(1, window, window)
    canvas[:, : image.shape[1], : image.shape[2]] = image
    return canvas

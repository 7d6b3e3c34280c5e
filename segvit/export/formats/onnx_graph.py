"""Write ONNX files, in float32, half precision or int8, and run them in ONNX Runtime."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segvit.export.formats.format import Format, Run

if TYPE_CHECKING:
    from torch import Tensor

    from segvit.export.quantize import ExportPrecision
    from segvit.export.traced import Traced


class OnnxGraph(Format):
    """ONNX. The metadata hold the header."""

    name = "onnx"
    suffix = ".onnx"
    precisions = ("fp32", "fp16", "int8")
    int8_images = "optional"
    from_onnx = True
    packages = ("onnxscript", "onnx", "onnxruntime")
    extra = "export"

    def write(self, traced: "Traced", file: Path, precision: "ExportPrecision", windows: Sequence["Tensor"]) -> None:
        """Write the translated graph; int8 is calibrated on windows (N, H, W) if any (segvit/export/quantize.py)."""
        from segvit.export.onnx_file import onnx
        from segvit.export.quantize import to_half, to_int8

        if precision == "fp32":
            shutil.copyfile(traced.onnx_file, file)
        elif precision == "fp16":
            onnx().save(to_half(onnx().load(traced.onnx_file)), file)
        else:
            to_int8(traced.onnx_file, file, windows)

    def run(self, file: Path) -> Run:
        """Run in ONNX Runtime on the CPU."""
        import torch

        from segvit.export.graph import OUTPUTS
        from segvit.inference.exported import INPUT
        from segvit.inference.onnx_model import open_session

        session = open_session(str(file), torch.device("cpu"), source=file)

        def run(images: "Tensor") -> "Tensor":
            labels: Tensor = torch.from_numpy(session.run([OUTPUTS[0]], {INPUT: images.numpy()})[0])
            return labels

        return run

    def add_header(self, file: Path, traced: "Traced", header: str) -> None:
        """Store the header in the metadata."""
        from segvit.export.onnx_file import onnx, set_metadata
        from segvit.weights.model_file import HEADER_KEY

        finished = onnx().load(file)
        set_metadata(finished, HEADER_KEY, header)
        onnx().save(finished, file)

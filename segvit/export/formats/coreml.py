"""Convert to Core ML packages. Only macOS runs them, so a package is not compared with PyTorch."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segvit.export.formats.format import Format, Run
from segvit.utils.optional import need
from segvit.utils.text import first_line

if TYPE_CHECKING:
    from torch import Tensor

    from segvit.export.quantize import ExportPrecision
    from segvit.export.traced import Traced


class CoreML(Format):
    """Core ML, for iOS 17, macOS 14 and later. The user-defined metadata hold the header."""

    name = "coreml"
    suffix = ".mlpackage"
    lower_case = True
    precisions = ("fp32", "fp16")
    packages = ("coremltools",)
    extra = "coreml"
    any_size = any_batch = False
    unchecked = "Core ML runs on macOS and iOS only; compare labels there before you use the package"
    marker = "Manifest.json"

    def write(self, traced: "Traced", file: Path, precision: "ExportPrecision", windows: Sequence["Tensor"]) -> None:
        """Convert the program. RGB models take an image of 8 bits, others floats (1, N, H, W) in 0..1."""
        from segvit.export.graph import NotExportable, quiet, trace
        from segvit.export.lowering import lower

        # A program of floats: Core ML has no uint8, and scales the pixels of an image to 0..1 itself.
        program = lower(trace(traced.graph, traced.size, with_valid=False, any_batch=False, floats=True))
        with quiet():
            tools = need("coremltools", self.purpose, extra=self.extra)
            try:
                package = tools.convert(
                    program,
                    inputs=[_input(tools, traced)],
                    outputs=_outputs(tools, traced),
                    minimum_deployment_target=tools.target.iOS17,
                    compute_precision=tools.precision.FLOAT16 if precision == "fp16" else tools.precision.FLOAT32,
                    skip_model_load=True,
                )
            except Exception as error:
                raise NotExportable(f"Core ML cannot convert the model: {first_line(error)}") from error
            _save(package, file)

    def run(self, file: Path) -> Run:
        """Fail; see `unchecked`."""
        raise AssertionError(self.unchecked)

    def add_header(self, file: Path, traced: "Traced", header: str) -> None:
        """Store the header in the user-defined metadata."""
        from segvit.export.graph import quiet
        from segvit.weights.model_file import HEADER_KEY

        with quiet():
            tools = need("coremltools", self.purpose, extra=self.extra)
            package = tools.models.MLModel(str(file), skip_model_load=True)
            package.user_defined_metadata[HEADER_KEY] = header
            finished = file.with_name(f"with-header{self.suffix}")  # coremltools cannot save a package over itself
            _save(package, finished)
        shutil.rmtree(file)
        finished.replace(file)


def _input(tools: Any, traced: "Traced") -> Any:
    """Describe the input: an RGB image, or floats (1, N, H, W) for other bands."""
    from segvit.inference.exported import INPUT
    from segvit.inference.network import reading_of

    assert traced.size is not None
    shape = (1, traced.graph.model.bands, *traced.size)
    if reading_of(traced.graph.model).floats:
        return tools.TensorType(INPUT, shape=shape)
    return tools.ImageType(INPUT, shape=shape, scale=1 / 255, color_layout=tools.colorlayout.RGB)


def _outputs(tools: Any, traced: "Traced") -> list[Any]:
    """Describe the outputs: labels as int32, because Core ML has no int64, and the rest as float32."""
    import numpy as np

    labels, *rest = traced.graph.outputs
    return [tools.TensorType(labels, dtype=np.int32), *(tools.TensorType(name, dtype=np.float32) for name in rest)]


def _save(package: Any, file: Path) -> None:
    """Save a package, without the notes that its converter leaves for another exporter."""
    package.save(str(file))
    (file / "executorch_debug_handle_mapping.json").unlink(missing_ok=True)

"""Write what TensorRT and Triton need: a model repository around an ONNX file, and a script that builds an engine.

    FOLDER/build_engine.sh                  # runs trtexec, then makes Triton serve the engine
    FOLDER/models/segvit/config.pbtxt       # names, types and sizes, for tritonserver --model-repository FOLDER/models
    FOLDER/models/segvit/1/model.onnx       # served by ONNX Runtime until the engine is built

The labels are compared in ONNX Runtime. Neither TensorRT nor Triton is needed to write the folder.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segvit.export.formats.format import Format, Run
from segvit.export.formats.onnx_graph import OnnxGraph

if TYPE_CHECKING:
    from torch import Tensor

    from segvit.export.quantize import ExportPrecision
    from segvit.export.traced import Traced

MODEL = "segvit"
"""Name of the model in Triton."""
REPOSITORY = Path("models")
ONNX, PLAN, CONFIG = (
    REPOSITORY / MODEL / "1" / "model.onnx",
    REPOSITORY / MODEL / "1" / "model.plan",
    REPOSITORY / MODEL / "config.pbtxt",
)
SCRIPT = "build_engine.sh"
MOST_BATCH = 4
"""Maximum number of images in a batch of Triton and of the engine, which reserves memory for it."""


class TensorRT(Format):
    """TensorRT and Triton: a folder around an ONNX file, whose metadata hold the header."""

    name = "tensorrt"
    suffix = ""
    precisions = ("fp32", "fp16", "int8")
    int8_images = "required"
    from_onnx = True
    packages = OnnxGraph.packages
    extra = OnnxGraph.extra
    marker = SCRIPT

    def write(self, traced: "Traced", file: Path, precision: "ExportPrecision", windows: Sequence["Tensor"]) -> None:
        """Write the ONNX file, calibrated on windows (N, H, W) for int8, its configuration, and the script."""
        from segvit.export.onnx_file import onnx

        (file / ONNX).parent.mkdir(parents=True)
        OnnxGraph().write(traced, file / ONNX, precision, windows)
        graph = onnx().load(file / ONNX, load_external_data=False).graph
        (file / CONFIG).write_text(triton_config(graph), encoding="utf-8")
        script = file / SCRIPT
        script.write_text(build_script(graph.input[0].name, shapes(traced)), encoding="utf-8")
        script.chmod(0o755)

    def run(self, file: Path) -> Run:
        """Run the ONNX file in ONNX Runtime."""
        return OnnxGraph().run(file / ONNX)

    def add_header(self, file: Path, traced: "Traced", header: str) -> None:
        """Store the header in the ONNX file."""
        OnnxGraph().add_header(file / ONNX, traced, header)


def shapes(traced: "Traced") -> tuple[tuple[int, ...], ...]:
    """Return the smallest, usual and largest input (B, N, H, W) of the optimisation profile.

    At any size, the sides go from half the training crop, but at least two patches, to twice the crop.
    """
    from segvit.models.downsampling import STRIDE

    model = traced.graph.model
    crop = model.image_size
    if traced.size is not None:
        sides = (traced.size,) * 3
    else:
        least = max(crop // 2, STRIDE * model.backbone.patch_size)
        sides = ((least, least), (crop, crop), (2 * crop, 2 * crop))
    return tuple((batch, model.bands, *side) for batch, side in zip((1, 1, MOST_BATCH), sides, strict=True))


def build_script(name: str, profile: Sequence[Sequence[int]]) -> str:
    """Return a shell script that builds the engine, and switches Triton from ONNX Runtime to it.

    The network is strongly typed: it computes in the types of the ONNX file, whose labels were compared. TensorRT 11
    always does so; TensorRT 10 needs the flag.

    Args:
        name: input of the graph.
        profile: smallest, usual and largest shape of the input.
    """
    flags = [
        f"--{bound}Shapes={name}:{'x'.join(map(str, shape))}"
        for bound, shape in zip(("min", "opt", "max"), profile, strict=True)
    ]
    return f"""#!/bin/sh
# Build a TensorRT engine with trtexec (TensorRT 10 or later), on the GPU that will run it; then Triton serves it.
# Further flags of trtexec may be given.
set -eu
cd "$(dirname "$0")"
trtexec --onnx={ONNX.as_posix()} --saveEngine={PLAN.as_posix()} --stronglyTyped \\
    {" ".join(flags)} "$@"
sed -e 's/"onnxruntime"/"tensorrt"/' -e 's/"{ONNX.name}"/"{PLAN.name}"/' {CONFIG.as_posix()} > {CONFIG.as_posix()}.new
mv {CONFIG.as_posix()}.new {CONFIG.as_posix()}
"""


def triton_config(graph: Any) -> str:
    """Return Triton's configuration of an ONNX graph, whose tensors all begin with a free batch.

    Args:
        graph: onnx.GraphProto. Sizes without a number become -1, which Triton takes for any.
    """
    fields = [f'name: "{MODEL}"', 'backend: "onnxruntime"', f'default_model_filename: "{ONNX.name}"']
    fields.append(f"max_batch_size: {MOST_BATCH}")
    for kind, tensors in (("input", graph.input), ("output", graph.output)):
        fields.append(f"{kind} [\n" + ",\n".join(_tensor(value) for value in tensors) + "\n]")
    return "\n".join([*fields, "dynamic_batching { }", ""])


def _tensor(value: Any) -> str:
    """Describe an input or output of an ONNX graph, without its batch."""
    from segvit.export.onnx_file import onnx

    types = onnx().TensorProto
    kinds = {types.UINT8: "UINT8", types.INT64: "INT64", types.FLOAT: "FP32"}
    tensor = value.type.tensor_type
    batch, *sizes = tensor.shape.dim
    assert batch.dim_param
    dims = ", ".join(str(-1 if size.dim_param else size.dim_value) for size in sizes)
    return f'  {{ name: "{value.name}" data_type: TYPE_{kinds[tensor.elem_type]} dims: [ {dims} ] }}'

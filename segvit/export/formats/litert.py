"""Write LiteRT (TensorFlow Lite) files, in float32 or with int8 weights, and run them in LiteRT's interpreter."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segvit.export.formats.format import Run
from segvit.export.formats.header_file import HeaderBeside
from segvit.utils.optional import need
from segvit.utils.text import first_line

if TYPE_CHECKING:
    from torch import Tensor

    from segvit.export.quantize import ExportPrecision
    from segvit.export.traced import Traced


class LiteRT(HeaderBeside):
    """LiteRT, for Android, browsers and boards. Labels are int32: most of its runtimes have no int64."""

    name = "litert"
    suffix = ".tflite"
    precisions = ("fp32", "int8")
    packages = ("litert_torch", "ai_edge_litert", "ai_edge_quantizer")
    extra = "litert"
    any_size = any_batch = False

    def write(self, traced: "Traced", file: Path, precision: "ExportPrecision", windows: Sequence["Tensor"]) -> None:
        """Convert the program once. For int8, quantize weights; ranges come from each image, not windows (N, H, W)."""
        from segvit.export.graph import quiet

        converted = traced.folder / "converted.tflite"
        if not converted.exists():
            self._convert(traced, converted)
        if precision == "fp32":
            shutil.copyfile(converted, file)
            return
        with quiet():
            quantizer = need("ai_edge_quantizer.quantizer", self.purpose, extra=self.extra)
            names = need("ai_edge_quantizer.qtyping", self.purpose, extra=self.extra).TFLOperationName
            recipe = need("ai_edge_quantizer.recipe_manager", self.purpose, extra=self.extra).RecipeManager()
            # Products with weights only: with those of two activations in int8 too, logits became NaN.
            recipe.add_dynamic_config(regex=".*", operation_name=names.FULLY_CONNECTED, num_bits=8)
            quantizer.Quantizer(str(converted), recipe.get_quantization_recipe()).quantize().export_model(str(file))

    def _convert(self, traced: "Traced", file: Path) -> None:
        """Convert to float32, with the inputs and outputs named as in the ONNX file.

        Raises:
            NotExportable: an operation has no equivalent.
        """
        from segvit.export.graph import NotExportable, quiet
        from segvit.export.named import NamedOutputs
        from segvit.inference.exported import INPUT

        module = NamedOutputs(traced.program.module(), traced.graph.outputs)
        (images,) = traced.program.example_inputs[0]
        with quiet():
            litert = need("litert_torch", self.purpose, extra=self.extra)
            try:
                litert.convert(module, sample_kwargs={INPUT: images}).export(str(file))
            except Exception as error:
                raise NotExportable(f"LiteRT cannot convert the model: {first_line(error)}") from error

    def run(self, file: Path) -> Run:
        """Run in LiteRT's interpreter on the CPU."""
        import torch

        from segvit.export.graph import OUTPUTS
        from segvit.inference.exported import INPUT

        interpreter = need("ai_edge_litert.interpreter", self.purpose, extra=self.extra).Interpreter(str(file))
        runner = interpreter.get_signature_runner()

        def run(images: "Tensor") -> "Tensor":
            return torch.from_numpy(runner(**{INPUT: images.numpy()})[OUTPUTS[0]]).long()

        return run

"""Write programs of ExecuTorch for its XNNPACK backend, and run them in its Python runtime."""

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


class ExecuTorch(HeaderBeside):
    """ExecuTorch with XNNPACK, for phones and boards with a CPU."""

    name = "executorch"
    suffix = ".pte"
    packages = ("executorch",)
    extra = "executorch"
    any_size = any_batch = False

    def write(self, traced: "Traced", file: Path, precision: "ExportPrecision", windows: Sequence["Tensor"]) -> None:
        """Lower the program for images (1, N, H, W). XNNPACK takes what it can; portable kernels compute the rest."""
        from segvit.export.graph import NotExportable, quiet
        from segvit.export.lowering import lower

        program = lower(traced.program)
        with quiet():
            exir = need("executorch.exir", self.purpose, extra=self.extra)
            xnnpack = need("executorch.backends.xnnpack.partition.xnnpack_partitioner", self.purpose, extra=self.extra)
            try:
                edge = exir.to_edge_transform_and_lower(program, partitioner=[xnnpack.XnnpackPartitioner()])
                file.write_bytes(edge.to_executorch().buffer)
            except Exception as error:
                raise NotExportable(f"ExecuTorch cannot lower the model: {first_line(error)}") from error

    def run(self, file: Path) -> Run:
        """Run in ExecuTorch's runtime on the CPU."""
        runtime = need("executorch.runtime", self.purpose, extra=self.extra).Runtime.get()
        method = runtime.load_program(file).load_method("forward")

        def run(images: "Tensor") -> "Tensor":
            labels: Tensor = method.execute([images.contiguous()])[0].clone()  # the next image reuses its memory
            return labels

        return run

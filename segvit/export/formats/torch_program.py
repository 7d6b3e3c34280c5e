"""Write programs of torch.export, and run them in PyTorch."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segvit.export.formats.format import Format, Run

if TYPE_CHECKING:
    from torch import Tensor

    from segvit.export.quantize import ExportPrecision
    from segvit.export.traced import Traced


class TorchProgram(Format):
    """torch.export. The extra file `segvit` holds the header."""

    name = "torch"
    suffix = ".pt2"

    def write(self, traced: "Traced", file: Path, precision: "ExportPrecision", windows: Sequence["Tensor"]) -> None:
        """Save the program. The windows (N, H, W) are not used in float32."""
        import torch

        torch.export.save(traced.program, file)

    def run(self, file: Path) -> Run:
        """Run the program as loaded from the file."""
        import torch

        module = torch.export.load(file).module()
        return lambda images: module(images)[0]

    def add_header(self, file: Path, traced: "Traced", header: str) -> None:
        """Save the program again, with the header."""
        import torch

        from segvit.weights.model_file import HEADER_KEY

        torch.export.save(traced.program, file, extra_files={HEADER_KEY: header})

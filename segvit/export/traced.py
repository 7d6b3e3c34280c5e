"""A traced model in the two forms that formats are written from: a program of torch.export, and an ONNX file."""

from functools import cached_property
from pathlib import Path

from torch.export import ExportedProgram

from segvit.export.graph import LabelGraph, trace
from segvit.export.onnx_file import onnx, to_onnx


class Traced:
    """A model at the size of an export. Each form is made on first use; both raise `NotExportable`.

    Args:
        graph: model to trace.
        size: fixed (H, W) in pixels, or None for any size.
        folder: temporary folder.
        any_batch: allow any batch size; otherwise one image at a time.
    """

    def __init__(
        self, graph: LabelGraph, size: tuple[int, int] | None, folder: Path, *, any_batch: bool = True
    ) -> None:
        self.graph, self.size, self.folder, self.any_batch = graph, size, folder, any_batch

    @cached_property
    def program(self) -> ExportedProgram:
        """Program from images to the outputs of `LabelGraph`, as a tuple."""
        program = trace(self.graph, self.size, with_valid=False, any_batch=self.any_batch)
        # Else PyTorch would require of later images what held for the example, such as a batch of more than one.
        program._guards_code = []
        return program

    @cached_property
    def onnx_file(self) -> Path:
        """File of the float32 ONNX graph, with the constant `VALID`. Copy it; never change it."""
        file = self.folder / "traced.onnx"
        program = trace(self.graph, self.size, with_valid=True, any_batch=self.any_batch)
        onnx().save(to_onnx(program, self.graph), file)
        return file

"""Define the contract of an export format: its facts, and how a traced model is written and run.

Letters: B batch, N bands, H W image.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from segvit.errors import UserError
from segvit.utils.optional import need

if TYPE_CHECKING:
    from torch import Tensor

    from segvit.export.graph import LabelGraph
    from segvit.export.quantize import ExportPrecision
    from segvit.export.traced import Traced

Run = Callable[["Tensor"], "Tensor"]
"""An exported model as a function from images (B, N, H, W) to labels int64 (B, H, W)."""


class Format(ABC):
    """One format of exported models."""

    name: ClassVar[str]
    """Word of `--format`."""
    suffix: ClassVar[str]
    """Ending of the file or folder, with its dot. Empty: a folder of any name, which only `--format` chooses."""
    lower_case: ClassVar[bool] = False
    """True if the tools of the format take its ending in lower case only."""
    precisions: ClassVar[tuple["ExportPrecision", ...]] = ("fp32",)
    """Precisions that can be written. The first is the default."""
    int8_images: ClassVar[Literal["unused", "optional", "required"]] = "unused"
    """Use of a user's images in int8: ranges of the activations come from them, or from each image if unused."""
    from_onnx: ClassVar[bool] = False
    """True if `write` reads `Traced.onnx_file`; otherwise it reads `Traced.program`."""
    packages: ClassVar[tuple[str, ...]] = ()
    """Optional packages that writing and running need."""
    extra: ClassVar[str] = ""
    """Extra of segvit that installs them."""
    any_size: ClassVar[bool] = True
    """False if a file takes images of one size only."""
    any_batch: ClassVar[bool] = True
    """False if a file takes one image at a time."""
    unchecked: ClassVar[str] = ""
    """Reason why what is written cannot be run here for the comparison. Empty: it is compared."""
    marker: ClassVar[str | None] = None
    """Name of a file that every folder of this format holds, and by which an older one is recognised. None: a file."""

    @property
    def purpose(self) -> str:
        """Kind of file or folder that is written, in the plural, for messages."""
        return (
            f"{self.suffix} {'files' if self.marker is None else 'folders'}" if self.suffix else f"{self.name} exports"
        )

    def files(self, path: Path) -> tuple[Path, ...]:
        """Return all that an export to `path` consists of: `path` first, then the files beside it."""
        return (path,)

    def next_steps(self, path: Path) -> list[str]:
        """Return lines that describe how to use an export, for the end of the command's output."""
        return []

    def check(self, precision: "ExportPrecision") -> None:
        """Check that the packages are installed, and whatever else this machine needs.

        Raises:
            UserError: something is missing; the text has the command that installs it.
        """
        from segvit.export.graph import quiet

        with quiet():  # converters warn of much that we do not use
            for package in self.packages:
                need(package, self.purpose, extra=self.extra)

    def check_model(self, graph: "LabelGraph") -> None:
        """Check before the work that a model fits.

        Raises:
            UserError: it does not.
        """
        if self.from_onnx:
            from segvit.export.onnx_file import check_bytes

            check_bytes(graph)

    @abstractmethod
    def write(self, traced: "Traced", file: Path, precision: "ExportPrecision", windows: Sequence["Tensor"]) -> None:
        """Write a model.

        If fp32 is among the precisions, it is written and compared first, then the precision that was asked for.

        Args:
            traced: the model at the size of the export.
            file: file or folder to write, in a temporary folder of its own, under its final name.
            precision: one of `precisions`.
            windows: images (N, H, W) to calibrate int8 on, cut as in inference; empty if there are none, or unused.

        Raises:
            NotExportable: the model has a part without equivalent in this format.
        """

    @abstractmethod
    def run(self, file: Path) -> Run:
        """Open what `write` wrote, for the comparison with PyTorch. It is not called if the format is `unchecked`."""

    @abstractmethod
    def add_header(self, file: Path, traced: "Traced", header: str) -> None:
        """Store the header of the model (JSON) in a written file under `HEADER_KEY`, or in a file beside it."""

    def choose_precision(self, wanted: "ExportPrecision | None", *, has_images: bool) -> "ExportPrecision":
        """Return the precision to write: the one asked for, or the default.

        Raises:
            UserError: this format lacks it, or it needs images and there are none.
        """
        if wanted is None:
            return self.precisions[0]
        if wanted not in self.precisions:
            raise UserError(
                f"precision {wanted!r}: {self.purpose} are written in {', '.join(self.precisions)}; give one of them"
            )
        if wanted == "int8" and self.int8_images == "required" and not has_images:
            raise UserError(
                f"precision {wanted}: {self.purpose} are calibrated on images; give your own (--images photos/)"
            )
        return wanted

    def check_target(self, path: Path) -> None:
        """Check that an export may be written to a path, or replace what is there.

        Raises:
            UserError: it is a folder where a file is needed or the reverse, or belongs to something else; or its ending
                is in upper case, and `lower_case` is true.
        """
        if self.lower_case and path.suffix != self.suffix:
            given = path.with_suffix(self.suffix)
            raise UserError(f"{path}: {self.name} takes its ending in lower case only; give {given}")
        if self.marker is None and path.is_dir():
            raise UserError(f"{path}: a folder; give a file, such as {path / f'model{self.suffix}'}")
        if self.marker is not None:
            if path.exists() and not path.is_dir():
                raise UserError(f"{path}: a file, and {self.name} writes a folder; give another name")
            if path.is_dir() and any(path.iterdir()) and not (path / self.marker).is_file():
                raise UserError(f"{path}: a folder with other files, which is not replaced; give a new name")
        beside = [file for file in self.files(path)[1:] if file.exists()]
        if any(file.is_dir() for file in beside):
            raise UserError(f"{beside[0]}: a folder, where a file beside {path.name} is written; give another name")
        if beside and not path.exists():
            raise UserError(
                f"{beside[0]} exists without {path}, and would be replaced; give another name, or remove it"
            )

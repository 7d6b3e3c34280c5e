"""Formats that a model can be exported to, by name and by ending."""

from pathlib import Path

from segvit.errors import UserError
from segvit.export.formats.coreml import CoreML
from segvit.export.formats.executorch import ExecuTorch
from segvit.export.formats.format import Format
from segvit.export.formats.litert import LiteRT
from segvit.export.formats.onnx_graph import OnnxGraph
from segvit.export.formats.openvino_ir import OpenvinoIr
from segvit.export.formats.tensorrt import TensorRT
from segvit.export.formats.torch_program import TorchProgram
from segvit.export.formats.web import WebPage
from segvit.utils.text import suggest

FORMATS: dict[str, Format] = {
    form.name: form
    for form in (
        OnnxGraph(),
        TorchProgram(),
        OpenvinoIr(),
        WebPage(),
        ExecuTorch(),
        LiteRT(),
        CoreML(),
        TensorRT(),
    )
}
"""Every format, one line each, in the order of the help."""


def describe_formats() -> str:
    """List the formats with their endings: "onnx (.onnx), torch (.pt2)"."""
    return ", ".join(f"{form.name} ({form.suffix or 'a folder'})" for form in FORMATS.values())


def choose_format(path: Path, name: str | Format | None) -> Format:
    """Return the format of an export: the named one, or that of the ending.

    Args:
        path: file or folder to write.
        name: name of a format, a format with options of its own, or None.

    Raises:
        UserError: no such format, no format with this ending, or the two contradict each other; or the path has no
            name of its own.
    """
    if path.name in ("", ".."):
        raise UserError(f"{path}: no name of a file or folder to write; give one, such as {path / 'model.onnx'}")
    suffix = path.suffix.lower()
    by_suffix = next((form for form in FORMATS.values() if form.suffix and form.suffix == suffix), None)
    if name is None:
        if by_suffix is None:
            raise UserError(f"{path}: give a name that ends in {_endings()}; or choose by --format")
        return by_suffix
    if isinstance(name, str) and name not in FORMATS:
        raise UserError(f"format {name!r}{suggest(name, FORMATS)}: give {', '.join(FORMATS)}")
    form = FORMATS[name] if isinstance(name, str) else name
    if form.suffix != suffix and (form.suffix or by_suffix is not None):
        wanted = f"a name that ends in {form.suffix}" if form.suffix else "the name of a folder"
        other = "" if by_suffix is None else f", and {suffix} is {by_suffix.name}"
        raise UserError(f"{path}: format {form.name} needs {wanted}{other}; give {path.with_suffix(form.suffix)}")
    return form


def _endings() -> str:
    """List the endings with the formats behind them."""
    return ", ".join(f"{form.suffix} ({form.name})" for form in FORMATS.values() if form.suffix)

"""Read label maps in MATLAB files through scipy (the extra `mat`).

Letters: H, W size of a label map.
"""

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar, Self

import numpy as np
import numpy.typing as npt

from segvit.data.images import Unreadable
from segvit.data.labels.format import MAX_RAW, Classes, LabelFormat
from segvit.data.labels.memory import LabelMemory
from segvit.data.member import File
from segvit.data.pairs import Pair, first
from segvit.data.yaml_values import check_keys, read_text
from segvit.errors import UserError
from segvit.utils.optional import need

DAMAGED = (
    OSError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, MemoryError,
    UnboundLocalError, UnicodeError, struct.error, zlib.error,
)  # fmt: skip
"""Errors that scipy raises on a file that is damaged or not a MATLAB file."""


@dataclass(frozen=True, kw_only=True)
class MatLabels(LabelFormat):
    """MATLAB files, each with a matrix (H, W) of raw values."""

    name: ClassVar[str] = "mat"
    suffixes: ClassVar[Sequence[str]] = (".mat",)
    slow_to_decode: ClassVar[bool] = True

    key: str
    """Name of the matrix, or `outer.inner` for a field of a structure."""

    @classmethod
    def parse(cls, options: Mapping[str, Any], where: str) -> Self:
        """Read `key`, which must be given."""
        check_keys(options, {"key": True}, where)
        return cls(key=read_text(options["key"], "key", where))

    def read(self, pair: Pair, classes: Classes, memory: LabelMemory) -> npt.NDArray[Any]:
        """Read the matrix, (H, W)."""
        return memory.decoded(pair.labels, lambda: read_mat(pair.labels, self.key), settings=f"mat {self.key}")


def read_mat(path: File, key: str) -> npt.NDArray[Any]:
    """Read the matrix (H, W) of raw values under `key` in a MATLAB file of level 5 or 4, as uint8 or uint16.

    Args:
        path: the file.
        key: name of the variable, or `outer.inner` for a field of a structure.

    Raises:
        UserError: scipy or the file is missing, the file is damaged or of MATLAB 7.3, it has no such variable (the text
            lists those that it has), or the variable is not a matrix of whole numbers in 0..65535.
    """
    need("scipy.io", f"{path}: MATLAB files", extra="mat")
    from scipy.io import loadmat, whosmat
    from scipy.io.matlab import MatReadError

    outer, *inner = key.split(".")
    try:
        with path.open("rb") as file:
            _refuse_hdf5(file, path)
            content = loadmat(file, variable_names=[outer])
            if outer not in content:
                file.seek(0)
                names = [name for name, _, _ in whosmat(file)]
                raise UserError(
                    f"{path}: no variable {outer!r}, only {first(names, 20) or 'none'}; correct `labels: key`"
                )
    except UserError:
        raise
    except FileNotFoundError:
        raise Unreadable(f"{path}: no such file") from None
    except (MatReadError, *DAMAGED) as error:
        raise Unreadable(
            f"{path}: cannot be read as a MATLAB file ({error}); download or save it again, or remove it"
        ) from error
    value = content[outer]
    for step, name in enumerate(inner, start=1):
        fields = value.dtype.names or () if isinstance(value, np.ndarray) and value.size == 1 else ()
        if name not in fields:
            reached = ".".join([outer, *inner[: step - 1]])
            raise UserError(
                f"{path}: {reached!r} has no field {name!r}, only {first(fields, 20) or 'none'}; correct `labels: key`"
            )
        value = value.flat[0][name]
    return _to_labels(value, f"{path}: {key!r}")


def _refuse_hdf5(file: BinaryIO, path: File) -> None:
    """Refuse files of MATLAB 7.3, which are HDF5 and which scipy does not read."""
    head = file.read(128)
    file.seek(0)
    if head.startswith((b"MATLAB 7.3 MAT-file", b"\x89HDF")):
        raise UserError(
            f"{path}: a file of MATLAB 7.3 (HDF5), which is not supported; save it again, in MATLAB "
            "`content = load(FILE); save(FILE, '-struct', 'content', '-v7')`"
        )


def _to_labels(value: Any, where: str) -> npt.NDArray[Any]:
    """Return a variable as raw values, uint8 or uint16."""
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "buif" or value.ndim != 2 or not value.size:
        found = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
        raise UserError(f"{where} is not a matrix of numbers (height x width) but {found}; correct `labels: key`")
    if value.dtype.kind == "f" and not (np.isfinite(value) & (value == np.rint(value))).all():
        raise UserError(f"{where} holds numbers that are not whole; save the label map with whole numbers")
    lowest, highest = value.min(), value.max()
    if lowest < 0 or highest > MAX_RAW:
        raise UserError(f"{where} holds values from {lowest} to {highest}; raw values must be in 0..{MAX_RAW}")
    return value.astype(np.uint8 if highest < 256 else np.uint16)

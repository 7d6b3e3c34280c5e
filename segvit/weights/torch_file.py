"""Read the weights in a file of torch.save without running anything that the file asks for (see safe_pickle.py).

    state = read_state_dict(Path("ade_54.6.pth"))

Tensors are built from the numbers stored beside the pickle. Both layouts of torch.save are supported: the zip file of
torch 1.6 and later, and the older sequence of pickles.
"""

import io
import math
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from segvit.errors import UserError
from segvit.weights.file_kind import AGAIN, PICKLE, ZIP, first_bytes, no_weights
from segvit.weights.safe_pickle import Broken, Made, Stored, read_pickle

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""The first pickle of the older layout."""


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by name, on the CPU.

    They are its `state_dict`, or its whole content if that is a state_dict itself.

    Raises:
        UserError: the file is missing, empty, cut short, damaged or of another format; it has no state_dict; or it
            would run code if loaded in the usual way.
    """
    if not path.is_file():
        raise UserError(f"no checkpoint file {path}: give a .pth file of torch.save")
    is_zip = _is_zip(path)
    with path.open("rb") as file:
        try:
            content, read = _open_zip(file, path) if is_zip else _open_legacy(file, path)
            entries = _state_of(content, path)
            return {name: _tensor(value, read, f"{path}: {name}") for name, value in entries.items()}
        except UserError:
            raise
        except Exception as error:  # a damaged pickle can raise anything
            reason = str(error) or type(error).__name__
            raise UserError(
                f"{path}: cut short or damaged ({reason}; {path.stat().st_size:,} bytes): {AGAIN}"
            ) from error


def _is_zip(path: Path) -> bool:
    """True if the file has the zip layout, False if it has the older one, by its first bytes.

    Raises:
        UserError: neither; the error names the format if it is recognised.
    """
    if reason := no_weights(path):
        raise UserError(f"{path}: {reason}")
    head = first_bytes(path)
    if head.startswith((ZIP, PICKLE)):
        return head.startswith(ZIP)
    if head[8:10] == b'{"':
        raise UserError(
            f"{path}: a safetensors file; if segvit wrote it, it is a model already and needs no conversion"
        )
    start = head[:60].decode("latin-1").splitlines()[0]
    seen = f"; it begins with {start!r}" if start.isprintable() else ""
    raise UserError(f"{path}: not a file of torch.save{seen}; give the .pth file of a checkpoint")


def _open_zip(file: IO[bytes], path: Path) -> tuple[Any, Callable[[Stored], bytes]]:
    """Return the content of the pickle in a zip file, and a function that reads its numbers."""
    try:
        archive = zipfile.ZipFile(file)
    except zipfile.BadZipFile as error:
        raise Broken("the end of the zip file is missing") from error
    names = archive.namelist()
    pickles = [name for name in names if name.split("/")[1:] == ["data.pkl"]]
    if any(name.endswith("/constants.pkl") for name in names):
        raise UserError(f"{path}: a TorchScript program, not a checkpoint; give the .pth file that training wrote")
    if not pickles:
        raise UserError(f"{path}: a zip file, but not of torch.save (no data.pkl in it); give the .pth file itself")
    folder = pickles[0].removesuffix("data.pkl")
    content, _ = read_pickle(io.BytesIO(archive.read(pickles[0])), path)
    return content, lambda stored: archive.read(f"{folder}data/{stored.key}")


def _open_legacy(file: IO[bytes], path: Path) -> tuple[Any, Callable[[Stored], bytes]]:
    """Return the content of the fourth pickle of the older layout, and a function that reads its numbers."""
    magic, _ = read_pickle(file, path)
    if magic != LEGACY_MAGIC:
        raise UserError(f"{path}: a pickle, but not of torch.save; give the .pth file of a checkpoint")
    read_pickle(file, path)  # protocol
    read_pickle(file, path)  # byte order and sizes of types
    content, stored = read_pickle(file, path)
    keys, _ = read_pickle(file, path)
    places: dict[str, tuple[int, int]] = {}
    end = path.stat().st_size
    for key in keys:
        (count,) = struct.unpack("<q", file.read(8))
        size = count * stored[key].dtype.itemsize
        places[key] = (file.tell(), size)
        file.seek(size, 1)
        if size < 0 or file.tell() > end:
            raise Broken("numbers are missing at its end")

    def read(numbers: Stored) -> bytes:
        offset, size = places[numbers.key]
        file.seek(offset)
        return file.read(size)

    return content, read


def _state_of(content: Any, path: Path) -> Mapping[str, Any]:
    """Find the `state_dict` in the content of a checkpoint.

    Raises:
        UserError: there is none.
    """
    if isinstance(content, Made):
        raise UserError(
            f"{path}: a pickled {content.by}, not weights by name; save its state_dict() and give that file"
        )
    if not isinstance(content, dict) or not content:
        kind = "dict" if isinstance(content, dict) else type(content).__name__
        raise UserError(f"{path}: holds a {kind}, not weights by name; give a checkpoint's .pth file")
    state = content.get("state_dict", content)
    if not isinstance(state, dict) or not state or not all(isinstance(name, str) for name in state):
        raise UserError(f"{path}: its state_dict is not a mapping of names to tensors; give a checkpoint's .pth file")
    if state is content and not any(isinstance(value, Made) for value in state.values()):
        raise UserError(
            f"{path}: no `state_dict` in it, only {', '.join(map(repr, list(state)[:6]))}; give the .pth file of a "
            "checkpoint"
        )
    return state


def _tensor(value: Any, read: Callable[[Stored], bytes], where: str) -> Tensor:
    """Build the tensor that torch's own call would return.

    Raises:
        UserError: the value is not a plain tensor.
    """
    if isinstance(value, Made) and value.by == "torch._utils._rebuild_parameter":
        value = value.arguments[0]
    rebuilds = ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor")
    if not isinstance(value, Made) or value.by not in rebuilds:
        what = value.by if isinstance(value, Made) else type(value).__name__
        raise UserError(
            f"{where} is not a plain tensor ({what}); give a checkpoint whose state_dict holds only weights"
        )
    stored, offset, size, stride = value.arguments[:4]
    numbers = read(stored)
    if not math.prod(size):
        return torch.empty(size, dtype=stored.dtype)
    return torch.frombuffer(bytearray(numbers), dtype=stored.dtype).as_strided(size, stride, offset)

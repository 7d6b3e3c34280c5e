"""The weights in a file of torch.save, read without running anything that the file asks for (inert.py tells how).

    state = read_state_dict(Path("ade_54.6.pth"))

Tensors are put together from the numbers that lie beside the pickle. Both layouts of torch.save are known: the zip file
(torch 1.6 and later) and the older row of pickles.
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
    """The tensors of a checkpoint by name, on the CPU: its `state_dict`, or all of it where it is one itself.

    Raises:
        UserError: no such file, or an empty, cut, damaged or foreign one; no state_dict in it; or a file that would run
            code when loaded in the usual way.
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
        except Exception as error:  # a pickle can be broken in as many ways as there are bytes in it
            reason = str(error) or type(error).__name__
            raise UserError(
                f"{path}: cut short or damaged ({reason}; {path.stat().st_size:,} bytes): {AGAIN}"
            ) from error


def _is_zip(path: Path) -> bool:
    """Which of the two layouts a file has by its first bytes.

    Raises:
        UserError: neither; what it is instead is told where it can be seen.
    """
    if reason := no_weights(path):
        raise UserError(f"{path}: {reason}")
    head = first_bytes(path)
    if head.startswith((ZIP, PICKLE)):
        return head.startswith(ZIP)
    if head[8:10] == b'{"':
        raise UserError(f"{path}: a safetensors file; one that segvit wrote is a model already and needs no conversion")
    start = head[:60].decode("latin-1").splitlines()[0]
    seen = f"; it begins with {start!r}" if start.isprintable() else ""
    raise UserError(f"{path}: not a file of torch.save{seen}; give the .pth file of a checkpoint")


def _open_zip(file: IO[bytes], path: Path) -> tuple[Any, Callable[[Stored], bytes]]:
    """Content of the pickle in a zip file, and what reads its numbers."""
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
    """Content of the fourth pickle of the older layout, and what reads the numbers behind the fifth."""
    magic, _ = read_pickle(file, path)
    if magic != LEGACY_MAGIC:
        raise UserError(f"{path}: a pickle, but not of torch.save; give the .pth file of a checkpoint")
    read_pickle(file, path)  # protocol
    read_pickle(file, path)  # byte order and sizes of the machine
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
    """The `state_dict` in what a checkpoint holds."""
    if isinstance(content, Made):
        raise UserError(f"{path}: a pickled {content.by}, not weights by name; save its state_dict() and give that")
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path}: holds a {type(content).__name__}, not weights by name; give a checkpoint's .pth file")
    state = content.get("state_dict", content)
    if not isinstance(state, dict) or not state or not all(isinstance(name, str) for name in state):
        raise UserError(f"{path}: its state_dict is no mapping of names to tensors; give a checkpoint's .pth file")
    if state is content and not any(isinstance(value, Made) for value in state.values()):
        raise UserError(
            f"{path}: no `state_dict` in it, only {', '.join(map(repr, list(state)[:6]))}; give the .pth file of a "
            "checkpoint"
        )
    return state


def _tensor(value: Any, read: Callable[[Stored], bytes], where: str) -> Tensor:
    """The tensor that a call of torch's own would have put together."""
    if isinstance(value, Made) and value.by == "torch._utils._rebuild_parameter":
        value = value.arguments[0]
    rebuilds = ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor")
    if not isinstance(value, Made) or value.by not in rebuilds:
        what = value.by if isinstance(value, Made) else type(value).__name__
        raise UserError(f"{where} is no plain tensor ({what}); give a checkpoint with weights alone in its state_dict")
    stored, offset, size, stride = value.arguments[:4]
    numbers = read(stored)
    if not math.prod(size):
        return torch.empty(size, dtype=stored.dtype)
    return torch.frombuffer(bytearray(numbers), dtype=stored.dtype).as_strided(size, stride, offset)

"""Read JSON of labelling tools, and check the values in it.

Every error names the file and the entry.
"""

import functools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from segvit.data.annotations.shapes import Ring
from segvit.data.images import Unreadable
from segvit.data.yaml_values import is_whole

State = tuple[tuple[str, int, int], ...]
"""Path, size and time of files. It changes when they do."""
FARTHEST = 1e7
"""Largest coordinate, in pixels, that is accepted."""


def read_json(path: Path) -> Any:
    """Return the content of a JSON file, which must not be changed: the newest one is kept until `release_json`.

    Raises:
        Unreadable: the file does not exist, is not JSON, or holds NaN or infinite numbers.
    """
    try:
        return _parse(path, state_of([path]))
    except FileNotFoundError:
        raise Unreadable(f"{path}: no such file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise Unreadable(f"{path}: cannot be read as JSON ({error}); export it again") from error


def release_json() -> None:
    """Forget the newest JSON file, to free its memory."""
    _parse.cache_clear()


def state_of(files: Iterable[Path]) -> State:
    """Return path, size and time of files.

    Raises:
        OSError: one cannot be read.
    """
    states = ((str(path.absolute()), path.stat()) for path in files)
    return tuple((name, state.st_size, state.st_mtime_ns) for name, state in states)


@functools.lru_cache(maxsize=1)
def _parse(path: Path, state: State) -> Any:
    """Parse a JSON file, once for each state of it: recognising a large file and reading it are one pass."""
    return json.loads(path.read_bytes(), parse_constant=_refuse)


def mapping_of(value: Any, where: str) -> dict[str, Any]:
    """Return `value` if it is a mapping.

    Raises:
        Unreadable: it is not.
    """
    if isinstance(value, dict):
        return value
    raise Unreadable(f"{where} is {repr(value)[:80]}, not a mapping of keys; export the file again")


def list_of(content: dict[str, Any], key: str, where: str) -> list[Any]:
    """Return the list under `key`.

    Raises:
        Unreadable: it is missing or no list.
    """
    value = content.get(key)
    if isinstance(value, list):
        return value
    raise Unreadable(f"{where}: `{key}` is {repr(value)[:80]}, not a list; export the file again")


def text_of(content: dict[str, Any], key: str, where: str) -> str:
    """Return the text under `key`.

    Raises:
        Unreadable: it is missing, blank or no text.
    """
    value = content.get(key)
    if isinstance(value, str) and value.strip():
        return value
    raise Unreadable(f"{where}: `{key}` is {repr(value)[:80]}, not text; correct it in the labelling tool")


def number_of(value: Any, where: str) -> float:
    """Return `value` if it is a number of pixels.

    Raises:
        Unreadable: it is no number, or beyond `FARTHEST`.
    """
    if is_whole(value) or isinstance(value, float):
        if abs(value) <= FARTHEST:
            return float(value)
        shown = repr(value)[:20]
        raise Unreadable(f"{where}: {shown} is larger than {FARTHEST:.0f} pixels; correct it in the labelling tool")
    raise Unreadable(f"{where}: {repr(value)[:80]} is no number of pixels; correct it in the labelling tool")


def size_of(content: dict[str, Any], height: str, width: str, where: str) -> tuple[int, int] | None:
    """Return the height and width under two keys, or None if both are missing.

    Raises:
        Unreadable: one of them is no positive whole number.
    """
    values: tuple[Any, Any] = content.get(height), content.get(width)
    if values == (None, None):
        return None
    if all(is_whole(value) and 0 < value <= FARTHEST for value in values):
        return values
    raise Unreadable(f"{where}: its size is {values[1]!r} x {values[0]!r} pixels; correct `{width}` and `{height}`")


def ring_of(points: Any, where: str) -> Ring:
    """Return a list of points [x, y] as a ring (N, 2).

    Raises:
        Unreadable: a point is not two numbers of pixels.
    """
    pairs = isinstance(points, list) and all(isinstance(point, list) and len(point) == 2 for point in points)
    if not pairs:
        raise Unreadable(f"{where}: points are [x, y]; found {repr(points)[:80]}")
    numbers = [number_of(value, where) for point in points for value in point]
    return np.array(numbers, dtype=np.float64).reshape(-1, 2)


def _refuse(word: str) -> NoReturn:
    """Refuse NaN and infinite numbers, which JSON does not have."""
    raise ValueError(f"{word} is no number")

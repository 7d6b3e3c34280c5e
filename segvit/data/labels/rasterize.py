"""Turn polygons and COCO's run-length masks into pixels.

A pixel belongs to a polygon if its centre is inside, by the even-odd rule. A centre on a left or upper edge is inside.
One on a right or lower edge is outside, so that neighbours share no pixel. Pixel (row, column) has its centre at
(column + 0.5, row + 0.5), and the pixel at the origin covers 0..1.

Letters: H, W size of an image, N points of a ring, C rows crossed by all its edges together.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from segvit.data.yaml_values import is_whole


def fill_polygon(labels: npt.NDArray[Any], points: npt.NDArray[np.float64], value: int) -> None:
    """Set the pixels of `labels` (H, W) whose centres are inside the polygon `points` (N, 2), each x, y in pixels.

    Fewer than three points contain no centre.
    """
    fill_rings(labels, [points], value)


def fill_rings(labels: npt.NDArray[Any], rings: Sequence[npt.NDArray[np.float64]], value: int) -> None:
    """Set the pixels of `labels` (H, W) whose centres an odd number of `rings` (N, 2) contain.

    A ring inside another one is a hole.
    """
    height, width = labels.shape
    points = np.concatenate(rings)
    x, y = points.T
    to_x, to_y = np.concatenate([np.roll(ring, -1, axis=0) for ring in rings]).T  # edges (N,), the last closes a ring
    first = np.ceil(np.minimum(y, to_y) - 0.5).clip(0, height).astype(np.int64)  # rows whose centre an edge crosses
    count = np.ceil(np.maximum(y, to_y) - 0.5).clip(0, height).astype(np.int64) - first
    if not count.any():
        return
    edge = np.repeat(np.arange(len(points)), count)  # (C,) one entry for each row that an edge crosses
    row = first[edge] + np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count)
    crossing = x[edge] + (row + 0.5 - y[edge]) * ((to_x - x)[edge] / (to_y - y)[edge])
    column = np.ceil(crossing - 0.5).clip(0, width).astype(np.int64)  # first pixel to the right of the crossing
    top, left = row.min(), column.min()
    flips = np.zeros((row.max() - top + 1, column.max() - left + 1), dtype=np.uint8)
    np.bitwise_xor.at(flips, (row - top, column - left), 1)
    inside = np.bitwise_xor.accumulate(flips, axis=1)[:, :-1].astype(bool)  # right of an odd number of crossings
    labels[top : top + inside.shape[0], left : left + inside.shape[1]][inside] = value


def decode_rle(rle: dict[str, Any], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Decode the mask (H, W) of a run-length code: runs of 0 and 1 in turn, down the columns, beginning with 0.

    Args:
        rle: `size` [H, W] and `counts`, a list of lengths or COCO's compressed text.
        size: (H, W) of the image.

    Raises:
        ValueError: the size differs, or `counts` is malformed or does not add up to H * W.
    """
    counts, height, width = rle.get("counts"), *size
    if rle.get("size") != [height, width]:
        raise ValueError(f"the mask's size is {rle.get('size')!r}, but the image's [{height}, {width}] (height, width)")
    runs = _decompress(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(is_whole(run) and run >= 0 for run in runs):
        raise ValueError(f"`counts` is {repr(counts)[:80]}; give lengths of runs, or COCO's compressed text")
    if sum(runs) != height * width:
        raise ValueError(f"the run lengths add up to {sum(runs)}, but the image has {height * width} pixels")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def _decompress(text: str) -> list[int]:
    """Decompress COCO's text of run lengths.

    Each character above "0" holds 5 bits, low bits first, and bit 6 if more follow. Bit 5 of the last character is the
    sign. From the fourth on, a number is the difference from the run two before.
    """
    runs: list[int] = []
    number = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise ValueError(f"`counts` has the character {character!r}, which COCO's compressed text does not use")
        number |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            number -= 1 << shift
        runs.append(number + runs[-2] if len(runs) > 2 else number)
        number = shift = 0
    if shift:
        raise ValueError("`counts` is cut short")
    return runs

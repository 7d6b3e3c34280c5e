"""Masks of Label Studio's brush: lists of bytes that hold the run lengths of a picture.

    runs = encode_brush(mask)                      # mask (H, W)
    mask = decode_brush(runs, (height, width), "tasks.json: region 1")

The bytes are a stream of bits. First come the number of words in 32 bits and the width of a word less 1 in 5. Four
widths of lengths less 1 follow, in 4 bits each. Then come blocks: a bit (1 repeats one word), two bits that choose the
width of the length, the length less 1, and the word or words. The words are the bytes R, G, B, A of each pixel, row by
row.

Letters: H, W size of an image.
"""

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt

from segvit.data.annotations.shapes import MOST_PIXELS
from segvit.data.images import Unreadable
from segvit.data.yaml_values import is_whole

WORD = 8
"""Width of a word in bits."""
WIDTHS = (3, 4, 8, 16)
"""Widths in bits of the lengths that `encode_brush` writes, as Label Studio does."""
PAINTED = 255
"""Word of a painted pixel."""


def encode_brush(mask: npt.NDArray[np.bool_]) -> list[int]:
    """Return the bytes of a mask (H, W)."""
    flat = mask.ravel()
    pieces = [f"{4 * len(flat):032b}{WORD - 1:05b}", *(f"{width - 1:04b}" for width in WIDTHS)]
    bounds = [0, *(np.flatnonzero(np.diff(flat)) + 1).tolist(), len(flat)]
    longest = 1 << WIDTHS[-1]
    for begin, end in itertools.pairwise(bounds):
        word = PAINTED if flat[begin] else 0
        for done in range(4 * begin, 4 * end, longest):
            length = min(longest, 4 * end - done)
            choice = next(number for number, width in enumerate(WIDTHS) if length <= 1 << width)
            pieces.append(f"1{choice:02b}{length - 1:0{WIDTHS[choice]}b}{word:08b}")
    bits = "".join(pieces)
    return list(int(bits + "0" * (-len(bits) % 8), 2).to_bytes(-(-len(bits) // 8), "big"))


def decode_brush(runs: Any, size: tuple[int, int], where: str) -> npt.NDArray[np.bool_]:
    """Return the mask (H, W) in the bytes of a brush: the pixels whose opacity is above 0.

    Raises:
        Unreadable: the list is malformed or does not fit the image.
    """
    height, width = size
    if not isinstance(runs, list) or not all(is_whole(byte) and 0 <= byte < 256 for byte in runs):
        raise Unreadable(f"{where}: `rle` is {repr(runs)[:60]}; export the task again as JSON")
    bits = _Bits(np.array(runs, dtype=np.uint8))
    try:
        count, word = bits.number(32), bits.number(5) + 1
        widths = [bits.number(4) + 1 for _ in range(4)]
        if count != height * width * 4 or word != WORD or height * width > MOST_PIXELS:
            raise ValueError(f"it holds {count} words of {word} bits")
        blocks, done = [], 0
        while done < count:
            repeats, choice = bits.number(1), bits.number(2)
            length = bits.number(widths[choice]) + 1
            done += length
            if done > count:
                raise ValueError("it is too long")
            blocks.append(np.repeat(bits.words(1), length) if repeats else bits.words(length))
    except ValueError as error:
        fits = f"a picture of {width} x {height} pixels"
        raise Unreadable(f"{where}: `rle` is not {fits} ({error}); export the task again") from error
    return np.concatenate(blocks).reshape(height, width, 4)[..., 3] > 0


class _Bits:
    """A stream of bits, the highest of each byte first."""

    def __init__(self, data: npt.NDArray[np.uint8]) -> None:
        self._bits = np.unpackbits(data)
        self._at = 0

    def _take(self, count: int) -> npt.NDArray[np.uint8]:
        self._at += count
        if self._at > len(self._bits):
            raise ValueError("it is cut short")
        return self._bits[self._at - count : self._at]

    def number(self, count: int) -> int:
        """Return the next number of `count` bits."""
        return int("".join(map(str, self._take(count).tolist())), 2)

    def words(self, count: int) -> npt.NDArray[np.uint8]:
        """Return the next `count` bytes."""
        return np.packbits(self._take(8 * count))

"""Read PGM and PPM files of more than 8 bits, whose header holds the value of white.

    facts = pnm_facts(start)                # None: another file, or one of 8 bits
    values = read_pnm(Path("a.pgm"))        # (H, W, C) uint16

Pillow scales such files to 16 bits, and colours to 8.

Letters: H, W size of the image, C channels.
"""

import re
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from segvit.data.member import File

CHANNELS = {b"P2": 1, b"P3": 3, b"P5": 1, b"P6": 3}
"""Number of channels by the first two bytes."""
TEXT = (b"P2", b"P3")
"""First bytes of files whose values are written as text."""
GAP = rb"(?:\s|#[^\r\n]*[\r\n])+"
HEAD = re.compile(rb"(P[2356])" + GAP + rb"(\d{1,9})" + GAP + rb"(\d{1,9})" + GAP + rb"(\d{1,5})\s")
"""Header of a file: kind, width, height and the value of white, with comments between them."""
LONGEST_HEAD = 4096
"""Bytes of a file that are searched for the header."""


class PnmFacts(NamedTuple):
    """Facts from the header of a PGM or PPM file."""

    size: tuple[int, int]
    channels: int
    white: int
    """Value of white."""
    begin: int
    """Place of the first value."""
    text: bool
    """True if values are written as text."""


def pnm_facts(start: bytes) -> PnmFacts | None:
    """Return the facts in the first `LONGEST_HEAD` bytes of a file; None for other files, and for those of 8 bits."""
    match = HEAD.match(start)
    if match is None:
        return None
    kind, width, height, white = match[1], int(match[2]), int(match[3]), int(match[4])
    if not width or not height or not 255 < white < 65_536:
        return None
    return PnmFacts((height, width), CHANNELS[kind], white, match.end(), kind in TEXT)


def read_pnm(path: File) -> npt.NDArray[np.uint16]:
    """Read the values (H, W, C) of a file for which `pnm_facts` returns facts.

    Raises:
        ValueError: the file is cut short, or holds something else.
    """
    with path.open("rb") as file:
        content = file.read()
    facts = pnm_facts(content[:LONGEST_HEAD])
    if facts is None:
        raise ValueError("its header is damaged")
    shape = (*facts.size, facts.channels)
    body, count = content[facts.begin :], int(np.prod(shape))
    if facts.text:
        words = re.sub(rb"#[^\r\n]*", b"", body).split(maxsplit=count)[:count]
        values = np.array([int(word) for word in words], dtype=np.int64)
        if values.size and not 0 <= values.min() <= values.max() <= facts.white:
            raise ValueError(f"values reach {values.min()}..{values.max()}, but its white is {facts.white}")
    else:
        values = np.frombuffer(body[: 2 * count // 2 * 2], dtype=">u2").astype(np.int64)
    if values.size != count:
        raise ValueError(f"it holds {values.size} of {count} values")
    return values.astype(np.uint16).reshape(shape)

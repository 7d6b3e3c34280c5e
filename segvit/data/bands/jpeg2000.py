"""Read size, channels and bit depth from the header of a JPEG 2000 file, without decoding it.

    facts = jpeg2000_facts(start)       # None: another file

A .jp2 file holds them in its boxes (ISO/IEC 15444-1, annex I), a bare codestream (.j2k) in its SIZ marker (annex A).

Letters: H, W size of the image, C channels.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

SIGNATURE = b"\0\0\0\x0cjP  \r\n\x87\n"
CODESTREAM = b"\xff\x4f\xff\x51"
"""First bytes of a codestream: its start, and the SIZ marker."""
LONGEST_HEAD = 65_536
"""Bytes of a file that are searched for the header."""
OPACITY = (1, 2)
"""Types of a channel that is transparency."""


class Jpeg2000Facts(NamedTuple):
    """Facts from the header of a JPEG 2000 file."""

    size: tuple[int, int]
    channels: int
    bits: int
    """Bits of the deepest channel."""
    signed: bool
    alpha: bool
    """True if the last channel is transparency."""


def jpeg2000_facts(start: bytes) -> Jpeg2000Facts | None:
    """Return the facts in the first `LONGEST_HEAD` bytes of a file. None for other files.

    Raises:
        struct.error: the header is cut short.
    """
    if start.startswith(CODESTREAM):
        return _codestream(start)
    if not start.startswith(SIGNATURE):
        return None
    boxes = dict(_boxes(start))
    inside = dict(_boxes(boxes.get(b"jp2h", b"")))
    if b"jp2c" not in boxes or not boxes[b"jp2c"].startswith(CODESTREAM):
        return None
    facts = _codestream(boxes[b"jp2c"])
    return facts._replace(alpha=_has_alpha(inside.get(b"cdef", b""), facts.channels))


def _codestream(start: bytes) -> Jpeg2000Facts:
    """Return the facts in the SIZ marker of a codestream."""
    right, bottom, left, top = struct.unpack(">4I", start[8:24])
    (channels,) = struct.unpack(">H", start[40:42])
    depths = [depth for depth, _, _ in struct.iter_unpack("BBB", start[42 : 42 + 3 * channels])]
    if not depths:
        raise struct.error("no channels")
    bits = max((depth & 0x7F) + 1 for depth in depths)
    return Jpeg2000Facts((bottom - top, right - left), channels, bits, any(depth & 0x80 for depth in depths), False)


def _boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield type and content of the boxes in some bytes. The last one may be cut short."""
    place = 0
    while len(content) - place >= 8:
        length, kind = struct.unpack(">I4s", content[place : place + 8])
        head = 8
        if length == 1:
            (length,) = struct.unpack(">Q", content[place + 8 : place + 16])
            head = 16
        end = len(content) if length == 0 else place + length
        if end < place + head:
            return
        yield kind, content[place + head : end]
        place = end


def _has_alpha(definitions: bytes, channels: int) -> bool:
    """True if the channel definitions call the last channel transparency."""
    entries = list(struct.iter_unpack(">3H", definitions[2 : 2 + (len(definitions) - 2) // 6 * 6]))
    return any(channel == channels - 1 and kind in OPACITY for channel, kind, _ in entries)

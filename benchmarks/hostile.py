"""Files that a page on the open net is sent sooner or later: broken, huge in small wrapping, or something else.

    for kind, name, content in hostile(500, seed=0): ...

Used by benchmarks/app_robustness.py and by tests/app/test_app.py.
"""

import io
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
from PIL import Image

SIDE = 64
"""Pixels of the pictures that are none of the huge ones."""
FORMATS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "TIFF": "tif", "GIF": "gif", "BMP": "bmp"}
NAMES = (
    "../../etc/passwd",
    "..\\..\\windows\\system32\\drivers\\etc\\hosts",
    "/etc/shadow",
    "C:\\Users\\x.png",
    "....//....//x.png",
    "%2e%2e%2fx.png",
    "~/.ssh/authorized_keys",
    "a" * 300 + ".png",
    "é" * 300 + ".png",
    "a\0b.png",
    "\0",
    "..",
    ".",
    "",
    " ",
    "x.png\r\nContent-Type: text/html",
    'x".png',
    "<img src=x onerror=alert(1)>.png",
    "$(touch pwned).png",
    "; rm -rf .png",
    "CON.png",
    "-rf.png",
    "x.png/",
    "💥.png",
)


def hostile(count: int, seed: int = 0) -> Iterator[tuple[str, str, bytes]]:
    """Kind, name and content of files, all kinds in turn; the same for the same seed."""
    chance = random.Random(seed)
    makers: list[tuple[str, Callable[[random.Random], tuple[str, bytes]]]] = list(KINDS.items())
    for number in range(count):
        kind, make = makers[number % len(makers)]
        name, content = make(chance)
        yield kind, name, content


@cache
def picture(format: str = "PNG", mode: str = "RGB", side: int = SIDE, frames: int = 1) -> bytes:
    """A sound picture."""
    noise = np.random.default_rng(0).integers(0, 256, (side // 8, side // 8, 3)).astype(np.uint8)
    image = Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    elif mode == "F":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.float32) / 255)
    else:
        image = image.convert(mode)
    more = [image.rotate(90 * turn) for turn in range(1, frames)]
    file = io.BytesIO()
    image.save(file, format=format, **({"save_all": True, "append_images": more} if more else {}))
    return file.getvalue()


def png_of(width: int, height: int) -> bytes:
    """A PNG of one bit a pixel, all of them black: 20 000 x 20 000 take 50 kB, and decoded as RGB 1.2 GB."""
    rows = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    data = b"".join(rows.compress(row) for _ in range(height)) + rows.flush()
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, content) for name, content in chunks)


def _chunk(name: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


@cache
def _bomb() -> bytes:
    return png_of(20_000, 20_000)


@cache
def _hundred_megapixels() -> bytes:
    return png_of(10_000, 10_000)


def _any(chance: random.Random) -> tuple[str, str]:
    """A format, and its suffix."""
    return chance.choice(list(FORMATS.items()))


def _truncated(chance: random.Random) -> tuple[str, bytes]:
    format, suffix = _any(chance)
    whole = picture(format)
    return f"cut.{suffix}", whole[: chance.randrange(1, len(whole))]


def _flipped(chance: random.Random) -> tuple[str, bytes]:
    format, suffix = _any(chance)
    content = bytearray(picture(format))
    for _ in range(chance.randint(1, 20)):
        content[chance.randrange(min(len(content), chance.choice((40, 200, len(content)))))] = chance.randrange(256)
    return f"flipped.{suffix}", bytes(content)


def _wrong_kind(chance: random.Random) -> tuple[str, bytes]:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("x", "x")
    contents = (
        b"no picture at all",
        b"%!PS-Adobe-3.0 EPSF-3.0\n(/etc/passwd) (r) file",
        b"%PDF-1.7",
        archive.getvalue(),
        b"<html><script>alert(1)</script></html>",
        b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00",
        b"#!/bin/sh\ntouch pwned",
        bytes(chance.randrange(256) for _ in range(500)),
    )
    return f"photo.{chance.choice(list(FORMATS.values()))}", chance.choice(contents)


def _wrong_suffix(chance: random.Random) -> tuple[str, bytes]:
    return chance.choice(("x.exe", "x.svg", "x.txt", "x", "x.html", "x.gif")), picture(_any(chance)[0])


def _svg(chance: random.Random) -> tuple[str, bytes]:
    text = '<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"><image href="file:///etc/passwd"/></svg>'
    return chance.choice(("x.svg", "x.png")), chance.choice(("", '<?xml version="1.0"?>')).encode() + text.encode()


def _odd_mode(chance: random.Random) -> tuple[str, bytes]:
    format, mode = chance.choice(
        (("TIFF", "F"), ("PNG", "1"), ("PNG", "P"), ("PNG", "LA"), ("PNG", "RGBA"), ("TIFF", "LAB"), ("TIFF", "YCbCr"))
    )
    return f"odd.{FORMATS[format]}", picture(format, mode)


KINDS: dict[str, Callable[[random.Random], tuple[str, bytes]]] = {
    "truncated": _truncated,
    "bits flipped": _flipped,
    "zero bytes": lambda chance: (f"empty.{_any(chance)[1]}", b""),
    "another kind": _wrong_kind,
    "wrong suffix": _wrong_suffix,
    "decompression bomb": lambda chance: ("bomb.png", _bomb()),
    "100 megapixels": lambda chance: ("large.png", _hundred_megapixels()),
    "CMYK": lambda chance: chance.choice((("c.jpg", picture("JPEG", "CMYK")), ("c.tif", picture("TIFF", "CMYK")))),
    "16 bits": lambda chance: chance.choice((("w.png", picture("PNG", "I;16")), ("w.tif", picture("TIFF", "I;16")))),
    "other modes": _odd_mode,
    "animated": lambda chance: chance.choice(
        [(f"a.{FORMATS[format]}", picture(format, frames=4)) for format in ("GIF", "WEBP", "PNG", "TIFF")]
    ),
    "SVG": _svg,
    "name": lambda chance: (chance.choice(NAMES), picture()),
    "too many bytes": lambda chance: ("heavy.jpg", picture("JPEG") + bytes(3 * 2**20)),
}
"""How a name and a content of each kind are made. The last has more than 2 MB."""

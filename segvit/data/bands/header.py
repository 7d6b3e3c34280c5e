"""Read bit depth, bands and georeference from the header of an image file, without decoding it.

    header = read_header(Path("scene.tif"))     # None: a photo of 8 bits per channel
    header.bits, header.bands, header.is_scene

Pillow alone cannot answer: it opens RGB of 16 bits as 8 bits, and refuses most files of other band counts.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

from segvit.data.bands import jpeg2000, pnm
from segvit.data.bands.jpeg2000 import CODESTREAM, SIGNATURE, jpeg2000_facts
from segvit.data.bands.pnm import CHANNELS, pnm_facts
from segvit.data.member import File

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_BANDS = {0: (1, False), 2: (3, False), 3: (3, False), 4: (1, True), 6: (3, True)}
"""Bands and transparency by PNG's colour type."""
PNG_PALETTE = 3
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""First bytes of TIFF and BigTIFF files in either byte order."""
TIFF_SUFFIXES = (".tif", ".tiff")
LARGE_SCENE = 100_000_000
"""Number of pixels above which a TIFF file is labelled window by window, even without a georeference."""

Form = Literal["PNG", "TIFF", "JPEG 2000", "PNM", "array"]
Kind = Literal["unsigned", "signed", "float"]
Encoding = Literal["direct", "palette", "CMYK"]
KINDS: dict[int, Kind] = {1: "unsigned", 2: "signed", 3: "float"}
"""Kinds of numbers by TIFF's sample format."""
SUBFILE_TYPE, BITS, PHOTOMETRIC, ORIENTATION, SAMPLES, EXTRA_SAMPLES, SAMPLE_FORMAT = 254, 258, 262, 274, 277, 338, 339
WIDTH, HEIGHT, NODATA = 256, 257, 42113
"""Numbers of TIFF tags; the last is GDAL's."""
GEO_TAGS = (33550, 34264, 34735)
"""Tags of a GeoTIFF: pixel scale, matrix, and coordinate system."""
WANTED = {
    SUBFILE_TYPE,
    WIDTH,
    HEIGHT,
    BITS,
    PHOTOMETRIC,
    ORIENTATION,
    SAMPLES,
    EXTRA_SAMPLES,
    SAMPLE_FORMAT,
    NODATA,
    *GEO_TAGS,
}
FORMATS = {1: "B", 2: "s", 3: "H", 4: "I", 5: "II", 11: "f", 12: "d", 16: "Q"}
"""Struct codes by TIFF's type of a tag."""
MASK = 4
NO_PICTURE = 1 | MASK
"""Bits of the subfile type of reduced copies and masks."""
MOST_VALUES, MOST_TAGS, MOST_PAGES = 1024, 4096, 100_000
"""Limits of a tag's values, of a header's tags and of a file's pages, so that a damaged file cannot fill the memory."""
RGB, PALETTE, CMYK, YCBCR, LAB = 2, 3, 5, 6, 8
ENCODINGS: dict[int, Encoding] = {PALETTE: "palette", CMYK: "CMYK"}
COLORS = {RGB: 3, PALETTE: 1, CMYK: 4, YCBCR: 3, LAB: 3}
"""Samples of a colour by TIFF's photometric interpretation. Grey has one."""


@dataclass(frozen=True, kw_only=True)
class Header:
    """Facts from the header of a PNG or TIFF file, or of a JPEG 2000, PGM or PPM file of more than 8 bits."""

    size: tuple[int, int]
    """Height and width in pixels, as stored."""
    bands: int
    """Number of bands, without transparency. Palettes and CMYK count as red, green, blue."""
    alpha: bool
    """True if one more channel is transparency."""
    bits: int
    """Bits per channel."""
    kind: Kind = "unsigned"
    encoding: Encoding = "direct"
    """direct: channels are bands. palette and CMYK: they have to be converted to red, green, blue."""
    orientation: int = 1
    """EXIF orientation, 1 to 8."""
    nodata: float | None = None
    """Value of pixels without data, as GDAL stores it."""
    georeferenced: bool = False
    masked: bool = False
    """True if a mask inside a TIFF file hides pixels."""
    form: Form = "array"
    """File format."""
    white: int | None = None
    """Largest value, if the file gives it."""

    @property
    def tiff(self) -> bool:
        """True for a TIFF file."""
        return self.form == "TIFF"

    @property
    def channels(self) -> int:
        """Number of bands, and transparency if there is any."""
        return self.bands + self.alpha

    @property
    def is_deep(self) -> bool:
        """True if a channel has more than 8 bits."""
        return self.bits > 8

    @property
    def full(self) -> int | None:
        """Largest value that a channel can hold. None for floats and for more than 16 bits."""
        if self.white is not None:
            return self.white
        return None if self.kind == "float" or self.bits > 16 else 2 ** (self.bits - (self.kind == "signed")) - 1

    @property
    def is_scene(self) -> bool:
        """True if the file is a raster to label window by window: georeferenced, or with too many pixels for memory."""
        return self.tiff and (self.georeferenced or self.is_large)

    @property
    def is_large(self) -> bool:
        """True if the image has too many pixels for memory."""
        return self.size[0] * self.size[1] > LARGE_SCENE


def read_header(path: File) -> Header | None:
    """Read the header of a file. Return None for other formats, and for files that cannot be read."""
    try:
        with path.open("rb") as file:
            start = file.read(32)
            if start.startswith(PNG_SIGNATURE) and len(start) >= 26:
                return _png(start)
            if start[:4] in TIFF_STARTS:
                return _tiff(file, start)
            if start.startswith((SIGNATURE, CODESTREAM)):
                return _jpeg2000(start + file.read(jpeg2000.LONGEST_HEAD - len(start)))
            if start[:2] in CHANNELS:
                return _pnm(start + file.read(pnm.LONGEST_HEAD - len(start)))
    except (OSError, struct.error, ValueError, OverflowError):
        return None
    return None


def _png(start: bytes) -> Header | None:
    """Return the facts in the first bytes of a PNG file."""
    width, height, bits, color = struct.unpack(">IIBB", start[16:26])
    if color not in PNG_BANDS:
        return None
    bands, alpha = PNG_BANDS[color]
    encoding: Encoding = "palette" if color == PNG_PALETTE else "direct"
    return Header(size=(height, width), bands=bands, alpha=alpha, bits=bits, encoding=encoding, form="PNG")


def _jpeg2000(start: bytes) -> Header | None:
    """Return the facts in the first bytes of a JPEG 2000 file of more than 8 bits."""
    facts = jpeg2000_facts(start)
    if facts is None or facts.bits <= 8:
        return None
    kind: Kind = "signed" if facts.signed else "unsigned"
    bands = facts.channels - facts.alpha
    return Header(size=facts.size, bands=bands, alpha=facts.alpha, bits=facts.bits, kind=kind, form="JPEG 2000")


def _pnm(start: bytes) -> Header | None:
    """Return the facts in the first bytes of a PGM or PPM file of more than 8 bits."""
    facts = pnm_facts(start)
    if facts is None:
        return None
    return Header(size=facts.size, bands=facts.channels, alpha=False, bits=16, form="PNM", white=facts.white)


def _tiff(file: BinaryIO, start: bytes) -> Header | None:
    """Return the facts of the first image of a TIFF file."""
    tags = _tags(file, start)
    if WIDTH not in tags or HEIGHT not in tags:
        return None
    samples, photometric = int(tags.get(SAMPLES, (1,))[0]), int(tags.get(PHOTOMETRIC, (0,))[0])
    extra = samples - COLORS.get(photometric, 1)
    alpha = extra == 1 and tags.get(EXTRA_SAMPLES, (0,))[0] in (1, 2)
    bands = 3 if photometric in (PALETTE, CMYK) else samples - alpha
    orientation = int(tags.get(ORIENTATION, (1,))[0])
    return Header(
        size=(int(tags[HEIGHT][0]), int(tags[WIDTH][0])),
        bands=bands,
        alpha=alpha,
        bits=int(max(tags.get(BITS, (1,)))),
        kind=KINDS.get(tags.get(SAMPLE_FORMAT, (1,))[0], "unsigned"),
        encoding=ENCODINGS.get(photometric, "direct"),
        orientation=orientation if orientation in range(1, 9) else 1,
        nodata=_number(tags.get(NODATA, (b"",))[0]),
        georeferenced=any(tag in tags for tag in GEO_TAGS),
        masked=_has_mask(file, start),
        form="TIFF",
    )


def count_pages(path: File) -> int:
    """Count the pages of a TIFF file that are pictures, without reduced copies and masks. Other files have one."""
    try:
        with path.open("rb") as file:
            start = file.read(32)
            if start[:4] not in TIFF_STARTS:
                return 1
            return max(sum(not kind & NO_PICTURE for kind in _subfile_types(file, start)), 1)
    except (OSError, struct.error, ValueError, OverflowError):
        return 1


def _has_mask(file: BinaryIO, start: bytes) -> bool:
    """True if one of the images of a TIFF file is a mask."""
    try:
        return any(kind & MASK for kind in _subfile_types(file, start))
    except (OSError, struct.error, ValueError, OverflowError):
        return False  # a later directory is damaged, and the first can be read


def _subfile_types(file: BinaryIO, start: bytes) -> Iterator[int]:
    """Yield the subfile type of each image of a TIFF file."""
    order, big, offset = _begin(start)
    seen = set[int]()
    while offset and offset not in seen and len(seen) < MOST_PAGES:
        seen.add(offset)
        tags, offset = _directory(file, offset, order, big)
        yield int(tags.get(SUBFILE_TYPE, (0,))[0])


def _tags(file: BinaryIO, start: bytes) -> Mapping[int, tuple[Any, ...]]:
    """Return the wanted tags of the first image of a TIFF or BigTIFF file."""
    order, big, offset = _begin(start)
    return _directory(file, offset, order, big)[0]


def _begin(start: bytes) -> tuple[str, bool, int]:
    """Return the byte order of a TIFF file, True for a BigTIFF file, and the place of the first directory."""
    order, big = ("<" if start[:2] == b"II" else ">"), b"+" in start[:4]
    (offset,) = struct.unpack(order + ("Q" if big else "I"), start[8:16] if big else start[4:8])
    return order, big, offset


def _directory(file: BinaryIO, offset: int, order: str, big: bool) -> tuple[Mapping[int, tuple[Any, ...]], int]:
    """Return the wanted tags of the directory at a place of a TIFF file, and the place of the next. 0 ends the list."""
    size, inline = (20, 8) if big else (12, 4)
    file.seek(offset)
    (count,) = struct.unpack(order + ("Q" if big else "H"), file.read(8 if big else 2))
    content = file.read(size * min(count, MOST_TAGS))
    file.seek(offset + (8 if big else 2) + size * count)
    end = file.read(8 if big else 4)
    following = struct.unpack(order + ("Q" if big else "I"), end)[0] if len(end) == (8 if big else 4) else 0
    found: dict[int, tuple[Any, ...]] = {}
    for begin in range(0, len(content) - size + 1, size):
        tag, kind, number = struct.unpack(order + ("HHQ" if big else "HHI"), content[begin : begin + size - inline])
        if tag not in WANTED or kind not in FORMATS or not number:
            continue
        number = min(number, MOST_VALUES)
        code = f"{number}s" if kind == 2 else FORMATS[kind] * number
        value, length = content[begin + size - inline : begin + size], struct.calcsize(order + code)
        if length > inline:
            file.seek(struct.unpack(order + ("Q" if big else "I"), value)[0])
            value = file.read(length)
        if len(value) >= length:
            found[tag] = struct.unpack(order + code, value[:length])
    return found, following


def _number(text: bytes) -> float | None:
    """Return GDAL's nodata value from its text."""
    try:
        return float(text.strip(b"\0 ").decode("ascii"))
    except ValueError:
        return None

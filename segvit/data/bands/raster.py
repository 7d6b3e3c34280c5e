"""Read GeoTIFF and other large TIFF files window by window, in bounded memory, with rasterio.

    with open_raster(Path("scene.tif"), Reading(bands=4, white=10_000)) as raster:
        raster.read(slice(0, 512), slice(0, 512))       # (N, 512, 512), as the model takes it
        raster.place                                     # coordinate system and transform

Letters: H, W size of the raster, N bands, y x pixels of a part.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from segvit.data.bands.deep import check_encoding, expand, has_mask, hidden, need_rasterio, open_rasterio
from segvit.data.bands.header import Header, read_header
from segvit.data.bands.reading import Pixels, Reading, scaled, white_of
from segvit.data.bands.tensors import to_tensor
from segvit.data.images import Unreadable

CACHE_BYTES = 192 * 2**20
"""Memory that GDAL may keep decoded blocks in. Its own default is a share of the machine's memory.

rasterio takes bytes here, unlike GDAL's own environment variable, which takes MB.
"""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Position of a raster on the map."""

    crs: Any
    """Coordinate system (rasterio.crs.CRS), or None."""
    transform: Any
    """Affine map from columns and rows to coordinates; the identity if there is none."""

    @property
    def known(self) -> bool:
        """True if the raster has a position."""
        return self.crs is not None or not self.transform.is_identity


@dataclass(frozen=True, kw_only=True)
class Raster:
    """An open raster."""

    path: Path
    header: Header
    reading: Reading
    source: Any
    """Open rasterio dataset."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.source.height, self.source.width

    @property
    def place(self) -> Place:
        """Position on the map."""
        return Place(crs=self.source.crs, transform=self.source.transform)

    def pixels(self, rows: slice, columns: slice) -> Pixels:
        """Read a rectangle as the model takes it. Several threads may call it.

        Raises:
            UserError: the file is damaged there, or holds values without a known white.
        """
        window = ((rows.start, rows.stop), (columns.start, columns.stop))
        with self._lock:
            raw: npt.NDArray[Any] = self.source.read(window=window)
            masked = hidden(self.source, window)
        raw = expand(raw, self.header.bits).transpose(1, 2, 0)
        return scaled(raw, self.header, self.reading, name=str(self.path), hidden=masked)

    def read(self, rows: slice, columns: slice) -> Tensor:
        """Read a rectangle (N, y, x), uint8 or float32 in 0..1.

        Raises:
            UserError: as `pixels`.
        """
        return to_tensor(self.pixels(rows, columns).values)

    def check(self, step: int) -> None:
        """Refuse a raster that a later window could not be read from, before the first one is used.

        Unsigned integers need one pixel for that. Other kinds of numbers may be below 0 or above white anywhere, and
        colours may be grey, so such a raster is read once, in squares of `step` pixels.

        Raises:
            UserError: other bands than the model's, values below 0, or values without a known white.
        """
        if self.header.kind == "unsigned" and not (self.reading.bands == 1 and self.header.bands > 1):
            self.pixels(slice(0, 1), slice(0, 1))
            return
        height, width = self.size
        measured = replace(self, reading=replace(self.reading, white=self.reading.white or 1.0))
        peaks = [
            measured.pixels(slice(top, min(top + step, height)), slice(left, min(left + step, width))).peak or 0.0
            for top in range(0, height, step)
            for left in range(0, width, step)
        ]
        if self.header.is_deep:
            white_of(self.header, self.reading, max(peaks), str(self.path))

    def missing(self, rows: slice, step: int) -> npt.NDArray[np.bool_] | None:
        """Return where some rows (y, W) have no data, read `step` columns at a time. None: they have data everywhere.

        Raises:
            UserError: as `pixels`.
        """
        header, width = self.header, self.size[1]
        if header.nodata is None and header.kind != "float" and not header.alpha and not has_mask(self.source):
            return None
        found = np.zeros((rows.stop - rows.start, width), bool)
        for left in range(0, width, step):
            columns = slice(left, min(left + step, width))
            part = self.pixels(rows, columns).missing
            if part is not None:
                found[:, columns] = part
        return found if found.any() else None


@contextmanager
def open_raster(path: Path, reading: Reading) -> Iterator[Raster]:
    """Open a TIFF file for reading in parts. Its EXIF orientation is not applied.

    Raises:
        UserError: rasterio is missing, or the file cannot be read or holds a palette.
    """
    header = read_header(path)
    if header is None:
        raise Unreadable(f"{path}: cannot be read as a TIFF file (its header is damaged); replace or remove the file")
    check_encoding(path, header)
    rasterio = need_rasterio(f"{path}: GeoTIFF files and images of more than 100 megapixels")
    with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES), open_rasterio(path) as source:
        yield Raster(path=path, header=header, reading=reading, source=source)

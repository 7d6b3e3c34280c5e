"""Write a label map as a cloud-optimised GeoTIFF: tiled, compressed, with overviews, palette and place on the map.

write_labels(path, rows, size=(20_000, 20_000), place=raster.place, palette=palette, nodata=255)

The file is written beside its place and renamed. No step holds more than a row of tiles.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segvit.data.bands.deep import need_rasterio
from segvit.data.bands.raster import CACHE_BYTES, Place
from segvit.data.palette import Color
from segvit.prediction.names import ASIDE, aside

BLOCK = 512
"""Side of a tile of the file in pixels."""


def write_labels(
    path: Path,
    rows: Iterable[npt.NDArray[Any]],
    *,
    size: tuple[int, int],
    dtype: str,
    place: Place,
    palette: Sequence[Color] | None,
    nodata: int,
) -> None:
    """Write the rows of tiles of a label map to a GeoTIFF.

    Args:
        path: .tif file to write.
        rows: label maps (y, W) of all rows of tiles from the top, `BLOCK` high but for the last.
        size: (H, W) in pixels.
        dtype: uint8 or uint16.
        place: position on the map.
        palette: colours of the values 0..K-1. None: without colours.
        nodata: value of pixels without data.
    """
    rasterio = need_rasterio("GeoTIFF files")
    from rasterio import shutil

    profile = {
        "driver": "GTiff",
        "height": size[0],
        "width": size[1],
        "count": 1,
        "dtype": dtype,
        "nodata": nodata,
        "tiled": True,
        "blockxsize": BLOCK,
        "blockysize": BLOCK,
        "compress": "deflate",
        "bigtiff": "if_safer",
    }
    if place.known:
        profile |= {"crs": place.crs, "transform": place.transform}
    with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES), aside(path) as final, _beside(path) as tiles:
        with rasterio.open(tiles, "w", **profile) as target:
            top = 0
            for labels in rows:
                target.write(labels.astype(dtype, copy=False), 1, window=((top, top + len(labels)), (0, size[1])))
                top += len(labels)
            if palette is not None and np.dtype(dtype) == np.uint8:
                target.write_colormap(1, {number: (*color, 255) for number, color in enumerate(palette)})
        assert top == size[0]
        shutil.copy(tiles, final, driver="COG", compress="deflate", blocksize=BLOCK, overview_resampling="nearest")


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """Yield the path of a file for unfinished tiles, and remove the file at the end."""
    tiles = path.with_name(f".{path.name}{ASIDE}")
    try:
        yield tiles
    finally:
        tiles.unlink(missing_ok=True)

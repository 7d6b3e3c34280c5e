"""Read label maps that are pictures of one channel: each pixel is a raw value, or an index into the palette.

Letters: H, W size of a label map.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from segvit.data.bands.header import read_header
from segvit.data.frames import check_labels
from segvit.data.images import LOSSLESS_SUFFIXES, SIXTEEN_BIT, open_picture, upright
from segvit.data.labels.format import Classes, LabelFormat
from segvit.data.labels.memory import LabelMemory
from segvit.data.member import File
from segvit.data.pairs import Pair
from segvit.data.palette import Color
from segvit.errors import UserError

MAX_COLORS = 4096
"""Number of colours above which a painted label map is taken for a photo."""


@dataclass(frozen=True, kw_only=True)
class IndexLabels(LabelFormat):
    """Pictures of one channel: the raw value of each pixel, or its index in a palette."""

    name: ClassVar[str] = "index"
    suffixes: ClassVar[Sequence[str]] = LOSSLESS_SUFFIXES

    def read(self, pair: Pair, classes: Classes, memory: LabelMemory) -> npt.NDArray[Any]:
        """Read the pixels, (H, W). GDAL's nodata value of a GeoTIFF is ignored, unless the spec lists that value."""
        labels = read_labels(pair.labels)
        header = read_header(pair.labels)
        if header is None or header.nodata is None or not header.nodata.is_integer() or not classes.ignore:
            return labels
        nodata = int(header.nodata)
        return np.where(labels == nodata, classes.ignore[0], labels) if classes.unknown([nodata]) else labels

    def painted_colors(self, path: File) -> dict[Color, int] | None:
        """Count the pixels of each colour if the picture has colour channels."""
        try:
            with open_picture(path, "a label map") as opened:
                if len(opened.getbands()) < 3:
                    return None
                counts = opened.convert("RGB").getcolors(MAX_COLORS)
        except UserError:
            return None
        return {(color[0], color[1], color[2]): count for count, color in counts or [] if isinstance(color, tuple)}


def read_labels(path: File) -> npt.NDArray[Any]:
    """Read the raw values (H, W) in a label file, in its own integer type: 8 bits, 16 bits, or palette indices.

    A 1-bit file holds 0 and 1. The EXIF orientation is applied, as for images.

    Raises:
        UserError: the file does not exist, is not an image, is damaged, or has several channels (a coloured mask).
    """
    with open_picture(path, "a label map") as opened:
        check_labels(opened, path)
        opened.load()
        labels = upright(opened)
        if labels.mode == "1":
            return np.asarray(labels).astype(np.uint8)
        if labels.mode in ("L", "P", *SIXTEEN_BIT):
            return np.asarray(labels)
        channels = labels.getbands()
        if len(channels) == 1:
            raise UserError(f"{path}: pixels are floating-point numbers; save the label map with whole numbers")
        raise UserError(f"{path}: {_explain_channels(np.asarray(labels), channels)}")


def _explain_channels(pixels: npt.NDArray[Any], channels: Sequence[str]) -> str:
    """Return the error text for a label map of several channels, with a remedy."""
    found = f"the label map has {len(channels)} channels ({', '.join(channels)}), but one number per pixel is needed; "
    see_through = channels[-1] in ("A", "a")
    color = pixels[..., :-1] if see_through else pixels[..., :3]
    if (color == color[..., :1]).all():
        kept = '"A"' if see_through and color.min() == color.max() and np.ptp(pixels[..., -1]) else "0"
        why = "all labels are in its transparency" if kept != "0" else "its colour channels are equal"
        if color.shape[-1] == 1 and kept == "0":
            why = "one of them is transparency"
        return found + (
            f"{why}, so saving one of them loses nothing: in Python, "
            f"`from PIL import Image; Image.open(FILE).getchannel({kept}).save(FILE)`"
        )
    return found + (
        "it looks like a mask painted in colours: describe them in a spec, with `labels: {format: color}` and the "
        "`color` of each class, or save class numbers instead, as a grey or palette PNG"
    )

"""Maps of all sizes laid over one photo, which is no larger than a panel of a figure needs.

    canvas = Canvas(inside)
    heat_over(canvas.photo, canvas.probability(inside.masks[-1, 0]))

Letters: H W photo, H' W' photo as the model looks at it, h w a grid, y x the canvas in pixels.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from segvit.pictures.inside.record import Inside
from segvit.pictures.paint import Labels, Pixels
from segvit.pictures.text import enlarge, enlargement

SIDE = 480
"""Longer side of a canvas in pixels, at most: 200 dots per inch of the largest panel."""
LEAST_SIDE = 320
"""Longer side below which a photo is enlarged, in whole factors."""


class Canvas:
    """A photo for drawing on, and whatever a model made of it at the same size.

    Args:
        inside: of the photo.

    Attributes:
        photo: (y, x, 3).
    """

    photo: Pixels

    def __init__(self, inside: Inside) -> None:
        photo = Image.fromarray(inside.photo)
        if max(photo.size) > SIDE:
            photo.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        elif max(photo.size) < LEAST_SIDE:
            photo = enlarge(photo, enlargement(photo, LEAST_SIDE))
        self.photo = np.array(photo)
        self._looked_at = inside.size
        self._spanned = inside.padded_size

    def probability(self, mask_logits: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
        """The sigmoid of upsampled mask logits: (h, w) -> (y, x), as scores are made (docs/method.md section 2)."""
        logits = self._resized(mask_logits, self._spanned, Image.Resampling.BILINEAR).astype(np.float64)
        return np.asarray(0.5 * (1 + np.tanh(logits / 2)))

    def cells(self, values: npt.NDArray[np.floating[Any]], cell: int | None = None) -> npt.NDArray[np.float32]:
        """Values of a grid, each over its cell: (h, w) -> (y, x).

        Args:
            values: one for each cell.
            cell: side of a cell in pixels of the photo as it was looked at. Default: that of the masks.
        """
        spanned = self._spanned if cell is None else (values.shape[0] * cell, values.shape[1] * cell)
        return self._resized(values, spanned, Image.Resampling.NEAREST)

    def labels(self, labels: Labels) -> npt.NDArray[np.int64]:
        """A label map of the photo, of any size, on the canvas (y, x)."""
        picture = Image.fromarray(labels.astype(np.int32))
        return np.asarray(picture.resize(self._size, Image.Resampling.NEAREST)).astype(np.int64)

    @property
    def aspect(self) -> float:
        """Height by width."""
        return float(self.photo.shape[0] / self.photo.shape[1])

    @property
    def _size(self) -> tuple[int, int]:
        """Width and height in pixels, as Pillow has them."""
        return self.photo.shape[1], self.photo.shape[0]

    def _resized(
        self, values: npt.NDArray[np.floating[Any]], spanned: tuple[int, int], how: Image.Resampling
    ) -> npt.NDArray[np.float32]:
        """A grid that spans (H, W) pixels, on the canvas: what lies beyond the photo is cut off."""
        rows, columns = (
            size * count / span for size, count, span in zip(self._looked_at, values.shape, spanned, strict=True)
        )
        picture = Image.fromarray(values.astype(np.float32))
        return np.asarray(picture.resize(self._size, how, box=(0, 0, columns, rows)))

"""Resize maps of any size to one photo, which is itself reduced to the size of a figure panel.

    canvas = Canvas(inside)
    heat_over(canvas.photo, canvas.probability(inside.masks[-1, 0]))

Letters: H W photo, H' W' photo as the model sees it, h w a grid, y x the canvas in pixels.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from segvit.pictures.inside.record import Inside
from segvit.pictures.paint import Labels, Pixels
from segvit.pictures.text import enlarge, enlargement

SIDE = 480
"""Maximum longer side of a canvas in pixels: 200 dots per inch of the largest panel."""
LEAST_SIDE = 320
"""Minimum longer side in pixels. Smaller photos are enlarged by a whole factor."""


class Canvas:
    """Photo in panel size, and methods that bring a model's maps to the same size.

    Args:
        inside: recording of the model on this photo.

    Attributes:
        photo: uint8 (y, x, 3).
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
        """Upsample mask logits and take the sigmoid, as the scores do (docs/method.md section 2): (h, w) -> (y, x)."""
        logits = self._resized(mask_logits, self._spanned, Image.Resampling.BILINEAR).astype(np.float64)
        return np.asarray(0.5 * (1 + np.tanh(logits / 2)))

    def cells(self, values: npt.NDArray[np.floating[Any]], cell: int | None = None) -> npt.NDArray[np.float32]:
        """Fill each cell of a grid with its value: (h, w) -> (y, x).

        Args:
            values: one value per cell.
            cell: side of a cell in pixels of the photo as the model sees it. Default: a cell of the masks.
        """
        spanned = self._spanned if cell is None else (values.shape[0] * cell, values.shape[1] * cell)
        return self._resized(values, spanned, Image.Resampling.NEAREST)

    def labels(self, labels: Labels) -> npt.NDArray[np.int64]:
        """Resize a label map of the photo to the canvas (y, x)."""
        picture = Image.fromarray(labels.astype(np.int32))
        return np.asarray(picture.resize(self._size, Image.Resampling.NEAREST)).astype(np.int64)

    @property
    def aspect(self) -> float:
        """Height divided by width."""
        return float(self.photo.shape[0] / self.photo.shape[1])

    @property
    def _size(self) -> tuple[int, int]:
        """Width and height in pixels, in Pillow's order."""
        return self.photo.shape[1], self.photo.shape[0]

    def _resized(
        self, values: npt.NDArray[np.floating[Any]], spanned: tuple[int, int], how: Image.Resampling
    ) -> npt.NDArray[np.float32]:
        """Resize a grid that spans `spanned` (height, width) pixels to the canvas, and cut off the padding."""
        rows, columns = (
            size * count / span for size, count, span in zip(self._looked_at, values.shape, spanned, strict=True)
        )
        picture = Image.fromarray(values.astype(np.float32))
        return np.asarray(picture.resize(self._size, how, box=(0, 0, columns, rows)))

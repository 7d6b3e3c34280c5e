"""A photo as users give it to `segvit.predict` and `segvit.pictures.look`: a file, a PIL image or an array."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from segvit.data.files import as_rgb, read_image
from segvit.errors import UserError

Source = str | Path | Image.Image | npt.NDArray[np.uint8]


def to_rgb(source: Source) -> npt.NDArray[np.uint8]:
    """Return any source as uint8 (H, W, 3).

    Raises:
        UserError: a file that cannot be read, or an array that is not uint8 RGB or grey.
    """
    if isinstance(source, str | Path):
        return np.asarray(read_image(Path(source)))
    if isinstance(source, Image.Image):
        return np.asarray(as_rgb(source, name="the image given"))
    if source.dtype != np.uint8 or source.ndim not in (2, 3) or (source.ndim == 3 and source.shape[2] != 3):
        raise UserError(
            f"an array of {source.dtype} {source.shape}: expected uint8 (H, W, 3) RGB or (H, W) grey; "
            "for floats in 0..1 give (array * 255).astype('uint8')"
        )
    return np.stack([source] * 3, axis=2) if source.ndim == 2 else source

"""Read a file by the reader of COCO's JSON."""

from pathlib import Path
from typing import Any

import numpy.typing as npt

from segvit.data.annotations.shapes import paint
from segvit.data.annotations.tools.coco import CocoLabels


def painted(path: Path, name: str | None = None, *, unlabeled: int = 255) -> npt.NDArray[Any]:
    """The category ids (H, W) of one image, or of the only one in the file."""
    index = CocoLabels().index(path)
    if name is None:
        (name,) = index.images
    drawing = CocoLabels().draw(index.images[name], path, name)
    assert drawing.size is not None and not drawing.skipped
    return paint(drawing, drawing.size, lambda shape: shape.category or 0, unlabeled=unlabeled)

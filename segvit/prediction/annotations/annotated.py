"""Trace one label map for the writers of annotation files.

Letters: H, W size of the label map, K classes, R regions, N corners of a polygon.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from segvit.data.labels.background import is_background
from segvit.data.labels.rasterize import fill_polygon
from segvit.prediction.annotations.simplify import simplified
from segvit.prediction.polygons import Region, bridged, outlines


class Annotated(NamedTuple):
    """The regions of one image."""

    image: Path
    """File of the photo."""
    stem: str
    """Path of the outputs below the output folder, without suffix, such as `street/0001`."""
    height: int
    width: int
    regions: Sequence[Region]
    """Regions (R,), the largest first. The class called background has none."""
    scores: Sequence[float] | None
    """Mean confidence (R,) of the pixels of each region, 0..1. None if there are no confidence maps."""


def trace(
    labels: npt.NDArray[np.integer[Any]],
    classes: Sequence[str],
    *,
    image: Path,
    stem: str,
    tolerance: float,
    confidence: npt.NDArray[np.floating[Any]] | None = None,
) -> Annotated:
    """Return the regions of a label map.

    Args:
        labels: (H, W), class numbers 0..K-1.
        classes: names (K,).
        image: file of the photo.
        stem: see `Annotated`.
        tolerance: see `simplified`.
        confidence: (H, W), 0..1.

    Raises:
        UserError: see `outlines`.
    """
    drawn = drawn_classes(classes)
    found = [region for region in outlines(labels) if region.label in drawn]
    found.sort(key=lambda region: -region.area)
    scores = None if confidence is None else [_mean(confidence, region) for region in found]
    height, width = labels.shape
    return Annotated(image, stem, height, width, simplified(found, labels, tolerance=tolerance), scores)


def drawn_classes(classes: Sequence[str]) -> dict[int, str]:
    """Return the names by class number, without the background: in every tool, it is the pixels of no annotation."""
    return {index: name for index, name in enumerate(classes) if not is_background(name)}


def score_of(item: Annotated, index: int) -> dict[str, float]:
    """Return the score of region `index` as a key and its value, or nothing if there are no scores."""
    return {} if item.scores is None else {"score": round(item.scores[index], 4)}


def mask_of(region: Region) -> tuple[npt.NDArray[np.bool_], tuple[int, int]]:
    """Return the pixels of a region with exact outlines: a mask (h, w) of its bounding box, and the box's left, top."""
    (left, top), (right, bottom) = region.rings[0].min(axis=0), region.rings[0].max(axis=0)
    inside = np.zeros((int(bottom - top), int(right - left)), dtype=bool)
    fill_polygon(inside, (bridged(region.rings) - (left, top)).astype(np.float64), True)
    return inside, (int(left), int(top))


def _mean(confidence: npt.NDArray[np.floating[Any]], region: Region) -> float:
    """Return the mean of `confidence` (H, W) over the pixels of a region with exact outlines."""
    inside, (left, top) = mask_of(region)
    height, width = inside.shape
    return float(confidence[top : top + height, left : left + width][inside].mean())

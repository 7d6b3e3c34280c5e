"""Regions in the form in which a serverless function of CVAT returns masks.

    cvat_shapes(item)        # [{"label": "car", "type": "mask", "mask": [1, 0, ..., left, top, right, bottom], ...}]

A mask is the pixels 0 and 1 of its bounding box, row by row, and then the box: left, top, right and bottom, all
inside the mask. CVAT itself turns them into run lengths. `points` is the outline, for those who want polygons.
"""

from typing import Any

from segvit.prediction.annotations.annotated import Annotated, mask_of
from segvit.prediction.polygons import bridged


def cvat_shapes(item: Annotated, classes: tuple[str, ...], *, threshold: float = 0) -> list[dict[str, Any]]:
    """Return one shape for each region.

    Args:
        item: regions of the image, with exact outlines and scores.
        classes: names (K,).
        threshold: smallest score of a region, 0..1.
    """
    shapes = []
    for index, region in enumerate(item.regions):
        score = 1.0 if item.scores is None else item.scores[index]
        if score < threshold:
            continue
        mask, (left, top) = mask_of(region)
        height, width = mask.shape
        shapes.append(
            {
                "confidence": f"{score:.4f}",
                "label": classes[region.label],
                "type": "mask",
                "points": bridged(region.rings).ravel().tolist(),
                "mask": [*mask.astype(int).ravel().tolist(), left, top, left + width - 1, top + height - 1],
            }
        )
    return shapes

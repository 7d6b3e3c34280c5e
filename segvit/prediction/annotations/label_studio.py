"""Regions in the form of Label Studio's results: polygons in percent of the image, or masks of the brush.

    polygon_results(item, {1: "car"}, from_name="label", to_name="image")

`from_name` and `to_name` are the names of the control and of the image in the labelling configuration.

Letters: H, W size of the label map.
"""

import uuid
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from segvit.data.annotations.brush import encode_brush
from segvit.prediction.annotations.annotated import Annotated, score_of
from segvit.prediction.polygons import bridged

POLYGONS, BRUSH = "polygonlabels", "brushlabels"
"""Types of results. A result holds its labels under this key, too."""


def polygon_results(
    item: Annotated, labels: Mapping[int, str], *, from_name: str, to_name: str
) -> list[dict[str, Any]]:
    """Return one polygon for each region whose class has a label.

    Args:
        item: regions of the image.
        labels: labels by class number.
        from_name: name of the control.
        to_name: name of the image.
    """
    results = []
    for index, region in enumerate(item.regions):
        if region.label in labels:
            points = (bridged(region.rings) * (100 / item.width, 100 / item.height)).tolist()
            value = {"points": points, "closed": True, POLYGONS: [labels[region.label]]}
            size = (item.height, item.width)
            result = _result(POLYGONS, value, size, f"{item.stem} {index}", from_name=from_name, to_name=to_name)
            results.append(result | score_of(item, index))
    return results


def brush_results(
    class_numbers: npt.NDArray[np.integer[Any]],
    labels: Mapping[int, str],
    *,
    stem: str,
    from_name: str,
    to_name: str,
    confidence: npt.NDArray[np.floating[Any]] | None = None,
) -> list[dict[str, Any]]:
    """Return one mask for each class that is present and has a label.

    Args:
        class_numbers: label map (H, W).
        labels: labels by class number.
        stem: name of the image; ids of the results follow from it.
        from_name: name of the control.
        to_name: name of the image in the labelling configuration.
        confidence: (H, W), 0..1. The score of a result is the mean over its pixels.
    """
    size = (class_numbers.shape[0], class_numbers.shape[1])
    results = []
    for number, label in labels.items():
        mask = class_numbers == number
        if mask.any():
            value = {"format": "rle", "rle": encode_brush(mask), BRUSH: [label]}
            result = _result(BRUSH, value, size, f"{stem} {number} brush", from_name=from_name, to_name=to_name)
            score = {} if confidence is None else {"score": round(float(confidence[mask].mean()), 4)}
            results.append(result | score)
    return results


def _result(
    kind: str, value: dict[str, Any], size: tuple[int, int], name: str, *, from_name: str, to_name: str
) -> dict[str, Any]:
    """Return a result without its score. Its id follows from the name, so a second prediction has the same ids."""
    height, width = size
    return {
        "id": uuid.uuid5(uuid.NAMESPACE_URL, name).hex[:10],
        "type": kind,
        "from_name": from_name,
        "to_name": to_name,
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": value,
    }

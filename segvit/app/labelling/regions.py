"""Regions of a prediction for the controls of a labelling configuration. This runs in a worker."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segvit.app.messages import Control
from segvit.prediction.annotations.annotated import trace
from segvit.prediction.annotations.label_studio import POLYGONS, brush_results, polygon_results
from segvit.prediction.photo import Prediction

TOLERANCE = 1.0
"""Largest distance in pixels between a polygon and the outline of its pixels. Exact outlines have too many corners
to be corrected by hand."""


def regions_for(controls: Sequence[Control], result: Prediction, *, name: str) -> list[dict[str, Any]]:
    """Return the results of Label Studio for each control.

    Args:
        controls: controls, each with the labels of its classes.
        result: prediction with its confidence.
        name: name of the photo; ids of the results follow from it.
    """
    found: list[dict[str, Any]] = []
    for control in controls:
        names = {"from_name": control.name, "to_name": control.to_name}
        if control.kind == POLYGONS:
            item = trace(
                result.labels,
                result.classes,
                image=Path(name),
                stem=name,
                tolerance=TOLERANCE,
                confidence=result.confidence,
            )
            found += polygon_results(item, control.labels, **names)
        else:
            found += brush_results(result.labels, control.labels, stem=name, confidence=result.confidence, **names)
    return found

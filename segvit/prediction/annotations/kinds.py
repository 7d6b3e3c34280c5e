"""Name the formats of labelling tools that label maps can be written in. Nothing here needs torch."""

from collections.abc import Sequence
from typing import Literal, get_args

from segvit.errors import UserError
from segvit.utils.text import suggest

AnnotationFormat = Literal["coco", "yolo", "labelme", "cvat", "label-studio", "geojson"]
"""Formats that `segvit predict --write` knows."""
SCORED = ("coco", "label-studio", "geojson")
"""Formats that hold a score for each region."""


def check_annotations(kinds: Sequence[str], simplify: float) -> None:
    """Check the formats and the tolerance in pixels of the polygons.

    Raises:
        UserError: an unknown format, or a tolerance that is negative, not finite, or without a format.
    """
    known = get_args(AnnotationFormat)
    for kind in kinds:
        if kind not in known:
            raise UserError(f"annotations in the format {kind!r}{suggest(kind, known)}; give one of {', '.join(known)}")
    if not 0 <= simplify < float("inf"):
        raise UserError(f"--simplify {simplify}: give a distance in pixels, such as 1, or 0 for exact polygons")
    if simplify and not kinds:
        raise UserError(f"--simplify {simplify} simplifies the polygons of --write: add --write FORMAT, such as coco")

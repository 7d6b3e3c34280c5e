"""Settings of the test protocol."""

from dataclasses import dataclass
from typing import Literal

EvalMode = Literal["slide", "whole"]
Blend = Literal["mean", "gaussian"]

MULTI_SCALE = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
"""Scales of the paper's multi-scale test, which evaluates each of them mirrored as well."""


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """The test protocol (docs/method.md section 5)."""

    mode: EvalMode = "slide"
    """slide: overlapping windows whose scores are averaged. whole: the image in one piece."""
    window: int | None = None
    """Side of a window in pixels. Default: the model's image_size."""
    stride: int | None = None
    """Step between windows in pixels. Default: two thirds of the window."""
    blend: Blend = "mean"
    """Weights of windows that overlap. mean: all count the same, as in the paper. gaussian: a window counts less
    towards its border, which hides the seams between windows."""
    resize_long: int | None = None
    """Largest longer side in pixels: the image is resized to fit before inference, keeping its ratio. Default: native
    size."""
    resize_short: int | None = None
    """Largest shorter side in pixels of the same resizing."""
    resize_short_min: int | None = None
    """Least shorter side in pixels at every scale, if `resize_short` alone is set. Default: no bound."""
    scales: tuple[float, ...] = (1.0,)
    """Factors on the resized size. With several, the softmax of the scores is averaged over them."""
    flip: bool = False
    """Evaluate each scale mirrored as well."""
    batch_size: int = 8
    """Number of windows that run through the model together."""

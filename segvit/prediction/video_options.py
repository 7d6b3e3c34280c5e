"""Options for videos. This module does not import torch, since `--help` needs it."""

from dataclasses import dataclass
from typing import Any

from segvit.errors import UserError

LEAST_SIDE = 16
"""Smallest longer side in pixels. H.264 refuses smaller pictures, and nothing can be seen in them."""


@dataclass(frozen=True, kw_only=True)
class VideoOptions:
    """Options for videos; photos ignore them."""

    every: int = 1
    """Label every N-th frame of a video. The outputs hold only these, at their own times."""
    resize: int | None = None
    """Scale the frames of a video down to this longer side in pixels, before anything else."""
    seconds: float | None = None
    """Stop after this many seconds of a video, webcam or stream."""
    frames: bool = False
    """Write the label map of each labelled frame of a video too, as PNG."""
    legend: bool = True
    """Draw a legend below the picture of a video. Without it, the overlay has the size of the frames."""

    def check(self) -> None:
        """Refuse values out of range.

        Raises:
            UserError: such a value.
        """
        if self.every < 1:
            raise UserError(f"--every {self.every}: give 1 for all frames, 2 for every second frame, and so on")
        if self.resize is not None and self.resize < LEAST_SIDE:
            raise UserError(f"--resize {self.resize}: give the longer side in pixels, {LEAST_SIDE} or more")
        if self.seconds is not None and not self.seconds > 0:
            raise UserError(f"--seconds {self.seconds:g}: give a number above 0")

    @property
    def settings(self) -> dict[str, Any]:
        """Options other than their defaults that change how outputs look; `seconds` changes only their length."""
        chosen = {"every": self.every, "resize": self.resize, "frames": self.frames, "legend": self.legend}
        usual = VideoOptions()
        return {name: value for name, value in chosen.items() if value != getattr(usual, name)}

"""What can be chosen for videos, torch-free: the command line shows it."""

from dataclasses import dataclass
from typing import Any

from segvit.errors import UserError

LEAST_SIDE = 16
"""Pixels of the longer side below which nothing is to be seen, and H.264 gives up."""


@dataclass(frozen=True, kw_only=True)
class VideoOptions:
    """How videos are labelled; photos have nothing to do with it."""

    every: int = 1
    """Of a video: label each N-th frame; what is written holds those alone, at their own times."""
    resize: int | None = None
    """Of a video: longer side in pixels that larger frames are scaled down to, before all else."""
    seconds: float | None = None
    """Of a video, webcam or stream: stop after so many seconds."""
    frames: bool = False
    """Of a video: write the label map of each labelled frame as well, as PNG."""
    legend: bool = True
    """Of a video: a legend below the picture; else the overlay has the size of the frames."""

    def check(self) -> None:
        """Refuse what makes no sense.

        Raises:
            UserError: it does not.
        """
        if self.every < 1:
            raise UserError(f"--every {self.every}: give 1 for all frames, 2 for each second one, and so on")
        if self.resize is not None and self.resize < LEAST_SIDE:
            raise UserError(f"--resize {self.resize}: give the longer side in pixels, {LEAST_SIDE} or more")
        if self.seconds is not None and not self.seconds > 0:
            raise UserError(f"--seconds {self.seconds:g}: give a number above 0")

    @property
    def settings(self) -> dict[str, Any]:
        """What the files of a video look like, where that is not the default; how much of it is no part of that."""
        chosen = {"every": self.every, "resize": self.resize, "frames": self.frames, "legend": self.legend}
        usual = VideoOptions()
        return {name: value for name, value in chosen.items() if value != getattr(usual, name)}

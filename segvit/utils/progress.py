"""Callbacks by which long work reports how far it is."""

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Called with the number of items done and the number of all items."""
FrameProgress = Callable[[int, int | None], None]
"""Called with the number of frames of a video done and the number of all frames, or None if that is not known."""

"""Write the files of a labelled video frame by frame, so that a later run knows that they are done.

`clip.mp4` gives clip_overlay.mp4, clip_shares.csv (number, time and shares of the classes of each frame) and
clip_video.json (a summary, and a fingerprint). On request it also gives clip_confidence.mp4 and
clip_frames/000000.png. A photo has other outputs, so it may share the name of a video.

All files are written beside their places. At the end old files are removed and the new ones are renamed, the JSON
first. So all files that exist belong to the JSON beside them, and a video that lacks a file is not done.
"""

import csv
import json
import math
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from segvit.data.palette import Color
from segvit.pictures.legend import with_legend
from segvit.pictures.paint import shares, without_background
from segvit.pictures.text import PAPER, READABLE_SIDE
from segvit.prediction.names import (
    VIDEO_CONFIDENCE,
    VIDEO_FACTS,
    VIDEO_FRAMES,
    VIDEO_OVERLAY,
    VIDEO_SHARES,
    aside,
    explaining,
    named,
    read_facts,
)
from segvit.prediction.outputs import save_labels
from segvit.prediction.photo import Prediction
from segvit.prediction.video_options import VideoOptions
from segvit.utils.files import flush_file, remove
from segvit.video.reader import Frame, Pixels
from segvit.video.writer import VideoWriter

ALL_IN_LEGEND = 24
"""Largest number of classes of which a legend always names all."""
LEGEND_LINES = 3
"""Lines of a legend that names only the classes present."""
PRESENT = 0.002
"""Smallest share of a frame for which a legend names the class."""
LEAST_TEXT, TEXT_SHARE = 14, 80
"""Least height of the legend's text in pixels, and the width of a frame in multiples of the height above that."""


def facts_if_done(target: Path, expected: str, options: VideoOptions, *, confidence: bool) -> dict[str, Any] | None:
    """Return the facts of a video if all its outputs exist and have the expected fingerprint, else None."""
    facts = read_facts(named(target, VIDEO_FACTS))
    wanted = [VIDEO_OVERLAY, VIDEO_SHARES, *[VIDEO_CONFIDENCE] * confidence, *[VIDEO_FRAMES] * options.frames]
    if facts.get("fingerprint") == expected and all(named(target, ending).exists() for ending in wanted):
        return facts
    return None


class Painted(NamedTuple):
    """A frame with its pictures, ready to be written."""

    frame: Frame
    overlay: Pixels
    """(H', W', 3): the frame with the colours, and the legend below it."""
    confidence: Pixels | None
    """(H, W) in grey, white where the model is certain."""
    shares: npt.NDArray[np.float64]
    """(K,) shares of the classes."""


class VideoOutputs:
    """The open files of one video."""

    def __init__(
        self,
        target: Path,
        *,
        size: tuple[int, int],
        time_base: Fraction,
        rate: Fraction,
        classes: Sequence[str],
        palette: Sequence[Color],
        options: VideoOptions,
        opacity: float,
        background: bool,
        confidence: bool,
        raw_ids: Sequence[int] | None,
    ) -> None:
        """Open the files.

        Args:
            target: path of the outputs, without suffix.
            size: (H, W) of the labelled frames in pixels.
            time_base: seconds per tick.
            rate: approximate frames per second of the video.
            classes, palette: names and colours (K,).
            options: which files are written.
            opacity: opacity of the overlay's colours.
            background: paint the background class in the overlay.
            confidence: write a grey video, white where the model is certain.
            raw_ids: (K,) values to write into label maps. None writes class indices with a palette.
        """
        self.target, self.options, self.opacity, self.raw_ids = target, options, opacity, raw_ids
        self.classes, self.background = classes, background
        painted = palette if background else without_background(classes, palette)
        self.legend = Legend(size[1], classes, painted) if options.legend else None
        self.count = 0
        self._total = np.zeros(len(classes))
        self._last_seconds = 0.0
        self._files = ExitStack()
        try:
            with explaining(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                self._open(size, time_base, rate / options.every, confidence=confidence)
        except BaseException:
            self._files.__exit__(*sys.exc_info())
            raise

    def _open(self, size: tuple[int, int], time_base: Fraction, rate: Fraction, *, confidence: bool) -> None:
        """Open all files. At the end they are renamed in the opposite order."""

        def movie(ending: str, height: int, width: int) -> VideoWriter:
            path = self._files.enter_context(aside(named(self.target, ending)))
            writer = VideoWriter(path, size=(height, width), time_base=time_base, rate=rate)
            self._files.callback(writer.abandon)
            return writer

        height, width = size
        below = (self.legend.height, self.legend.width) if self.legend else (0, 0)
        self._movies = [movie(VIDEO_OVERLAY, height + below[0], max(width, below[1]))]
        if confidence:
            self._movies.append(movie(VIDEO_CONFIDENCE, height, width))
        self._folder: Path | None = None
        if self.options.frames:
            self._folder = self._files.enter_context(aside(named(self.target, VIDEO_FRAMES)))
            self._folder.mkdir()
        path = self._files.enter_context(aside(named(self.target, VIDEO_SHARES)))
        self._lines = self._files.enter_context(path.open("w", encoding="utf-8", newline=""))
        self._table = csv.writer(self._lines)
        self._table.writerow(["frame", "seconds", *self.classes])
        self._facts = self._files.enter_context(aside(named(self.target, VIDEO_FACTS)))

    def __enter__(self) -> "VideoOutputs":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Rename the files to their places, or remove them after an error."""
        with explaining(self.target):
            self._files.__exit__(kind, error, trace)

    def paint(self, labelled: tuple[Frame, Prediction]) -> Painted:
        """Paint the pictures of a frame and write its label map. Several threads may call this at once.

        Raises:
            UserError: a file that cannot be written.
        """
        frame, result = labelled
        fractions = shares(result.labels, len(self.classes))
        overlay = np.asarray(result.overlay(opacity=self.opacity, legend=False, background=self.background))
        if self.legend:
            overlay = self.legend.below(overlay, fractions)
        grey = None if result.confidence is None else (result.confidence * 255).round().astype(np.uint8)
        if self._folder is not None:
            with explaining(self.target):
                path = self._folder / f"{frame.number:06}.png"
                save_labels(result, self.raw_ids, path)
                flush_file(path)
        return Painted(frame, overlay, grey, fractions)

    def write(self, painted: Painted) -> None:
        """Add a frame to the videos and to the table. Call this in the order of the frames.

        Raises:
            UserError: a file that cannot be written.
        """
        frame = painted.frame
        with explaining(self.target):
            for movie, picture in zip(self._movies, (painted.overlay, painted.confidence), strict=False):
                assert picture is not None
                movie.write(picture, frame.ticks)
            self._table.writerow([frame.number, f"{frame.seconds:.6f}", *(f"{share:.6f}" for share in painted.shares)])
        self._total += painted.shares
        self._last_seconds = frame.seconds
        self.count += 1

    def finish(self, facts: dict[str, Any], *, end: int | None) -> None:
        """Complete the files and remove old ones. At the end of the block the new ones are renamed to their places.

        Args:
            facts: further facts for the JSON file.
            end: end of the last picture in ticks. None shows it as long as the one before.

        Raises:
            UserError: a file that cannot be written.
        """
        means = self._total / max(self.count, 1)
        order = [index for index in np.argsort(-means, kind="stable") if means[index] > 0]
        said = {"labelled": self.count, "seconds": round(self._last_seconds, 6)} | facts
        said["shares"] = {self.classes[index]: float(means[index]) for index in order}
        with explaining(self.target):
            for movie in self._movies:
                movie.close(end=end)
            self._lines.flush()
            self._facts.write_text(json.dumps(said, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            for ending in (VIDEO_OVERLAY, VIDEO_CONFIDENCE, VIDEO_SHARES, VIDEO_FRAMES):
                remove(named(self.target, ending))


class Legend:
    """A strip of class names below the pictures of a video, of the same height in every frame.

    If there are few classes, it names all. Otherwise it names those that a frame shows, in the order of their numbers.
    """

    def __init__(self, width: int, classes: Sequence[str], palette: Sequence[Color | None]) -> None:
        """Compute the layout for frames of `width` pixels."""
        self.classes, self.palette = classes, palette
        self._frame_width, self._text_size = width, max(LEAST_TEXT, width // TEXT_SHARE)
        self._shown: tuple[tuple[int, ...], Pixels] = ((), np.full((1, 1, 3), PAPER, dtype=np.uint8))
        everything = self._draw(range(len(classes)), width)
        self._still = everything if len(classes) <= ALL_IN_LEGEND else None
        self.width = everything.shape[1]
        self.height, self._room = len(everything), len(classes)
        if self._still is None:
            one, two = (len(self._draw(range(lines), 1)) for lines in (1, 2))
            lines = 1 + (len(everything) - one) // (two - one)
            self.height = one + (LEGEND_LINES - 1) * (two - one)
            self._room = LEGEND_LINES * math.ceil(len(classes) / lines)  # fewer names fill as many columns or more

    def below(self, picture: Pixels, fractions: npt.NDArray[np.float64]) -> Pixels:
        """Return a picture (H, W, 3) with the strip below it: (H + height, max(W, width), 3)."""
        height, width = picture.shape[:2]
        strip = self._names_of(fractions) if self._still is None else self._still
        canvas = np.full((height + self.height, max(width, self.width), 3), PAPER, dtype=np.uint8)
        canvas[:height, :width] = picture
        canvas[height : height + len(strip), : strip.shape[1]] = strip
        return canvas

    def _names_of(self, fractions: npt.NDArray[np.float64]) -> Pixels:
        """Return the strip for a frame with these shares (K,), without the smallest if there is no room."""
        by_share = [int(index) for index in np.argsort(-fractions, kind="stable")]
        present = [index for index in by_share if fractions[index] >= PRESENT] or by_share[:1]
        key = tuple(sorted(present[: self._room]))
        shown = self._shown  # read once: other threads replace it
        if shown[0] != key:
            self._shown = shown = (key, self._draw(key, self._frame_width))
        return shown[1]

    def _draw(self, chosen: Sequence[int], width: int) -> Pixels:
        """Draw the strip that names some classes, in the order of their numbers."""
        weights = np.zeros(len(self.classes))
        for place, index in enumerate(sorted(chosen)):
            weights[index] = len(chosen) - place  # a legend sorts by share, so the first gets the largest
        empty = np.full((READABLE_SIDE, width, 3), PAPER, dtype=np.uint8)  # high enough not to be enlarged
        drawn = with_legend(
            empty, self.classes, self.palette, weights / weights.sum(), numbers=False, text_size=self._text_size
        )
        return np.asarray(drawn)[READABLE_SIDE:]

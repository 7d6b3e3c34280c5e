"""Labels of an image larger than memory: windows are read, run and dropped row by row.

    for rows, labels in stream_labels(model, source, config, tile=512):     # labels (y, W) uint8 of the image's rows

The windows and their batches are those of the image in memory (protocol.py), so the labels are the same. A row of tiles
needs only the windows that touch it. They are kept on the token grid until the rows below are done.

Letters: N bands, H W image, n windows, K classes, Q queries, h w token grid, y rows of a row of tiles.
"""

from collections.abc import Generator, Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from segvit.config import EvalConfig
from segvit.errors import UserError
from segvit.inference.label_map import compose_labels
from segvit.inference.network import Network
from segvit.inference.protocol import protocol_windows, resolve_protocol
from segvit.inference.tiles import View
from segvit.inference.windows import Windows, window_view
from segvit.models.modes import evaluating
from segvit.models.scores import class_probabilities
from segvit.utils.threads import in_order, threads


class ImageSource(Protocol):
    """An image that is read in parts."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""

    def read(self, rows: slice, columns: slice) -> Tensor:
        """Read a rectangle (N, y, x), uint8 or float in 0..1. Several threads may call it."""


def can_stream(config: EvalConfig) -> bool:
    """True if a protocol needs no more than a row of windows at a time: windows at the image's own size."""
    sized = config.resize_long is not None or config.resize_short is not None
    return config.mode == "slide" and tuple(config.scales) == (1.0,) and not sized


@torch.no_grad()
def stream_labels(
    model: Network, source: ImageSource, config: EvalConfig, *, tile: int, first: int = 0
) -> Iterator[tuple[slice, Tensor]]:
    """Yield the rows of the image and their labels (y, W) uint8, one row of tiles at a time.

    Args:
        model: in evaluation mode.
        source: the image.
        config: how it is cut into windows.
        tile: height of a row of tiles in pixels.
        first: number of the row of tiles to begin with, from 0.

    Raises:
        UserError: the protocol needs the whole image at once.
    """
    if not can_stream(config):
        raise UserError("this protocol needs the whole image in memory: type --mode slide --scales 1, without a resize")
    resolve_protocol(model, config)
    windows = protocol_windows(model, config)
    assert windows is not None
    height, width = source.size
    flips = (False, True) if config.flip else (False,)
    begin = first * tile
    with evaluating(model):
        looks = [_WindowRows(model, source, windows, config.batch_size, flipped, begin=begin) for flipped in flips]
        try:
            for top in range(begin, height, tile):
                rows = slice(top, min(top + tile, height))
                views = [look.view(rows) for look in looks]
                yield rows, compose_labels(views, (rows.stop - rows.start, width), torch.uint8)
        finally:
            for look in looks:
                look.close()


class _Seen(NamedTuple):
    """Results of a batch of windows."""

    first: int
    """Number of the first window."""
    probabilities: Tensor
    """(n, Q, K), or (n, K) of independent classes."""
    logits: Tensor
    """(n, Q, h, w)"""
    padded_size: tuple[int, int]


class _WindowRows:
    """The windows of an image in their order, of which only those of the current rows are kept."""

    def __init__(
        self, model: Network, source: ImageSource, windows: Windows, batch_size: int, flipped: bool, *, begin: int
    ) -> None:
        self.source, self.flipped, self.batch_size = source, flipped, batch_size
        self.corners = windows.corners(*source.size)
        self.side, self.blend = windows.side, windows.blend
        self.window_size = (min(windows.side, source.size[0]), min(windows.side, source.size[1]))
        needed = self._touching(slice(begin, begin + 1))
        # Batches begin where those of the image in memory do, since other batches would be rounded differently.
        starts = range(needed.start // batch_size * batch_size, len(self.corners), batch_size)
        self._seen = self._run(model, starts)
        self._kept: list[_Seen] = []

    def view(self, rows: slice) -> View:
        """Return the view of some rows of the image, whose windows above are dropped."""
        needed = self._touching(rows)
        self._kept = [seen for seen in self._kept if seen.first + len(seen.logits) > needed.start]
        while not self._kept or self._kept[-1].first + len(self._kept[-1].logits) < needed.stop:
            seen = next(self._seen)
            if seen.first + len(seen.logits) > needed.start:
                self._kept.append(seen)
        inside = slice(needed.start - self._kept[0].first, needed.stop - self._kept[0].first)
        return window_view(
            torch.cat([seen.probabilities for seen in self._kept])[inside],
            torch.cat([seen.logits for seen in self._kept])[inside],
            tuple((top - rows.start, left) for top, left in self.corners[needed.start : needed.stop]),
            image_size=(rows.stop - rows.start, self.source.size[1]),
            size=self.window_size,
            padded_size=self._kept[0].padded_size,
            flipped=self.flipped,
            blend=self.blend,
        )

    def close(self) -> None:
        """Stop reading ahead."""
        self._seen.close()

    def _touching(self, rows: slice) -> slice:
        """Return the numbers of the windows that touch some rows; windows are sorted by their first row."""
        found = [
            number
            for number, (top, _) in enumerate(self.corners)
            if top < rows.stop and top + self.window_size[0] > rows.start
        ]
        return slice(found[0], found[-1] + 1)

    def _run(self, model: Network, starts: range) -> Generator[_Seen, None, None]:
        """Run the windows in batches, and read one batch ahead of the model."""
        canvas = (self.side, self.side)
        with threads(1) as readers:
            for start, images in in_order(readers, self._read, starts, ahead=1):
                output = model(images.to(model.mean.device), deep=False, canvas=canvas)
                logits = output.mask_logits[-1].float()
                yield _Seen(start, class_probabilities(output), logits, output.padded_size)

    def _read(self, start: int) -> tuple[int, Tensor]:
        """Read a batch of windows (n, N, y, x)."""
        corners = self.corners[start : start + self.batch_size]
        first = self._window(*corners[0])
        images = first.new_empty(len(corners), *first.shape)  # filled one by one, in half the memory of `stack`
        images[0] = first
        for image, corner in zip(images[1:], corners[1:], strict=True):
            image.copy_(self._window(*corner))
        return start, images

    def _window(self, top: int, left: int) -> Tensor:
        """Read a window (N, y, x) of the image as viewed."""
        height, width = self.window_size
        if self.flipped:
            left = self.source.size[1] - left - width
        piece = self.source.read(slice(top, top + height), slice(left, left + width))
        return piece.flip(2) if self.flipped else piece

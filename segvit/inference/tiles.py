"""Scores of an image from what its windows keep on the token grid, one tile of pixels at a time.

A window keeps its class probabilities and its mask logits on the token grid: a few hundred kB where its scores would
take a hundred MB. A tile of the answer is composed from the windows of every view (scale, flip) that touch it, so that
the (K, H, W) volume never exists, at any size of the image.

Letters: n windows, K classes (and queries), h w token grid, H W image as viewed, H' W' image as wanted.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from segvit.inference.bounds import Sampled, sample
from segvit.utils.resize import bilinear_matrix, bilinear_taps, source_of, taps_of

TILE_ELEMENTS = {"cpu": 2**19, "cuda": 2**26}
"""Score elements of a tile, by kind of device: 2 MB in float32 on a CPU, which the cache holds."""


class Scratch:
    """Memory that tiles use one after another; fresh memory costs a CPU more than the sums done in it."""

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    def take(self, name: str, shape: Sequence[int], like: Tensor) -> Tensor:
        """A tensor of the shape (a, b, ...), with anything in it; it overwrites the last one of this name."""
        size = math.prod(shape)
        if name not in self._buffers or len(self._buffers[name]) < size:
            self._buffers[name] = like.new_empty(size)
        return self._buffers[name][:size].view(*shape)


@dataclass(frozen=True, kw_only=True)
class View:
    """One look at an image, at one scale, flipped or not: what its windows keep."""

    size: tuple[int, int]
    """(H, W) of the image as viewed, in pixels."""
    corners: tuple[tuple[int, int], ...]
    """First row and column of each window (n,), in pixels."""
    probabilities: Tensor
    """(n, K queries, K classes)"""
    logits: Tensor
    """(n, K queries, h, w), before the sigmoid."""
    rows: Tensor
    """(window height, h): what up-samples the masks to the rows of a window."""
    columns: Tensor
    """(window width, w): the same for columns."""
    padded_size: tuple[int, int]
    """Height and width in pixels that the token grid of a window spans."""
    flipped: bool = False
    """Whether the windows show the image mirrored, left for right."""

    @classmethod
    def of_image(
        cls, probabilities: Tensor, logits: Tensor, image_size: tuple[int, int], padded_size: tuple[int, int]
    ) -> "View":
        """The view of an image in one piece: probabilities (1, K, K) and logits (1, K, h, w) of its output."""
        rows, columns = window_matrices(logits, image_size, padded_size)
        return cls(
            size=image_size,
            corners=((0, 0),),
            probabilities=probabilities,
            logits=logits,
            rows=rows,
            columns=columns,
            padded_size=padded_size,
        )

    def scores(self, rows: slice, columns: slice, scratch: Scratch | None = None) -> Tensor:
        """Scores (K, ., .) of a rectangle of the image as viewed: the mean over the windows that cover a pixel.

        They may lie in `scratch`, and last until it is used again.
        """
        scratch = scratch or Scratch()

        def part(piece: "Piece") -> Tensor:
            lines = piece.rows @ piece.logits  # (K, y, w)
            shape = (*lines.shape[:2], len(piece.columns))
            masks, scores = (scratch.take(name, shape, lines) for name in ("masks", "scores"))
            torch.mm(lines.flatten(0, 1), piece.columns.T, out=masks.flatten(0, 1))
            torch.mm(piece.probabilities.T, masks.sigmoid_().flatten(1), out=scores.flatten(1))
            return scores

        return self._mean_over_windows(part, rows, columns)

    def sampled(self, rows: slice, columns: slice) -> dict[int, Sampled]:
        """Samples of every window that touches a rectangle of the image as viewed, by number of the window."""
        cell = self.padded_size[0] / self.logits.shape[2]
        return {
            piece.window: sample(piece.probabilities, piece.logits, cell)
            for piece, _, _ in self._pieces(rows, self._unflipped(columns))
        }

    def bounded(self, sampled: dict[int, Sampled], classes: Tensor, rows: slice, columns: slice) -> Tensor:
        """`Sampled.bounded` of a rectangle, the mean over windows: (number of classes + 2, ., .)."""
        return self._mean_over_windows(
            lambda piece: sampled[piece.window].bounded(classes, piece.rows, piece.columns), rows, columns
        )

    def at(self, y: Tensor, x: Tensor, classes: Tensor) -> Tensor:
        """Scores (n, number of classes) of single pixels: rows y and columns x of the image as viewed, (n,) each."""
        if self.flipped:
            x = self.size[1] - 1 - x
        total = self.logits.new_zeros(len(y), len(classes))
        count = self.logits.new_zeros(len(y), 1)
        for window, (top, left) in enumerate(self.corners):
            inside = (y >= top) & (y < top + len(self.rows)) & (x >= left) & (x < left + len(self.columns))
            (pixels,) = inside.nonzero(as_tuple=True)
            if not len(pixels):
                continue
            masks = self._logits_at(window, y[pixels] - top, x[pixels] - left).sigmoid_()
            total.index_add_(0, pixels, masks @ self.probabilities[window][:, classes])
            count[pixels] += 1
        return total.div_(count)

    def _logits_at(self, window: int, y: Tensor, x: Tensor) -> Tensor:
        """Mask logits (n, K) of single pixels of a window."""
        rows, columns, width = taps_of(self.rows, y), taps_of(self.columns, x), self.logits.shape[3]
        lines, places = (rows.low, rows.high), (columns.low, columns.high)
        down, right = (1 - rows.share, rows.share), (1 - columns.share, columns.share)
        tokens = torch.stack([line * width + place for line in lines for place in places], dim=1)
        weights = torch.stack([a * b for a in down for b in right], dim=1)
        by_token = self.logits[window].flatten(1).T.contiguous()  # embedding_bag is slow on a transposed view
        logits: Tensor = F.embedding_bag(tokens, by_token, per_sample_weights=weights, mode="sum")
        return logits

    def _unflipped(self, columns: slice) -> slice:
        """Columns of the image as viewed in the coordinates of the windows."""
        return slice(self.size[1] - columns.stop, self.size[1] - columns.start) if self.flipped else columns

    def _mean_over_windows(self, part: Callable[["Piece"], Tensor], rows: slice, columns: slice) -> Tensor:
        """The mean over the windows that cover a pixel of what `part` gives (., y, x) for each."""
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        total, count = None, None
        for piece, y, x in self._pieces(rows, self._unflipped(columns)):
            values = part(piece)
            if len(self.corners) == 1:
                total, count = values, None
                break
            if total is None or count is None:
                total = values.new_zeros(len(values), *shape)
                count = values.new_zeros(shape)
            total[:, y, x] += values
            count[y, x] += 1
        assert total is not None, "windows cover the image"
        if count is not None:
            total = total.div_(count)
        return total.flip(2) if self.flipped else total

    def _pieces(self, rows: slice, columns: slice) -> Iterator[tuple["Piece", slice, slice]]:
        """The part of each window that lies in a rectangle, and its rows and columns there."""
        for window, (top, left) in enumerate(self.corners):
            y = slice(max(rows.start, top), min(rows.stop, top + len(self.rows)))
            x = slice(max(columns.start, left), min(columns.stop, left + len(self.columns)))
            if y.start < y.stop and x.start < x.stop:
                piece = self._piece(window, _shift(y, -top), _shift(x, -left))
                yield piece, _shift(y, -rows.start), _shift(x, -columns.start)

    def _piece(self, window: int, rows: slice, columns: slice) -> "Piece":
        """A rectangle of a window, in its own coordinates."""
        y = source_of(rows, self.rows.shape[1], self.padded_size[0])
        x = source_of(columns, self.columns.shape[1], self.padded_size[1])
        return Piece(
            window=window,
            probabilities=self.probabilities[window],
            logits=self.logits[window, :, y, x],
            rows=self.rows[rows, y],
            columns=self.columns[columns, x],
        )


class Piece(NamedTuple):
    """Part of a window, as far as a tile needs it."""

    window: int
    probabilities: Tensor
    """(K queries, K classes)"""
    logits: Tensor
    """(K, h, w): of the tokens that the pixels depend on."""
    rows: Tensor
    """(y, h): what up-samples them to the rows of pixels."""
    columns: Tensor
    """(x, w): the same for columns."""


def _shift(span: slice, offset: int) -> slice:
    """The slice `offset` further on."""
    return slice(span.start + offset, span.stop + offset)


def window_matrices(logits: Tensor, size: tuple[int, int], padded_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """What up-samples mask logits (., ., h, w) to a window of `size` pixels: (H, h) and (W, w)."""
    rows = bilinear_matrix(logits.shape[-2], padded_size[0], logits.device)[: size[0]]
    columns = bilinear_matrix(logits.shape[-1], padded_size[1], logits.device)[: size[1]]
    return rows, columns


class Composition:
    """The scores of an image at its wanted size, rectangle by rectangle.

    Each view is resized bilinearly to `size`. Of several views, the softmax over the classes is averaged
    (docs/method.md section 5); the scores of a single one stay as they are.

    Args:
        views: looks at one image.
        size: (H', W') as wanted, in pixels.
    """

    def __init__(self, views: Sequence[View], size: tuple[int, int]) -> None:
        self.views, self.size = views, size
        self.device = views[0].logits.device
        self.num_classes = views[0].probabilities.shape[2]
        self.taps = {
            view.size: (
                bilinear_taps(view.size[0], size[0], self.device),
                bilinear_taps(view.size[1], size[1], self.device),
            )
            for view in views
            if view.size != size
        }
        self._scratch = Scratch()
        self._finest = max(1.0, *(math.prod(view.size) / math.prod(size) for view in views))

    def rectangles(
        self, pixels: int, rows: slice | None = None, columns: slice | None = None
    ) -> Iterator[tuple[slice, slice]]:
        """Rows and columns of rectangles that cover the image, or a part of it.

        Args:
            pixels: of a rectangle, at most, counted in the view that shows it largest.
            rows, columns: of the part.
        """
        rows, columns = rows or slice(0, self.size[0]), columns or slice(0, self.size[1])
        pixels = max(int(pixels / self._finest), 1)
        width = min(columns.stop - columns.start, max(math.isqrt(pixels), 1))
        height = max(pixels // width, 1)
        for top in range(rows.start, rows.stop, height):
            for left in range(columns.start, columns.stop, width):
                yield slice(top, min(top + height, rows.stop)), slice(left, min(left + width, columns.stop))

    def tiles(self, rows: slice | None = None, columns: slice | None = None) -> Iterator[tuple[slice, slice, Tensor]]:
        """Rows, columns and scores (K, ., .) in float32 of tiles that cover the image, or a part of it.

        A tile lasts until the next one is asked for.
        """
        elements = TILE_ELEMENTS.get(self.device.type, TILE_ELEMENTS["cuda"])
        for y, x in self.rectangles(elements // self.num_classes, rows, columns):
            with torch.no_grad(), torch.autocast(device_type=self.device.type, enabled=False):
                tile = self._tile(y, x)
            yield y, x, tile

    def _tile(self, rows: slice, columns: slice) -> Tensor:
        """Scores (K, ., .) of one tile."""
        total: Tensor | None = None
        for view in self.views:
            part = self.resized(view, partial(view.scores, scratch=self._scratch), rows, columns)
            if len(self.views) == 1:
                return part
            part = part.softmax(dim=0)
            total = part if total is None else total.add_(part)
        assert total is not None
        return total.div_(len(self.views))

    def source(self, rows: slice, columns: slice) -> tuple[slice, slice]:
        """The rectangle of the first view that a rectangle of the wanted size depends on."""
        if self.views[0].size not in self.taps:
            return rows, columns
        vertical, horizontal = self.taps[self.views[0].size]
        return vertical.source(rows), horizontal.source(columns)

    def resized(self, view: View, values: Callable[[slice, slice], Tensor], rows: slice, columns: slice) -> Tensor:
        """A rectangle of the wanted size of what `values` gives (., y, x) for a rectangle of the view."""
        if view.size not in self.taps:
            return values(rows, columns)
        vertical, horizontal = self.taps[view.size]
        part = values(vertical.source(rows), horizontal.source(columns))
        return horizontal.resize(vertical.resize(part, rows, dim=1), columns, dim=2)

    def at(self, y: Tensor, x: Tensor, classes: Tensor) -> Tensor:
        """Scores (n, number of classes) of the first view at single pixels of the wanted size, rows y and columns x."""
        view = self.views[0]
        if view.size not in self.taps:
            return view.at(y, x, classes)
        vertical, horizontal = self.taps[view.size]
        down, right = vertical.share[y, None], horizontal.share[x, None]
        above, below = (
            torch.lerp(
                view.at(line[y], horizontal.low[x], classes), view.at(line[y], horizontal.high[x], classes), right
            )
            for line in (vertical.low, vertical.high)
        )
        return torch.lerp(above, below, down)

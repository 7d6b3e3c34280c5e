"""Scores of an image from the token grids of its windows, one tile of pixels at a time.

A window keeps its class probabilities and its mask logits on the token grid. These take a few hundred kB, while its
scores would take a hundred MB. A tile is composed from the windows that touch it, in every view (scale, flip). So the
(K, H, W) volume never exists, whatever the size of the image.

Letters: n windows, K classes, Q queries, h w token grid, H W image as viewed, H' W' result, y x pixels of a part.
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
from segvit.models.scores import weighted
from segvit.utils.resize import bilinear_matrix, bilinear_taps, source_of, taps_of

TILE_ELEMENTS = {"cpu": 2**19, "cuda": 2**26}
"""Number of scores in a tile, by kind of device: 2 MB in float32 on a CPU, which fit into the cache."""


class Scratch:
    """Memory that tiles reuse, since allocating it costs a CPU more time than the sums computed in it."""

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    def take(self, name: str, shape: Sequence[int], like: Tensor) -> Tensor:
        """Return an uninitialised tensor of the shape (a, b, ...), which overwrites the last one of this name."""
        size = math.prod(shape)
        if name not in self._buffers or len(self._buffers[name]) < size:
            self._buffers[name] = like.new_empty(size)
        return self._buffers[name][:size].view(*shape)


@dataclass(frozen=True, kw_only=True)
class View:
    """Logits of the windows of an image at one scale, mirrored or not."""

    size: tuple[int, int]
    """(H, W) of the image as viewed, in pixels."""
    corners: tuple[tuple[int, int], ...]
    """First row and column of each window (n,), in pixels."""
    probabilities: Tensor
    """(n, Q, K), or (n, K) of independent classes (`class_probabilities`)."""
    logits: Tensor
    """(n, Q, h, w), before the sigmoid."""
    rows: Tensor
    """(window height, h) matrix that up-samples the masks to the rows of a window."""
    columns: Tensor
    """(window width, w) matrix that up-samples the masks to the columns of a window."""
    padded_size: tuple[int, int]
    """Height and width in pixels that the token grid of a window spans."""
    weights: tuple[Tensor, Tensor] | None = None
    """Weights of the rows (window height,) and the columns (window width,) of each window, above 0. A pixel of a window
    has the product of its two. None: all count the same."""
    flipped: bool = False
    """True if the windows show the image mirrored, left for right."""

    @classmethod
    def of_image(
        cls, probabilities: Tensor, logits: Tensor, image_size: tuple[int, int], padded_size: tuple[int, int]
    ) -> "View":
        """Build the view of an image in one piece from its probabilities (1, ...) and logits (1, Q, h, w)."""
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

    @property
    def independent(self) -> bool:
        """True if the score of a class depends on its own mask alone, as with a presence head."""
        return self.probabilities.ndim == 2

    def highest(self, rows: slice, columns: slice) -> Tensor:
        """Return a bound (K,) on the scores of independent classes in a rectangle of the image as viewed."""
        pieces = (piece for piece, _, _ in self._pieces(rows, self._unflipped(columns)))
        scores = [piece.probabilities * piece.logits.amax(dim=(1, 2)).sigmoid() for piece in pieces]
        return torch.stack(scores).amax(dim=0)

    def scores(
        self, rows: slice, columns: slice, scratch: Scratch | None = None, *, classes: Tensor | None = None
    ) -> Tensor:
        """Return the scores (K, y, x) of a rectangle of the image as viewed, averaged over windows that overlap.

        They may share the memory of `scratch`, and then last until its next use. Of independent classes, some `classes`
        (n,) may be scored alone.
        """
        scratch = scratch or Scratch()

        def part(piece: "Piece") -> Tensor:
            if classes is not None:
                piece = piece._replace(probabilities=piece.probabilities[classes], logits=piece.logits[classes])
            lines = piece.rows @ piece.logits  # (Q, y, w)
            shape = (lines.shape[1], len(piece.columns))
            masks = scratch.take("masks", (len(lines), *shape), lines)
            torch.mm(lines.flatten(0, 1), piece.columns.T, out=masks.flatten(0, 1))
            masks.sigmoid_()
            num_classes = piece.probabilities.shape[-1]
            scores = masks if self.independent else scratch.take("scores", (num_classes, *shape), lines)
            weighted(piece.probabilities, masks.flatten(1), out=scores.flatten(1))
            return scores

        return self._mean_over_windows(part, rows, columns)

    def sampled(self, rows: slice, columns: slice) -> dict[int, Sampled]:
        """Return the samples of every window that touches a rectangle of the image, by number of the window."""
        cell = self.padded_size[0] / self.logits.shape[2]
        return {
            piece.window: sample(piece.probabilities, piece.logits, cell)
            for piece, _, _ in self._pieces(rows, self._unflipped(columns))
        }

    def bounded(self, sampled: dict[int, Sampled], classes: Tensor, rows: slice, columns: slice) -> Tensor:
        """Return `Sampled.bounded` of a rectangle, averaged over windows: (number of classes + 2, y, x)."""
        return self._mean_over_windows(
            lambda piece: sampled[piece.window].bounded(classes, piece.rows, piece.columns), rows, columns
        )

    def at(self, y: Tensor, x: Tensor, classes: Tensor) -> Tensor:
        """Return the scores (n, number of classes) of single pixels, at rows y (n,) and columns x (n,) of the image."""
        if self.flipped:
            x = self.size[1] - 1 - x
        total = self.logits.new_zeros(len(y), len(classes))
        count = self.logits.new_zeros(len(y), 1)
        for window, (top, left) in enumerate(self.corners):
            inside = (y >= top) & (y < top + len(self.rows)) & (x >= left) & (x < left + len(self.columns))
            (pixels,) = inside.nonzero(as_tuple=True)
            if not len(pixels):
                continue
            down, right = y[pixels] - top, x[pixels] - left
            values = self._logits_at(window, down, right).sigmoid_() @ self.probabilities[window][:, classes]
            if self.weights is None:
                count[pixels] += 1
            else:
                weight = (self.weights[0][down] * self.weights[1][right])[:, None]
                values *= weight
                count.index_add_(0, pixels, weight)
            total.index_add_(0, pixels, values)
        return total.div_(count)

    def _logits_at(self, window: int, y: Tensor, x: Tensor) -> Tensor:
        """Return the mask logits (n, Q) of single pixels of a window."""
        rows, columns, width = taps_of(self.rows, y), taps_of(self.columns, x), self.logits.shape[3]
        lines, places = (rows.low, rows.high), (columns.low, columns.high)
        down, right = (1 - rows.share, rows.share), (1 - columns.share, columns.share)
        tokens = torch.stack([line * width + place for line in lines for place in places], dim=1)
        weights = torch.stack([a * b for a in down for b in right], dim=1)
        by_token = self.logits[window].flatten(1).T.contiguous()  # embedding_bag is slow on a transposed view
        logits: Tensor = F.embedding_bag(tokens, by_token, per_sample_weights=weights, mode="sum")
        return logits

    def _unflipped(self, columns: slice) -> slice:
        """Convert columns of the image as viewed to coordinates of the windows."""
        return slice(self.size[1] - columns.stop, self.size[1] - columns.start) if self.flipped else columns

    def _mean_over_windows(self, part: Callable[["Piece"], Tensor], rows: slice, columns: slice) -> Tensor:
        """Average the values (., y, x) that `part` computes for each window over the windows that cover a pixel.

        The average has the view's weights.
        """
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
            if piece.weights is None:
                total[:, y, x] += values
                count[y, x] += 1
            else:
                weights = piece.weights[0][:, None] * piece.weights[1]
                total[:, y, x].addcmul_(values, weights)
                count[y, x] += weights
        assert total is not None, "windows cover the image"
        if count is not None:
            total = total.div_(count)
        return total.flip(2) if self.flipped else total

    def _pieces(self, rows: slice, columns: slice) -> Iterator[tuple["Piece", slice, slice]]:
        """Yield the part of each window inside a rectangle, with its rows and columns in the rectangle."""
        for window, (top, left) in enumerate(self.corners):
            y = slice(max(rows.start, top), min(rows.stop, top + len(self.rows)))
            x = slice(max(columns.start, left), min(columns.stop, left + len(self.columns)))
            if y.start < y.stop and x.start < x.stop:
                piece = self._piece(window, _shift(y, -top), _shift(x, -left))
                yield piece, _shift(y, -rows.start), _shift(x, -columns.start)

    def _piece(self, window: int, rows: slice, columns: slice) -> "Piece":
        """Cut a rectangle, in coordinates of the window, out of it."""
        y = source_of(rows, self.rows.shape[1], self.padded_size[0])
        x = source_of(columns, self.columns.shape[1], self.padded_size[1])
        return Piece(
            window=window,
            probabilities=self.probabilities[window],
            logits=self.logits[window, :, y, x],
            rows=self.rows[rows, y],
            columns=self.columns[columns, x],
            weights=None if self.weights is None else (self.weights[0][rows], self.weights[1][columns]),
        )


class Piece(NamedTuple):
    """The part of a window that a tile needs."""

    window: int
    probabilities: Tensor
    """(Q, K), or (K,) of independent classes."""
    logits: Tensor
    """(Q, h, w): logits of the tokens that the pixels depend on."""
    rows: Tensor
    """(y, h) matrix that up-samples the logits to the rows of pixels."""
    columns: Tensor
    """(x, w) matrix that up-samples the logits to the columns of pixels."""
    weights: tuple[Tensor, Tensor] | None
    """Weights of the rows (y,) and the columns (x,), if the windows do not count the same."""


def _shift(span: slice, offset: int) -> slice:
    """Return the slice moved by `offset`."""
    return slice(span.start + offset, span.stop + offset)


def window_matrices(logits: Tensor, size: tuple[int, int], padded_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return the matrices (H, h) and (W, w) that up-sample mask logits (., ., h, w) to a window of `size` pixels."""
    rows = bilinear_matrix(logits.shape[-2], padded_size[0], logits.device)[: size[0]]
    columns = bilinear_matrix(logits.shape[-1], padded_size[1], logits.device)[: size[1]]
    return rows, columns


class Composition:
    """The scores of an image at any size, rectangle by rectangle.

    Each view is resized bilinearly to `size`. A single view gives its scores. Several views give the average of their
    softmax over the classes (docs/method.md section 5).

    Args:
        views: views of one image.
        size: (H', W') of the result, in pixels.
    """

    def __init__(self, views: Sequence[View], size: tuple[int, int]) -> None:
        self.views, self.size = views, size
        self.device = views[0].logits.device
        self.num_classes = views[0].probabilities.shape[-1]
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
        """Yield rows and columns of rectangles that cover the image, or a part of it.

        Args:
            pixels: largest area of a rectangle in pixels, in the view with the most pixels.
            rows, columns: the part to cover. Default: the whole image.
        """
        rows, columns = rows or slice(0, self.size[0]), columns or slice(0, self.size[1])
        pixels = max(int(pixels / self._finest), 1)
        width = min(columns.stop - columns.start, max(math.isqrt(pixels), 1))
        height = max(pixels // width, 1)
        for top in range(rows.start, rows.stop, height):
            for left in range(columns.start, columns.stop, width):
                yield slice(top, min(top + height, rows.stop)), slice(left, min(left + width, columns.stop))

    def tiles(self, rows: slice | None = None, columns: slice | None = None) -> Iterator[tuple[slice, slice, Tensor]]:
        """Yield rows, columns and scores (K, y, x) float32 of tiles that cover the image, or a part of it.

        The next tile overwrites the last.
        """
        elements = TILE_ELEMENTS.get(self.device.type, TILE_ELEMENTS["cuda"])
        channels = max(self.views[0].probabilities.shape[1:])  # queries may outnumber classes
        for y, x in self.rectangles(elements // channels, rows, columns):
            with torch.no_grad(), torch.autocast(device_type=self.device.type, enabled=False):
                tile = self._tile(y, x)
            yield y, x, tile

    def _tile(self, rows: slice, columns: slice) -> Tensor:
        """Compute the scores (K, y, x) of one tile."""
        total: Tensor | None = None
        for view in self.views:
            part = self.resized(view, partial(view.scores, scratch=self._scratch), rows, columns)
            if len(self.views) == 1:
                return part
            part = part.softmax(dim=0)
            total = part if total is None else total.add_(part)
        assert total is not None
        return total.div_(len(self.views))

    def scores_of(self, classes: Tensor, rows: slice, columns: slice) -> Tensor:
        """Return the scores (n, y, x) of some independent classes of the first view, which last until the next use."""
        view = self.views[0]
        return self.resized(view, partial(view.scores, scratch=self._scratch, classes=classes), rows, columns)

    def source(self, rows: slice, columns: slice) -> tuple[slice, slice]:
        """Return the rectangle of the first view that a rectangle of the result depends on."""
        if self.views[0].size not in self.taps:
            return rows, columns
        vertical, horizontal = self.taps[self.views[0].size]
        return vertical.source(rows), horizontal.source(columns)

    def resized(self, view: View, values: Callable[[slice, slice], Tensor], rows: slice, columns: slice) -> Tensor:
        """Resize the values (., y, x) that `values` computes for a rectangle of the view to one of the result."""
        if view.size not in self.taps:
            return values(rows, columns)
        vertical, horizontal = self.taps[view.size]
        part = values(vertical.source(rows), horizontal.source(columns))
        return horizontal.resize(vertical.resize(part, rows, dim=1), columns, dim=2)

    def at(self, y: Tensor, x: Tensor, classes: Tensor) -> Tensor:
        """Return the scores (n, number of classes) of the first view at rows y and columns x, (n,) each."""
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

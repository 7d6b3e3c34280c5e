"""Scores of an image from what its windows keep on the token grid, one tile of pixels at a time.

A window keeps its class probabilities and its mask logits on the token grid: a few hundred kB where its scores would
take a hundred MB. A tile of the answer is composed from the windows of every view (scale, flip) that touch it, so that
the (K, H, W) volume never exists, at any size of the image.

Letters: n windows, K classes (and queries), h w token grid, H W image as viewed, H' W' image as wanted.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from segvit.resize import BilinearTaps, bilinear_matrix, bilinear_taps

TILE_ELEMENTS = {"cpu": 2**22, "cuda": 2**26}
"""Score elements of a tile, by kind of device: 16 MB in float32 on a CPU. A few times as much is held at once."""


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

    def scores(self, rows: slice, columns: slice) -> Tensor:
        """Scores (K, ., .) of a rectangle of the image as viewed: the mean over the windows that cover a pixel."""
        if not self.flipped:
            return self._mean_over_windows(rows, columns)
        width = self.size[1]
        return self._mean_over_windows(rows, slice(width - columns.stop, width - columns.start)).flip(2)

    def _mean_over_windows(self, rows: slice, columns: slice) -> Tensor:
        """`scores` in the coordinates of the windows."""
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        total, count = None, None
        for index, (top, left) in enumerate(self.corners):
            y = slice(max(rows.start, top), min(rows.stop, top + len(self.rows)))
            x = slice(max(columns.start, left), min(columns.stop, left + len(self.columns)))
            if y.start >= y.stop or x.start >= x.stop:
                continue
            part = self._window_scores(index, _shift(y, -top), _shift(x, -left))
            if part.shape[1:] == shape and len(self.corners) == 1:
                return part
            if total is None or count is None:
                total = part.new_zeros(len(part), *shape)
                count = part.new_zeros(shape)
            y, x = _shift(y, -rows.start), _shift(x, -columns.start)
            total[:, y, x] += part
            count[y, x] += 1
        assert total is not None and count is not None, "windows cover the image"
        return total.div_(count)

    def _window_scores(self, index: int, rows: slice, columns: slice) -> Tensor:
        """Scores (K, ., .) of a rectangle of one window."""
        y = _tokens(rows, self.rows.shape[1], self.padded_size[0])
        x = _tokens(columns, self.columns.shape[1], self.padded_size[1])
        logits = self.logits[index, :, y, x]
        masks = (self.rows[rows, y] @ logits @ self.columns[columns, x].T).sigmoid_()  # (K, ., .)
        scores: Tensor = (self.probabilities[index].T @ masks.flatten(1)).unflatten(1, masks.shape[1:])
        return scores


def _tokens(pixels: slice, num_tokens: int, num_pixels: int) -> slice:
    """The tokens on a line of `num_tokens` that `pixels` of the `num_pixels` it spans are up-sampled from."""
    first = (pixels.start + 0.5) * num_tokens / num_pixels - 0.5
    last = (pixels.stop - 0.5) * num_tokens / num_pixels - 0.5
    return slice(max(int(first) - 1, 0), min(int(last) + 3, num_tokens))  # one more on each side, for rounding


def _shift(span: slice, offset: int) -> slice:
    """The slice `offset` further on."""
    return slice(span.start + offset, span.stop + offset)


def window_matrices(logits: Tensor, size: tuple[int, int], padded_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """What up-samples mask logits (., ., h, w) to a window of `size` pixels: (H, h) and (W, w)."""
    rows = bilinear_matrix(logits.shape[-2], padded_size[0], logits.device)[: size[0]]
    columns = bilinear_matrix(logits.shape[-1], padded_size[1], logits.device)[: size[1]]
    return rows, columns


def compose(views: Sequence[View], size: tuple[int, int]) -> Iterator[tuple[slice, slice, Tensor]]:
    """Tiles of the scores at `size` (H', W'): rows, columns, and scores (K, ., .) in float32.

    Each view is resized bilinearly to `size`. Of several views, the softmax over the classes is averaged
    (docs/method.md section 5); the scores of a single one stay as they are.
    """
    device = views[0].logits.device
    taps = {
        view.size: (bilinear_taps(view.size[0], size[0], device), bilinear_taps(view.size[1], size[1], device))
        for view in views
        if view.size != size
    }
    finest = max(1.0, *(math.prod(view.size) / math.prod(size) for view in views))
    elements = TILE_ELEMENTS.get(device.type, TILE_ELEMENTS["cuda"])
    pixels = max(int(elements / finest) // views[0].logits.shape[1], 1)
    width = min(size[1], max(math.isqrt(pixels), 1))
    height = max(pixels // width, 1)
    with torch.autocast(device_type=device.type, enabled=False):
        for top in range(0, size[0], height):
            for left in range(0, size[1], width):
                rows, columns = slice(top, min(top + height, size[0])), slice(left, min(left + width, size[1]))
                yield rows, columns, _tile(views, taps, rows, columns)


def _tile(
    views: Sequence[View],
    taps: dict[tuple[int, int], tuple[BilinearTaps, BilinearTaps]],
    rows: slice,
    columns: slice,
) -> Tensor:
    """Scores (K, ., .) of one tile."""
    total: Tensor | None = None
    for view in views:
        if view.size in taps:
            vertical, horizontal = taps[view.size]
            part = view.scores(vertical.source(rows), horizontal.source(columns))
            part = vertical.resize(part, rows, dim=1)
            part = horizontal.resize(part, columns, dim=2)
        else:
            part = view.scores(rows, columns)
        if len(views) == 1:
            return part
        part = part.softmax(dim=0)
        total = part if total is None else total.add_(part)
    assert total is not None
    return total.div_(len(views))


def compose_labels(views: Sequence[View], size: tuple[int, int]) -> Tensor:
    """The class of the best score at each pixel: (H', W') int64."""
    labels = torch.empty(size, dtype=torch.int64, device=views[0].logits.device)
    for rows, columns, tile in compose(views, size):
        labels[rows, columns] = tile.argmax(dim=0)
    return labels

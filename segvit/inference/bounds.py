"""Scores of part of a window from a few samples of them, and how far off that can be.

Between four tokens a mask logit u is bilinear, so along a row of pixels it is a straight line of some slope u'. Its
sigmoid is smooth, and how far it strays from a straight line between two points that lie d apart is known:

    |sigmoid(u(x)) - line(x)| <= d^2 / 8 * max |sigmoid''(u)| * u'^2          (the bound of linear interpolation)

Rows and columns add up. Summed over the queries, weighted by their class probabilities, this bounds the score of every
class everywhere from samples at every fourth pixel or so. Where the best class leads by more than the bound the label
is certain; the few other pixels are worked out in full (segvit/inference/labels.py). The answer is exact.

Letters: K classes (and queries), h w tokens of this part, m n samples of it, y x pixels of it.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from segvit.resize import places_on_old

SPACING = 4.0
"""Pixels between samples, about: closer costs more samples, wider leaves more pixels to be worked out in full."""
SHARP = 0.02
"""Class probability from which a query is evaluated at every pixel instead of sampled."""
NEAR = 0.02
"""Share of the best score within which a class must come at some sample to be thought of as able to win."""
STEEPEST = 1.3169579
"""Logit at which |sigmoid''| is largest: ln(2 + sqrt 3)."""
ROUNDING = 2e-6
"""What float32 may add to a difference of scores; ties within it are nobody's."""


class Sampled(NamedTuple):
    """Samples of a part of a window, on a grid that has the tokens' own places among its points."""

    probabilities: Tensor
    """(K queries, K classes)"""
    logits: Tensor
    """(K, h, w), at least 2 x 2."""
    masks: Tensor
    """(K, m, n), after the sigmoid."""
    scores: Tensor
    """(K, m, n) of every class."""
    radius: Tensor
    """(K, h - 1, w - 1): how far a query's mask strays from the samples between four tokens, at most."""
    steps: tuple[int, int]
    """Samples per token along rows and columns."""

    def near_the_best(self) -> Tensor:
        """(K,) bool: the classes that win at a sample, or nearly."""
        flat = self.scores.flatten(1)
        return (flat >= flat.amax(dim=0) * (1 - NEAR)).any(dim=1)

    def bounded(self, classes: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Scores of some classes at every pixel, and two bounds: (number of classes + 2, y, x).

        Args:
            classes: (n,) int64, which.
            rows: (y, h) float32, what up-samples logits to the rows of pixels.
            columns: (x, w), the same for columns.

        The last channel but one: how much nearer or farther apart two of these scores can be than they seem. The last:
        what one of these scores must exceed to be sure to beat every other class.
        """
        rows, columns = (F.pad(taps, (0, max(2 - taps.shape[1], 0))) for taps in (rows, columns))  # as `sample` does
        weights = self.probabilities[:, classes]  # (K, n)
        sharp = weights.amax(dim=1) >= SHARP
        faint = self.scores[classes]
        if sharp.any():
            faint = faint - (weights[sharp].T @ self.masks[sharp].flatten(1)).unflatten(1, faint.shape[1:])
        y, x = _between(rows, self.steps[0]), _between(columns, self.steps[1])
        scores = y.matrix @ faint @ x.matrix.T
        if sharp.any():
            masks = (rows @ self.logits[sharp] @ columns.T).sigmoid_()
            scores += (weights[sharp].T @ masks.flatten(1)).unflatten(1, masks.shape[1:])

        strays = self.radius[~sharp].flatten(1)
        centred = weights[~sharp] - weights[~sharp].mean(dim=1, keepdim=True)  # what all have in common decides nothing
        apart = self._cells(2 * (centred.abs().T @ strays))
        own = self._cells(weights[~sharp].T @ strays)
        others = torch.ones(len(self.scores), dtype=torch.bool, device=classes.device)
        others[classes] = False
        ceiling = torch.zeros_like(own)
        limit = scores.new_zeros(scores.shape[1:])
        if others.any():
            ceiling = self._cells(self.probabilities[:, others].T @ self.radius.flatten(1))
            highest = F.max_pool2d(self.scores[others].amax(dim=0)[None], 2, stride=1)[0]  # of the four samples around
            limit = highest[y.square][:, x.square]
        at_pixels = [(bound + ROUNDING)[y.cell][:, x.cell] for bound in (apart, own + ceiling)]
        return torch.cat([scores, at_pixels[0][None], (at_pixels[1] + limit)[None]])

    def _cells(self, bounds: Tensor) -> Tensor:
        """The largest of bounds (., cells) as a map (h - 1, w - 1)."""
        shape = self.radius.shape[1:]
        return bounds.amax(dim=0).view(shape) if len(bounds) else bounds.new_zeros(shape)


class _Between(NamedTuple):
    """Where pixels lie on a line of samples."""

    matrix: Tensor
    """(y, m): what interpolates samples to pixels."""
    square: Tensor
    """(y,): the sample before each pixel, with one behind it."""
    cell: Tensor
    """(y,): the token before it, with one behind it."""


def _between(taps: Tensor, steps: int) -> _Between:
    """Pixels on the samples' line, from what up-samples tokens to pixels (y, h)."""
    num_tokens = taps.shape[1]
    places = places_on_old(taps)
    cell = places.long().clamp(max=num_tokens - 2)
    square = (places * steps).long().clamp(max=(num_tokens - 1) * steps - 1)
    share = (places * steps - square).float()
    matrix = taps.new_zeros(len(taps), (num_tokens - 1) * steps + 1)
    matrix.scatter_(1, square[:, None], 1 - share[:, None]).scatter_(1, square[:, None] + 1, share[:, None])
    return _Between(matrix, square, cell)


def sample(probabilities: Tensor, logits: Tensor, cell: tuple[float, float]) -> Sampled:
    """Sample the scores of a part of a window.

    Args:
        probabilities: (K queries, K classes).
        logits: (K, h, w), before the sigmoid.
        cell: height and width in pixels between two tokens.
    """
    if 1 in logits.shape[1:]:  # masks do not change along a line of one token
        logits = logits.expand(-1, max(logits.shape[1], 2), max(logits.shape[2], 2))
    steps = (max(round(cell[0] / SPACING), 1), max(round(cell[1] / SPACING), 1))
    rows, columns = (
        _subdivide(num_tokens, count, logits) for num_tokens, count in zip(logits.shape[1:], steps, strict=True)
    )
    masks = (rows @ logits @ columns.T).sigmoid_()
    scores = (probabilities.T @ masks.flatten(1)).unflatten(1, masks.shape[1:])
    return Sampled(probabilities, logits, masks, scores, interpolation_error(logits, steps), steps)


def _subdivide(num_tokens: int, steps: int, like: Tensor) -> Tensor:
    """What interpolates a line of tokens at `steps` places per token: ((num_tokens - 1) * steps + 1, num_tokens)."""
    places = torch.arange((num_tokens - 1) * steps + 1, device=like.device)
    low = (places // steps).clamp(max=num_tokens - 2)
    share = (places / steps - low).to(like.dtype)
    matrix = like.new_zeros(len(places), num_tokens)
    return matrix.scatter_(1, low[:, None], 1 - share[:, None]).scatter_(1, low[:, None] + 1, share[:, None])


def interpolation_error(logits: Tensor, steps: tuple[int, int]) -> Tensor:
    """How far a sigmoid strays from bilinear interpolation between its samples: (K, h - 1, w - 1), one per four tokens.

    Args:
        logits: (K, h, w) at the tokens, bilinear between them.
        steps: samples per token along rows and columns.
    """
    corners = [logits[:, :-1, :-1], logits[:, :-1, 1:], logits[:, 1:, :-1], logits[:, 1:, 1:]]
    down = torch.maximum((corners[2] - corners[0]).abs(), (corners[3] - corners[1]).abs()) / steps[0]  # per sample
    right = torch.maximum((corners[1] - corners[0]).abs(), (corners[3] - corners[2]).abs()) / steps[1]
    lowest = torch.minimum(torch.minimum(corners[0], corners[1]), torch.minimum(corners[2], corners[3]))
    highest = torch.maximum(torch.maximum(corners[0], corners[1]), torch.maximum(corners[2], corners[3]))
    nearest = torch.maximum(lowest, -highest).clamp_(min=STEEPEST)  # |sigmoid''| falls beyond its top on either side
    steep = nearest.sigmoid_()
    curvature = steep * (1 - steep) * (2 * steep - 1)
    return curvature * (down.square_() + right.square_()) / 8

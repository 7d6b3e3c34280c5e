"""Scores of part of a window from a few samples of them, and how far off that can be.

Between four tokens a mask logit u is bilinear, so along a row of pixels it is a straight line of some slope u'. Its
sigmoid is smooth, and how far it strays from a straight line between two points that lie d apart is known:

    |sigmoid(u(x)) - line(x)| <= d^2 / 8 * max |sigmoid''(u)| * u'^2          (the bound of linear interpolation)

Rows and columns add up. Summed over the queries, weighted by their class probabilities, this bounds the score of every
class everywhere: that of the many which cannot win from the tokens alone, that of the few which can from samples at
every fourth pixel or so, and from every pixel where a query matters much. Where the best class leads by more than the
bound the label is certain; the other pixels are worked out in full (inference/label_map.py). The answer is exact.

Letters: K classes (and queries), h w tokens of this part, m samples along a line of it, y x pixels of it.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from segvit.utils.resize import interpolation_matrix, places_on_old

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
    """What is known of the scores of a part of a window from their values at its tokens."""

    probabilities: Tensor
    """(K queries, K classes)"""
    logits: Tensor
    """(K, h, w), at least 2 x 2."""
    scores: Tensor
    """(K, h, w) of every class at the tokens."""
    strays: Tensor
    """(K, h - 1, w - 1): how far a query's mask strays between four tokens from what they alone tell, at most."""
    steps: int
    """Samples per token that classes which may win are worth, along rows and columns."""

    def near_the_best(self) -> Tensor:
        """(K,) bool: the classes that win at a token, or nearly."""
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
        scores = self._sampled_scores(weights[~sharp], self.logits[~sharp], rows, columns)
        if sharp.any():
            masks = (rows @ self.logits[sharp] @ columns.T).sigmoid_()
            scores += (weights[sharp].T @ masks.flatten(1)).unflatten(1, masks.shape[1:])

        strays = self.strays[~sharp].flatten(1) / self.steps**2  # of bilinear interpolation between samples
        centred = weights[~sharp] - weights[~sharp].mean(dim=1, keepdim=True)  # what all have in common decides nothing
        apart = 2 * _largest(centred.abs(), strays)
        limit = _largest(weights[~sharp], strays)
        others = torch.ones(len(self.scores), dtype=torch.bool, device=classes.device)
        others[classes] = False
        if others.any():
            highest = F.max_pool2d(self.scores[others].amax(dim=0)[None], 2, stride=1)[0]  # of the four tokens around
            limit += highest.flatten() + _largest(self.probabilities[:, others], self.strays.flatten(1))
        y, x = places_on_old(rows).long(), places_on_old(columns).long()
        y, x = y.clamp(max=rows.shape[1] - 2), x.clamp(max=columns.shape[1] - 2)
        cells = (torch.stack([apart, limit]) + ROUNDING).unflatten(1, self.strays.shape[1:])
        return torch.cat([scores, cells[:, y][:, :, x]])

    def _sampled_scores(self, weights: Tensor, logits: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """What queries (q, h, w) of weights (q, n) add to the scores at every pixel (n, y, x), from samples."""
        y, x = (_subdivide(side, self.steps, logits) for side in logits.shape[1:])
        masks = (y @ logits @ x.T).sigmoid_()
        samples = (weights.T @ masks.flatten(1)).unflatten(1, masks.shape[1:])
        scores: Tensor = _between(rows, self.steps) @ samples @ _between(columns, self.steps).T
        return scores


def _largest(weights: Tensor, strays: Tensor) -> Tensor:
    """The largest of the weighted sums of strays: (q, n), (q, cells) -> (cells,)."""
    return (weights.T @ strays).amax(dim=0)


def sample(probabilities: Tensor, logits: Tensor, cell: float) -> Sampled:
    """The scores of a part of a window at its tokens.

    Args:
        probabilities: (K queries, K classes).
        logits: (K, h, w), before the sigmoid.
        cell: pixels between two tokens.
    """
    if 1 in logits.shape[1:]:  # masks do not change along a line of one token
        logits = logits.expand(-1, max(logits.shape[1], 2), max(logits.shape[2], 2))
    scores = (probabilities.T @ logits.flatten(1).sigmoid()).unflatten(1, logits.shape[1:])
    steps = max(round(cell / SPACING), 1)
    return Sampled(probabilities, logits, scores, interpolation_error(logits), steps)


def _subdivide(num_tokens: int, steps: int, like: Tensor) -> Tensor:
    """What interpolates a line of tokens at `steps` places per token: ((num_tokens - 1) * steps + 1, num_tokens)."""
    places = torch.arange((num_tokens - 1) * steps + 1, dtype=torch.float64, device=like.device) / steps
    return interpolation_matrix(places, num_tokens).to(like.dtype)


def _between(taps: Tensor, steps: int) -> Tensor:
    """What interpolates samples to pixels (y, m), from what up-samples tokens to the same pixels (y, h)."""
    return interpolation_matrix(places_on_old(taps) * steps, (taps.shape[1] - 1) * steps + 1).to(taps.dtype)


def interpolation_error(logits: Tensor) -> Tensor:
    """How far a sigmoid strays from bilinear interpolation between four tokens: (K, h, w) -> (K, h - 1, w - 1).

    Of samples that lie n times as close it strays n^2 times less.
    """
    corners = [logits[:, :-1, :-1], logits[:, :-1, 1:], logits[:, 1:, :-1], logits[:, 1:, 1:]]
    down = torch.maximum((corners[2] - corners[0]).abs(), (corners[3] - corners[1]).abs())
    right = torch.maximum((corners[1] - corners[0]).abs(), (corners[3] - corners[2]).abs())
    lowest = torch.minimum(torch.minimum(corners[0], corners[1]), torch.minimum(corners[2], corners[3]))
    highest = torch.maximum(torch.maximum(corners[0], corners[1]), torch.maximum(corners[2], corners[3]))
    nearest = torch.maximum(lowest, -highest).clamp_(min=STEEPEST)  # |sigmoid''| falls beyond its top on either side
    steep = nearest.sigmoid_()
    curvature = steep * (1 - steep) * (2 * steep - 1)
    return curvature * (down.square_() + right.square_()) / 8

"""Scores of part of a window from a few samples, with a bound on the error.

Between four tokens a mask logit u is bilinear, so along a row of pixels it is a straight line of some slope u'. Its
sigmoid is smooth. Between two points at a distance d, it strays from a straight line by at most

    |sigmoid(u(x)) - line(x)| <= d^2 / 8 * max |sigmoid''(u)| * u'^2          (the bound of linear interpolation)

The bounds of rows and columns add up. Summed over the queries, weighted by their class probabilities, they bound the
score of every class everywhere. For the many classes that cannot win, the tokens alone are enough. For the few that
can, samples at about every fourth pixel are enough, and queries that matter much are evaluated at every pixel. If the
best class leads by more than the bound, the label is certain. The other pixels are computed in full
(inference/label_map.py), so the answer is exact.

If windows overlap, scores and bounds are averaged with the same weights w_i > 0 of sum 1, and the bounds still hold.
Proof: window i has sampled scores s_i and true ones t_i. Its bounds mean, for classes a and b that can win,

    |(s_i(a) - s_i(b)) - (t_i(a) - t_i(b))| <= apart_i

and for a class c that cannot, t_i(c) - t_i(a) <= limit_i - s_i(a). Multiply both by w_i and sum over the windows. The
first gives |(s(a) - s(b)) - (t(a) - t(b))| <= apart by the triangle inequality. The second gives t(c) - t(a) <= limit -
s(a), which is below 0 if s(a) > limit. Neither needs equal weights.

Letters: K classes, n some of them, Q queries, q some of them, h w tokens of this part, m samples along a line of it,
y x pixels of it.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from segvit.utils.resize import interpolation_matrix, places_on_old

SPACING = 4.0
"""Approximate distance of samples in pixels. Closer costs more samples, wider leaves more pixels to compute in full."""
SHARP = 0.02
"""Class probability from which a query is evaluated at every pixel instead of sampled."""
NEAR = 0.02
"""A class can win if its score at some token is within this share of the best score there."""
STEEPEST = 1.3169579
"""Logit at which |sigmoid''| is largest: ln(2 + sqrt 3)."""
ROUNDING = 2e-6
"""Largest error of a difference of scores in float32. Scores that differ by less are ties."""


class Sampled(NamedTuple):
    """Scores of a part of a window at its tokens, and bounds on the error between them."""

    probabilities: Tensor
    """(Q, K)"""
    logits: Tensor
    """(Q, h, w), at least 2 x 2."""
    scores: Tensor
    """(K, h, w): scores of every class at the tokens."""
    strays: Tensor
    """(Q, h - 1, w - 1): largest error of a query's mask between four tokens, interpolated from these alone."""
    steps: int
    """Samples per token, along rows and columns, for the classes that can win."""

    def near_the_best(self) -> Tensor:
        """Return (K,) bool: the classes that win at a token, or nearly."""
        flat = self.scores.flatten(1)
        return (flat >= flat.amax(dim=0) * (1 - NEAR)).any(dim=1)

    def bounded(self, classes: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Return the scores of some classes at every pixel, and two bounds: (number of classes + 2, y, x).

        The last channel but one bounds the error of the difference of two of these scores. A score that exceeds the
        last channel beats every class that is not among these.

        Args:
            classes: (n,) int64, the classes to score.
            rows: (y, h) float32 matrix that up-samples logits to the rows of pixels.
            columns: (x, w) float32 matrix that up-samples logits to the columns of pixels.
        """
        rows, columns = (F.pad(taps, (0, max(2 - taps.shape[1], 0))) for taps in (rows, columns))  # as `sample` does
        weights = self.probabilities[:, classes]  # (Q, n)
        sharp = weights.amax(dim=1) >= SHARP
        scores = self._sampled_scores(weights[~sharp], self.logits[~sharp], rows, columns)
        if sharp.any():
            masks = (rows @ self.logits[sharp] @ columns.T).sigmoid_()
            scores += (weights[sharp].T @ masks.flatten(1)).unflatten(1, masks.shape[1:])

        strays = self.strays[~sharp].flatten(1) / self.steps**2  # between samples, which are closer than tokens
        centred = weights[~sharp] - weights[~sharp].mean(dim=1, keepdim=True)  # what all share decides nothing
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
        """Return the part of the scores (n, y, x) that queries (q, h, w) of weights (q, n) add, from samples."""
        y, x = (_subdivide(side, self.steps, logits) for side in logits.shape[1:])
        masks = (y @ logits @ x.T).sigmoid_()
        samples = (weights.T @ masks.flatten(1)).unflatten(1, masks.shape[1:])
        scores: Tensor = _between(rows, self.steps) @ samples @ _between(columns, self.steps).T
        return scores


def _largest(weights: Tensor, strays: Tensor) -> Tensor:
    """Return the largest of the weighted sums of strays: (q, n), (q, cells) -> (cells,)."""
    return (weights.T @ strays).amax(dim=0)


def sample(probabilities: Tensor, logits: Tensor, cell: float) -> Sampled:
    """Compute the scores of a part of a window at its tokens, and their bounds.

    Args:
        probabilities: (Q, K).
        logits: (Q, h, w), before the sigmoid.
        cell: distance of two tokens in pixels.
    """
    if 1 in logits.shape[1:]:  # masks do not change along a line of one token
        logits = logits.expand(-1, max(logits.shape[1], 2), max(logits.shape[2], 2))
    scores = (probabilities.T @ logits.flatten(1).sigmoid()).unflatten(1, logits.shape[1:])
    steps = max(round(cell / SPACING), 1)
    return Sampled(probabilities, logits, scores, interpolation_error(logits), steps)


def _subdivide(num_tokens: int, steps: int, like: Tensor) -> Tensor:
    """Return the matrix from a line of tokens to `steps` samples per token: (m, num_tokens)."""
    places = torch.arange((num_tokens - 1) * steps + 1, dtype=torch.float64, device=like.device) / steps
    return interpolation_matrix(places, num_tokens).to(like.dtype)


def _between(taps: Tensor, steps: int) -> Tensor:
    """Return the matrix from samples to pixels (y, m), given the one from tokens to the same pixels (y, h)."""
    return interpolation_matrix(places_on_old(taps) * steps, (taps.shape[1] - 1) * steps + 1).to(taps.dtype)


def interpolation_error(logits: Tensor) -> Tensor:
    """Bound the error of a bilinearly interpolated sigmoid between four tokens: (Q, h, w) -> (Q, h - 1, w - 1).

    Between samples that are n times as close the error is n^2 times smaller.
    """
    corners = [logits[:, :-1, :-1], logits[:, :-1, 1:], logits[:, 1:, :-1], logits[:, 1:, 1:]]
    down = torch.maximum((corners[2] - corners[0]).abs(), (corners[3] - corners[1]).abs())
    right = torch.maximum((corners[1] - corners[0]).abs(), (corners[3] - corners[2]).abs())
    lowest = torch.minimum(torch.minimum(corners[0], corners[1]), torch.minimum(corners[2], corners[3]))
    highest = torch.maximum(torch.maximum(corners[0], corners[1]), torch.maximum(corners[2], corners[3]))
    nearest = torch.maximum(lowest, -highest).clamp_(min=STEEPEST)  # |sigmoid''| falls on either side of its maximum
    steep = nearest.sigmoid_()
    curvature = steep * (1 - steep) * (2 * steep - 1)
    return curvature * (down.square_() + right.square_()) / 8

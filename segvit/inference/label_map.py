"""The label map: the class of the best score at each pixel, exact, at a fraction of the cost of the scores.

    labels = label_map(model(images))                     # of a model's output: (B, H, W)
    labels = compose_labels(views, (height, width))       # of views of one image, by windows, scales and flips

Only a few classes can win in a tile, and only a few queries matter for their scores. Samples bound the part of the
others (segvit/inference/bounds.py). Pixels that the bounds leave open are computed in full. With a presence head,
classes are independent, and a class is computed only where its own mask may be high enough (`_by_highest`).

Letters: B batch, H W image, K classes, Q queries, H' W' image as wanted, y x pixels of a tile.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from segvit.inference.bounds import ROUNDING
from segvit.inference.tiles import Composition, View
from segvit.models.output import SegOutput
from segvit.models.scores import class_probabilities

TILE_PIXELS = 2**16
"""Pixels of a tile, so that the scores of its few live classes and all samples fit into the cache."""
INDEPENDENT_TILE_PIXELS = 2**14
"""Pixels of a tile if classes are independent. Fewer classes can win in a smaller tile."""
TOGETHER = 16
"""Number of independent classes that are scored together."""
MANY_CLASSES = 32
"""Number of classes from which the bounds are faster than computing all scores."""
WORTH_IT = 1 / 2
"""Largest share of classes that can win in a tile, and of pixels left open, for which the bounds pay off."""


def label_map(output: SegOutput, size: tuple[int, int] | None = None) -> Tensor:
    """Return the class of the best score at each pixel: (B, H, W) int64.

    This equals the argmax of `scores`, resized bilinearly to `size`. The (K, H, W) volume is never held, and most of it
    is never computed (segvit/inference/bounds.py).

    Args:
        output: output of a model.
        size: (H, W) in pixels of the map. Default: the size of the images.
    """
    size = size or output.image_size
    return torch.stack([compose_labels([view], size) for view in image_views(output)])


def image_views(output: SegOutput) -> list[View]:
    """Return the view of each image of a batch, seen in one piece."""
    probabilities, logits = class_probabilities(output), output.mask_logits[-1].float()
    return [
        View.of_image(one_probabilities[None], one_logits[None], output.image_size, output.padded_size)
        for one_probabilities, one_logits in zip(probabilities, logits, strict=True)
    ]


def compose_labels(views: Sequence[View], size: tuple[int, int], dtype: torch.dtype = torch.int64) -> Tensor:
    """Return the class of the best score at each pixel: (H', W') of `dtype`.

    This equals the argmax of the scores of `Composition`. If scores tie to float32, either class may win. The scores
    are computed in full for several views, since the softmax of each view needs all classes, and for few classes.

    Args:
        views: views of one image.
        size: (H', W') in pixels of the map.
        dtype: integers that hold every class.
    """
    composition = Composition(views, size)
    labels = torch.empty(size, dtype=dtype, device=composition.device)
    with torch.no_grad(), torch.autocast(device_type=composition.device.type, enabled=False):
        if len(views) == 1 and views[0].independent:
            for rows, columns in composition.rectangles(INDEPENDENT_TILE_PIXELS):
                _by_highest(composition, labels, rows, columns)
        elif len(views) > 1 or composition.num_classes < MANY_CLASSES:
            _in_full(composition, labels, slice(0, size[0]), slice(0, size[1]))
        else:
            for rows, columns in composition.rectangles(TILE_PIXELS):
                _by_bounds(composition, labels, rows, columns)
    return labels


def best_class(scores: Tensor) -> Tensor:
    """Return the class of the best score, the first if scores are equal: (K, y, x) -> (y, x) int64.

    It overwrites `scores`: passes over whole channels in place are several times as fast on a CPU as `argmax` along the
    first dimension.
    """
    ranks = torch.arange(len(scores), 0, -1, dtype=scores.dtype, device=scores.device)
    torch.eq(scores, scores.amax(dim=0), out=scores)  # 1 if it is the best, else 0
    return len(scores) - scores.mul_(ranks[:, None, None]).amax(dim=0).long()


def _by_bounds(composition: Composition, labels: Tensor, rows: slice, columns: slice) -> None:
    """Fill a rectangle of the labels from the few classes that can win there."""
    (view,) = composition.views
    sampled = view.sampled(*composition.source(rows, columns))
    near = torch.stack([samples.near_the_best() for samples in sampled.values()]).any(dim=0)
    (classes,) = near.nonzero(as_tuple=True)
    if len(classes) > WORTH_IT * composition.num_classes:
        _in_full(composition, labels, rows, columns)
        return
    bounded = composition.resized(view, lambda y, x: view.bounded(sampled, classes, y, x), rows, columns)
    scores, apart, limit = bounded[:-2], bounded[-2], bounded[-1]
    best = scores.amax(dim=0)
    winner = best_class(scores.clone())
    second = scores.scatter_(0, winner[None], -1).amax(dim=0)
    certain = best > limit  # the winner is among `classes`
    y, x = ((best - second <= apart) | ~certain).nonzero(as_tuple=True)
    if len(y) > WORTH_IT * best.numel():
        _in_full(composition, labels, rows, columns)
        return
    labels[rows, columns] = classes[winner]
    if len(y):
        rivals = classes if certain.all() else torch.arange(composition.num_classes, device=classes.device)
        y, x = y + rows.start, x + columns.start
        labels[y, x] = rivals[composition.at(y, x, rivals).argmax(dim=1)].to(labels.dtype)


def _by_highest(composition: Composition, labels: Tensor, rows: slice, columns: slice) -> None:
    """Fill a rectangle of the labels from independent classes, the most promising first, until no other can win.

    The score of class k at a pixel of window i is p_ik sigmoid(u_ik). The up-sampled logit u_ik is a weighted mean of
    the window's tokens around the pixel, so it is at most the largest logit of the tokens that the rectangle depends
    on. The sigmoid rises with its argument. So p_ik sigmoid(largest logit) bounds the score in window i. A mean over
    windows, with any positive weights, is at most the largest of their bounds; a bilinear resize is a weighted mean of
    pixels and keeps that. Let b_k be this bound, and m the lowest over the rectangle of the best score found so far. If
    b_k < m, another class beats k at every pixel. In the order of falling b_k, the same holds for all classes behind.
    """
    (view,) = composition.views
    highest, order = view.highest(*composition.source(rows, columns)).sort(descending=True)
    best = highest.new_full((rows.stop - rows.start, columns.stop - columns.start), -1)
    found = labels[rows, columns]
    for bounds, classes in zip(highest.split(TOGETHER), order.split(TOGETHER), strict=True):
        if bounds[0] < best.amin() - ROUNDING:
            break
        scores = composition.scores_of(classes, rows, columns)
        top = scores.amax(dim=0)
        better = top > best
        found.copy_(torch.where(better, classes[best_class(scores)], found))
        best = torch.maximum(best, top)


def _in_full(composition: Composition, labels: Tensor, rows: slice, columns: slice) -> None:
    """Fill a rectangle of the labels from the scores of every class."""
    for y, x, tile in composition.tiles(rows, columns):
        labels[y, x] = best_class(tile)

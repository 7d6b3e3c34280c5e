"""The criterion: class, focal and dice terms for every supervised output (docs/method.md section 4).

Letters: S supervised outputs, B batch, K classes, H W image, h w token grid, M present (image, class) pairs.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from segvit.config import LossConfig
from segvit.data.spec import IGNORE_INDEX
from segvit.errors import UserError
from segvit.models.output import SegOutput
from segvit.utils.resize import bilinear_matrix

FOCAL_ALPHA = 0.25
"""Weight of positives in the focal loss; its gamma is 2."""
CHUNK_ELEMENTS = 2**18
"""Mask pixels worked on at once on a CPU: 1 MB in float32, which stays in the cache."""
CHUNK_ELEMENTS_GPU = 2**25
"""The same on an accelerator."""


@dataclass(frozen=True, kw_only=True)
class Losses:
    """The terms of every supervised output, coefficients applied; the last is the prediction's."""

    classes: Tensor
    """(S,) cross entropy over the queries."""
    focal: Tensor
    """(S,) focal loss of the masks."""
    dice: Tensor
    """(S,) dice loss of the masks."""

    @property
    def total(self) -> Tensor:
        """The sum of all terms, a scalar: what training minimises."""
        return self.classes.sum() + self.focal.sum() + self.dice.sum()

    def named(self) -> dict[str, float]:
        """Every term by name for a log: class_1 .. class_S, focal_1 .., dice_1 .."""
        terms = {"class": self.classes, "focal": self.focal, "dice": self.dice}
        return {f"{name}_{s}": value for name, term in terms.items() for s, value in enumerate(term.tolist(), start=1)}


@dataclass(frozen=True, kw_only=True)
class Normalizers:
    """What the terms are divided by; averaged over ranks and accumulation so that they equal one large batch."""

    num_masks: Tensor
    """Present (image, class) pairs."""
    class_weight: Tensor
    """Sum of the weights in the cross entropy."""


def present_classes(labels: Tensor, num_classes: int) -> Tensor:
    """Which classes occur in each label map: (B, H, W) int64 -> (B, K) bool.

    Raises:
        UserError: a label that is neither a class nor 255.
    """
    if labels.dtype != torch.int64:
        raise UserError(f"labels are {labels.dtype}: give torch.int64 (labels.long())")
    flat = labels.flatten(1)
    unknown = ((flat < 0) | (flat >= num_classes)) & (flat != IGNORE_INDEX)
    if unknown.any():
        values = flat[unknown].unique().tolist()
        raise UserError(f"labels hold {values}: with {num_classes} classes they go from 0 to {num_classes - 1}, or 255")
    bins = torch.zeros(len(labels), num_classes + 1, dtype=torch.bool, device=labels.device)
    bins.scatter_(1, flat.clamp(max=num_classes), torch.ones_like(flat, dtype=torch.bool))
    return bins[:, :num_classes]


def normalizers(
    labels: Tensor, num_classes: int, *, config: LossConfig | None = None, class_weights: Tensor | None = None
) -> Normalizers:
    """The divisors of the criterion for labels (B, H, W) on one process, with its `class_weights` (K,)."""
    present = present_classes(labels, num_classes)
    num_masks = present.sum()
    weight = num_masks if class_weights is None else (present * class_weights).sum()
    weight = weight + (config or LossConfig()).no_object_weight * (present.numel() - num_masks)
    return Normalizers(num_masks=num_masks.float(), class_weight=weight.float())


def criterion(
    output: SegOutput,
    labels: Tensor,
    *,
    config: LossConfig | None = None,
    divisors: Normalizers | None = None,
    class_weights: Tensor | None = None,
) -> Losses:
    """Losses of a model's output against labels.

    Args:
        output: of a model, with S supervised outputs.
        labels: (B, H, W) int64 at the size of the images: 0..K-1, or 255 for ignored.
        config: coefficients, and whether ignored pixels count as negatives.
        divisors: averages over processes; by default those of this batch.
        class_weights: (K,) weights of the classes in the class term, where they are present. Default: 1 each. The
            masks' terms have none. (`config.class_weights` are words; training/class_weights.py makes numbers of them.)

    Raises:
        UserError: labels of another size than the images, or values that are no class.
    """
    config = config or LossConfig()
    num_classes = output.class_logits.shape[2]
    expected = (output.class_logits.shape[1], *output.image_size)
    if tuple(labels.shape) != expected:
        raise UserError(f"labels of shape {tuple(labels.shape)} for images of {expected}: expected the same (B, H, W)")
    present = present_classes(labels, num_classes)
    divisors = divisors or normalizers(labels, num_classes, config=config, class_weights=class_weights)
    classes = class_losses(
        output.class_logits, present, divisors.class_weight, config.no_object_weight, class_weights=class_weights
    )
    pairs = present.nonzero()  # (M, 2): image, class
    masks = output.mask_logits[:, pairs[:, 0], pairs[:, 1]].float()  # (S, M, h, w)
    focal, dice = mask_losses(masks, labels, pairs, output.padded_size, ignore_as_negative=config.ignore_as_negative)
    num_masks = divisors.num_masks.clamp(min=torch.finfo(torch.float32).tiny)  # a mean over parts may be below 1
    return Losses(
        classes=classes * config.class_coefficient,
        focal=focal.sum(dim=1) / num_masks * config.focal_coefficient,
        dice=dice.sum(dim=1) / num_masks * config.dice_coefficient,
    )


def class_losses(
    class_logits: Tensor,
    present: Tensor,
    total_weight: Tensor,
    no_object_weight: float,
    *,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Weighted cross entropy of every supervised output: (S, B, K, K + 1), present (B, K) -> (S,).

    Query k should say class k where k is present, and "no object" (index K, its own weight) where it is not. A term
    weighs what its target does: `class_weights[k]` (1 without) for class k, `no_object_weight` for "no object" of any
    query. The loss is the mean by these weights: weights that are all multiplied by a number matter against "no object"
    alone, and a rare class with a large weight takes over the term of a batch that shows it.
    """
    num_classes = present.shape[1]
    queries = torch.arange(num_classes, device=present.device)
    targets = torch.where(present, queries, num_classes).expand(class_logits.shape[:3])  # (S, B, K)
    weights = torch.where(present, 1.0 if class_weights is None else class_weights, no_object_weight)  # (B, K)
    entropy = F.cross_entropy(class_logits.float().movedim(3, 1), targets, reduction="none")  # (S, B, K)
    return (entropy * weights).sum(dim=(1, 2)) / total_weight.clamp(min=torch.finfo(torch.float32).tiny)


def mask_losses(
    masks: Tensor,
    labels: Tensor,
    pairs: Tensor,
    padded_size: tuple[int, int],
    *,
    ignore_as_negative: bool,
    chunk_elements: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Focal (S, M) and dice (S, M) of the masks of present pairs, means over their pixels, without coefficients.

    Args:
        masks: logits (S, M, h, w) in float32.
        labels: (B, H, W).
        pairs: (M, 2) image and class of each mask.
        padded_size: (H, W) that the masks span.
        ignore_as_negative: see `LossConfig`.
        chunk_elements: mask pixels worked on at once. Default: what suits the device.
    """
    if chunk_elements is None:
        chunk_elements = CHUNK_ELEMENTS if masks.device.type == "cpu" else CHUNK_ELEMENTS_GPU
    with torch.autocast(device_type=masks.device.type, enabled=False):
        losses: tuple[Tensor, Tensor] = _MaskLosses.apply(
            masks, labels, pairs, padded_size, ignore_as_negative, chunk_elements
        )
    return losses


class _MaskLosses(torch.autograd.Function):
    """Focal and dice loss of every present mask at full resolution, in bounded memory.

    With t in {0, 1}, z = logit where t else -logit, and q = sigmoid(-z), the probability of the wrong answer:

        focal = mean over valid pixels of a q^2 softplus(-z),  a = alpha where t else 1 - alpha;
        dice  = 1 - n / d,  n = 2 sum(p t) + 1,  d = sum p + sum t + 1,  over valid pixels, p = sigmoid(logit).

    Both have short slopes by the logit, so the forward pass also takes their gradients back through the upsampling and
    keeps them at the token grid: no full-resolution activation outlives its chunk.
    """

    @staticmethod
    def forward(
        ctx: Any,
        masks: Tensor,
        labels: Tensor,
        pairs: Tensor,
        padded_size: tuple[int, int],
        ignore_as_negative: bool,
        chunk_elements: int,
    ) -> tuple[Tensor, Tensor]:
        """Mask logits (S, M, h, w), labels (B, H, W), pairs (M, 2) -> focal (S, M) and dice (S, M)."""
        num_outputs, num_masks, grid_height, grid_width = masks.shape
        _, height, width = labels.shape
        rows = bilinear_matrix(grid_height, padded_size[0], masks.device)[:height]  # (H, h)
        columns = bilinear_matrix(grid_width, padded_size[1], masks.device)[:width]  # (W, w)
        focal, dice = masks.new_empty(num_outputs, num_masks), masks.new_empty(num_outputs, num_masks)
        gradients = torch.empty_like(masks), torch.empty_like(masks)
        step = max(1, chunk_elements // (height * width))
        for start in range(0, num_masks, step):
            part = slice(start, start + step)
            target = _Target.of(labels[pairs[part, 0]], pairs[part, 1], ignore_as_negative)
            for output in range(num_outputs):
                values, slopes = _focal_and_dice(rows @ masks[output, part] @ columns.T, target)
                focal[output, part], dice[output, part] = values
                for gradient, slope in zip(gradients, slopes, strict=True):
                    gradient[output, part] = rows.T @ (slope @ columns)
        ctx.save_for_backward(*gradients)
        return focal, dice

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, focal: Tensor, dice: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        """Gradient of the mask logits (S, M, h, w) from those of the two losses (S, M)."""
        focal_gradient, dice_gradient = ctx.saved_tensors
        gradient = focal_gradient * focal[..., None, None] + dice_gradient * dice[..., None, None]
        return gradient, None, None, None, None, None


class _Target(NamedTuple):
    """What the outputs are compared with, as numbers (m, H, W): sums of products are quicker than choices."""

    inside: Tensor
    """1 on the mask, else 0."""
    outside: Tensor
    """1 on valid pixels off the mask, else 0."""
    wrongward: Tensor
    """The sign of a logit's step that makes the answer worse: -1 on the mask, else 1."""
    share: Tensor
    """Weight of the pixel in the focal loss: alpha or 1 - alpha over the number of valid pixels."""

    @classmethod
    def of(cls, labels: Tensor, target_class: Tensor, ignore_as_negative: bool) -> "_Target":
        """Masks of classes (m,) in labels (m, H, W)."""
        inside = (labels == target_class[:, None, None]).float()
        valid = torch.ones_like(inside) if ignore_as_negative else (labels != IGNORE_INDEX).float()
        outside = valid - inside
        count = valid.sum(dim=(1, 2), keepdim=True).clamp_(min=1)
        share = (inside * FOCAL_ALPHA).add_(outside, alpha=1 - FOCAL_ALPHA).div_(count)
        return cls(inside, outside, 1 - 2 * inside, share)


def _focal_and_dice(logits: Tensor, target: _Target) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Focal and dice of each mask (m,), and their slopes by the logits (m, H, W). Overwrites the logits (m, H, W)."""
    error = logits.mul_(target.wrongward)  # -z
    wrong = torch.sigmoid(error)
    right = 1 - wrong
    entropy = _softplus(error, wrong, right)
    weight = wrong.square().mul_(target.share)
    focal = _dot(weight, entropy)
    focal_slope = torch.addcmul(wrong, right, entropy, value=2).mul_(weight).mul_(target.wrongward)

    found = _dot(right, target.inside)
    numerator = 2 * found + 1
    denominator = found + _dot(wrong, target.outside) + target.inside.sum(dim=(1, 2)) + 1
    by_denominator = numerator / denominator.square()
    dice_slope = target.outside * by_denominator[:, None, None]
    dice_slope.addcmul_(target.inside, (by_denominator - 2 / denominator)[:, None, None])
    dice_slope.mul_(right).mul_(wrong)  # p (1 - p)
    return (focal, 1 - numerator / denominator), (focal_slope, dice_slope)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Sums of products over pixels: two (m, H, W) -> (m,)."""
    sums: Tensor = torch.linalg.vecdot(a.flatten(1), b.flatten(1))
    return sums


def _softplus(x: Tensor, sigmoid: Tensor, rest: Tensor) -> Tensor:
    """log(1 + exp(x)), to 1e-7, from the sigmoid of x and 1 less it, which are at hand.

    It is max(x, 0) - log(1 - a), a the smaller of the two; and -log(1 - a) = 2 artanh(s), s = a / (2 - a) <= 1/3, whose
    series is short. A logarithm proper takes a CPU eight times as long.
    """
    if x.device.type != "cpu":
        return F.softplus(x)
    small = torch.minimum(sigmoid, rest)
    s = small.div_(2 - small)
    square = s * s
    series = torch.full_like(s, 1 / 13)
    for divisor in (11, 9, 7, 5, 3, 1):
        series = series.mul_(square).add_(1 / divisor)
    return series.mul_(s).mul_(2).add_(x.clamp(min=0))

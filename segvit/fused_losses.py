"""Focal and dice loss of masks at full resolution, in bounded memory (docs/method.md section 4).

It computes the same as `plain_mask_losses` of losses.py.

Letters: S supervised outputs, B batch, K classes, H W image, h w token grid, M present (image, class) pairs.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from segvit.data.spec import IGNORE_INDEX
from segvit.utils.resize import bilinear_matrix

FOCAL_ALPHA = 0.25
"""Weight of positives in the focal loss, whose gamma is 2."""
CHUNK_ELEMENTS = 2**18
"""Mask pixels per chunk on a CPU: 1 MB in float32, which stays in the cache."""
CHUNK_ELEMENTS_GPU = 2**25
"""Mask pixels per chunk on an accelerator."""


def fused_mask_losses(
    masks: Tensor,
    labels: Tensor,
    pairs: Tensor,
    padded_size: tuple[int, int],
    *,
    ignore_as_negative: bool,
    chunk_elements: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Return focal (S, M) and dice (S, M) of the masks of present pairs, without coefficients.

    Values and gradients equal those of `segvit.losses.plain_mask_losses`, which takes the same arguments.

    Args:
        masks: logits (S, M, h, w) in float32.
        labels: (B, H, W).
        pairs: (M, 2), image and class of each mask.
        padded_size: (H, W) that the masks span.
        ignore_as_negative: see `LossConfig`.
        chunk_elements: mask pixels per chunk. Default: what suits the device.
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

    Both have short derivatives by the logit. So the forward pass also takes their gradients back through the upsampling
    and stores them at the token grid: no full-resolution activation outlives its chunk.
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
        """Map mask logits (S, M, h, w), labels (B, H, W) and pairs (M, 2) to focal (S, M) and dice (S, M)."""
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
        """Return the gradient of the mask logits (S, M, h, w) from those of the two losses (S, M)."""
        focal_gradient, dice_gradient = ctx.saved_tensors
        gradient = focal_gradient * focal[..., None, None] + dice_gradient * dice[..., None, None]
        return gradient, None, None, None, None, None


class _Target(NamedTuple):
    """Targets of the masks as numbers (m, H, W), since sums of products are faster than choices."""

    inside: Tensor
    """1 on the mask, otherwise 0."""
    outside: Tensor
    """1 on valid pixels off the mask, otherwise 0."""
    wrongward: Tensor
    """Sign of a logit's change that makes the answer worse: -1 on the mask, otherwise 1."""
    share: Tensor
    """Weight of the pixel in the focal loss: alpha or 1 - alpha, divided by the number of valid pixels."""

    @classmethod
    def of(cls, labels: Tensor, target_class: Tensor, ignore_as_negative: bool) -> "_Target":
        """Build the targets of classes (m,) in labels (m, H, W)."""
        inside = (labels == target_class[:, None, None]).float()
        valid = torch.ones_like(inside) if ignore_as_negative else (labels != IGNORE_INDEX).float()
        outside = valid - inside
        count = valid.sum(dim=(1, 2), keepdim=True).clamp_(min=1)
        share = (inside * FOCAL_ALPHA).add_(outside, alpha=1 - FOCAL_ALPHA).div_(count)
        return cls(inside, outside, 1 - 2 * inside, share)


def _focal_and_dice(logits: Tensor, target: _Target) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return focal and dice of each mask (m,), and their derivatives by the logits (m, H, W). Overwrites the logits."""
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
    """Sum products over pixels: two (m, H, W) -> (m,)."""
    sums: Tensor = torch.linalg.vecdot(a.flatten(1), b.flatten(1))
    return sums


def _softplus(x: Tensor, sigmoid: Tensor, rest: Tensor) -> Tensor:
    """Return log(1 + exp(x)), to 1e-7, from the sigmoid of x and from 1 - sigmoid.

    With a the smaller of the two, it is max(x, 0) - log(1 - a). And -log(1 - a) = 2 artanh(s), s = a / (2 - a) <= 1/3,
    has a short series. A real logarithm takes a CPU eight times as long.
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

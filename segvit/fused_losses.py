"""Focal and dice loss of masks at full resolution, in bounded memory (docs/method.md section 4).

It computes the same as `plain_mask_losses` of losses.py.

Letters: S supervised outputs, B batch, K classes, H W image, h w token grid, M present (image, class) pairs.
"""

from typing import Any, NamedTuple

import torch
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
        gradients = masks.new_empty(2, *masks.shape)
        step = max(1, min(chunk_elements // (height * width), num_masks))
        # Chunks share their memory: on a CPU, pages that are new to each of them would cost more than the arithmetic.
        shared = masks.new_empty(4, step, height, width)
        labels, pairs = labels.int(), pairs.int()  # half the bytes to gather and compare
        for start in range(0, num_masks, step):
            part = slice(start, start + step)
            target = _Target.of(labels[pairs[part, 0]], pairs[part, 1], ignore_as_negative)
            work = shared[:, : len(target.inside)]
            for output in range(num_outputs):
                torch.matmul(rows @ masks[output, part], columns.T, out=work[0])
                focal[output, part], dice[output, part] = _focal_and_dice(work, target)
                gradients[:, output, part] = rows.T @ work[:2] @ columns
        ctx.save_for_backward(gradients)
        return focal, dice

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, focal: Tensor, dice: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        """Return the gradient of the mask logits (S, M, h, w) from those of the two losses (S, M)."""
        (gradients,) = ctx.saved_tensors
        focal_gradient, dice_gradient = gradients
        gradient = focal_gradient * focal[..., None, None] + dice_gradient * dice[..., None, None]
        return gradient, None, None, None, None, None


class _Target(NamedTuple):
    """Targets of masks as numbers (m, H, W), since sums of products are faster than choices."""

    inside: Tensor
    """1 on the mask, otherwise 0."""
    outside: Tensor
    """1 on valid pixels off the mask, otherwise 0."""
    wrongward: Tensor
    """Sign of a logit's change that makes the answer worse: -1 on the mask, otherwise 1."""
    share: Tensor
    """Weight of the pixel in the focal loss: alpha or 1 - alpha, divided by the number of valid pixels."""
    area: Tensor
    """Number of pixels on each mask, (m,)."""

    @classmethod
    def of(cls, labels: Tensor, target_class: Tensor, ignore_as_negative: bool) -> "_Target":
        """Build the targets of classes (m,) in labels (m, H, W)."""
        inside = (labels == target_class[:, None, None]).float()
        valid = torch.ones_like(inside) if ignore_as_negative else (labels != IGNORE_INDEX).float()
        outside = valid - inside
        count = valid.sum(dim=(1, 2), keepdim=True).clamp_(min=1)
        share = (inside * FOCAL_ALPHA).add_(outside, alpha=1 - FOCAL_ALPHA).div_(count)
        return cls(inside, outside, 1 - 2 * inside, share, inside.sum(dim=(1, 2)))


def _focal_and_dice(work: Tensor, target: _Target) -> tuple[Tensor, Tensor]:
    """Return focal and dice of each mask (m,), and replace its logits by their derivatives.

    Args:
        work: (4, m, H, W). It enters with the logits in work[0]. It leaves with the derivatives of focal in work[0],
            and those of dice in work[1]; the rest has no meaning.
        target: targets of the masks.
    """
    error, entropy, wrong, right = work
    error.mul_(target.wrongward)  # -z
    torch.sigmoid(error, out=wrong)
    torch.sub(wrong.new_ones(()), wrong, out=right)
    torch.maximum(wrong, right, out=entropy).log_()  # softplus(x) = max(x, 0) - log(max(sigmoid(x), sigmoid(-x)))
    torch.sub(error.clamp_(min=0), entropy, out=entropy)
    weight = torch.mul(wrong, wrong, out=error).mul_(target.share)
    focal = _dot(weight, entropy)
    weight.mul_(torch.add(wrong, entropy.mul_(right), alpha=2, out=entropy)).mul_(target.wrongward)

    found = _dot(right, target.inside)
    numerator = 2 * found + 1
    denominator = found + _dot(wrong, target.outside) + target.area + 1
    by_denominator = numerator / denominator.square()
    slope = torch.mul(target.outside, by_denominator[:, None, None], out=entropy)
    slope.addcmul_(target.inside, (by_denominator - 2 / denominator)[:, None, None])
    slope.mul_(right).mul_(wrong)  # p (1 - p)
    return focal, 1 - numerator / denominator


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Sum products over pixels: two (m, H, W) -> (m,)."""
    sums: Tensor = torch.linalg.vecdot(a.flatten(1), b.flatten(1))
    return sums

"""The criterion: class, focal and dice terms for every supervised output (docs/method.md section 4).

    losses = criterion(model(images), labels)
    losses["edges"] = edge_term(output, labels)     # a term of your own, plain autograd
    losses.total.backward()

Letters: S supervised outputs, B batch, K classes, as many queries (Q = K), H W image, h w token grid, M present (image,
class) pairs.
"""

from dataclasses import dataclass
from functools import reduce
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from segvit.config import Head, LossConfig
from segvit.data.spec import IGNORE_INDEX
from segvit.edge_loss import edge_loss
from segvit.errors import UserError
from segvit.fused_losses import FOCAL_ALPHA, fused_mask_losses
from segvit.models.output import SegOutput, is_presence


class Losses(dict[str, Tensor]):
    """Named terms of the loss, coefficients applied: a scalar each, or (S,) for every supervised output.

    `criterion` gives `class`, `focal` and `dice`, each (S,); the last output is the prediction. With an edge head it
    gives `edge` too, a scalar. Add a term of your own by its name.
    """

    @property
    def total(self) -> Tensor:
        """Sum of all terms, a scalar: what training minimises."""
        return reduce(torch.add, [term.sum() for term in self.values()])

    def named(self) -> dict[str, float]:
        """Return every value by name for a log: class_1 .. class_S, focal_1 .., and a scalar by its own name."""
        found: dict[str, float] = {}
        for name, term in self.items():
            if term.ndim == 0:
                found[name] = term.item()
            else:
                found |= {f"{name}_{s}": value for s, value in enumerate(term.tolist(), start=1)}
        return found


@dataclass(frozen=True, kw_only=True)
class Normalizers:
    """Divisors of the terms, averaged over ranks and parts so that the losses equal those of one large batch."""

    num_masks: Tensor
    """Number of present (image, class) pairs."""
    class_weight: Tensor
    """Sum of the weights in the cross entropy."""


def present_classes(labels: Tensor, num_classes: int) -> Tensor:
    """Find the classes in each label map: (B, H, W) int64 -> (B, K) bool.

    Raises:
        UserError: a label is neither a class nor 255.
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
    """Return the divisors of the criterion for labels (B, H, W) on one process, with its `class_weights` (K,)."""
    present = present_classes(labels, num_classes)
    num_masks = present.sum()
    weight = num_masks if class_weights is None else (present * class_weights).sum()
    weight = weight + (config or LossConfig()).no_object_weight * (present.numel() - num_masks)
    return Normalizers(num_masks=num_masks.float(), class_weight=weight.float())


class Criterion(Protocol):
    """Any function that gives the losses of a model's output; `segvit.criterion` is one, `segvit.train` takes others.

    Training averages every term over the parts and processes of a step. A term of your own is therefore a mean over
    the images that it gets.
    """

    def __call__(
        self,
        output: SegOutput,
        labels: Tensor,
        *,
        config: LossConfig,
        divisors: Normalizers,
        class_weights: Tensor | None,
    ) -> Losses: ...


class MaskLosses(Protocol):
    """A function that gives focal (S, M) and dice (S, M): `plain_mask_losses` or `fused_mask_losses`."""

    def __call__(
        self,
        masks: Tensor,
        labels: Tensor,
        pairs: Tensor,
        padded_size: tuple[int, int],
        *,
        ignore_as_negative: bool,
    ) -> tuple[Tensor, Tensor]: ...


def criterion(
    output: SegOutput,
    labels: Tensor,
    *,
    config: LossConfig | None = None,
    divisors: Normalizers | None = None,
    class_weights: Tensor | None = None,
    mask_losses: MaskLosses = fused_mask_losses,
) -> Losses:
    """Return the losses of a model's output against labels: `class`, `focal` and `dice`, each (S,).

    Examples:
        >>> import segvit
        >>> import torch
        >>> model = segvit.load_model("best.safetensors")
        >>> images, labels = torch.rand(2, 3, 48, 64), torch.randint(0, 2, (2, 48, 64))
        >>> losses = segvit.criterion(model(images), labels)
        >>> losses.total.backward()

    Args:
        output: of a model, with S supervised outputs.
        labels: (B, H, W) int64 at the size of the images: 0..K-1, or 255 for ignored.
        config: coefficients, and whether ignored pixels count as negatives.
        divisors: averages over processes. Default: those of this batch.
        class_weights: (K,) weights of the present classes in the class term. Default: 1 each. The mask terms have none.
            (`config.class_weights` is text; training/class_weights.py turns it into numbers.)
        mask_losses: computes focal and dice. `plain_mask_losses` gives the same by autograd, in more memory.

    Raises:
        UserError: labels of another size than the images, or values that are no class.
    """
    config = config or LossConfig()
    num_classes = output.class_logits.shape[2]
    _check_labels(labels, (output.class_logits.shape[1], *output.image_size))
    present = present_classes(labels, num_classes)
    return losses_of(
        output,
        labels,
        present,
        present.nonzero(),
        config=config,
        divisors=divisors or normalizers(labels, num_classes, config=config, class_weights=class_weights),
        class_weights=class_weights,
        mask_losses=mask_losses,
    )


def pixel_criterion(
    output: SegOutput,
    labels: Tensor,
    *,
    config: LossConfig | None = None,
    divisors: Normalizers | None = None,
    class_weights: Tensor | None = None,
) -> Losses:
    """Return the cross entropy of the pixels, `cross_entropy` (S,): the loss of `model.head: linear`.

    The mask logits are logarithms of a softmax at the token grid, up-sampled bilinearly. Their softmax over the classes
    is that of the up-sampled logits of the linear layer. The loss is a mean over the labelled pixels of each image,
    and then over the images.

    Args:
        output: of a model whose masks are logits of one softmax over the classes.
        labels: (B, H, W) int64 at the size of the images: 0..K-1, or 255 for ignored.
        config: coefficient of the term `edge`, if the model has an edge head.
        divisors: without effect, since a mean over images needs none.
        class_weights: (K,) weights of the classes in the mean. Default: 1 each.

    Raises:
        UserError: labels of another size than the images, or values that are no class.
    """
    batch, num_classes = output.mask_logits.shape[1:3]
    _check_labels(labels, (batch, *output.image_size))
    present_classes(labels, num_classes)  # refuses values that are no class
    return pixel_losses(output, labels, config=config or LossConfig(), class_weights=class_weights)


def pixel_losses(
    output: SegOutput, labels: Tensor, *, config: LossConfig, class_weights: Tensor | None = None
) -> Losses:
    """Return the losses of `pixel_criterion` for labels (B, H, W) that are known to fit."""
    count, batch, num_classes = output.mask_logits.shape[:3]
    height, width = output.image_size
    grid = output.mask_logits.float().flatten(0, 1)
    logits = F.interpolate(grid, size=output.padded_size, mode="bilinear", align_corners=False)[..., :height, :width]
    targets = labels.repeat(count, 1, 1)  # (S * B, H, W)
    entropy = F.cross_entropy(logits, targets, weight=class_weights, ignore_index=IGNORE_INDEX, reduction="none")
    table = torch.ones(num_classes, device=labels.device) if class_weights is None else class_weights.float()
    weights = table[targets.clamp(max=num_classes - 1)] * (targets != IGNORE_INDEX)
    means = entropy.sum(dim=(1, 2)) / weights.sum(dim=(1, 2)).clamp(min=torch.finfo(torch.float32).tiny)
    return Losses({"cross_entropy": means.view(count, batch).mean(dim=1)} | _edge_term(output, labels, config))


CRITERIA: dict[Head, Criterion] = {"atm": criterion, "linear": pixel_criterion}
"""Criterion of each head."""


def _check_labels(labels: Tensor, expected: tuple[int, ...]) -> None:
    """Refuse labels of another size (B, H, W) than the images.

    Raises:
        UserError: as above.
    """
    if tuple(labels.shape) != expected:
        raise UserError(f"labels of shape {tuple(labels.shape)} for images of {expected}: expected the same (B, H, W)")


def losses_of(
    output: SegOutput,
    labels: Tensor,
    present: Tensor,
    pairs: Tensor,
    *,
    config: LossConfig,
    divisors: Normalizers,
    class_weights: Tensor | None = None,
    mask_losses: MaskLosses = fused_mask_losses,
) -> Losses:
    """Return the losses of `criterion`, given which classes are present.

    Args:
        output, labels, config, divisors, class_weights, mask_losses: see `criterion`.
        present: (B, K) bool.
        pairs: (M, 2), image and class of each mask that is compared: the places where `present` is true.
    """
    classes = class_losses(
        output.class_logits, present, divisors.class_weight, config.no_object_weight, class_weights=class_weights
    )
    masks = output.mask_logits[:, pairs[:, 0], pairs[:, 1]].float()  # (S, M, h, w)
    focal, dice = mask_losses(masks, labels, pairs, output.padded_size, ignore_as_negative=config.ignore_as_negative)
    num_masks = divisors.num_masks.clamp(min=torch.finfo(torch.float32).tiny)  # a mean over parts may be below 1
    return Losses(
        {
            "class": classes * config.class_coefficient,
            "focal": focal.sum(dim=1) / num_masks * config.focal_coefficient,
            "dice": dice.sum(dim=1) / num_masks * config.dice_coefficient,
        }
        | _edge_term(output, labels, config)
    )


def _edge_term(output: SegOutput, labels: Tensor, config: LossConfig) -> dict[str, Tensor]:
    """Return the term `edge`, or none if the model has no edge head, or if nothing learns by it."""
    logits = output.edge_logits
    if logits is None or (torch.is_grad_enabled() and not logits.requires_grad):
        return {}
    return {"edge": config.edge_coefficient * edge_loss(logits, labels, output.padded_size)}


def class_losses(
    class_logits: Tensor,
    present: Tensor,
    total_weight: Tensor,
    no_object_weight: float,
    *,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Return the weighted cross entropy of every supervised output: (S, B, K, K + 1), present (B, K) -> (S,).

    For logits z (S, B, K, 1) of a presence head it is the binary cross entropy, with target 1 if k is present. That
    equals the term of K + 1 logits that are z for the own class, 0 for "no object" and minus infinity for the others.

    The target of query k is class k if k is present, otherwise "no object" (index K). A class has the weight
    `class_weights[k]`, or 1 without them. "No object" has the weight `no_object_weight`. The loss is the mean with
    these weights. So a common factor on all class weights matters only against "no object", and a rare class with a
    large weight dominates the term of a batch that contains it.
    """
    num_classes, logits = present.shape[1], class_logits.float()
    if is_presence(logits):
        targets = present.to(logits.dtype).expand(logits.shape[:3])  # (S, B, K)
        entropy = F.binary_cross_entropy_with_logits(logits.squeeze(3), targets, reduction="none")
    else:
        queries = torch.arange(num_classes, device=present.device)
        targets = torch.where(present, queries, num_classes).expand(logits.shape[:3])  # (S, B, K)
        entropy = F.cross_entropy(logits.movedim(3, 1), targets, reduction="none")
    weights = torch.where(present, 1.0 if class_weights is None else class_weights, no_object_weight)  # (B, K)
    return (entropy * weights).sum(dim=(1, 2)) / total_weight.clamp(min=torch.finfo(torch.float32).tiny)


def plain_mask_losses(
    masks: Tensor, labels: Tensor, pairs: Tensor, padded_size: tuple[int, int], *, ignore_as_negative: bool
) -> tuple[Tensor, Tensor]:
    """Return focal (S, M) and dice (S, M) of the masks of present pairs, without coefficients, by plain autograd.

    For a pixel with target t in {0, 1} and p = sigmoid(logit), over the valid pixels of a mask:

        focal = mean of alpha_t (1 - p_t)^2 (-log p_t),  p_t = p where t else 1 - p,  alpha_t = alpha or 1 - alpha;
        dice  = 1 - (2 sum(p t) + 1) / (sum p + sum t + 1).

    `fused_mask_losses` gives the same values and gradients without keeping (S, M, H, W) tensors.

    Args:
        masks: logits (S, M, h, w) in float32.
        labels: (B, H, W).
        pairs: (M, 2), image and class of each mask.
        padded_size: (H, W) that the masks span.
        ignore_as_negative: see `LossConfig`.
    """
    _, height, width = labels.shape
    # A channel each, since M may be 0: (S, M, h, w) -> (S * M, 1, H, W) -> (S, M, H, W)
    logits = F.interpolate(masks.flatten(0, 1)[:, None], size=padded_size, mode="bilinear", align_corners=False)
    logits = logits[:, 0, :height, :width].unflatten(0, masks.shape[:2])
    labels = labels[pairs[:, 0]]  # (M, H, W)
    target = (labels == pairs[:, 1, None, None]).float()
    valid = torch.ones_like(target) if ignore_as_negative else (labels != IGNORE_INDEX).float()
    p = logits.sigmoid() * valid
    wrong = torch.where(target > 0, 1 - p, p)
    entropy = F.binary_cross_entropy_with_logits(logits, target.expand_as(logits), reduction="none")
    alpha = torch.where(target > 0, FOCAL_ALPHA, 1 - FOCAL_ALPHA) * valid
    focal = (alpha * wrong**2 * entropy).sum(dim=(2, 3)) / valid.sum(dim=(1, 2)).clamp(min=1)
    overlap, total = (p * target).sum(dim=(2, 3)), p.sum(dim=(2, 3)) + target.sum(dim=(1, 2))
    return focal, 1 - (2 * overlap + 1) / (total + 1)

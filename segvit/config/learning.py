"""Settings of criterion and optimizer."""

from dataclasses import dataclass
from typing import Literal

Freeze = Literal["none", "backbone"]


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Coefficients of the criterion (docs/method.md section 4)."""

    class_coefficient: float = 1.0
    """Factor of the cross entropy over the queries."""
    focal_coefficient: float = 20.0
    """Factor of the focal loss of the masks."""
    dice_coefficient: float = 1.0
    """Factor of the dice loss of the masks."""
    edge_coefficient: float = 0.4
    """Factor of the cross entropy of the edge head, if `model.downsampling` is edge."""
    no_object_weight: float = 0.1
    """Weight of "no object" in the cross entropy."""
    ignore_as_negative: bool = False
    """Count ignored pixels as negatives of every mask, as the paper's authors do. Default: leave them out."""
    class_weights: tuple[str, ...] = ()
    """Weights of the present classes in the cross entropy. Give NAME=WEIGHT for those that are not 1, or one number per
    class in order, or the word balanced. balanced: labelled pixels of the training set / (classes * pixels of the
    class)."""


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW with linear warm-up on top of polynomial decay (docs/method.md section 5)."""

    lr: float = 2e-5
    """Peak learning rate of the backbone."""
    head_lr_factor: float = 10.0
    """Factor on `lr` for the head."""
    weight_decay: float = 0.01
    """Decoupled weight decay. The backbone's LayerNorms are exempt."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of AdamW's first and second moments."""
    warmup_steps: int = 1500
    """Steps of linear warm-up."""
    warmup_factor: float = 1e-6
    """Factor on the learning rate at step 0 of the warm-up."""
    power: float = 1.0
    """Power of the polynomial decay. 1: linear."""
    clip_norm: float = 35.0
    """Largest L2 norm of the whole gradient; a longer one is scaled down."""
    layer_decay: float = 1.0
    """Factor d on the backbone's learning rate per block, counted from the head: lr * d for the last block, and
    lr * d^(blocks + 1) for the embeddings. 1: the same rate everywhere."""
    freeze: Freeze | int = "none"
    """Frozen layers, which keep their initial weights: none, backbone, or a number of blocks. A number freezes the
    embeddings and that many of the first blocks."""
    lora_rank: int = 0
    """Rank of the low-rank weights (LoRA) that learn in place of the backbone's, in its attention. Saved models have
    them merged. 0: all weights learn."""
    lora_alpha: float | None = None
    """Scale of the low-rank weights, which count alpha / rank times. Default: twice the rank."""

"""The rows of the comparison: one pretrained ViT, and for each row a model on it and the criterion of its paper.

model = create(ROWS["dpt"], vit=VIT, weights=file, num_classes=11, size=252, frozen=12, steps=400)
segvit.train(config, model=model, criterion=ROWS["dpt"].criterion)
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from heads.backbone import StagedViT, TokenStore
from heads.dpt import FusionClassifier, Pyramid
from heads.eomt import EoMT, TakeMasks
from heads.per_pixel import Linear, PerPixelHead, SETRNaive, cross_entropy
from heads.segmenter import MaskTransformer
from heads.set_loss import set_loss
from safetensors import safe_open
from torch import nn

import segvit
from segvit.config import ModelConfig, Structure, Upsampling
from segvit.losses import Criterion

VIT = ModelConfig(backbone="vit_small_patch14_dinov2.lvd142m", image_size=518, init_std=0.04)
"""The backbone, at the size of its own positions. ATM's narrow layers start at 0.04, as in `camvid/vit_tiny`, which was
found in probes on CamVid; the other heads start as their papers say."""
EOMT_BLOCKS = 3
"""Last blocks that the queries of EoMT join."""


BuildHead = Callable[[int, int, nn.LayerNorm], nn.Module]
"""Builds a head for a width D and K classes. It may use the ViT's final norm, which the maps lack."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A model of the comparison."""

    title: str
    criterion: Criterion = segvit.criterion
    taps: tuple[int, ...] | None = None
    """Blocks that the head reads. None: the default of the structure."""
    structure: Structure = "plain"
    upsampling: Upsampling = ModelConfig.upsampling
    head: BuildHead | None = None
    """None: attention to mask."""
    masked: bool | None = None
    """Mask the attention of EoMT in training. None: the row is no EoMT."""


def linear(dim: int, num_classes: int, final_norm: nn.LayerNorm) -> nn.Module:
    """Build DINOv2's linear probe on the last map."""
    return PerPixelHead(Linear(dim=dim, num_classes=num_classes, final_norm=final_norm))


def setr(dim: int, num_classes: int, final_norm: nn.LayerNorm) -> nn.Module:
    """Build SETR-naive on the last of three maps, with auxiliary heads on the others."""
    return PerPixelHead(*(SETRNaive(dim=dim, num_classes=num_classes, source=source) for source in range(3)))


def segmenter(dim: int, num_classes: int, final_norm: nn.LayerNorm) -> nn.Module:
    """Build Segmenter's mask transformer on the last map."""
    return PerPixelHead(MaskTransformer(dim=dim, num_classes=num_classes, final_norm=final_norm))


def dpt(dim: int, num_classes: int, final_norm: nn.LayerNorm) -> nn.Module:
    """Build DPT on four maps, with an auxiliary head on the fusion before the last."""
    classifiers = (FusionClassifier(num_classes=num_classes, source=source) for source in range(2))
    return PerPixelHead(*classifiers, trunk=Pyramid(dim=dim))


ROWS = {
    "linear": Row(title="linear", criterion=cross_entropy, taps=(11,), head=linear),
    "setr": Row(title="SETR-naive", criterion=partial(cross_entropy, auxiliary_weight=0.4), taps=(5, 7, 11), head=setr),
    "segmenter": Row(title="Segmenter", criterion=cross_entropy, taps=(11,), head=segmenter),
    "dpt": Row(title="DPT", criterion=partial(cross_entropy, auxiliary_weight=0.2), taps=(2, 5, 8, 11), head=dpt),
    "eomt": Row(title="EoMT", criterion=set_loss, taps=(11,), masked=False),
    "eomt_masked": Row(title="EoMT, masked", criterion=set_loss, taps=(11,), masked=True),
    "plain": Row(title="ATM plain"),
    "shrunk": Row(title="ATM shrunk", structure="shrunk"),
    "shrunk_paper": Row(title="ATM shrunk, paper's QU", structure="shrunk", upsampling="paper"),
    "naive_shrunk": Row(title="ATM naive shrunk", structure="naive_shrunk"),
}


def create(
    row: Row,
    *,
    vit: ModelConfig = VIT,
    weights: Path | None,
    num_classes: int,
    size: int,
    frozen: int,
    steps: int,
    store: Path | None = None,
) -> segvit.SegViT:
    """Create the model of a row.

    Args:
        row: one of ROWS.
        vit: the backbone.
        weights: file of its weights. None: random ones.
        num_classes: K.
        size: side of the training crop in pixels.
        frozen: number of first blocks that are frozen; 0: none, and the embeddings learn too.
        steps: optimizer steps of its training.
        store: folder for the features of frozen blocks. None: they are computed each time.
    """
    settings = replace(vit, structure=row.structure, upsampling=row.upsampling, taps=row.taps, pretrained_file=weights)
    start = segvit.create_model(config=settings, num_classes=num_classes)
    plain = start.backbone
    first = frozen if plain.shrink_at is None else min(frozen, plain.shrink_at)
    if row.masked is not None:
        first = len(plain.blocks) - EOMT_BLOCKS
    kept = TokenStore(store, plain) if store is not None and 0 < first <= frozen else None
    stages = StagedViT(plain, first=first, store=kept)
    backbone: nn.Module = stages
    upsampling: nn.Module | None = None
    norm = final_norm(plain.embed_dim, weights)
    if row.masked is not None:
        backbone = EoMT(stages, num_classes=num_classes, masked=row.masked, steps=steps, final_norm=norm)
        head: nn.Module = TakeMasks()
    elif row.head is not None:
        head = row.head(plain.embed_dim, num_classes, norm)
    else:  # learned tokens of an up-sampling are those of the crop
        at_crop = replace(settings, image_size=size).without_weights()
        own = segvit.create_model(config=at_crop, num_classes=num_classes)
        head, upsampling = own.head, own.upsampling
    return segvit.SegViT(
        backbone, head, upsampling, mean=start.mean, std=start.std, num_classes=num_classes, image_size=size
    )


def final_norm(dim: int, weights: Path | None) -> nn.LayerNorm:
    """Return the pretrained norm behind the last block, which the backbones of the package leave out."""
    norm = nn.LayerNorm(dim, eps=1e-6)
    if weights is not None:
        with safe_open(weights, framework="pt") as file:
            norm.load_state_dict({name: file.get_tensor(f"norm.{name}").float() for name in ("weight", "bias")})
    return norm

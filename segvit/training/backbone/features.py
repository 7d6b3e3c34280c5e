"""A model whose steps begin behind the frozen blocks of its backbone.

    network = FrozenStart(model)                # after `freeze`
    features = network.features(images)         # (B, 3, c, c) uint8 -> (B, L) float16, the same in every epoch
    output = network(features)                  # what model(images) gives, to the rounding of float16

Letters: B batch, D width, c side of the crop, h w token grid, P prefix tokens, n patches, L values of an image.
"""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from segvit.errors import UserError
from segvit.models.backbone import BackboneState, PlainViT
from segvit.models.create_decoder import crop_grid
from segvit.models.downsampling import Kept, QueryDownsampling, lattice, shrunk_grid
from segvit.models.output import SegOutput
from segvit.models.segvit import SegViT

DTYPE = torch.float16
"""Type in which features are kept. Rounding to it changes losses by less than 1e-4."""


class FrozenStart(nn.Module):
    """The part of a SegViT that learns: features of training crops in, class and mask logits out.

    Args:
        model: with frozen layers, and crops of its `image_size`.

    Attributes:
        num_blocks: number of leading blocks in which nothing learns.
        num_values: L, number of values of an image.

    Raises:
        UserError: the backbone is not one of ours, its embeddings or its first block learn, its own down-sampling is
            frozen, the model has an upscaler of the masks, or tokens merge behind a frozen block.
    """

    def __init__(self, model: SegViT) -> None:
        super().__init__()
        if model.upscaler is not None:
            raise UserError(
                f"data.cache_features: the upscaler {type(model.upscaler).__name__} reads the pixels, which are not "
                "stored; leave data.cache_features or model.upscaler out"
            )
        self.model = model
        self.num_blocks = frozen_blocks(model.backbone)
        backbone: PlainViT = model.backbone
        self.grid = crop_grid(model.image_size, backbone.patch_size)
        last = self.num_blocks - 1
        self.last_is_tapped = last in backbone.taps
        count, width = self._grid_behind(last), backbone.embed_dim
        maps = [(width, *self._grid_behind(tap)) for tap in backbone.taps if tap < last]
        shapes: list[tuple[int, ...]] = [(backbone.num_prefix_tokens + count[0] * count[1], width), *maps]
        self.shapes = shapes
        ends = [0]
        for shape in shapes:
            ends.append(ends[-1] + torch.Size(shape).numel())
        self.sizes = [end - start for start, end in pairwise(ends)]
        self.num_values = ends[-1]

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Run the frozen blocks on crops (B, 3, c, c), uint8, and return all that later blocks and the head need.

        Raises:
            UserError: a value is too large for float16.
        """
        model, backbone = self.model, self.model.backbone
        state = backbone.advance(backbone.start(model.pad(model.normalise(images))), 0, self.num_blocks)
        maps = state.maps[: len(self.shapes) - 1]  # the map of the last block is its tokens
        values = torch.cat([part.flatten(1) for part in (state.tokens, *maps)], dim=1).to(DTYPE)
        if not torch.isfinite(values).all():
            raise UserError(
                "data.cache_features: an output of the frozen blocks is larger than 65,504, and features are kept in "
                "float16; leave data.cache_features out"
            )
        return values  # (B, L)

    def forward(self, features: Tensor) -> SegOutput:
        """Run the blocks that learn, the up-sampling and the head on features (B, L)."""
        model, backbone = self.model, self.model.backbone
        parts = features.to(model.mean.dtype).split(self.sizes, dim=1)
        tokens, *maps = (part.unflatten(1, shape) for part, shape in zip(parts, self.shapes, strict=True))
        kept = None
        if self._shrunk_behind(self.num_blocks - 1):
            kept = Kept(lattice(self.grid, features.device), shrunk_grid(self.grid))
        if self.last_is_tapped:
            maps.append(backbone.map_of(tokens, self.grid, kept))
        state = BackboneState(tokens=tokens, grid=self.grid, kept=kept, maps=tuple(maps))
        state = backbone.advance(state, self.num_blocks, len(backbone.blocks))
        return model.decode(state.features, self.grid, (model.image_size, model.image_size))

    def _shrunk_behind(self, block: int) -> bool:
        shrink_at = self.model.backbone.shrink_at
        return shrink_at is not None and block >= shrink_at

    def _grid_behind(self, block: int) -> tuple[int, int]:
        return shrunk_grid(self.grid) if self._shrunk_behind(block) else self.grid


def frozen_blocks(backbone: Any) -> int:
    """Return the number of leading blocks in which nothing learns.

    Raises:
        UserError: the backbone is not one of ours, its embeddings or its first block learn, its own down-sampling is
            frozen, or tokens merge behind a frozen block.
    """
    if not isinstance(backbone, PlainViT):
        raise UserError(
            f"data.cache_features: the backbone {type(backbone).__name__} cannot start behind its frozen layers, which "
            "those of segvit.create_model can; leave data.cache_features out"
        )
    layers = []
    for name, parameter in backbone.named_parameters():
        if parameter.requires_grad:
            layer = backbone.layer_of(name)  # None: the down-sampling at block shrink_at
            layers.append((backbone.shrink_at or 0) + 1 if layer is None else layer)
    count = min(layers, default=len(backbone.blocks) + 1) - 1
    if count < 1:
        raise UserError(
            "data.cache_features: no block of the backbone is frozen, so there is nothing to keep; type "
            "--optim.freeze backbone or a number of blocks, 1 or more"
        )
    shrinks = backbone.shrink_at is not None and backbone.shrink_at < count
    if shrinks and not isinstance(backbone.downsampling, QueryDownsampling):
        raise UserError(
            f"data.cache_features: the tokens that the down-sampling {type(backbone.downsampling).__name__} keeps are "
            f"not stored; freeze {backbone.shrink_at} blocks or fewer, or leave data.cache_features out"
        )
    merging = backbone.merging
    if merging is not None and merging.at[0] < count:
        raise UserError(
            f"data.cache_features: tokens merge behind the frozen block {merging.at[0]}, and merged tokens are not "
            "stored; freeze fewer blocks, leave model.merge_threshold and merge_shares out, or leave "
            "data.cache_features out"
        )
    return count

"""Backbones: images in, one feature map per tapped block out (docs/method.md section 1).

`PlainViT` runs the blocks of timm's plain ViTs; timm defines the parts and their names. It is also the adapter of the
family VisionTransformer. Those of other families are in segvit/models/families.py. A backbone of your own needs none of
it: any module with the attributes of `Backbone` will do (docs/any-backbone.md).

Letters: B batch, D width, H W image, p patch, h w token grid, N = h * w, P prefix tokens (class, registers), n kept
patches.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from timm.layers import Attention
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from segvit.errors import UserError
from segvit.models.downsampling import STRIDE, Kept, attend, keep, run_any_block
from segvit.models.merging.merge import Merged, size_mask, spread
from segvit.models.merging.token_merging import TokenMerging
from segvit.models.output import Maps
from segvit.models.positions import resize_tokens

PREFIX_TOKENS = ("cls_token", "dist_token", "reg_token")
"""Names of timm's prefix tokens, in the order in which they precede the patches."""


class Backbone(Protocol):
    """Attributes that SegViT needs of a backbone, an nn.Module. docs/any-backbone.md lists optional ones."""

    patch_size: int
    """Images are padded to multiples of this many pixels."""
    map_cell: int
    """Side in pixels of a cell of the last map."""

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Turn normalised images (B, 3, H, W) into maps (B, D, h, w), shallow first."""


@dataclass(frozen=True, kw_only=True)
class BackboneState:
    """State of a batch after the embeddings or after any block."""

    tokens: Tensor
    """(B, P + N, D), or (B, P + n, D) behind a block that shrinks or where tokens merge."""
    grid: tuple[int, int]
    """(h, w) of all patches."""
    kept: Kept | None = None
    """Patches that have stayed, behind a block that shrinks."""
    merged: Merged | None = None
    """Tokens that patches have merged into, behind a block where they merge."""
    maps: tuple[Tensor, ...] = ()
    """(B, D, h, w) of each tapped block that has run, shallow first."""

    @property
    def features(self) -> Maps:
        """Maps that the rest of the model takes."""
        return Maps(self.maps, None if self.kept is None else self.kept.edge_logits)


class PlainViT(nn.Module):
    """The blocks of a plain ViT up to the last tap, without final norm and classifier (docs/method.md section 1).

    It runs the family VisionTransformer, whose positions are absolute; other families derive from it.

    Args:
        vit: model of timm; its parts are taken over, with their names.
        taps: blocks (from 0) whose outputs are returned, ascending.
        shrink_at: block (from 0) that keeps some of the tokens; None: no block does.
        downsampling: part that chooses them: patches (B, N, D) and their grid to `Kept`. If it has a method `restore`,
            maps behind the block are at the grid of all patches (docs/extending.md).
        merging: merges similar tokens behind two blocks; None: none merge. No block may shrink then.

    Attributes:
        bands: number N of bands of the images.
        native_grid: grid (h, w) on which the positions are learned; not always that of the training crop.
        grad_checkpointing: store only the input of each block and recompute the rest in the backward pass.
    """

    pos_embed: Tensor | None

    def __init__(
        self,
        vit: Any,
        *,
        taps: Sequence[int],
        shrink_at: int | None = None,
        downsampling: nn.Module | None = None,
        merging: TokenMerging | None = None,
    ) -> None:
        super().__init__()
        self.taps = tuple(taps)
        self.shrink_at = shrink_at
        self.embed_dim: int = vit.embed_dim
        self.patch_size: int = vit.patch_embed.patch_size[0]
        self.bands: int = vit.patch_embed.proj.in_channels
        self.native_grid: tuple[int, int] = vit.patch_embed.grid_size
        self.num_prefix_tokens: int = vit.num_prefix_tokens
        no_embed_class: bool = getattr(vit, "no_embed_class", False)
        self.num_embedded_prefix = 0 if no_embed_class else self.num_prefix_tokens
        self.patch_embed = vit.patch_embed
        for name in PREFIX_TOKENS:
            self.register_parameter(name, getattr(vit, name, None))
        self.register_parameter("pos_embed", vit.pos_embed)
        self.pos_drop = vit.pos_drop
        self.norm_pre = getattr(vit, "norm_pre", nn.Identity())
        self.blocks = nn.ModuleList(vit.blocks[: self.taps[-1] + 1])
        self.take_positions(vit)
        self.grad_checkpointing = False
        self.downsampling: Any = downsampling
        self.merging = merging

    @property
    def map_cell(self) -> int:
        """Side in pixels of a cell of the last map."""
        return self.patch_size if self.shrink_at is None or self.restores else STRIDE * self.patch_size

    @property
    def restores(self) -> bool:
        """True if the down-sampling makes maps at the grid of all patches from the kept ones."""
        return hasattr(self.downsampling, "restore")

    def forward(self, images: Tensor) -> Maps:
        """Return the feature maps of the tapped blocks.

        Args:
            images: (B, N, H, W), normalised; H and W whole multiples of the patch.

        Returns:
            One (B, D, h, w) per tap, shallow first: raw block outputs, no norm. Behind `shrink_at` h and w are those of
            `Kept.grid`, unless the down-sampling restores the grid of all patches.

        Raises:
            UserError: fewer than 2 x 2 patches, if a block shrinks.
        """
        return self.advance(self.start(images), 0, len(self.blocks)).features

    def start(self, images: Tensor) -> BackboneState:
        """Embed normalised images (B, N, H, W).

        Raises:
            UserError: fewer than 2 x 2 patches, if a block shrinks.
        """
        tokens, grid = self.embed(images)
        if self.downsampling is not None and min(grid) < STRIDE:
            side = STRIDE * self.patch_size
            raise UserError(
                f"an image of {grid[0]} x {grid[1]} patches of {self.patch_size} px cannot be shrunk: give at least "
                f"{STRIDE} x {STRIDE} patches ({side} x {side} px), by resizing it, or take a plain model"
            )
        return BackboneState(tokens=tokens, grid=grid)

    def advance(self, state: BackboneState, first: int, last: int) -> BackboneState:
        """Run some of the blocks, starting from the output of the block before `first`.

        Args:
            state: after the block before `first`, or after the embeddings.
            first: block (from 0) to begin with.
            last: block to end before.

        Returns:
            The state after the blocks.
        """
        tokens, grid, kept, merged, maps = state.tokens, state.grid, state.kept, state.merged, list(state.maps)
        everywhere, num_prefix = self.shared_positions(grid), self.num_prefix_tokens
        indices, shared = None, everywhere
        if (placed := merged or kept) is not None:
            indices, shared = placed.indices, self.kept_positions(everywhere, grid, placed.indices)
        for index in range(first, last):
            if index == self.shrink_at:
                tokens, kept = self.run(self.shrink, tokens, grid, shared)
                indices, shared = kept.indices, self.kept_positions(shared, grid, kept.indices)
            else:
                mask = None if merged is None else size_mask(merged, num_prefix, tokens.dtype)
                tokens = self.run(self.run_block, index, tokens, grid, indices, shared, mask)
            if index in self.taps:
                every = tokens if merged is None else spread(tokens, merged, num_prefix)
                maps.append(self.map_of(every, grid, kept))
            if self.merging is not None and index in self.merging.at:
                tokens, merged = self.merging(tokens, merged, grid, block=index, num_prefix_tokens=num_prefix)
                indices, shared = merged.indices, self.kept_positions(everywhere, grid, merged.indices)
        return replace(state, tokens=tokens, kept=kept, merged=merged, maps=tuple(maps))

    def map_of(self, tokens: Tensor, grid: tuple[int, int], kept: Kept | None) -> Tensor:
        """Return the patches of tokens as a map (B, D, ., .).

        Args:
            tokens: output of a block (B, P + N, D), or of kept patches (B, P + n, D).
            grid: of all patches, (h, w).
            kept: patches that have stayed; None: all have.
        """
        patches = tokens[:, self.num_prefix_tokens :]
        if kept is not None and self.restores:
            restored: Tensor = self.downsampling.restore(patches, kept, grid)
            return restored
        maps: Tensor = patches.transpose(1, 2).unflatten(2, grid if kept is None else kept.grid)
        return maps

    def run(self, part: Any, *args: Any) -> Any:
        """Run a block, and store only its input if `grad_checkpointing` is on."""
        if self.grad_checkpointing and torch.is_grad_enabled():
            return checkpoint(part, *args, use_reentrant=False)
        return part(*args)

    def embed(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Return tokens (B, P + N, D) with absolute positions added, and their grid (h, w)."""
        maps = self.patch_embed.proj(images)  # (B, D, h, w)
        grid = (maps.shape[2], maps.shape[3])
        patches = maps.flatten(2).transpose(1, 2).contiguous()  # (B, N, D); else every block would copy it twice
        patches = self.patch_embed.norm(patches)
        prefixes = [getattr(self, name) for name in PREFIX_TOKENS if getattr(self, name) is not None]
        prefix = torch.cat(prefixes, dim=1) if prefixes else None  # (1, P, D)
        if self.pos_embed is not None:
            num_embedded = self.num_embedded_prefix
            patches = patches + resize_tokens(self.pos_embed[:, num_embedded:], self.native_grid, grid)
            if prefix is not None and num_embedded:
                prefix = prefix + self.pos_embed[:, :num_embedded]
        if prefix is not None:
            patches = torch.cat([prefix.expand(patches.shape[0], -1, -1), patches], dim=1)
        return self.norm_pre(self.pos_drop(patches)), grid

    def run_block(
        self,
        index: int,
        tokens: Tensor,
        grid: tuple[int, int],
        indices: Tensor | None,
        shared: Tensor | None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Run a block on tokens (B, P + N, D), or on kept or merged ones (B, P + n, D), and keep their number.

        Args:
            index: of the block, from 0.
            tokens: output of the block before it.
            grid: of all patches, (h, w).
            indices: of the kept patches, (n,) or (B, n); None: all are there.
            shared: positions of these tokens that blocks share.
            mask: added to the logits of the attention, (B, 1, 1, P + n); None: nothing is.
        """
        inputs = self.block_inputs(index, grid, indices, shared)
        out: Tensor = self.blocks[index](tokens, **(inputs if mask is None else self.masked(inputs, mask)))
        return out

    def shrink(self, tokens: Tensor, grid: tuple[int, int], shared: Tensor | None) -> tuple[Tensor, Kept]:
        """Run the block `shrink_at` on all tokens (B, P + N, D) and let the kept ones leave it: (B, P + n, D)."""
        assert self.shrink_at is not None and self.downsampling is not None
        index, num_prefix = self.shrink_at, self.num_prefix_tokens
        kept: Kept = self.downsampling(tokens[:, num_prefix:], grid)
        queries = keep(tokens, kept.indices, num_prefix)
        if kept.queries is not None:
            queries = torch.cat([queries[:, :num_prefix], kept.queries], dim=1)
        if getattr(self.downsampling, "keys_from_kept", False):
            own = self.kept_positions(shared, grid, kept.indices)
            return self.run_block(index, queries, grid, kept.indices, own), kept
        inputs = self.block_inputs(index, grid, None, shared)
        return self.run_queries(self.blocks[index], queries, tokens, kept, inputs), kept

    def sharded_modules(self) -> list[nn.Module]:
        """Return the parts that FSDP makes whole one at a time: all blocks but the one whose parts run one by one."""
        return [block for index, block in enumerate(self.blocks) if index != self.shrink_at]

    @property
    def num_layers(self) -> int:
        """Number of blocks that run."""
        return len(self.blocks)

    def layer_of(self, name: str) -> int | None:
        """Return the layer of a parameter, counted as BEiT and timm do; None: no pretrained weights have it.

        0 is the embeddings: patches, positions, prefix tokens. i + 1 is block i.
        """
        part, number = [*name.split("."), ""][:2]
        if part == "downsampling":
            return None
        return int(number) + 1 if part == "blocks" else 0

    # What families differ in ------------------------------------------------------------------------------------------

    def take_positions(self, vit: Any) -> None:
        """Take over the parts of timm's model that give every block positions."""

    def shared_positions(self, grid: tuple[int, int]) -> Tensor | None:
        """Return the positions at a grid (h, w) that blocks share."""
        return None

    def kept_positions(self, shared: Tensor | None, grid: tuple[int, int], indices: Tensor) -> Tensor | None:
        """Return those of the kept patches (n,) or (B, n), from those of all."""
        return None

    def block_inputs(
        self, index: int, grid: tuple[int, int], indices: Tensor | None, shared: Tensor | None
    ) -> dict[str, Tensor]:
        """Return what a block takes besides its tokens.

        Args:
            index: of the block, from 0.
            grid: of all patches, (h, w).
            indices: of the kept patches, (n,) or (B, n); None: all are there.
            shared: positions of these tokens that blocks share.
        """
        return {}

    def masked(self, inputs: dict[str, Tensor], mask: Tensor) -> dict[str, Tensor]:
        """Return the inputs of a block with a mask of the attention, (B, 1, 1, P + n)."""
        return inputs | {"attn_mask": mask}

    def run_queries(
        self, block: Any, queries: Tensor, tokens: Tensor, kept: Kept, inputs: Mapping[str, Tensor]
    ) -> Tensor:
        """Run a block with queries (B, P + n, D) of their own, keys and values from all tokens (B, P + N, D).

        Args:
            block: block of timm.
            queries: of the kept tokens, also the residual.
            tokens: all.
            kept: indices, grid and queries of the patches that stay.
            inputs: of the block, for all tokens.
        """
        if type(block) is Block and type(block.attn) is Attention and getattr(block.attn, "gate", None) is None:
            attended = attend(block.attn, block.norm1(queries), block.norm1(tokens))
            queries = queries + block.drop_path1(block.ls1(attended))
            out: Tensor = queries + block.drop_path2(block.ls2(block.mlp(block.norm2(queries))))
            return out
        return run_any_block(block, tokens, kept, inputs, self.num_prefix_tokens)

    def fitted(self, donor: "PlainViT") -> dict[str, Tensor]:
        """Return the weights of `donor`, by name, without the positions of prefix tokens that this backbone lacks.

        Args:
            donor: backbone of the same family with the same native grid.
        """
        assert donor.native_grid == self.native_grid
        state = donor.state_dict()
        if donor.pos_embed is not None:
            state["pos_embed"] = donor.pos_embed[:, donor.num_embedded_prefix - self.num_embedded_prefix :].detach()
        return state

    def resized(self, grid: tuple[int, int]) -> dict[str, Tensor]:
        """Return the parameters learned per patch, by name, at another native grid, as `forward` resizes them."""
        if self.pos_embed is None:
            return {}
        embedded = self.num_embedded_prefix
        prefix, patches = self.pos_embed[:, :embedded], self.pos_embed[:, embedded:]
        return {"pos_embed": torch.cat([prefix, resize_tokens(patches, self.native_grid, grid)], dim=1).detach()}

"""Adapters of the families of timm's plain ViTs whose blocks take positions: Eva and Beit (docs/method.md section 1).

An adapter holds everything that is special to its family: positions, blocks on kept tokens, resizing of weights, and
the layer of a parameter. The family VisionTransformer, with absolute positions alone, is `PlainViT` itself.

Letters: B batch, D width, h w token grid, N = h * w, P prefix tokens, n kept patches.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import timm
import torch
from timm.layers import PatchEmbed
from timm.models.beit import Beit, Block as BeitBlock
from timm.models.eva import Eva, EvaBlock
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from segvit.errors import UserError
from segvit.models.backbone import PlainViT
from segvit.models.backbone_names import likely
from segvit.models.downsampling import Kept, run_any_block, run_gamma_block
from segvit.models.merging.token_merging import TokenMerging
from segvit.models.positions import angles_at, relative_bias, resize_tokens, rotary_angles
from segvit.utils.text import did_you_mean


class EvaViT(PlainViT):
    """The family Eva: rotary angles, the same for all blocks or, mixed, each block's own."""

    rope: Any
    rope_mixed: bool

    def take_positions(self, vit: Any) -> None:
        """Take over the rotary embedding."""
        self.rope = vit.rope
        self.rope_mixed = vit.rope_mixed

    def shared_positions(self, grid: tuple[int, int]) -> Tensor | None:
        """Return angles (N, .), or (depth, heads, N, .) of a mixed embedding."""
        return None if self.rope is None else rotary_angles(self.rope, grid)

    def kept_positions(self, shared: Tensor | None, grid: tuple[int, int], indices: Tensor) -> Tensor | None:
        """Return the angles (n, .) of kept patches; a mixed embedding keeps all until a block takes its own."""
        return shared if shared is None or self.rope_mixed else angles_at(shared, indices)

    def block_inputs(
        self, index: int, grid: tuple[int, int], indices: Tensor | None, shared: Tensor | None
    ) -> dict[str, Tensor]:
        """Return the angles (N, .) of a block, or (n, .) of its kept patches."""
        if shared is None:
            return {}
        return {"rope": angles_at(shared[index], indices) if self.rope_mixed else shared}

    def run_queries(
        self, block: Any, queries: Tensor, tokens: Tensor, kept: Kept, inputs: Mapping[str, Tensor]
    ) -> Tensor:
        """Run a block with queries (B, P + n, D); blocks with the norm behind the branches run as any block."""
        if isinstance(block, EvaBlock) and kept.queries is None:
            return run_gamma_block(block, queries, tokens, kept, inputs, self.num_prefix_tokens)
        return run_any_block(block, tokens, kept, inputs, self.num_prefix_tokens)


class BeitViT(PlainViT):
    """The family Beit: a relative bias, from one table of all blocks or one of each."""

    relative_bias_tables: nn.ParameterList | None

    def take_positions(self, vit: Any) -> None:
        """Move the tables out of timm's attention, which knows one grid only; its blocks then take a bias as input."""
        if vit.rel_pos_bias is not None:
            self.relative_bias_tables = nn.ParameterList([vit.rel_pos_bias.relative_position_bias_table])
            return
        blocks: list[Any] = list(self.blocks)
        tables = [block.attn.relative_position_bias_table for block in blocks]
        for block in blocks:
            block.attn.relative_position_bias_table = None
        self.relative_bias_tables = nn.ParameterList(tables) if tables[0] is not None else None

    def shared_positions(self, grid: tuple[int, int]) -> Tensor | None:
        """Return the bias (1, heads, 1 + N, 1 + N) of a table that all blocks share."""
        tables = self.relative_bias_tables
        return relative_bias(tables[0], self.native_grid, grid) if tables is not None and len(tables) == 1 else None

    def kept_positions(self, shared: Tensor | None, grid: tuple[int, int], indices: Tensor) -> Tensor | None:
        """Return the bias (1, heads, 1 + n, 1 + n) of the kept patches, from the table that all blocks share."""
        if shared is None or self.relative_bias_tables is None:
            return None
        return relative_bias(self.relative_bias_tables[0], self.native_grid, grid, indices)

    def block_inputs(
        self, index: int, grid: tuple[int, int], indices: Tensor | None, shared: Tensor | None
    ) -> dict[str, Tensor]:
        """Return the bias of a block on n patches, kept ones or all: (1, heads, 1 + n, 1 + n), or one per image."""
        if shared is None and self.relative_bias_tables is not None:
            # One at a time, and inside what is recomputed in the backward pass: a bias has (1 + N)^2 values per head.
            shared = relative_bias(self.relative_bias_tables[index], self.native_grid, grid, indices)
        return {} if shared is None else {"shared_rel_pos_bias": shared}

    def masked(self, inputs: dict[str, Tensor], mask: Tensor) -> dict[str, Tensor]:
        """Return the bias of a block with a mask of the attention, (B, 1, 1, 1 + n), added."""
        bias = inputs.get("shared_rel_pos_bias")
        return inputs | {"shared_rel_pos_bias": mask if bias is None else bias + mask}

    def run_queries(
        self, block: Any, queries: Tensor, tokens: Tensor, kept: Kept, inputs: Mapping[str, Tensor]
    ) -> Tensor:
        """Run a block with queries (B, P + n, D)."""
        if isinstance(block, BeitBlock) and kept.queries is None:
            return run_gamma_block(block, queries, tokens, kept, inputs, self.num_prefix_tokens)
        return run_any_block(block, tokens, kept, inputs, self.num_prefix_tokens)

    def layer_of(self, name: str) -> int | None:
        """Return the layer of a parameter; the table of a block is in the layer of the block."""
        part, number = [*name.split("."), ""][:2]
        own_tables = self.relative_bias_tables is not None and len(self.relative_bias_tables) == self.num_layers > 1
        return int(number) + 1 if part == "relative_bias_tables" and own_tables else super().layer_of(name)

    def resized(self, grid: tuple[int, int]) -> dict[str, Tensor]:
        """Return the parameters learned per patch, tables among them, by name, at another native grid."""
        state = super().resized(grid)
        span, new_span = ((2 * height - 1, 2 * width - 1) for height, width in (self.native_grid, grid))
        for index, table in enumerate(self.relative_bias_tables or ()):
            offsets = resize_tokens(table[None, :-3], span, new_span)[0]
            state[f"relative_bias_tables.{index}"] = torch.cat([offsets, table[-3:]]).detach()
        return state


ADAPTERS: dict[type[nn.Module], type[PlainViT]] = {VisionTransformer: PlainViT, Eva: EvaViT, Beit: BeitViT}
"""Adapter of each family of timm; a model of a derived class is of the same family."""


def adapt(
    vit: Any,
    *,
    taps: Sequence[int],
    shrink_at: int | None = None,
    downsampling: nn.Module | None = None,
    merging: TokenMerging | None = None,
) -> PlainViT:
    """Return the backbone of a model of timm; the arguments are those of `PlainViT`."""
    adapter = next(adapter for family, adapter in ADAPTERS.items() if isinstance(vit, family))
    return adapter(vit, taps=taps, shrink_at=shrink_at, downsampling=downsampling, merging=merging)


def check_name(name: str) -> None:
    """Refuse a name that timm does not know, and suggest plain ViTs.

    Raises:
        UserError: as above.
    """
    if timm.is_model(name.split(".")[0].removeprefix("hf_hub:timm/")):
        return
    raise UserError(
        f"unknown backbone {name!r}{did_you_mean(likely(name))}: timm has no such model. `segvit backbones` lists "
        "those that segvit takes; in Python, timm.list_models('vit_*')"
    )


def check_plain(vit: Any, name: str) -> None:
    """Refuse a model that is no plain ViT of a family with an adapter.

    Raises:
        UserError: as above.
    """
    embed = type(getattr(vit, "patch_embed", None))
    if not isinstance(vit, tuple(ADAPTERS)):
        wrong = f"is not a plain ViT ({type(vit).__name__}): the head needs tokens on one grid at every block"
    elif embed is not PatchEmbed:
        wrong = f"is a hybrid: its patch embedding ({embed.__name__}) is a network, where one convolution is needed"
    else:
        return
    raise UserError(
        f"backbone {name!r} {wrong}; take one such as vit_base_patch16_384, deit3_base_patch16_384, "
        "vit_base_patch14_dinov2, beitv2_base_patch16_224, eva02_base_patch14_224 or vit_base_patch16_dinov3"
    )


def drop_mlp_only(vit: Any, name: str) -> None:
    """Let the drop path of every block drop its MLP alone.

    Raises:
        UserError: attention and MLP of a block share one drop path.
    """
    for block in vit.blocks:
        if not (hasattr(block, "drop_path1") and hasattr(block, "drop_path2")):
            raise UserError(
                f"model.drop_path_branches mlp: the blocks of {name!r} ({type(block).__name__}) have no drop path of "
                "the MLP alone; set model.drop_path_branches to both, or model.drop_path to 0"
            )
        block.drop_path1 = nn.Identity()

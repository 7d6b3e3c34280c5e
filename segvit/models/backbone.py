"""A plain ViT of timm as a pyramid-free feature extractor: images in, raw block outputs as maps out.

timm defines the parts and their names; this module runs them at any image size and taps the blocks that the head reads.
One small adapter per family tells how tokens get their positions: absolute (VisionTransformer), rotary (Eva),
relative bias (Beit).

Letters: B batch, D width, H W image, p patch, h w token grid, N = h * w, P prefix tokens (class, registers).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import timm
import torch
from timm.layers import PatchEmbed
from timm.models.beit import Beit
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from segvit.config import Downsampling, ModelConfig
from segvit.errors import UserError
from segvit.models.downsampling import STRIDE, QueryDownsampling, keep, shrunk_grid
from segvit.models.positions import relative_bias, rotary_angles, take_relative_bias
from segvit.models.structure import resolve_blocks
from segvit.models.tokens import resize_tokens
from segvit.utils.text import suggest
from segvit.weights.timm_weights import fit_positions, fit_relative_bias, pretrained_vit, reason

PREFIX_TOKENS = ("cls_token", "dist_token", "reg_token")
"""Names of timm's prefix tokens, in the order in which they precede the patches."""

TIMM_INIT_STD = 0.02
"""Deviation of timm's initial weights of Linear layers."""


class Backbone(nn.Module):
    """The blocks of a plain ViT up to the last tap, without final norm and classifier (docs/method.md section 1).

    Args:
        vit: a VisionTransformer, Eva or Beit of timm; its parts are taken over, with their names.
        taps: blocks (from 0) whose outputs are returned, ascending.
        shrink_at: block (from 0) that keeps every second row and column of the tokens; None: no block does.
        downsampling: how that block does it; see `ModelConfig.downsampling`.

    Attributes:
        grad_checkpointing: keep of each block its input alone, and run it again in the backward pass.
    """

    pos_embed: Tensor | None

    def __init__(
        self,
        vit: Any,
        *,
        taps: Sequence[int],
        shrink_at: int | None = None,
        downsampling: Downsampling = "nearest_q",
    ) -> None:
        super().__init__()
        self.taps = tuple(taps)
        self.shrink_at = shrink_at
        self.embed_dim: int = vit.embed_dim
        self.patch_size: int = vit.patch_embed.patch_size[0]
        self.native_grid: tuple[int, int] = vit.patch_embed.grid_size
        self.num_prefix_tokens: int = vit.num_prefix_tokens
        self.no_embed_class: bool = getattr(vit, "no_embed_class", False)
        self.patch_embed = vit.patch_embed
        for name in PREFIX_TOKENS:
            self.register_parameter(name, getattr(vit, name, None))
        self.register_parameter("pos_embed", vit.pos_embed)
        self.pos_drop = vit.pos_drop
        self.norm_pre = getattr(vit, "norm_pre", nn.Identity())
        self.blocks = nn.ModuleList(vit.blocks[: self.taps[-1] + 1])
        self.rope = getattr(vit, "rope", None)
        self.rope_mixed: bool = getattr(vit, "rope_mixed", False)
        self.relative_bias_tables = take_relative_bias(vit, self.blocks) if isinstance(vit, Beit) else None
        self.grad_checkpointing = False
        self.downsampling = None
        if shrink_at is not None:
            self.downsampling = QueryDownsampling(
                dim=self.embed_dim, num_prefix_tokens=self.num_prefix_tokens, method=downsampling
            )

    def forward(self, images: Tensor) -> list[Tensor]:
        """Feature maps of the tapped blocks.

        Args:
            images: (B, 3, H, W), normalised; H and W whole multiples of the patch.

        Returns:
            One (B, D, h, w) per tap, shallow first: raw block outputs, no norm. Behind `shrink_at` the grid is halved.

        Raises:
            UserError: fewer than 2 x 2 patches where a block shrinks.
        """
        tokens, grid = self.embed(images)
        if self.downsampling is not None and min(grid) < STRIDE:
            side = STRIDE * self.patch_size
            raise UserError(
                f"an image of {grid[0]} x {grid[1]} patches of {self.patch_size} px cannot be shrunk: give at least "
                f"{STRIDE} x {STRIDE} patches ({side} x {side} px), by resizing it, or take a plain model"
            )
        features, full, shared = [], grid, self.shared_inputs(grid)
        for index in range(len(self.blocks)):
            if self.grad_checkpointing and torch.is_grad_enabled():
                tokens = checkpoint(self.run_block, index, tokens, full, shared, use_reentrant=False)
            else:
                tokens = self.run_block(index, tokens, full, shared)
            if index == self.shrink_at:
                grid = shrunk_grid(full)
            if index in self.taps:
                patches = tokens[:, self.num_prefix_tokens :]
                features.append(patches.transpose(1, 2).unflatten(2, grid))
        return features

    def embed(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Tokens (B, P + N, D) with absolute positions added, and their grid (h, w)."""
        maps = self.patch_embed.proj(images)  # (B, D, h, w)
        grid = (maps.shape[2], maps.shape[3])
        patches = maps.flatten(2).transpose(1, 2).contiguous()  # (B, N, D); else every block would copy it twice
        patches = self.patch_embed.norm(patches)
        prefixes = [getattr(self, name) for name in PREFIX_TOKENS if getattr(self, name) is not None]
        prefix = torch.cat(prefixes, dim=1) if prefixes else None  # (1, P, D)
        if self.pos_embed is not None:
            num_embedded = 0 if self.no_embed_class else self.num_prefix_tokens
            patches = patches + resize_tokens(self.pos_embed[:, num_embedded:], self.native_grid, grid)
            if prefix is not None and num_embedded:
                prefix = prefix + self.pos_embed[:, :num_embedded]
        if prefix is not None:
            patches = torch.cat([prefix.expand(patches.shape[0], -1, -1), patches], dim=1)
        return self.norm_pre(self.pos_drop(patches)), grid

    def run_block(self, index: int, tokens: Tensor, grid: tuple[int, int], shared: Mapping[int, Tensor]) -> Tensor:
        """Tokens (B, P + N, D) through a block: (B, P + N, D), or (B, n, D) where it shrinks.

        Args:
            index: of the block, from 0.
            tokens: behind the block before it.
            grid: of the patches as they are embedded, (h, w).
            shared: of that grid.
        """
        inputs = self.block_inputs(index, grid, shared)
        if self.downsampling is not None and index == self.shrink_at:
            shrunk: Tensor = self.downsampling(self.blocks[index], tokens, grid, inputs)
            return shrunk
        out: Tensor = self.blocks[index](tokens, **inputs)
        return out

    def shared_inputs(self, grid: tuple[int, int]) -> dict[int, Tensor]:
        """What blocks share of their inputs at this grid, by the stride of the tokens that they take.

        Rotary angles ((N, .), or (depth, heads, N, .) where each block has its own), or the relative bias of a table
        that all blocks share; nothing elsewhere.
        """
        strides = {self._stride(index) for index in range(len(self.blocks))}
        if self.rope is not None:
            angles = rotary_angles(self.rope, grid)
            return {stride: angles if stride == 1 else keep(angles, grid, 0) for stride in strides}
        tables = self.relative_bias_tables
        if tables is None or len(tables) > 1:
            return {}
        return {stride: relative_bias(tables[0], self.native_grid, grid, stride) for stride in strides}

    def block_inputs(self, index: int, grid: tuple[int, int], shared: Mapping[int, Tensor]) -> dict[str, Tensor]:
        """What a block takes besides its tokens at this grid: nothing, rotary angles, or a relative bias.

        Blocks behind `shrink_at` take those of every second row and column.
        """
        stride = self._stride(index)
        if self.rope is not None:
            return {"rope": shared[stride][index] if self.rope_mixed else shared[stride]}
        if self.relative_bias_tables is None:
            return {}
        if stride in shared:
            return {"shared_rel_pos_bias": shared[stride]}
        # One at a time, and inside what is run again in the backward pass: a bias has (1 + N)^2 values per head.
        table = self.relative_bias_tables[index]
        return {"shared_rel_pos_bias": relative_bias(table, self.native_grid, grid, stride)}

    def _stride(self, index: int) -> int:
        """The stride at which a block sees the tokens of the grid: its keys are all of them, or the kept ones."""
        return STRIDE if self._takes_shrunk(index) else 1

    def _takes_shrunk(self, index: int) -> bool:
        """Whether the keys of a block are the kept tokens alone."""
        if self.downsampling is None or self.shrink_at is None:
            return False
        return index > self.shrink_at or (index == self.shrink_at and self.downsampling.method == "nearest_qkv")


def create_backbone(config: ModelConfig) -> tuple[Backbone, dict[str, Any]]:
    """The backbone of a config, and timm's `pretrained_cfg` of it (mean, std, licence of the weights).

    Raises:
        UserError: an unknown or hierarchical backbone, an override that it does not take, taps outside its blocks, or
            a crop that is too small to shrink.
    """
    vit = _create_vit(config)
    depth = len(vit.blocks)
    shrink_at, taps = resolve_blocks(config, depth)
    backbone = Backbone(vit, taps=taps, shrink_at=shrink_at, downsampling=config.downsampling)
    if shrink_at is not None and min(backbone.native_grid) < STRIDE:
        raise UserError(
            f"model.image_size {config.image_size} with model.structure {config.structure}: a crop must hold "
            f"{STRIDE} x {STRIDE} patches; give {STRIDE * backbone.patch_size} or more, or take the structure plain"
        )
    conv = backbone.downsampling.conv if backbone.downsampling is not None else None
    if conv is not None and conv.bias is not None:
        nn.init.trunc_normal_(conv.weight, std=config.init_std)
        nn.init.zeros_(conv.bias)
    if config.starts_pretrained:
        _load_pretrained(backbone, config)
    else:
        _scale_init(backbone, config.init_std / TIMM_INIT_STD)
    return backbone, dict(vit.pretrained_cfg)


def _scale_init(backbone: Backbone, factor: float) -> None:
    """Scale the initial weights of the blocks' Linear layers, whatever correction by depth timm put on them."""
    if factor == 1:
        return
    for module in backbone.blocks.modules():
        if isinstance(module, nn.Linear):
            with torch.no_grad():
                module.weight.mul_(factor)


def _create_vit(config: ModelConfig) -> Any:
    """timm's model of that name with the config's overrides, random weights, at the config's image size."""
    _check_name(config.backbone)
    if config.image_size < 1:
        raise UserError(f"model.image_size is {config.image_size}: give the side of the training crop, 1 pixel or more")
    overrides: dict[str, Any] = {
        "patch_size": config.patch_size,
        "embed_dim": config.embed_dim,
        "depth": config.depth,
        "num_heads": config.num_heads or (config.embed_dim and max(config.embed_dim // 64, 1)),
    }
    overrides = {key: value for key, value in overrides.items() if value is not None}
    if config.class_token is not None:
        overrides["class_token"] = config.class_token
        overrides["global_pool"] = "token" if config.class_token else "avg"
    if config.drop_path:
        overrides["drop_path_rate"] = config.drop_path
    own = _weightless(config.backbone)
    patch = config.patch_size or int(own.patch_embed.patch_size[0])
    side = -(-config.image_size // patch) * patch
    any_grid: dict[str, Any] = {}
    if isinstance(own, Eva):  # else timm keeps rotary angles for one grid only
        any_grid["dynamic_img_size"] = True
    try:
        vit = timm.create_model(config.backbone, img_size=side, num_classes=0, **any_grid, **overrides)
    except (TypeError, AssertionError, ValueError) as error:
        raise UserError(
            f"backbone {config.backbone!r} does not take {overrides}: {reason(error)}; its own are "
            f"embed_dim {own.embed_dim}, depth {len(own.blocks)}, num_heads {own.blocks[0].attn.num_heads}"
        ) from error
    _check_plain(vit, config.backbone)
    return vit


def _check_name(name: str) -> None:
    """Refuse a name that timm does not know, and say the nearest ones."""
    if timm.is_model(name.split(".")[0].removeprefix("hf_hub:timm/")):
        return
    hint = suggest(name, timm.list_models("*vit*") + timm.list_models("*beit*"), most=3)
    raise UserError(f"unknown backbone {name!r}{hint}: timm has no such model; timm.list_models('vit_*') lists them")


def _check_plain(vit: Any, name: str) -> None:
    """Refuse what is not a plain ViT of a family that the adapters above know."""
    families = (VisionTransformer, Eva, Beit)
    if isinstance(vit, families) and type(vit.patch_embed) is PatchEmbed:
        return
    raise UserError(
        f"backbone {name!r} is not a plain ViT ({type(vit).__name__}): the head needs tokens on one grid at every "
        "block; take one such as vit_base_patch16_384, deit3_base_patch16_384, vit_base_patch14_dinov2, "
        "beitv2_base_patch16_224, eva02_base_patch14_224 or vit_base_patch16_dinov3"
    )


def _weightless(name: str) -> Any:
    """The backbone as timm has it, without memory: to read its family and patch size from."""
    try:
        with torch.device("meta"):
            vit: Any = timm.create_model(name, num_classes=0)
    except RuntimeError as error:
        tags = ", ".join(timm.list_pretrained(f"{name.split('.')[0]}.*")) or "none"
        raise UserError(f"backbone {name!r}: {error}; its pretrained tags: {tags}") from error
    _check_plain(vit, name)
    return vit


def _load_pretrained(backbone: Backbone, config: ModelConfig) -> None:
    """Copy timm's weights into `backbone`: tokens that it lacks are dropped, positions resized to its grid.

    Raises:
        UserError: the weights cannot be had or do not fit.
    """
    vit = pretrained_vit(config)
    donor = Backbone(vit, taps=backbone.taps)
    state = donor.state_dict()
    state |= {name: value for name, value in backbone.state_dict().items() if name.startswith("downsampling.")}
    for name in PREFIX_TOKENS:
        if getattr(backbone, name) is None:
            state.pop(name, None)
    if backbone.pos_embed is not None and donor.pos_embed is not None:
        state["pos_embed"] = fit_positions(donor, backbone)
    state |= fit_relative_bias(donor, backbone)
    try:
        backbone.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"weights of {config.backbone!r} do not fit the model.* overrides: {error}") from error

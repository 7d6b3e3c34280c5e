"""From settings to a model: the only reader of `ModelConfig`, which turns it into the parts that a SegViT takes.

    model = segvit.create_model("vit_base_patch16_384", num_classes=150, structure="shrunk")
    model = segvit.create_model(config=config, num_classes=150, spec=spec)

Letters: K classes, h w token grid.
"""

from dataclasses import replace
from functools import cache
from typing import Any

import timm
import torch
from timm.models.eva import Eva
from torch import nn

from segvit.config import EvalConfig, ModelConfig, Structure
from segvit.data.spec import DatasetSpec
from segvit.errors import UserError
from segvit.models.backbone import PREFIX_TOKENS, PlainViT
from segvit.models.bands import per_band, resolve_bands
from segvit.models.create_decoder import (
    create_head,
    create_upsampling,
    create_upscaler,
    crop_grid,
    group_settings,
)
from segvit.models.detail.edges import EdgeDownsampling
from segvit.models.downsampling import STRIDE, QueryDownsampling
from segvit.models.families import adapt, check_name, check_plain, drop_mlp_only
from segvit.models.merging.settings import resolve_merging
from segvit.models.segvit import SegViT, check_classes
from segvit.models.structure import check_edge_share, check_upsampling, resolve_blocks
from segvit.utils.keywords import refuse_others
from segvit.weights.timm_weights import origin_of, pretrained_vit, reason

TIMM_INIT_STD = 0.02
"""Deviation of timm's initial weights of Linear layers."""
POSITIONS_AT_CROP = ("flexivit", "radio")
"""Parts of the names of backbones whose positions timm does not resize bicubically."""


def create_model(
    backbone: str | None = None,
    *,
    num_classes: int | None = None,
    structure: Structure | None = None,
    image_size: int | None = None,
    pretrained: bool | None = None,
    config: ModelConfig | None = None,
    spec: DatasetSpec | None = None,
    protocol: EvalConfig | None = None,
    **others: Any,
) -> SegViT:
    """Create a SegViT on a plain ViT of timm.

    Examples:
        >>> import segvit
        >>> segvit.create_model("vit_tiny_patch16_224", num_classes=3, image_size=64).config.structure
        'plain'

    Args:
        backbone: timm's name, such as `vit_base_patch16_384`.
        num_classes: K. Default: the number of the spec's classes.
        structure: see `ModelConfig`.
        image_size: side of the training crop in pixels.
        pretrained: start the backbone from timm's weights.
        config: further settings; of the arguments before it, those that are given override it.
        spec: names and colours of the classes.
        protocol: how images are cut in evaluation and prediction.
        others: refused, with what to write.

    Raises:
        UserError: the backbone is unknown or no plain ViT, settings do not fit together, or an argument does not exist.
    """
    refuse_others("segvit.create_model", create_model, others)
    given = {"backbone": backbone, "structure": structure, "image_size": image_size, "pretrained": pretrained}
    changes: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    config = replace(config or ModelConfig(), **changes)
    if num_classes is None:
        if spec is None:
            raise UserError("segvit.create_model needs the number of classes: write num_classes=3, or spec=...")
        num_classes = spec.num_classes
    check_classes(num_classes, spec)
    config = replace(config, bands=resolve_bands(config.bands, spec))
    for name in ("head_num_layers", "upsampling_num_layers"):
        if getattr(config, name) < 1:
            raise UserError(f"model.{name} {getattr(config, name)}: give 1 or more")
    _check_groups(config, num_classes)
    check_upsampling(config.structure, config.upsampling, config.upsampling_num_layers)
    check_edge_share(config.downsampling, config.edge_share)
    vit, weights = create_backbone(config)
    upsampling = create_upsampling(config, vit) if config.structure == "shrunk" else None
    own_classes = num_classes - sum(config.added_classes)
    model = SegViT(
        vit,
        create_head(config, vit, num_classes=own_classes),
        upsampling,
        upscaler=create_upscaler(config, vit, num_classes=own_classes),
        added=[create_head(group_settings(config), vit, num_classes=count) for count in config.added_classes],
        mean=per_band("mean", config, weights),
        std=per_band("std", config, weights),
        num_classes=num_classes,
        image_size=config.image_size,
        spec=spec,
        protocol=protocol,
        config=config,
    )
    if config.starts_pretrained:
        model.extra |= origin_of(weights, file=config.pretrained_file)
    return model


def _check_groups(config: ModelConfig, num_classes: int) -> None:
    """Refuse groups of added classes that are empty, or leave none for the head.

    Raises:
        UserError: as above.
    """
    added = config.added_classes
    if min(added, default=1) < 1 or sum(added) >= num_classes:
        raise UserError(
            f"model.added_classes {added} with {num_classes} classes in all: give groups of 1 or more, which leave a "
            "class to the head"
        )


def create_backbone(config: ModelConfig) -> tuple[PlainViT, dict[str, Any]]:
    """Create the backbone of a config. Return it and timm's `pretrained_cfg` of it (mean, std, licence of the weights).

    Raises:
        UserError: the backbone is unknown or no plain ViT, does not take an override, lacks a tapped block, or the crop
            is too small to shrink.
    """
    vit = create_vit(config)
    shrink_at, taps = resolve_blocks(
        config.structure,
        len(vit.blocks),
        taps=config.taps,
        shrink_at=config.shrink_at,
        downsampling=config.downsampling,
        upsampling=config.upsampling,
    )
    downsampling = None if shrink_at is None else create_downsampling(config, vit.embed_dim)
    merge: dict[str, Any] = {name: getattr(config, f"merge_{name}") for name in ("threshold", "shares", "at")}
    merging = resolve_merging(config.structure, taps, len(vit.blocks), **merge)
    backbone = adapt(vit, taps=taps, shrink_at=shrink_at, downsampling=downsampling, merging=merging)
    if shrink_at is not None and min(crop_grid(config.image_size, backbone.patch_size)) < STRIDE:
        raise UserError(
            f"model.image_size {config.image_size} with model.structure {config.structure}: a crop must hold "
            f"{STRIDE} x {STRIDE} patches; give {STRIDE * backbone.patch_size} or more, or take the structure plain"
        )
    if config.starts_pretrained:
        _load_pretrained(backbone, config)
    else:
        _scale_init(backbone, config.init_std / TIMM_INIT_STD)
    return backbone, dict(vit.pretrained_cfg)


def create_downsampling(config: ModelConfig, dim: int) -> QueryDownsampling | EdgeDownsampling:
    """Create the down-sampling of tokens of width `dim`.

    Raises:
        UserError: the share of edge tokens is out of range.
    """
    if config.downsampling == "edge":
        return EdgeDownsampling(dim=dim, share=config.edge_share, init_std=config.init_std)
    downsampling = QueryDownsampling(dim=dim, method=config.downsampling)
    if (conv := downsampling.conv) is not None and conv.bias is not None:
        nn.init.trunc_normal_(conv.weight, std=config.init_std)
        nn.init.zeros_(conv.bias)
    return downsampling


def _scale_init(backbone: PlainViT, factor: float) -> None:
    """Scale the initial weights of the blocks' Linear layers, whatever correction by depth timm applied to them."""
    for module in backbone.blocks.modules():
        if isinstance(module, nn.Linear):
            with torch.no_grad():
                module.weight.mul_(factor)


def _load_pretrained(backbone: PlainViT, config: ModelConfig) -> None:
    """Copy timm's weights into `backbone`. timm resizes them to its grid and patch; tokens that it lacks are dropped.

    Raises:
        UserError: the weights cannot be had or do not fit.
    """
    height, width = (side * backbone.patch_size for side in backbone.native_grid)
    shape: dict[str, Any] = {"image_size": (height, width), "patch_size": config.patch_size, "bands": config.bands}
    vit = pretrained_vit(config.backbone, file=config.pretrained_file, **shape)
    donor = adapt(vit, taps=backbone.taps)
    state = backbone.fitted(donor)
    state |= {name: value for name, value in backbone.state_dict().items() if name.startswith("downsampling.")}
    for name in PREFIX_TOKENS:
        if getattr(backbone, name) is None:
            state.pop(name, None)
    try:
        backbone.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"weights of {config.backbone!r} do not fit the model.* overrides: {error}") from error


def create_vit(config: ModelConfig) -> Any:
    """Create timm's model of the config's backbone with its overrides, random weights, at the grid of its positions.

    Raises:
        UserError: the backbone is unknown or no plain ViT, or does not take an override.
    """
    if config.image_size < 1:
        raise UserError(f"model.image_size is {config.image_size}: give the side of the training crop, 1 pixel or more")
    overrides: dict[str, Any] = {
        "in_chans": config.bands,
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
    own = weightless(config.backbone)
    patch = config.patch_size or int(own.patch_embed.patch_size[0])
    height, width = _position_grid(config, own, patch)
    any_grid: dict[str, Any] = {}
    if isinstance(own, Eva):  # else timm keeps rotary angles for one grid only
        any_grid["dynamic_img_size"] = True
    try:
        vit = timm.create_model(
            config.backbone, img_size=(height * patch, width * patch), num_classes=0, **any_grid, **overrides
        )
    except (TypeError, AssertionError, ValueError) as error:
        raise UserError(
            f"backbone {config.backbone!r} does not take {overrides}: {reason(error)}; its own are "
            f"embed_dim {own.embed_dim}, depth {len(own.blocks)}, num_heads {own.blocks[0].attn.num_heads}"
        ) from error
    check_plain(vit, config.backbone)
    if config.drop_path and config.drop_path_branches == "mlp":
        drop_mlp_only(vit, config.backbone)
    return vit


def _position_grid(config: ModelConfig, own: Any, patch_size: int) -> tuple[int, int]:
    """Return the grid (h, w) on which positions are learned, for timm's model `own` of the backbone's name.

    Raises:
        UserError: `position_grid` asks for the grid of the weights, and the backbone cannot keep it.
    """
    at_crop = ""
    if own.pos_embed is None:
        at_crop = "it has no absolute positions"
    elif any(part in config.backbone for part in POSITIONS_AT_CROP):
        at_crop = "timm resizes its positions in another way than the model would for each image"
    if at_crop and config.starts_pretrained and config.position_grid == "pretrained":
        raise UserError(
            f"model.position_grid pretrained with the backbone {config.backbone!r}: {at_crop}; leave "
            "model.position_grid out, or set it to crop"
        )
    if config.learned_grid == "pretrained" and not at_crop:
        height, width = own.patch_embed.grid_size
        return height, width
    return crop_grid(config.image_size, patch_size)


@cache
def weightless(name: str) -> Any:
    """Create timm's own model of a name without memory, to read its family and patch size from. Do not change it.

    Raises:
        UserError: timm has no such model, it is no plain ViT, or has no such tag.
    """
    check_name(name)
    try:
        with torch.device("meta"):
            vit: Any = timm.create_model(name, num_classes=0)
    except RuntimeError as error:
        tags = ", ".join(timm.list_pretrained(f"{name.split('.')[0]}.*")) or "none"
        raise UserError(f"backbone {name!r}: {error}; its pretrained tags: {tags}") from error
    check_plain(vit, name)
    return vit

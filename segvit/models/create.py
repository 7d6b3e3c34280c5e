"""From settings to a model: the only reader of `ModelConfig`, which turns it into the parts that a SegViT takes.

    model = segvit.create_model("vit_base_patch16_384", num_classes=150, structure="shrunk")
    model = segvit.create_model(config=config, num_classes=150, spec=spec)

Letters: K classes, h w token grid.
"""

from dataclasses import replace
from functools import cache
from typing import Any, get_args

import timm
import torch
from timm.models.eva import Eva
from torch import nn

from segvit.config import EvalConfig, Head, HeadClasses, ModelConfig, Structure
from segvit.data.spec import DatasetSpec
from segvit.errors import UserError
from segvit.models.atm import ATMHead
from segvit.models.backbone import PREFIX_TOKENS, PlainViT
from segvit.models.bands import per_band, resolve_bands
from segvit.models.downsampling import STRIDE, QueryDownsampling
from segvit.models.families import adapt, check_name, check_plain, drop_mlp_only
from segvit.models.linear_head import LinearHead
from segvit.models.segvit import SegViT, check_classes
from segvit.models.structure import check_upsampling, resolve_blocks
from segvit.models.upsampling import QueryUpsampling, TapUpsampling
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
    check_upsampling(config.structure, config.upsampling, config.upsampling_num_layers)
    vit, weights = create_backbone(config)
    upsampling = create_upsampling(config, vit) if config.structure == "shrunk" else None
    model = SegViT(
        vit,
        create_head(config, vit, num_classes=num_classes),
        upsampling,
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


def create_head(config: ModelConfig, backbone: PlainViT, *, num_classes: int) -> ATMHead | LinearHead:
    """Create the ATM head for the maps of a backbone, or, in the structure "shrunk", for the up-sampled maps.

    Raises:
        UserError: the head is unknown, a setting has no effect on it, or its width does not divide into its heads.
    """
    queried = config.structure == "shrunk" and config.upsampling == "paper"
    width = None if config.structure == "shrunk" else backbone.embed_dim
    num_stages = 1 if queried else len(backbone.taps)
    if config.head not in get_args(Head):
        raise UserError(f"model.head {config.head!r}: give atm or linear")
    if config.head_classes not in get_args(HeadClasses):
        raise UserError(f"model.head_classes {config.head_classes!r}: give softmax or presence")
    if config.head == "linear":
        _check_linear(config, has_width=width is None, has_heads=queried)
        return LinearHead(
            in_dim=width or _head_dim(config, backbone),
            num_maps=num_stages,
            num_classes=num_classes,
            dropout=config.head_dropout,
            init_std=config.init_std,
        )
    return ATMHead(
        in_dim=width,
        num_stages=num_stages,
        num_classes=num_classes,
        num_layers=config.head_num_layers,
        every_layer=queried,
        presence=config.head_classes == "presence",
        **_decoder_settings(config, backbone),
    )


def _check_linear(config: ModelConfig, *, has_width: bool, has_heads: bool) -> None:
    """Refuse settings that have no effect on a linear head and on the up-sampling before it.

    Args:
        config: with the head linear.
        has_width: `head_dim` is the width of the up-sampling.
        has_heads: the up-sampling has attention heads.

    Raises:
        UserError: as above.
    """
    without_effect = {
        "head_classes": config.head_classes != ModelConfig.head_classes,
        "head_num_layers": config.head_num_layers != ModelConfig.head_num_layers,
        "head_dim": config.head_dim is not None and not has_width,
        "head_num_heads": config.head_num_heads is not None and not has_heads,
    }
    if names := [name for name, given in without_effect.items() if given]:
        given = ", ".join(f"model.{name} {getattr(config, name)}" for name in names)
        raise UserError(
            f"{given} with model.head linear, which is one layer without attention: leave "
            f"{' and '.join(names)} out, or set model.head to atm"
        )


def create_upsampling(config: ModelConfig, backbone: PlainViT) -> TapUpsampling | QueryUpsampling:
    """Create the up-sampling of the maps of a backbone.

    Raises:
        UserError: the width of the head does not divide into its heads.
    """
    in_dim, num_stages = backbone.embed_dim, len(backbone.taps)
    if config.upsampling == "tap":
        dim, centred = _head_dim(config, backbone), config.downsampling == "mean_q"
        return TapUpsampling(in_dim=in_dim, num_stages=num_stages, dim=dim, init_std=config.init_std, centred=centred)
    return QueryUpsampling(
        in_dim=in_dim,
        num_stages=num_stages,
        native_grid=crop_grid(config.image_size, backbone.patch_size),
        num_layers=config.upsampling_num_layers,
        **_decoder_settings(config, backbone),
    )


def _head_dim(config: ModelConfig, backbone: PlainViT) -> int:
    """Return the width d of the ATM head and of the up-sampling."""
    return config.head_dim or backbone.embed_dim // 2


def _decoder_settings(config: ModelConfig, backbone: PlainViT) -> dict[str, Any]:
    """Return the settings that the ATM head and the paper's up-sampling share.

    Raises:
        UserError: the width does not divide into the heads.
    """
    dim = _head_dim(config, backbone)
    num_heads = config.head_num_heads or max(dim // 32, 1)
    if dim % num_heads:
        raise UserError(
            f"head width {dim} does not divide into {num_heads} heads: set model.head_num_heads to a divisor"
        )
    return {"dim": dim, "num_heads": num_heads, "dropout": config.head_dropout, "init_std": config.init_std}


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
    downsampling = None if shrink_at is None else QueryDownsampling(dim=vit.embed_dim, method=config.downsampling)
    backbone = adapt(vit, taps=taps, shrink_at=shrink_at, downsampling=downsampling)
    if shrink_at is not None and min(crop_grid(config.image_size, backbone.patch_size)) < STRIDE:
        raise UserError(
            f"model.image_size {config.image_size} with model.structure {config.structure}: a crop must hold "
            f"{STRIDE} x {STRIDE} patches; give {STRIDE * backbone.patch_size} or more, or take the structure plain"
        )
    conv = None if downsampling is None else downsampling.conv
    if conv is not None and conv.bias is not None:
        nn.init.trunc_normal_(conv.weight, std=config.init_std)
        nn.init.zeros_(conv.bias)
    if config.starts_pretrained:
        _load_pretrained(backbone, config)
    else:
        _scale_init(backbone, config.init_std / TIMM_INIT_STD)
    return backbone, dict(vit.pretrained_cfg)


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


def crop_grid(image_size: int, patch_size: int) -> tuple[int, int]:
    """Return the patches (h, w) of a training crop of that side in pixels, padded to whole patches."""
    side = -(-image_size // patch_size)
    return side, side


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

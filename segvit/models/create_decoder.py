"""From settings to the parts behind the backbone: the up-sampling, the head and the upscaler, all for create.py.

Letters: h w token grid.
"""

from dataclasses import replace
from typing import Any, get_args

from segvit.config import Head, HeadClasses, ModelConfig
from segvit.errors import UserError
from segvit.models.atm import ATMHead
from segvit.models.backbone import PlainViT
from segvit.models.detail.upscaler import MaskUpscaler
from segvit.models.linear_head import LinearHead
from segvit.models.structure import check_linear, check_upscaler
from segvit.models.upsampling import QueryUpsampling, TapUpsampling


def create_head(config: ModelConfig, backbone: PlainViT, *, num_classes: int) -> ATMHead | LinearHead:
    """Create the head for the maps of a backbone, or, in the structure "shrunk", for the up-sampled maps.

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
        check_linear(config, has_width=width is None, has_heads=queried)
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


def group_settings(config: ModelConfig) -> ModelConfig:
    """Return the settings of a model of added classes alone, on the maps of a model of `config`."""
    return replace(config, head="atm", head_classes="presence", added_classes=())


def create_upscaler(config: ModelConfig, backbone: PlainViT, *, num_classes: int) -> MaskUpscaler | None:
    """Create the upscaler of the masks, if there is one, for the classes of the head and of the added groups.

    Raises:
        UserError: it is unknown, or the masks are not at the grid of the patches.
    """
    check_upscaler(config)
    if config.upscaler == "none":
        return None
    dim = _head_dim(config, backbone) if config.structure == "shrunk" else backbone.embed_dim
    return MaskUpscaler(
        num_classes=num_classes,
        bands=backbone.bands,
        patch_size=backbone.patch_size,
        in_dim=dim,
        added_classes=config.added_classes,
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


def crop_grid(image_size: int, patch_size: int) -> tuple[int, int]:
    """Return the patches (h, w) of a training crop of that side in pixels, padded to whole patches."""
    side = -(-image_size // patch_size)
    return side, side

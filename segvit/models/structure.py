"""Blocks of a ViT that the head reads, and the block that shrinks the tokens (docs/method.md sections 1 and 3)."""

from typing import get_args

from segvit.config import Downsampling, ModelConfig, Structure, Upsampling, Upscaler
from segvit.errors import UserError


def default_taps(depth: int) -> tuple[int, ...]:
    """Return the taps of the plain structure: the paper's for 12 and 24 blocks, thirds of other depths."""
    if depth == 12:
        return (5, 7, 11)
    return tuple(sorted({-(-depth * stage // 3) - 1 for stage in (1, 2, 3)}))


def restores_by_tap(structure: Structure, upsampling: Upsampling) -> bool:
    """Return True if the structure shrinks the tokens and the up-sampling tap restores the grid."""
    return structure == "shrunk" and upsampling == "tap"


def default_shrink_at(depth: int, *, tap: bool = False, edge: bool = False) -> int:
    """Return the block that shrinks: the paper's for 12 and for 24 blocks, and a third of other depths.

    Args:
        depth: number of blocks.
        tap: the up-sampling is tap: one block later, since the map before it shows the small objects.
        edge: the down-sampling is edge, which keeps small objects: a fifth of the depth, rounded up.
    """
    if edge:
        return min(-(-depth // 5), depth - 2)
    paper = 6 if depth == 12 else depth // 3
    return min(paper + 1, depth - 2) if tap else paper


def resolve_blocks(
    structure: Structure,
    depth: int,
    *,
    taps: tuple[int, ...] | None = None,
    shrink_at: int | None = None,
    downsampling: Downsampling = "nearest_q",
    upsampling: Upsampling = "tap",
) -> tuple[int | None, tuple[int, ...]]:
    """Return the block that shrinks (None: no block does) and the taps, of a backbone with `depth` blocks.

    Args:
        structure, taps, shrink_at, downsampling, upsampling: see `ModelConfig`.
        depth: number of blocks.

    Raises:
        UserError: the backbone lacks a block, blocks do not go together, or the structure is unknown.
    """
    _check_choice("structure", structure, get_args(Structure))
    _check_choice("downsampling", downsampling, get_args(Downsampling))
    if structure == "plain":
        if shrink_at is not None:
            raise UserError(
                f"model.shrink_at {shrink_at} with model.structure plain: set model.structure to shrunk or "
                "naive_shrunk, or leave shrink_at out"
            )
        if downsampling != "nearest_q":
            raise UserError(
                f"model.downsampling {downsampling} with model.structure plain: set model.structure to shrunk "
                "or naive_shrunk, or leave downsampling out"
            )
        return None, _check_taps(default_taps(depth) if taps is None else taps, depth)
    tap = restores_by_tap(structure, upsampling)
    default_block = default_shrink_at(depth, tap=tap, edge=downsampling == "edge")
    shrink_at = default_block if shrink_at is None else shrink_at
    first = 1 if structure == "shrunk" else 0
    if not first <= shrink_at <= depth - 2:
        if depth < first + 2:
            raise UserError(
                f"model.structure {structure} needs a backbone of {first + 2} blocks or more; it has {depth}"
            )
        raise UserError(
            f"model.shrink_at {shrink_at}: a backbone of {depth} blocks can shrink at blocks {first} to {depth - 2} "
            f"(counted from 0); the default is {default_block}"
        )
    default: tuple[int, ...] = (shrink_at - 1, depth - 1) if structure == "shrunk" else (depth - 1,)
    if tap:
        halfway = max((shrink_at + depth) // 2 - 1, shrink_at + 1)
        default = tuple(sorted({shrink_at - 1, halfway, depth - 1}))
    taps = _check_taps(default if taps is None else taps, depth)
    if shrink_at in taps:
        raise UserError(
            f"model.shrink_at {shrink_at} is one of model.taps {taps}: a tap must come before or after the block that "
            f"shrinks; taps {default} would do"
        )
    if shrink_at > taps[-1]:
        raise UserError(
            f"model.shrink_at {shrink_at} is after the last of model.taps {taps}, where no block runs: "
            f"taps {default} would do"
        )
    if structure == "naive_shrunk" and taps[0] < shrink_at:
        raise UserError(
            f"model.taps {taps} of the naive_shrunk structure must all come after model.shrink_at {shrink_at}: "
            f"taps {default} would do"
        )
    return shrink_at, taps


def check_edge_share(downsampling: Downsampling, share: float) -> None:
    """Refuse a share of edge tokens without the down-sampling that keeps them.

    Args:
        downsampling: see `ModelConfig`.
        share: `ModelConfig.edge_share`.

    Raises:
        UserError: as above.
    """
    if downsampling != "edge" and share != ModelConfig.edge_share:
        raise UserError(
            f"model.edge_share {share} with model.downsampling {downsampling}, which keeps no tokens for their edges: "
            "set model.downsampling to edge, or leave edge_share out"
        )


def check_upsampling(structure: Structure, upsampling: Upsampling, num_layers: int) -> None:
    """Refuse an unknown up-sampling, or one that another setting contradicts.

    The structure naive_shrunk takes any, so that a recipe of shrunk runs as its ablation too.

    Args:
        structure, upsampling: see `ModelConfig`.
        num_layers: `ModelConfig.upsampling_num_layers`.

    Raises:
        UserError: as above.
    """
    _check_choice("upsampling", upsampling, get_args(Upsampling))
    if structure == "plain" and upsampling != ModelConfig.upsampling:
        raise UserError(
            f"model.upsampling {upsampling} with model.structure plain: set model.structure to shrunk, or leave "
            "upsampling out"
        )
    if restores_by_tap(structure, upsampling) and num_layers != ModelConfig.upsampling_num_layers:
        raise UserError(
            f"model.upsampling_num_layers {num_layers} with model.upsampling tap, which has no decoder layers: set "
            "model.upsampling to paper, or leave upsampling_num_layers out"
        )


def check_linear(config: ModelConfig, *, has_width: bool, has_heads: bool) -> None:
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


def check_upscaler(config: ModelConfig) -> None:
    """Refuse an unknown upscaler of the masks, or one behind masks that are not at the grid of the patches.

    Raises:
        UserError: as above.
    """
    _check_choice("upscaler", config.upscaler, get_args(Upscaler))
    if config.upscaler != "none" and config.structure == "naive_shrunk" and config.downsampling != "edge":
        raise UserError(
            f"model.upscaler {config.upscaler} with model.structure naive_shrunk, whose masks have half the resolution "
            "of the patches: set model.structure to plain or shrunk, or leave upscaler out"
        )


def _check_taps(taps: tuple[int, ...], depth: int) -> tuple[int, ...]:
    """Return `taps` if they are blocks in ascending order, at least one."""
    if not taps or list(taps) != sorted(set(taps)) or not all(0 <= tap < depth for tap in taps):
        raise UserError(f"model.taps {taps}: give ascending block numbers from 0 to {depth - 1}, shallow first")
    return taps


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse an unknown word, which a call from Python may give; flags and files are parsed before."""
    if value not in choices:
        raise UserError(f"model.{name} {value!r}: give {', '.join(choices[:-1])} or {choices[-1]}")

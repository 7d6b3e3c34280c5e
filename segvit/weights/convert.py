"""Convert a checkpoint of the paper's authors to a model file of segvit.

    model = segvit.convert_checkpoint("ade_54.6.pth", "model.safetensors")

Structure, sizes, grid and number of classes are read from the tensors (authors.py). Everything else has the paper's
default and an option. Nothing in the checkpoint is executed (safe_pickle.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segvit.config import EvalConfig, ModelConfig, Structure, TrainConfig
from segvit.data.spec import DatasetSpec, load_spec
from segvit.errors import UserError
from segvit.models.create import create_model
from segvit.models.segvit import SegViT
from segvit.models.structure import default_shrink_at, default_taps, resolve_blocks
from segvit.weights.authors import (
    LOSS_WEIGHT,
    POSITIONS,
    Shape,
    Sizes,
    expected_shapes,
    own_state,
    read_sizes,
)
from segvit.weights.model_file import load_strictly, save_model
from segvit.weights.names import LICENCE, RELEASED
from segvit.weights.torch_file import read_state_dict

BACKBONE_HEAD_DIM = 64
"""Width of one attention head of a backbone block in the paper."""
HEAD_HEAD_DIM = 32
"""Width of one attention head of a layer of the ATM head or the up-sampling in the paper."""
KNOWN_BACKBONES = {
    (768, 12): "vit_base_patch16_384.orig_in21k_ft_in1k",
    (1024, 24): "vit_large_patch16_384.augreg_in21k_ft_in1k",
}
"""The paper's backbones by width and number of blocks. Others are described by their sizes."""
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
NORMALISATION = {768: IMAGENET, 1024: ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))}
"""Mean and standard deviation of the pixels in the paper, by backbone width."""
RECIPES = {
    59: ("pascal_context_59/large",),
    60: ("pascal_context_60/large",),
    150: ("ade20k/large", "ade20k/base"),
    171: ("coco_stuff_10k/large",),
}
"""Shipped recipes by number of classes. They name the dataset and the test protocol."""
UNKNOWN_CROP = 512
"""Training crop assumed if the position embedding is missing, so that the other tensors can be compared."""


def convert_checkpoint(
    checkpoint: str | Path,
    output: str | Path,
    *,
    num_heads: int | None = None,
    head_num_heads: int | None = None,
    taps: Sequence[int] | None = None,
    shrink_at: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> SegViT:
    """Convert a checkpoint of the paper's authors to a model file of segvit, replacing an old file.

    Args:
        checkpoint: a .pth file. Only its weights are read.
        output: the .safetensors file to write.
        num_heads: attention heads of a backbone block. Default: D / 64.
        head_num_heads: attention heads of a head layer. Default: d / 32.
        taps: blocks (from 0) that the head reads, shallow first. Default: the paper's for the depth.
        shrink_at: block (from 0) that shrinks. Default: the paper's for the depth, if there is an up-sampling. If
            there is none, this makes the structure naive_shrunk, which has the tensors of a plain model.
        mean: of R, G, B on the 0..1 scale. Default: ImageNet's for width 768, 0.5 for 1024.
        std: standard deviation of R, G, B on the 0..1 scale. Default: as for `mean`.
        extra: plain values for the header of the file.

    Returns:
        The model, in evaluation mode.

    Raises:
        UserError: the checkpoint is not a SegViT's; tensors are missing, unexpected or mis-shaped (all are listed); an
            option is needed and has no default; an option does not fit; or the output cannot be written.
    """
    path, output = Path(checkpoint), Path(output)
    if output.suffix != ".safetensors":
        raise UserError(f"{output}: a model file ends in .safetensors; give {output.with_suffix('.safetensors')}")
    state = read_state_dict(path)
    config, sizes = read_settings(
        state,
        path,
        num_heads=num_heads,
        head_num_heads=head_num_heads,
        taps=taps,
        shrink_at=shrink_at,
        mean=mean,
        std=std,
    )
    _check_finite(state, path)
    spec, protocol = _dataset(sizes.num_classes, config.image_size)
    model = create_model(config=config, num_classes=sizes.num_classes, spec=spec, protocol=protocol)
    own = model.state_dict()
    converted = own_state(state, own, shrunk=sizes.shrunk) | {name: own[name] for name in ("mean", "std")}
    load_strictly(model, converted, source=str(path))
    licence = {"licence": LICENCE} if path.name in RELEASED.values() else {}
    model.extra = {"converted_from": path.name, **licence, **(extra or {})}
    save_model(model, output)
    return model.eval()


def read_settings(
    state: Mapping[str, Tensor],
    path: Path,
    *,
    num_heads: int | None = None,
    head_num_heads: int | None = None,
    taps: Sequence[int] | None = None,
    shrink_at: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> tuple[ModelConfig, Sizes]:
    """Return the network that the names and shapes of a checkpoint's tensors and the options describe.

    Raises:
        UserError: as in `convert_checkpoint`.
    """
    sizes = read_sizes(state)
    if sizes is None:
        raise UserError(
            f"{path}: weights, but not of SegViT in the authors' names, such as backbone.layers.0.ln1.weight and "
            f"decode_head.class_embed.weight; its names are {', '.join(list(state)[:4])}, ..."
        )
    config = _config(sizes, path, taps=taps, shrink_at=shrink_at)
    _check_tensors(state, config, sizes, path)
    config = _with_options(config, sizes, path, num_heads=num_heads, head_num_heads=head_num_heads, mean=mean, std=std)
    return config, sizes


def _config(sizes: Sizes, path: Path, *, taps: Sequence[int] | None, shrink_at: int | None) -> ModelConfig:
    """Return the network by the tensors and the two options about blocks, with one attention head everywhere."""
    structure: Structure = "shrunk" if sizes.shrunk else "plain" if shrink_at is None else "naive_shrunk"
    if sizes.shrunk and shrink_at is None:
        shrink_at = default_shrink_at(sizes.depth)
    blocks = _default_taps(structure, sizes, shrink_at) if taps is None else tuple(taps)
    if len(blocks) != sizes.num_stages:
        raise UserError(
            f"{path}: its head reads {sizes.num_stages} of {sizes.depth} blocks, but {blocks} were given or assumed: "
            f"give --taps and {sizes.num_stages} block numbers from 0 to {sizes.depth - 1}, shallow first"
        )
    known = KNOWN_BACKBONES.get((sizes.embed_dim, sizes.depth)) if sizes.patch_size == 16 else None
    config = ModelConfig(
        backbone=known or ModelConfig.backbone,
        patch_size=None if known else sizes.patch_size,
        embed_dim=None if known else sizes.embed_dim,
        depth=None if known else sizes.depth,
        structure=structure,
        upsampling="paper" if sizes.shrunk else ModelConfig.upsampling,
        image_size=UNKNOWN_CROP if sizes.grid is None else sizes.grid * sizes.patch_size,
        taps=blocks,
        shrink_at=shrink_at,
        num_heads=1,
        class_token=False,
        head_dim=None if 2 * sizes.head_dim == sizes.embed_dim else sizes.head_dim,
        head_num_heads=1,
        head_num_layers=sizes.head_num_layers,
        upsampling_num_layers=sizes.upsampling_num_layers or ModelConfig.upsampling_num_layers,
    )
    try:
        resolve_blocks(
            config.structure,
            sizes.depth,
            taps=config.taps,
            shrink_at=config.shrink_at,
            upsampling=config.upsampling,
        )
    except UserError as error:
        raise UserError(f"{path}: --taps and --shrink-at (or their defaults) do not fit it: {error}") from error
    return config


def _default_taps(structure: Structure, sizes: Sizes, shrink_at: int | None) -> tuple[int, ...]:
    """Return the paper's taps."""
    last = sizes.depth - 1
    if structure == "shrunk":
        assert shrink_at is not None
        return (shrink_at - 1, last)
    return (last,) if structure == "naive_shrunk" or sizes.num_stages == 1 else default_taps(sizes.depth)


def _check_tensors(state: Mapping[str, Tensor], config: ModelConfig, sizes: Sizes, path: Path) -> None:
    """Check that a checkpoint has the tensors that its sizes require, ignoring blocks after the last tap.

    Raises:
        UserError: a table of what is missing, unexpected or mis-shaped, in the authors' names.
    """
    with torch.device("meta"):
        network = replace(config, mean=IMAGENET[0], std=IMAGENET[1])
        own = create_model(config=network, num_classes=sizes.num_classes).state_dict()
    expected = expected_shapes(own, shrunk=sizes.shrunk)
    given = {name: tuple(value.shape) for name, value in state.items()}
    assert config.taps is not None
    unused = tuple(f"backbone.layers.{index}." for index in range(config.taps[-1] + 1, sizes.depth))
    expected |= {name: (sizes.num_classes + 1,) for name in given if LOSS_WEIGHT.fullmatch(name)}
    rows = [f"  missing     {name} {_shape(name, expected, sizes)}" for name in expected if name not in given]
    rows += [
        f"  unexpected  {name} {shape}"
        for name, shape in given.items()
        if name not in expected and not (unused and name.startswith(unused))
    ]
    rows += [
        f"  mis-shaped  {name}: {given[name]} in the file, {_shape(name, expected, sizes)} by all the others"
        for name, shape in expected.items()
        if name in given and (given[name] != shape or (name == POSITIONS and sizes.grid is None))
    ]
    if rows:
        raise UserError(
            f"{path}: not a whole checkpoint of {'SegViT Shrunk' if sizes.shrunk else 'SegViT'} with {sizes.depth} "
            f"blocks of width {sizes.embed_dim} and {sizes.num_classes} classes:\n" + "\n".join(rows)
        )


def _check_finite(state: Mapping[str, Tensor], path: Path) -> None:
    """Check that no weight is NaN or infinite.

    Raises:
        UserError: some are.
    """
    found = [name for name, value in state.items() if not value.isfinite().all()]
    if found:
        names = ", ".join(found[:5]) + (f", ... ({len(found)})" if len(found) > 5 else "")
        raise UserError(f"{path}: NaN or infinite numbers in {names}; give a checkpoint of an earlier iteration")


def _shape(name: str, expected: Mapping[str, Shape], sizes: Sizes) -> str:
    """Describe the shape that a tensor should have, in words if the grid is unknown."""
    unknown = name == POSITIONS and sizes.grid is None
    return f"(1, 1 + side * side, {sizes.embed_dim})" if unknown else str(expected[name])


def _with_options(
    config: ModelConfig,
    sizes: Sizes,
    path: Path,
    *,
    num_heads: int | None,
    head_num_heads: int | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> ModelConfig:
    """Add the settings that no tensor shows: as given, or the paper's.

    Raises:
        UserError: options without a default are missing (all are listed), or one does not fit.
    """
    width, head_width = sizes.embed_dim, sizes.head_dim
    missing = []
    if num_heads is None and width % BACKBONE_HEAD_DIM:
        missing.append(f"--num-heads N            attention heads of a backbone block, of width {width}")
    if head_num_heads is None and head_width % HEAD_HEAD_DIM:
        missing.append(f"--head-num-heads N       attention heads of a head layer, of width {head_width}")
    for option, given, meaning in (("mean", mean, "mean"), ("std", std, "standard deviation")):
        if given is None and width not in NORMALISATION:
            missing.append(f"{f'--{option} R G B':<24} {meaning} of the pixels on the 0..1 scale, such as 0.5 0.5 0.5")
    if missing:
        raise UserError(
            f"{path}: its tensors do not show everything, and the defaults fit only the paper's models (heads of "
            f"{BACKBONE_HEAD_DIM} and {HEAD_HEAD_DIM}, widths {' and '.join(map(str, NORMALISATION))}); give\n  "
            + "\n  ".join(missing)
        )
    num_heads = width // BACKBONE_HEAD_DIM if num_heads is None else num_heads
    head_num_heads = head_width // HEAD_HEAD_DIM if head_num_heads is None else head_num_heads
    for option, count, whole in (("num-heads", num_heads, width), ("head-num-heads", head_num_heads, head_width)):
        if count < 1 or whole % count:
            raise UserError(f"{path}: --{option} {count}: the width {whole} is not divisible by the number of heads")
    return replace(
        config,
        num_heads=num_heads,
        head_num_heads=head_num_heads,
        mean=_rgb("mean", NORMALISATION[width][0] if mean is None else mean),
        std=_rgb("std", NORMALISATION[width][1] if std is None else std),
    )


def _rgb(option: str, values: Sequence[float]) -> tuple[float, float, float]:
    """Check three numbers in 0..1; standard deviations must be above 0.

    Raises:
        UserError: they are not.
    """
    if len(values) != 3 or not all(0 <= value <= 1 for value in values) or (option == "std" and min(values) == 0):
        hint = "; if they are on the 0..255 scale, divide by 255" if any(value > 1 for value in values) else ""
        raise UserError(
            f"--{option} {tuple(values)}: give three numbers on the 0..1 scale, for R, G, B (std above 0){hint}"
        )
    return (float(values[0]), float(values[1]), float(values[2]))


def _dataset(num_classes: int, image_size: int) -> tuple[DatasetSpec | None, EvalConfig | None]:
    """Return classes and test protocol of the paper's dataset with that number of classes, or None if there is none."""
    if num_classes not in RECIPES:
        return None, None
    recipes = [TrainConfig.load(name) for name in RECIPES[num_classes]]
    recipe = next((recipe for recipe in recipes if recipe.model.image_size == image_size), None)
    assert recipes[0].data.spec is not None
    if recipe is None:  # not the paper's crop: window and stride follow the crop, the resizing is the dataset's
        return load_spec(recipes[0].data.spec), replace(recipes[0].eval, window=None, stride=None)
    return load_spec(recipes[0].data.spec), recipe.eval

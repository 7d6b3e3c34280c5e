"""Draw token merging, edge-aware QD and the upscaler at work on a photo, for docs/method.md and docs/merging.md.

    segvit train --data.spec camvid --data.root camvid --steps 250 --model.structure plain --output plain
    segvit train --data.spec camvid --data.root camvid --steps 250 --model.structure shrunk \\
        --model.downsampling edge --model.shrink-at 4 --output edge
    segvit train --data.spec camvid --data.root camvid --steps 250 --model.structure plain \\
        --model.upscaler conv --output upscaled
    python docs/tools/part_photos.py china.jpg --merging plain/best.safetensors \\
        --edges edge/best.safetensors --upscaler upscaled/best.safetensors        # into docs/images, as PNG

What is drawn is what the models computed. A figure whose model you leave out is not drawn. The photo is china.jpg of
scikit-learn, in its folder datasets/images: by danielbuechele, CC BY 2.0.
"""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from figures import write
from PIL import Image, ImageFilter
from torch import nn

import segvit
from segvit.data.bands.tensors import to_tensor
from segvit.inference.protocol import protocol_size
from segvit.models.downsampling import lattice
from segvit.models.modes import evaluating
from segvit.models.segvit import SegViT
from segvit.pictures.figure_style import (
    BLUE,
    DIVERGING,
    GREEN,
    ORANGE,
    SKY,
    SMALL,
    VERMILLION,
    WIDTH,
    color_bar,
    heat_colors,
    heat_over,
)
from segvit.pictures.inside.board import Board
from segvit.pictures.inside.grids import draw_frames, draw_grid, draw_kept
from segvit.pictures.paint import Pixels
from segvit.profiling.merging import with_merging

THRESHOLD = 0.88
"""Cosine similarity above which tokens merge: that of ALGM."""
FAR = (VERMILLION, BLUE, ORANGE, GREEN, SKY)
"""Colours of the tokens whose patches are the furthest apart."""
NEAR = 6.0
"""Distance up to which patches of a token count as neighbours, in patches."""
GRAIN = 1.0
"""Pixels by which the photo is smoothed: its grain would be most of a file's bytes."""
CLASS, CROP = "building", (0.08, 0.2, 0.28)
"""Class whose mask the upscaler's figure shows, and its crop: top, left and side, as shares of the photo's height."""


@dataclass(frozen=True)
class Shot:
    """A photo at the size at which a model sees it."""

    photo: Pixels
    """uint8 (H', W', 3), smoothed."""
    images: torch.Tensor
    """uint8 (1, 3, H', W')."""
    grid: tuple[int, int]
    """Rows and columns of patches."""
    patch: int
    """Side of a patch in pixels."""


def take(model: SegViT, path: Path) -> Shot:
    """Read a photo at the size of the model's test protocol."""
    photo = Image.open(path).convert("RGB")
    height, width = protocol_size(photo.height, photo.width, model.protocol)
    photo = photo.resize((width, height), Image.Resampling.LANCZOS)
    patch = model.backbone.patch_size
    smooth = np.array(photo.filter(ImageFilter.GaussianBlur(GRAIN)))
    return Shot(smooth, to_tensor(np.asarray(photo))[None], (-(-height // patch), -(-width // patch)), patch)


@contextmanager
def outputs_of(part: nn.Module) -> Iterator[list[Any]]:
    """Collect what a part of a model returns inside the `with` block."""
    seen: list[Any] = []
    hook = part.register_forward_hook(lambda _, __, output: seen.append(output))
    try:
        yield seen
    finally:
        hook.remove()


@torch.no_grad()
def draw_merging(model: SegViT, path: Path) -> Any:
    """Draw the patches that share a token behind the early and the middle block (docs/merging.md)."""
    model = with_merging(model, threshold=THRESHOLD)
    shot, merging = take(model, path), model.backbone.merging
    with outputs_of(merging) as seen, evaluating(model):
        model(shot.images, deep=False)
    tokens = [merged.token_of[0].numpy().reshape(shot.grid) for _, merged in seen]
    wide = (WIDTH - 0.2) / 2
    board = Board(WIDTH, wide * shot.photo.shape[0] / shot.photo.shape[1] + 0.33)
    for place, (block, token_of) in enumerate(zip(merging.at, tokens, strict=True)):
        x = 0.05 + place * (wide + 0.1)
        panel = board.panel(x, 0.05, wide, board.size[1] - 0.33)
        panel.imshow(painted_tokens(shot, token_of), extent=(0, shot.photo.shape[1], shot.photo.shape[0], 0))
        draw_borders(panel, token_of, shot.patch)
        show_photo_only(panel, shot)
        count, patches = len(np.unique(token_of)), token_of.size
        board.text(x + wide / 2, board.size[1] - 0.14, f"behind block {block}: {count:,} tokens of {patches:,} patches")
    return board.figure


def painted_tokens(shot: Shot, token_of: npt.NDArray[np.int64]) -> Pixels:
    """Return the photo (H', W', 3) with each merged token in its mean colour; FAR paints tokens of distant patches."""
    height, width = shot.photo.shape[:2]
    owner = token_of.repeat(shot.patch, axis=0).repeat(shot.patch, axis=1)[:height, :width]  # (H', W')
    picture = shot.photo.astype(np.float64)
    extents = np.zeros(token_of.max() + 1)
    for token in range(len(extents)):
        places = np.argwhere(token_of == token)
        extents[token] = np.hypot(*np.ptp(places, axis=0))  # in patches
        if len(places) > 1:
            picture[owner == token] = picture[owner == token].mean(axis=0)
    for token, color in zip(np.argsort(-extents, kind="stable"), FAR):
        if extents[token] > NEAR:
            picture[owner == token] = [int(color[start : start + 2], 16) for start in (1, 3, 5)]
    return np.rint(picture).astype(np.uint8)


def draw_borders(panel: Any, token_of: npt.NDArray[np.int64], patch: int) -> None:
    """Draw lines between patches of different tokens."""
    style = {"color": "white", "linewidth": 0.45, "alpha": 0.8}
    for row, column in np.argwhere(token_of[:, 1:] != token_of[:, :-1]):
        panel.plot(np.array([column + 1, column + 1]) * patch, np.array([row, row + 1]) * patch, **style)
    for row, column in np.argwhere(token_of[1:] != token_of[:-1]):
        panel.plot(np.array([column, column + 1]) * patch, np.array([row + 1, row + 1]) * patch, **style)


@torch.no_grad()
def draw_edges(model: SegViT, path: Path) -> Any:
    """Draw the edge head's probabilities, and the tokens that edge-aware QD keeps (docs/method.md section 3)."""
    shot = take(model, path)
    with outputs_of(model.backbone.downsampling) as seen, evaluating(model):
        model(shot.images, deep=False)
    (kept,) = seen
    every = np.zeros(shot.grid[0] * shot.grid[1], dtype=bool)
    every[kept.indices[0].numpy()] = True
    regular = np.zeros_like(every)
    regular[lattice(shot.grid).numpy()] = True
    edges = (every & ~regular).reshape(shot.grid)
    wide = (WIDTH - 0.85) / 2
    high = wide * shot.photo.shape[0] / shot.photo.shape[1]
    board = Board(WIDTH, high + 0.55)
    heat, tokens = (board.panel(x, 0.27, wide, high) for x in (0.05, 0.8 + wide))
    extent = (0, shot.photo.shape[1], shot.photo.shape[0], 0)
    likely = kept.edge_logits[0].sigmoid().numpy().repeat(shot.patch, axis=0).repeat(shot.patch, axis=1)
    heat.imshow(heat_over(shot.photo, likely[: shot.photo.shape[0], : shot.photo.shape[1]]), extent=extent)
    color_bar(heat, heat_colors(), (0, 1), (0, 0.5, 1), "probability of an edge")
    tokens.imshow(shot.photo, extent=extent)
    draw_grid(tokens, shot.grid, shot.patch)
    draw_kept(tokens, every.reshape(shot.grid), shot.patch)
    draw_frames(tokens, edges, shot.patch, color=BLUE)
    show_photo_only(tokens, shot)
    top, block = board.size[1] - 0.14, model.backbone.shrink_at
    board.text(0.05 + wide / 2, top, f"the edge head, in front of block {block}")
    board.text(0.8 + wide * 1.5, top, f"block {block} keeps {every.sum():,} of {every.size:,} tokens")
    board.text(0.8 + wide * 1.25, 0.13, f"lattice: {regular.sum():,}", size=SMALL, color=VERMILLION, weight="bold")
    board.text(0.8 + wide * 1.75, 0.13, f"edges: {edges.sum():,}", size=SMALL, color=BLUE, weight="bold")
    return board.figure


@torch.no_grad()
def draw_upscaler(model: SegViT, path: Path) -> Any:
    """Draw the mask of a class at a boundary with and without the upscaler's correction (docs/method.md section 2)."""
    shot, upscaler = take(model, path), model.upscaler
    number = model.classes.index(CLASS)
    top, left, side = (round(share * shot.photo.shape[0]) // shot.patch * shot.patch for share in CROP)
    window = (slice(top, top + side), slice(left, left + side))
    learned, masks = upscaler.coefficients.clone(), []
    with evaluating(model):
        for coefficients in (torch.zeros_like(learned), learned):
            upscaler.coefficients.copy_(coefficients)
            output = model(shot.images, deep=False)
            logits = output.mask_logits[-1, :, number : number + 1].float()
            full = nn.functional.interpolate(logits, size=output.padded_size, mode="bilinear", align_corners=False)
            masks.append(full[0, 0].numpy()[window])
    correction = masks[1] - masks[0]
    limit = float(np.abs(correction).max())
    crop, extent, centres = shot.photo[window], (0, side, side, 0), np.arange(side) + 0.5
    wide, gap = 1.5, 0.1
    board = Board(WIDTH, wide + 0.55)
    places = [0.05 + place * (wide + gap) for place in range(4)]
    photo, without, corrected, change = (board.panel(x, 0.27, wide) for x in places)
    photo.imshow(crop, extent=extent)
    draw_grid(photo, (side // shot.patch, side // shot.patch), shot.patch)
    for panel, logits in zip((without, corrected), masks, strict=True):
        panel.imshow(heat_over(crop, 1 / (1 + np.exp(-logits))), extent=extent)
        if logits.min() < 0 < logits.max():
            panel.contour(centres, centres, logits, levels=[0], colors="white", linewidths=1.1)
    change.imshow(correction, cmap=DIVERGING, vmin=-limit, vmax=limit, extent=extent)
    unit = 10.0 ** np.floor(np.log10(limit))
    mark = float(f"{limit // unit * unit:.0e}")  # one digit, at most the limit
    color_bar(change, DIVERGING, (-limit, limit), (-mark, 0, mark), "logit")
    names = ("photo", f"mask of “{CLASS}”", "with the correction", "the correction")
    below = ("with its patches", "one cell per patch", "4 × 4 cells per patch", "of the mask logits")
    for x, name, text in zip(places, names, below, strict=True):
        board.text(x + wide / 2, board.size[1] - 0.14, name)
        board.text(x + wide / 2, 0.13, text, size=SMALL)
    return board.figure


def show_photo_only(panel: Any, shot: Shot) -> None:
    """End a panel at the photo's border; the grid may reach beyond it."""
    panel.set_xlim(0, shot.photo.shape[1])
    panel.set_ylim(shot.photo.shape[0], 0)


FIGURES = {"merging": draw_merging, "edges": draw_edges, "upscaler": draw_upscaler}


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the figures whose models are given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", type=Path)
    for name in FIGURES:
        parser.add_argument(f"--{name}", type=Path, metavar="MODEL")
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "images")
    parser.add_argument("--format", choices=("png", "pdf", "svg"), default="png")
    given = parser.parse_args(arguments)
    given.output.mkdir(parents=True, exist_ok=True)
    for name, draw in FIGURES.items():
        if (path := getattr(given, name)) is not None:
            write(draw(segvit.load_model(path), given.photo), given.output / f"method_{name}.{given.format}")


if __name__ == "__main__":
    main()

"""Draw the figures of docs/method.md with a trained model and a made-up scene.

    segvit train --config shapes/demo --output runs/figures
    python docs/tools/figures.py runs/figures/best.safetensors              # into docs/images, as PNG
    python docs/tools/figures.py MODEL --output paper --format pdf          # or svg

What is drawn is what the model computed: its feature map, its class tokens, its masks. The model must be plain and know
the classes of the made-up scenes.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageFilter

import segvit
from segvit.data.shapes.scenes import render_scene
from segvit.models.downsampling import lattice
from segvit.models.modes import evaluating
from segvit.models.segvit import SegViT
from segvit.pictures.figure_style import (
    DIVERGING,
    GREY,
    RULE,
    SMALL,
    VERMILLION,
    WIDTH,
    color_bar,
    heat_colors,
    heat_over,
    save,
)
from segvit.pictures.inside.board import Board
from segvit.pictures.inside.canvas import Canvas
from segvit.pictures.inside.grids import draw_grid, draw_kept, draw_restored
from segvit.pictures.inside.look import look
from segvit.pictures.inside.record import Inside
from segvit.pictures.paint import overlay

SCENE, SCENE_SIDE = 10_000_051, 384
"""Number of a scene that no dataset of segvit holds, and its side in pixels."""
CLASS = "tree"
BLUR = 0.8
"""Pixels by which the scene's grain is smoothed where it is drawn: it would be most of a file's bytes."""
COLORS = 256
"""Colours of a PNG."""
SHOWN_VALUES = 12
"""Values of a class token that are drawn."""


@dataclass(frozen=True)
class Scene:
    """A model, and what it does with the scene."""

    model: SegViT
    inside: Inside
    canvas: Canvas
    number: int
    """Index of the class that is drawn."""
    features: npt.NDArray[np.uint8]
    """(h, w, 3): the three main directions of the deepest feature map, as red, green and blue."""
    probabilities: npt.NDArray[np.float32]
    """(K + 1,): of the class's query, "no object" last."""


def draw_attention_to_mask(scene: Scene) -> Any:
    """Draw how a class token becomes a mask, and masks a label map (docs/method.md section 2)."""
    inside, canvas = scene.inside, scene.canvas
    side, top, lift = 1.08, 1.52, 0.045
    board = Board(WIDTH, 2.92)
    photo_x, map_x, logits_x, mask_x, labels_x = 0.04, 1.42, 2.98, 4.38, 5.84
    middle = top + side / 2
    board.panel(photo_x, top, side).imshow(canvas.photo)
    board.panel(map_x, top, side).imshow(scene.features, interpolation="nearest")
    place, logits = inside.classes.index(scene.number), inside.masks[-1]
    others = [index for index in range(len(inside.classes)) if index != place][:2]
    limit = float(np.abs(logits).max())
    for step, index in enumerate([*reversed(others), place]):
        shift = lift * (2 - step)
        board.panel(logits_x + shift, top + shift, side).imshow(
            canvas.cells(logits[index]), cmap=DIVERGING, vmin=-limit, vmax=limit
        )
        heat = heat_over(canvas.photo, canvas.probability(logits[index]))
        board.panel(mask_x + shift, top + shift, side).imshow(heat)
    board.panel(labels_x, top, side).imshow(overlay(canvas.photo, inside.labels[-1], inside.palette))

    grid = logits.shape[1:]
    captions = [
        (photo_x, "image", f"{inside.size[0]} × {inside.size[1]} pixels"),
        (map_x, "feature map", f"{grid[0]} × {grid[1]} tokens"),
        (logits_x, "mask logits", "one map per class"),
        (mask_x, "masks", "sigmoid, upsampled"),
        (labels_x, "label map", "best score per pixel"),
    ]
    for x, name, below in captions:
        board.text(x + side / 2, top + side + 0.2, name)
        board.text(x + side / 2, top - 0.1, below, size=SMALL, color=GREY)
    board.arrow((photo_x + side, middle), (map_x, middle))
    board.text((photo_x + side + map_x) / 2, middle + 0.1, "ViT", size=SMALL)
    board.arrow((map_x + side, middle), (logits_x, middle))
    board.arrow((logits_x + side + 2 * lift, middle), (mask_x, middle))
    board.arrow((mask_x + side + 2 * lift, middle), (labels_x, middle))
    times_x, product_x = (map_x + side + logits_x) / 2 - 0.03, (mask_x + side + 2 * lift + labels_x) / 2 - 0.03
    board.sign(times_x, middle, "·")
    board.sign(product_x, middle, "×")

    tokens_right = _draw_class_tokens(board, scene, x=photo_x, y=0.1, height=0.98)
    height = 0.1 + 0.98 * (1 - (scene.number + 0.5) / len(inside.names))
    board.arrow((tokens_right + 0.03, height), (times_x, height), (times_x, middle - 0.095), color=VERMILLION)
    board.text(
        times_x + 0.07, 0.98, "query · key,\nmean over heads", size=SMALL, color=GREY, ha="left", linespacing=1.2
    )
    bars_x, bars_width = mask_x - 0.22, 1.02
    board.arrow((times_x, height), (times_x, 0.32), (bars_x - 0.62, 0.32), color=VERMILLION)
    board.text((times_x + bars_x - 0.62) / 2 + 0.02, 0.42, "linear, softmax", size=SMALL)
    _draw_probabilities(board, scene, x=bars_x, y=0.1, width=bars_width, height=0.98)
    board.arrow((bars_x + bars_width + 0.03, 0.6), (product_x, 0.6), (product_x, middle - 0.095), color=VERMILLION)
    board.text(product_x + 0.07, 0.98, "sum over\nqueries", size=SMALL, color=GREY, ha="left", linespacing=1.2)
    return board.figure


def draw_cascade(scene: Scene) -> Any:
    """Draw how the masks of the stages add up (docs/method.md section 2)."""
    inside, canvas = scene.inside, scene.canvas
    place, count = inside.classes.index(scene.number), len(inside.outputs)
    side, step, left = 1.28, 1.28 + 0.42, 0.62
    rows = [2 * (side + 0.24) + 0.06, side + 0.24 + 0.06, 0.06]
    board = Board(left + count * step - 0.42 + 0.62, rows[0] + side + 0.28)
    similarity = inside.similarity[:, place]
    limit = float(np.abs(similarity).max())
    last: list[Any] = []
    for stage in range(count):
        x = left + stage * step
        board.text(x + side / 2, rows[0] + side + 0.14, f"stage {stage + 1} reads block {_block(scene, stage)}")
        seen, mask, labels = (board.panel(x, y, side) for y in rows)
        seen.imshow(canvas.cells(similarity[stage]), cmap=DIVERGING, vmin=-limit, vmax=limit)
        mask.imshow(heat_over(canvas.photo, canvas.probability(inside.masks[stage, place])))
        labels.imshow(overlay(canvas.photo, inside.labels[stage], inside.palette))
        last = [seen, mask]
        for upper, lower in ((0, 1), (1, 2)):
            board.arrow((x + side / 2, rows[upper]), (x + side / 2, rows[lower] + side))
        if stage:
            board.arrow((x - 0.42, rows[1] + side / 2), (x, rows[1] + side / 2), color=VERMILLION)
            board.sign(x - 0.23, rows[1] + side / 2, "+")
    board.text(left - 0.3, rows[0] + side / 2, f"similarity of\nthe class token\n“{CLASS}”", size=SMALL, rotation=90)
    board.text(left - 0.3, rows[1] + side / 2, "sigmoid of\nthe sum so far", size=SMALL, rotation=90)
    board.text(left - 0.3, rows[2] + side / 2, "label map if\nthis were the last", size=SMALL, rotation=90)
    color_bar(last[0], DIVERGING, (-limit, limit), (-10, 0, 10), "logit")
    color_bar(last[1], heat_colors(), (0, 1), (0, 0.5, 1), "probability")
    return board.figure


def draw_shrunk(scene: Scene) -> Any:
    """Draw the effect of Shrunk on the token grid (docs/method.md section 3)."""
    tokens, photo = scene.inside.tokens, scene.canvas.photo
    rows, columns = tokens.grid
    kept_patches = lattice(tokens.grid)
    kept = np.zeros(rows * columns, dtype=bool)
    kept[kept_patches.numpy()] = True
    side, y, gap = 1.42, 0.52, 1.3
    board = Board(WIDTH, y + side + 0.3)
    left = [0.07, 0.07 + side + gap, 0.07 + 2 * (side + gap)]
    panels = [board.panel(x, y, side) for x in left]
    for panel in panels:
        panel.imshow(photo, extent=(0, columns, rows, 0))
        panel.set_xlim(0, columns)
        panel.set_ylim(rows, 0)
    draw_kept(panels[1], kept.reshape(tokens.grid), 1)
    draw_restored(panels[2], tokens.grid, 1)
    for panel in panels:
        draw_grid(panel, tokens.grid, 1)
    half = (rows + 1) // 2, (columns + 1) // 2
    counts = [
        f"{rows} × {columns} tokens",
        f"{half[0]} × {half[1]} tokens",
        f"{rows} × {columns} tokens",
    ]
    for x, count in zip(left, counts, strict=True):
        board.text(x + side / 2, y + side + 0.13, count)
    middle = y + side / 2
    boxes = [left[1] - gap / 2, left[2] - gap / 2]
    for x, box, name in zip(left, boxes, ("QD", "QU"), strict=False):
        board.arrow((x + side, middle), (box - 0.25, middle))
        board.box(box, middle, 0.5, 0.34, name)
        board.arrow((box + 0.25, middle), (box + gap / 2, middle))
    board.text(boxes[0], middle + 0.45, "queries: kept\nkeys, values: all", size=SMALL, color=GREY, linespacing=1.25)
    board.text(
        boxes[1], middle + 0.45, "queries: learned\nkeys, values: maps", size=SMALL, color=GREY, linespacing=1.25
    )
    start, low = left[0] + side / 2, 0.12
    board.arrow((start, y), (start, low), (boxes[1], low), (boxes[1], middle - 0.17), color=VERMILLION)
    board.text(left[1] + side / 2, low + 0.12, "the map before QD is read first, then the last one", size=SMALL)
    names = ("the blocks before QD", "the blocks behind QD", "one ATM stage reads these")
    for x, name in zip(left, names, strict=True):
        if x != left[0]:
            board.text(x + side / 2, y - 0.12, name, size=SMALL, color=GREY)
    board.text(start + 0.06, y - 0.12, names[0], size=SMALL, color=GREY, ha="left")
    return board.figure


FIGURES = {"atm": draw_attention_to_mask, "cascade": draw_cascade, "shrunk": draw_shrunk}


def _draw_class_tokens(board: Board, scene: Scene, *, x: float, y: float, height: float) -> float:
    """A row for each class: its name, its colour, and the first values of its token. Returns the right end."""
    names, palette = scene.inside.names, scene.inside.palette
    values = scene.model.head.class_tokens.detach()[:, :SHOWN_VALUES].numpy()
    line = height / len(names)
    start, width = x + 0.82, 1.6
    panel = board.panel(start, y, width, height)
    panel.imshow(values, cmap="Greys", aspect="auto", vmin=-2.5, vmax=2.5)
    panel.hlines(np.arange(1, len(names)) - 0.5, -0.5, SHOWN_VALUES - 0.5, color="white", linewidth=1.6)
    _frame(panel, -0.5, scene.number - 0.5, SHOWN_VALUES, 1)
    for k, name in enumerate(names):
        _class_name(board, scene, k, start - 0.2, y + height - (k + 0.5) * line, name, palette[k])
    board.text(start + width / 2 - 0.4, y + height + 0.12, "class tokens, learned")
    return start + width


def _draw_probabilities(board: Board, scene: Scene, *, x: float, y: float, width: float, height: float) -> None:
    """Draw the class probabilities of the query: a bar for each class and for "no object"."""
    names = [*scene.inside.names, "no object"]
    panel = board.panel(x, y, width, height)
    chosen = [VERMILLION if k == scene.number else RULE for k in range(len(names))]
    panel.barh(range(len(names)), scene.probabilities, height=0.7, color=chosen)
    likely = float(scene.probabilities[scene.number])
    panel.text(likely - 0.03, scene.number, f"{likely:.2f}", fontsize=SMALL - 1, color="white", ha="right", va="center")
    panel.set_xlim(0, 1)
    panel.set_ylim(len(names) - 0.5, -0.5)
    line = height / len(names)
    for k, name in enumerate(names):
        board.text(x - 0.05, y + height - (k + 0.5) * line, name, size=SMALL - 1, ha="right")
    board.text(x + width / 2, y + height + 0.12, f"class of the query “{CLASS}”")


def _class_name(board: Board, scene: Scene, k: int, x: float, y: float, name: str, color: Sequence[int]) -> None:
    """A class's name and its colour."""
    from matplotlib.patches import Rectangle

    board.text(x, y, name, size=SMALL, ha="right", weight="bold" if k == scene.number else "normal")
    face = tuple(part / 255 for part in color)
    board.ground.add_patch(Rectangle((x + 0.05, y - 0.04), 0.08, 0.08, facecolor=face, edgecolor=RULE, linewidth=0.4))


def _frame(panel: Any, x: float, y: float, width: float, height: float) -> None:
    """A frame around what is followed."""
    from matplotlib.patches import Rectangle

    frame = Rectangle(
        (x, y), width, height, facecolor="none", edgecolor=VERMILLION, linewidth=1.3, clip_on=False, zorder=5
    )
    panel.add_patch(frame)


def _block(scene: Scene, stage: int) -> int:
    """The block that a stage reads: the deepest first."""
    return scene.model.backbone.taps[::-1][stage]


def read_scene(path: Path) -> Scene:
    """Run a model on the scene.

    Raises:
        UserError: no plain model, or one of other classes.
    """
    model = segvit.load_model(path)
    photo = render_scene(SCENE, SCENE_SIDE)[0]
    if model.config.structure != "plain":
        raise segvit.UserError(
            f"{path} is {model.config.structure}: give a plain model, of segvit train --config shapes/demo"
        )
    first = look(model, photo, classes=[CLASS], size=model.config.image_size)
    order = [k for k in np.argsort(-first.shares()).tolist() if k != first.classes[0]]
    inside = look(model, photo, classes=[first.classes[0], *order[:2]], size=model.config.image_size)
    small = Image.fromarray(photo).resize(inside.size[::-1], Image.Resampling.BILINEAR)
    images = torch.from_numpy(np.array(small).transpose(2, 0, 1).copy())[None]
    with torch.no_grad(), evaluating(model):
        features = model.backbone(model.pad(model.normalise(images)))[-1][0]
        logits = model(images, deep=False).class_logits[-1, 0, first.classes[0]]
    canvas = Canvas(inside)
    canvas.photo = np.array(Image.fromarray(canvas.photo).filter(ImageFilter.GaussianBlur(BLUR)))
    return Scene(model, inside, canvas, first.classes[0], main_directions(features.numpy()), logits.softmax(0).numpy())


def main_directions(features: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """The three directions in which a map (D, h, w) varies most, as colours (h, w, 3)."""
    tokens = features.reshape(len(features), -1).T
    tokens = tokens - tokens.mean(axis=0)
    left, lengths, right = np.linalg.svd(tokens, full_matrices=False)
    signs = np.sign(right[np.arange(3), np.abs(right[:3]).argmax(axis=1)])  # else the library may turn each around
    main = left[:, :3] * lengths[:3] * signs
    low, high = np.percentile(main, (2, 98), axis=0)
    colors = 0.15 + 0.75 * np.clip((main - low) / (high - low), 0, 1)  # softer than pure ones
    return np.rint(255 * colors).astype(np.uint8).reshape(*features.shape[1:], 3)


def main() -> None:
    """Write the three figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "images")
    parser.add_argument("--format", choices=("png", "pdf", "svg"), default="png")
    given = parser.parse_args()
    scene = read_scene(given.model)
    given.output.mkdir(parents=True, exist_ok=True)
    for name, draw in FIGURES.items():
        write(draw(scene), given.output / f"method_{name}.{given.format}")


def write(figure: Any, path: Path) -> None:
    """Write a figure. A PNG gets a palette, and the size of a page, which makes it small."""
    save(figure, path)
    if path.suffix == ".png":
        picture = Image.open(path).convert("RGB").resize(_web_size(path), Image.Resampling.LANCZOS)
        picture.quantize(COLORS, kmeans=4, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def _web_size(path: Path) -> tuple[int, int]:
    """Two thirds of what paper needs: sharp on any screen."""
    with Image.open(path) as picture:
        return picture.width * 2 // 3, picture.height * 2 // 3


if __name__ == "__main__":
    main()

"""Draw the diagrams of the presence head and of groups of classes for docs/method.md and docs/finetuning.md.

    python docs/tools/part_diagrams.py                                 # into docs/images, as PNG
    python docs/tools/part_diagrams.py --output paper --format pdf     # or svg

No model runs: masks are made from the labels of a made-up scene, and probabilities and class tokens are examples.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from figures import BLUR, SCENE, write
from PIL import Image, ImageFilter

from segvit.data.shapes.scenes import render_scene
from segvit.data.spec import load_spec
from segvit.pictures.figure_style import GREY, INK, RULE, SMALL, VERMILLION, WIDTH, heat_over, matrix_colors
from segvit.pictures.inside.board import Board
from segvit.pictures.paint import Labels, Pixels, overlay

SIDE, CELLS = 192, 24
"""Side of the scene in pixels, and cells of its masks along a side."""
QUERIES = ("tree", "building", "boat")
"""Classes in the diagram of the presence head. No boat is in the scene."""
PROBABILITIES = ((0.93, 0.02, 0.01, 0.04), (0.02, 0.91, 0.01, 0.06), (0.01, 0.02, 0.03, 0.94))
"""Example probabilities of each query, over the classes and "no object"."""
PRESENCE = (0.97, 0.95, 0.03)
"""Example probability that each class is present."""
GROUPS = (("sky", "water", "grass", "road", "building", "tree"), ("car",), ("sign",))
"""Classes of each group in the diagram of groups."""
STILL, LEARNS = (RULE, "#f4f4f4"), (VERMILLION, "#fdf0e6")
"""Line and ground of a part that is frozen, and of one that learns."""
ROW, CELL = 0.48, 0.27
"""Distance of queries, and width of a probability, in inches."""


class Scene:
    """A made-up scene, and masks of its classes as a model could give them."""

    def __init__(self) -> None:
        photo, labels = render_scene(SCENE, SIDE)
        self.photo: Pixels = np.array(Image.fromarray(photo).filter(ImageFilter.GaussianBlur(BLUR)))
        self.labels: Labels = labels.astype(np.int64)
        self.spec = load_spec("shapes")

    def mask(self, name: str) -> npt.NDArray[np.float64]:
        """Return a mask in 0..1 (SIDE, SIDE), as soft as one of CELLS cells along a side. Other names have none."""
        numbers = [number for number, known in enumerate(self.spec.classes) if known == name]
        covered = Image.fromarray(np.isin(self.labels, numbers).astype(np.float32))
        cells = covered.resize((CELLS, CELLS), Image.Resampling.BOX).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        return np.asarray(cells, dtype=np.float64)


def draw_presence(scene: Scene) -> Any:
    """Draw K + 1 class logits per query against a presence head (docs/method.md section 6)."""
    board = Board(WIDTH, 3.9)
    _draw_classifier(
        board, scene, 2.04, np.array(PROBABILITIES), "K + 1 class logits per query: the paper's", "K + 1,\nsoftmax"
    )
    _draw_classifier(
        board, scene, 0.1, np.array(PRESENCE)[:, None], "Presence head: ours, after SegViTv2", "1,\nsigmoid"
    )
    return board.figure


def _draw_classifier(
    board: Board, scene: Scene, low: float, table: npt.NDArray[np.float64], title: str, output: str
) -> None:
    """Draw class tokens, the probabilities `table` (queries, columns), masks and scores, from `low` upwards."""
    own = table.shape[1] == 1
    tokens_x, table_x, mask_x, score_x, side = 0.72, 2.5, 4.34, 6.36, 0.42
    centres = [low + (2 - row) * ROW + side / 2 for row in range(len(QUERIES))]
    head = low + 3 * ROW + 0.04
    board.text(0.05, head + 0.22, title, ha="left", weight="bold")
    board.text(tokens_x + 0.4, head, "class tokens", size=SMALL, color=GREY)
    board.text(mask_x + side / 2, head, "masks", size=SMALL, color=GREY)
    board.text(score_x + side / 2, head, "scores", size=SMALL, color=GREY)
    for column, name in enumerate(["present"] if own else [*QUERIES, "no object"]):
        slant = {} if own else {"rotation": 35, "ha": "left", "va": "bottom", "rotation_mode": "anchor"}
        place = table_x + CELL * (column + 0.5)
        board.text(place, head - (0 if own else 0.05), name, size=SMALL, color=GREY, **slant)
    for row, (name, centre) in enumerate(zip(QUERIES, centres, strict=True)):
        board.text(tokens_x - 0.08, centre, name, size=SMALL, ha="right")
        token = np.random.default_rng(row).normal(size=(1, 8))
        board.panel(tokens_x, centre - 0.11, 0.8, 0.22).imshow(token, cmap="Greys", aspect="auto")
        for column, share in enumerate(table[row]):
            _draw_share(board, table_x + CELL * column, centre, share)
        weights = np.eye(len(QUERIES))[row] * table[row] if own else table[:, row]
        score = sum(weight * scene.mask(other) for weight, other in zip(weights, QUERIES, strict=True))
        board.panel(mask_x, centre - side / 2, side).imshow(heat_over(scene.photo, scene.mask(name)))
        board.panel(score_x, centre - side / 2, side).imshow(heat_over(scene.photo, np.asarray(score)))
        for weight, start in zip(weights, centres, strict=True):
            if not own or start == centre:
                color, width = (VERMILLION, 2.0) if weight > 0.5 else (RULE, 0.7)
                ends = (mask_x + side + 0.05, score_x - 0.05), (start, centre)
                board.ground.plot(*ends, color=color, linewidth=width)
    board.arrow((tokens_x + 0.88, centres[1]), (table_x - 0.07, centres[1]))
    board.text((tokens_x + 0.8 + table_x) / 2, centres[1] + 0.23, f"linear d → {output}", size=SMALL, linespacing=1.25)
    products = "times its own\nprobability" if own else "times a column of\nprobabilities, summed"
    between = (mask_x + side + score_x) / 2
    board.text(between, head - 0.03, products, size=SMALL, color=GREY, linespacing=1.2)


def _draw_share(board: Board, x: float, centre: float, share: float) -> None:
    """Draw a probability as a coloured cell with its number."""
    from matplotlib.patches import Rectangle

    color = matrix_colors()(share)
    cell = Rectangle((x, centre - 0.15), CELL - 0.02, 0.3, facecolor=color, edgecolor=RULE, linewidth=0.4)
    board.ground.add_patch(cell)
    ink = "white" if share > 0.5 else INK
    board.text(x + (CELL - 0.02) / 2, centre - 0.005, f"{share:.2f}"[1:], size=SMALL, color=ink)


def draw_groups(scene: Scene) -> Any:
    """Draw the heads of three groups of classes on one backbone (docs/method.md section 6)."""
    board = Board(WIDTH, 2.97)
    side, middle, rows = 1.1, 1.42, (2.42, 1.42, 0.42)
    photo_x, backbone_x, head_x, score_x, bar_x, labels_x = 0.05, 1.76, 3.24, 4.4, 5.28, WIDTH - 1.15
    board.panel(photo_x, middle - side / 2, side).imshow(scene.photo)
    board.text(photo_x + side / 2, middle + side / 2 + 0.13, "image")
    board.arrow((photo_x + side, middle), (backbone_x - 0.38, middle))
    board.box(backbone_x, middle, 0.76, 0.62, "backbone", color=STILL[0], ground=STILL[1])
    board.text(backbone_x, middle + 0.44, "frozen", size=SMALL, color=GREY)
    fork, height = backbone_x + 0.55, 0.5
    board.ground.plot((backbone_x + 0.38, fork), (middle, middle), color=INK, linewidth=1.1)
    board.ground.plot((fork, fork), (rows[-1], rows[0]), color=INK, linewidth=1.1, solid_capstyle="projecting")
    for number, (names, y) in enumerate(zip(GROUPS, rows, strict=True)):
        new = number == len(GROUPS) - 1
        color, ground = LEARNS if new else STILL
        shown = ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
        state = "learns" if new else "frozen"
        board.text(fork + 0.12, y + 0.4, f"group {number}: {shown}", size=SMALL, ha="left")
        board.text(head_x + 0.02, y - 0.36, state, size=SMALL, color=VERMILLION if new else GREY)
        board.arrow((fork, y), (head_x - 0.62, y))
        kind = "presence" if number else "K + 1 logits"
        board.box(head_x, y, 1.24, height, f"class tokens,\nATM stages, {kind}", color=color, ground=ground, size=SMALL)
        board.arrow((head_x + 0.62, y), (score_x - 0.02, y))
        for step, name in reversed(list(enumerate(names[:4]))):
            shift = 0.05 * step
            board.panel(score_x + shift, y - 0.27 + shift, 0.5).imshow(heat_over(scene.photo, scene.mask(name)))
        board.ground.plot((score_x + 0.5 + 0.05 * (len(names[:4]) - 1), bar_x), (y, y), color=INK, linewidth=1.1)
    board.text(score_x + 0.25, rows[-1] - 0.36, "scores", size=SMALL, color=GREY)
    board.ground.plot((bar_x, bar_x), (rows[-1], rows[0]), color=INK, linewidth=1.1, solid_capstyle="projecting")
    board.arrow((bar_x, middle), (labels_x, middle))
    board.text(bar_x, rows[-1] - 0.15, "concatenated", size=SMALL, color=GREY)
    board.panel(labels_x, middle - side / 2, side).imshow(overlay(scene.photo, scene.labels, scene.spec.palette))
    board.text(labels_x + side / 2, middle + side / 2 + 0.13, "label map")
    board.text(labels_x + side / 2, middle - side / 2 - 0.12, "best score per pixel", size=SMALL, color=GREY)
    return board.figure


DIAGRAMS = {"presence": draw_presence, "groups": draw_groups}


def main() -> None:
    """Write the diagrams."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "images")
    parser.add_argument("--format", choices=("png", "pdf", "svg"), default="png")
    given = parser.parse_args()
    scene = Scene()
    given.output.mkdir(parents=True, exist_ok=True)
    for name, draw in DIAGRAMS.items():
        write(draw(scene), given.output / f"method_{name}.{given.format}")


if __name__ == "__main__":
    main()

"""Seams between the windows of an image, and the time of the label map, for each blend of the windows.

    python benchmarks/seams.py MODEL PHOTO... [--window 168] [--stride 112] [--size 480] [--rounds 15]

A seam is a row or column at which a window begins or ends. The step across it is the mean |difference| of the scores of
the pixels on its two sides, summed over the classes. The step of the photo itself is measured 3 to 6 pixels beside it.
Their difference is what the windows add. "Labels" counts pairs whose label changes, in the same way.

Times are of `compose_labels` alone, on logits shaped like a trained model's (150 classes, windows of 512, a stride of
341, 853 x 1194 pixels): processor time of one thread, so that other programs add little. Both blends run in turn in
each round; the ratio is the median over the rounds.
"""

import argparse
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import get_args

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

import segvit
from segvit.config import Blend, EvalConfig
from segvit.data.images import read_image
from segvit.inference.label_map import compose_labels
from segvit.inference.protocol import image_scores, protocol_windows
from segvit.inference.tiles import View, window_matrices
from segvit.inference.windows import Windows, window_weights
from segvit.models.output import SegOutput
from segvit.models.scores import class_probabilities
from segvit.profiling.benchmark import made_up_logits
from segvit.utils.resize import resize
from segvit.utils.sizes import fit_size

BESIDE = (-6, -5, -4, -3, 3, 4, 5, 6)
"""Places beside a seam, in pixels, at which the step of the photo itself is measured."""
BLENDS: tuple[Blend, ...] = get_args(Blend)


def seams(starts: set[int], side: int, length: int) -> list[int]:
    """First pixels behind the seams along one side of an image."""
    found = {edge for start in starts for edge in (start, start + side)}
    return sorted(edge for edge in found if 0 < edge < length)


def steps(scores: Tensor, windows: Windows) -> tuple[list[float], list[float]]:
    """Step across each seam of scores (K, H, W), less that of the photo itself: of the scores, and of the labels."""
    corners = windows.corners(*scores.shape[1:])
    rows: tuple[list[float], list[float]] = ([], [])
    for dim in (0, 1):
        length = scores.shape[1 + dim]
        side = min(windows.side, length)
        lines = scores.movedim(1 + dim, 0)  # (length, K, other side)
        labels = lines.argmax(dim=1)
        for edge in seams({corner[dim] for corner in corners}, side, length):
            places = [edge, *(edge + offset for offset in BESIDE if 0 < edge + offset < length)]
            score = [float((lines[place] - lines[place - 1]).abs().sum(dim=0).mean()) for place in places]
            label = [float((labels[place] != labels[place - 1]).float().mean()) for place in places]
            for values, found in zip(rows, (score, label), strict=True):
                values.append(found[0] - statistics.mean(found[1:]))
    return rows


def made_up_view(present: int, blend: Blend) -> View:
    """Windows of an image, each with logits of its own."""
    num_classes, side, size = 150, 512, (853, 1194)
    corners = Windows(side, 341).corners(*size)
    class_logits, mask_logits = made_up_logits(num_classes, present, (32, 32))
    output = SegOutput(class_logits, mask_logits, (side, side), (side, side))
    probabilities = class_probabilities(output).expand(len(corners), -1, -1)
    random = torch.Generator().manual_seed(1)
    logits = torch.stack([mask_logits[0, 0].roll(int(torch.randint(32, (), generator=random)), 1) for _ in corners])
    rows, columns = window_matrices(logits, (side, side), (side, side))
    weights = window_weights((side, side), logits) if blend == "gaussian" else None
    return View(
        size=size,
        corners=corners,
        probabilities=probabilities,
        logits=logits,
        rows=rows,
        columns=columns,
        padded_size=(side, side),
        weights=weights,
    )


def timed(present: int, rounds: int) -> dict[Blend, list[float]]:
    """Seconds of the label map with each blend, in each round; the first blend of a round changes in turn."""
    views = {blend: made_up_view(present, blend) for blend in BLENDS}
    times: dict[Blend, list[float]] = {blend: [] for blend in BLENDS}
    for number in range(rounds + 1):
        for blend in BLENDS if number % 2 else reversed(BLENDS):
            start = time.process_time()
            compose_labels([views[blend]], views[blend].size)
            if number:  # the first round warms up
                times[blend].append(time.process_time() - start)
    return times


def seam_table(model: segvit.SegViT, photos: list[Path], config: EvalConfig, size: int) -> Table:
    """Seams of each blend, averaged over the photos."""
    table = Table(title=f"added by windows across a seam, mean of {len(photos)} photos")
    for heading in ("blend", "scores, sum of |difference|", "labels, points"):
        table.add_column(heading)
    images = []
    for path in photos:
        image = pil_to_tensor(read_image(path))
        images.append(resize(image, fit_size(image.shape[1], image.shape[2], long=None, short=size)))
    for blend in BLENDS:
        test = replace(config, blend=blend)
        windows = protocol_windows(model, test)
        assert windows is not None
        scores, labels = [], []
        for image in images:
            volume = image_scores(model, image, test)
            found = steps(volume, windows)
            scores += found[0]
            labels += found[1]
        table.add_row(blend, f"{statistics.mean(scores):.4f}", f"{100 * statistics.mean(labels):.2f}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("photos", type=Path, nargs="+")
    parser.add_argument("--window", type=int, help="side in pixels; default: that of the model")
    parser.add_argument("--stride", type=int, help="default: two thirds of the window")
    parser.add_argument("--size", type=int, default=480, help="shorter side of the photos in pixels")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = segvit.load_model(options.model)
    config = EvalConfig(window=options.window, stride=options.stride)
    console = Console()
    console.print(seam_table(model, options.photos, config, options.size))
    table = Table(title=f"time of the label map, {options.rounds} rounds")
    for heading in ("classes present", *(f"{blend}, ms" for blend in BLENDS), "gaussian / mean"):
        table.add_column(heading)
    for present in (12, 150):
        times = timed(present, options.rounds)
        ratio = statistics.median(g / m for g, m in zip(times["gaussian"], times["mean"], strict=True))
        medians = [f"{1000 * statistics.median(times[blend]):.0f}" for blend in BLENDS]
        table.add_row(str(present), *medians, f"{ratio:.3f}")
    console.print(table)


if __name__ == "__main__":
    main()

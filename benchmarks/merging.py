"""Time from an image tensor to its label map with and without token merging, on photos (docs/merging.md).

    python benchmarks/merging.py best.safetensors photo.jpg ... [--size 512] [--thresholds 0.88 0.84] [--threads 2]

Each photo is cut to a square and resized, one image at a time: how much merges depends on what it shows. Medians of
interleaved rounds over all photos, on the CPU. Multiply-adds are those of the backbone, counted while it runs.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from rounds import measure
from torch import Tensor
from torch.nn.functional import interpolate

import segvit
from segvit.inference.network import image_for
from segvit.profiling.merging import counting, with_merging


def square(model: segvit.SegViT, photo: Path, size: int) -> Tensor:
    """The middle of a photo as images (1, 3, size, size), uint8."""
    image = image_for(model, photo)
    side = min(image.shape[1:])
    top, left = ((length - side) // 2 for length in image.shape[1:])
    middle = image[None, :, top : top + side, left : left + side].float()
    return interpolate(middle, size=(size, size), mode="bilinear", antialias=True).round().to(image.dtype)


def labelling(model: segvit.SegViT, images: list[Tensor]) -> Callable[[], None]:
    """A run of the model on each of some images."""

    def run() -> None:
        for image in images:
            model.predict(image)

    return run


@torch.no_grad()
def cost(model: segvit.SegViT, images: list[Tensor]) -> float:
    """Multiply-adds of the backbone, mean over images."""
    with counting(model) as seen:
        for image in images:
            model.backbone(model.pad(model.normalise(image)))
    return seen.flops / 2 / len(images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("photos", nargs="+", type=Path)
    parser.add_argument("--size", type=int, default=512, help="side of the image in pixels")
    parser.add_argument("--thresholds", type=float, nargs="+", default=[0.88, 0.84, 0.8])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    start = segvit.load_model(options.model)
    images = [square(start, photo, options.size) for photo in options.photos]
    models = {"none": with_merging(start)}
    models |= {f"{threshold:g}": with_merging(start, threshold=threshold) for threshold in options.thresholds}
    costs = {name: cost(model, images) for name, model in models.items()}
    seconds = measure({name: labelling(model, images) for name, model in models.items()}, options.repeats)
    table = Table(title=f"{options.model}, {len(images)} photos of {options.size} px, {options.threads} threads")
    for column in ("threshold", "backbone multiply-adds (G)", "share", "ms per image", "x faster"):
        table.add_column(column, justify="right")
    for name in models:
        shares = f"{costs[name] / 1e9:.2f}", f"{costs[name] / costs['none']:.1%}"
        times = f"{1000 * seconds[name] / len(images):.1f}", f"{seconds['none'] / seconds[name]:.2f}"
        table.add_row(name, *shares, *times)
    Console().print(table)


if __name__ == "__main__":
    main()

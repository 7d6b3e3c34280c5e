"""What the head, the label map and the criterion cost on top of the bare backbone, side by side in one run.

    python benchmarks/overhead.py [--backbone vit_small_patch16_384] [--size 512] [--classes 150] [--repeats 5]

Every round runs each candidate once, in turn, so that noise of the machine falls on all; medians are reported, and
their ratio to the bare timm model. Random weights, float32, on the CPU with as many threads as there are cores.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import timm
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from segvit.config import ModelConfig
from segvit.losses import criterion
from segvit.models.segvit import SegViT


def measure(candidates: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each candidate over interleaved rounds, after one round of warm-up."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for repeat in range(repeats + 1):
        for name, run in candidates.items():
            start = time.perf_counter()
            run()
            if repeat:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def table(title: str, seconds: dict[str, float]) -> Table:
    """Times and their ratio to the first row's."""
    result = Table("", "ms", "x bare", title=title)
    bare = next(iter(seconds.values()))
    for name, value in seconds.items():
        result.add_row(name, f"{1000 * value:.0f}", f"{value / bare:.2f}")
    return result


def present_labels(batch: int, size: int, present: int) -> Tensor:
    """Label maps (B, H, W) in vertical stripes of `present` classes."""
    stripe = torch.arange(size) * present // size
    return stripe.expand(batch, size, size).contiguous()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="vit_small_patch16_384")
    parser.add_argument("--size", type=int, default=512, help="side of the image in pixels")
    parser.add_argument("--classes", type=int, default=150)
    parser.add_argument("--present", type=int, default=20, help="classes present in each training image")
    parser.add_argument("--batch", type=int, default=2, help="images of a training step")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    console = Console()

    bare = timm.create_model(options.backbone, img_size=options.size, num_classes=0).eval()
    config = ModelConfig(backbone=options.backbone, image_size=options.size, class_token=False)
    model = SegViT(config, num_classes=options.classes).eval()
    image = torch.rand(1, 3, options.size, options.size)
    with torch.inference_mode():
        seconds = measure(
            {
                "bare timm forward": lambda: bare.forward_features(image),
                "segvit, logits": lambda: model(image, deep=False),
                "segvit, label map": lambda: model.predict(image),
                "segvit, score volume": lambda: model.scores(image),
            },
            options.repeats,
        )
    setting = f"{options.backbone}, {options.size} x {options.size}, {options.classes} classes"
    console.print(table(f"inference, batch 1: {setting}", seconds))

    bare.train()
    model.train()
    images = torch.rand(options.batch, 3, options.size, options.size)
    labels = present_labels(options.batch, options.size, options.present)
    seconds = measure(
        {
            "bare forward + backward": lambda: bare.forward_features(images).sum().backward(),
            "segvit forward + criterion + backward": lambda: criterion(model(images), labels).total.backward(),
        },
        options.repeats,
    )
    console.print(table(f"training step, batch {options.batch}, {options.present} present: {setting}", seconds))


if __name__ == "__main__":
    main()

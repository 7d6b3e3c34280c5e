"""What a lower precision changes in the labels, and what it and compiling save, on a dataset.

    python benchmarks/precision.py MODEL --spec camvid --root camvid [--precision bf16] [--compile] [--threads 2]

Every image is labelled under the model's own protocol at float32 and in the other precision, in turn; with --compile by
compiled twins too. Agreement is the share of all pixels whose label is that of float32; mIoU is in points. Times are
medians over the images, after one round of warm-up on the first.
"""

import argparse
import copy
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

import segvit
from segvit.config import DataConfig, PrecisionChoice
from segvit.data.dataset import Samples, open_dataset
from segvit.evaluation.metrics import ConfusionMatrix
from segvit.inference.compiled import compile_model, is_compiled
from segvit.inference.precision import computing_in, resolve_precision
from segvit.inference.protocol import image_labels


@dataclass
class Candidate:
    """A way to label images, and how it fares."""

    model: segvit.SegViT
    precision: PrecisionChoice
    matrix: ConfusionMatrix
    seconds: list[float] = field(default_factory=list)
    first: float = 0.0
    same: int = 0

    def label(self, image: torch.Tensor) -> torch.Tensor:
        """Labels (H, W) of an image uint8 (3, H, W)."""
        start = time.perf_counter()
        with computing_in(resolve_precision(self.model, self.precision), self.model.mean.device):
            labels = image_labels(self.model, image)
        self.seconds.append(time.perf_counter() - start)
        return labels


def run(candidates: list[Candidate], dataset: Samples, count: int) -> int:
    """Label the first images with each candidate in turn; the pixels in all."""
    pixels = 0
    for candidate in candidates:
        image = dataset.read(0).image.as_subclass(torch.Tensor)
        candidate.label(image)
        candidate.first = candidate.seconds.pop()
        candidate.label(image)
        candidate.seconds.clear()
    for index in track(range(count), transient=True):
        sample = dataset.read(index)
        truth = sample.labels.as_subclass(torch.Tensor)
        pixels += truth.numel()
        found = [candidate.label(sample.image.as_subclass(torch.Tensor)) for candidate in candidates]
        for candidate, labels in zip(candidates, found, strict=True):
            candidate.matrix.update(labels, truth)
            candidate.same += int((labels == found[0]).sum())
    return pixels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--spec", default="camvid")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--precision", default="bf16", choices=("auto", "bf16", "fp16"))
    parser.add_argument("--compile", action="store_true", help="time compiled twins too")
    parser.add_argument("--images", type=int, help="how many, default all")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = segvit.load_model(options.model)
    dataset = open_dataset(DataConfig(spec=options.spec, root=options.root), "val")
    count = min(options.images or len(dataset), len(dataset))
    models = [model]
    if options.compile:
        models.append(copy.deepcopy(model))
        compile_model(models[1])
    candidates = [
        Candidate(model=twin, precision=precision, matrix=ConfusionMatrix(model.num_classes, model.mean.device))
        for twin in models
        for precision in ("fp32", options.precision)
    ]
    pixels = run(candidates, dataset, count)
    table = Table("", "mIoU", "agreement", "ms an image", "x float32", "first image, s")
    table.title = f"{options.spec}, {count} images, {options.threads} threads"
    for one in candidates:
        name = str(resolve_precision(one.model, one.precision)) + (", compiled" if is_compiled(one.model) else "")
        median, plain = (statistics.median(which.seconds) for which in (one, candidates[0]))
        miou, agreement = 100 * one.matrix.compute().miou, 100 * one.same / pixels
        cells = (
            f"{miou:.3f}",
            f"{agreement:.3f} %",
            f"{1000 * median:.1f}",
            f"{median / plain:.3f}",
            f"{one.first:.1f}",
        )
        table.add_row(name, *cells)
    Console().print(table)


if __name__ == "__main__":
    main()

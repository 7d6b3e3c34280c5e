"""What the Shrunk structure saves against plain, side by side in one run: time, peak memory, multiply-adds.

    python benchmarks/shrunk.py [--models base-512 large-640] [--threads 2] [--repeats 5] [--classes 150]

From an image tensor to its label map. Every round runs each candidate once, in turn, so that noise of the machine
falls on all; medians are reported, and ratios to plain. Peak memory is what a prediction takes on top of the weights,
seen in a process of its own (Linux). Random weights, float32, batch 1, on the CPU.
"""

import argparse
import subprocess
import sys

import torch
from rich.console import Console
from rich.table import Table
from rounds import measure

import segvit
from segvit.config import ModelConfig, Structure, Upsampling
from segvit.profiling.benchmark import peak_memory

MODELS = {
    "base-512": ("vit_base_patch16_384", 512),
    "large-640": ("vit_large_patch16_384", 640),
}
CANDIDATES: dict[str, tuple[Structure, Upsampling]] = {
    "plain": ("plain", "tap"),
    "shrunk": ("shrunk", "tap"),
    "shrunk, paper": ("shrunk", "paper"),
    "naive_shrunk": ("naive_shrunk", "tap"),
}
"""Structure and up-sampling of each row."""


def create(name: str, candidate: str, num_classes: int) -> segvit.SegViT:
    """A model of MODELS with random weights, without class token as in the paper."""
    backbone, size = MODELS[name]
    structure, upsampling = CANDIDATES[candidate]
    config = ModelConfig(
        backbone=backbone, structure=structure, upsampling=upsampling, image_size=size, class_token=False
    )
    return segvit.create_model(config=config, num_classes=num_classes).eval()


def image_for(name: str) -> torch.Tensor:
    """A random image (1, 3, size, size)."""
    size = MODELS[name][1]
    return torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))


def print_peak_memory(name: str, candidate: str, num_classes: int) -> None:
    """Print the MiB that one prediction takes on top of what the process holds before it."""
    model, image = create(name, candidate, num_classes), image_for(name)
    with torch.inference_mode():
        model.predict(image[..., :64, :64])  # libraries and their buffers
        print(peak_memory(lambda: model.predict(image)) // 2**20)


def peak_of(name: str, candidate: str, options: argparse.Namespace) -> int:
    """`print_peak_memory` in a process of its own."""
    flags = ["--threads", str(options.threads), "--classes", str(options.classes), "--peak-memory", name, candidate]
    done = subprocess.run([sys.executable, __file__, *flags], check=True, capture_output=True, text=True)
    return int(done.stdout)


def compare(name: str, options: argparse.Namespace) -> Table:
    """One table for a model: plain and its shrunk structures."""
    models = {candidate: create(name, candidate, options.classes) for candidate in CANDIDATES}
    image = image_for(name)
    with torch.inference_mode():
        seconds = measure({key: lambda m=model: m.predict(image) for key, model in models.items()}, options.repeats)
    title = f"{name}, {options.classes} classes, {options.threads} threads, median of {options.repeats}"
    table = Table("structure", "ms", "x plain", "G multiply-adds", "x plain", "peak MiB", "x plain", title=title)
    work = {key: segvit.profile(model, image.shape[2:]).multiply_adds for key, model in models.items()}
    del models
    memory = {key: peak_of(name, key, options) for key in CANDIDATES}
    for key in CANDIDATES:
        table.add_row(
            key,
            f"{1000 * seconds[key]:.0f}",
            f"{seconds[key] / seconds['plain']:.3f}",
            f"{work[key] / 1e9:.1f}",
            f"{work[key] / work['plain']:.3f}",
            str(memory[key]),
            f"{memory[key] / memory['plain']:.2f}",
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--classes", type=int, default=150)
    parser.add_argument("--peak-memory", nargs=2, metavar=("MODEL", "ROW"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.peak_memory:
        print_peak_memory(*options.peak_memory, options.classes)
        return
    for name in options.models:
        Console().print(compare(name, options))


if __name__ == "__main__":
    main()

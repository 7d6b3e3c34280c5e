"""What the head and the criterion add to the backbone's own forward and backward pass: time and peak memory.

    python benchmarks/training_step.py [--backbone vit_small_patch16_384] [--size 512] [--batch 2] [--present 20] \\
        [--upsampling tap] [--grad-checkpointing]

Medians of interleaved rounds; peak memory is what a step takes on top of model, gradients and images, in a process of
its own (Linux). Random weights, float32, on the CPU, dropout as in training.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable
from typing import get_args

import timm
import torch
from rich.console import Console
from rich.table import Table
from rounds import measure
from torch import Tensor

import segvit
from segvit.config import ModelConfig, Structure, Upsampling
from segvit.profiling.benchmark import peak_memory

BARE = "bare backbone"
STRUCTURES: tuple[Structure, ...] = ("plain", "shrunk", "naive_shrunk")
CHECKPOINTED = ", grad checkpointing"
"""Ends the name of a structure whose blocks run again in the backward pass."""


def present_labels(batch: int, size: int, present: int) -> Tensor:
    """Label maps (B, H, W) in vertical stripes of `present` classes."""
    stripe = torch.arange(size) * present // size
    return stripe.expand(batch, size, size).contiguous()


def step(name: str, options: argparse.Namespace) -> Callable[[], None]:
    """Forward, loss and backward of the bare backbone or of a structure."""
    images = torch.rand(options.batch, 3, options.size, options.size)
    if name == BARE:
        bare = timm.create_model(options.backbone, img_size=options.size, num_classes=0).train()
        return lambda: bare.forward_features(images).sum().backward()
    structure = next(structure for structure in STRUCTURES if structure == name.removesuffix(CHECKPOINTED))
    upsampling = options.upsampling if structure == "shrunk" else ModelConfig.upsampling
    model = segvit.create_model(
        options.backbone,
        num_classes=options.classes,
        structure=structure,
        image_size=options.size,
        config=ModelConfig(class_token=False, upsampling=upsampling),
    ).train()
    model.backbone.grad_checkpointing = name.endswith(CHECKPOINTED)
    labels = present_labels(options.batch, options.size, options.present)
    return lambda: segvit.criterion(model(images), labels).total.backward()


def peak(name: str) -> int:
    """Peak memory in MiB of a step, in a process of its own."""
    words = [sys.executable, __file__, *sys.argv[1:], "--peak-memory", name]
    return int(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="vit_small_patch16_384")
    parser.add_argument("--size", type=int, default=512, help="side of the images in pixels")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--classes", type=int, default=150)
    parser.add_argument("--present", type=int, default=20, help="classes in each image")
    parser.add_argument(
        "--upsampling", choices=get_args(Upsampling), default=ModelConfig.upsampling, help="that of shrunk"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--grad-checkpointing", action="store_true", help="each structure without it and with it")
    parser.add_argument("--peak-memory", metavar="NAME", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.peak_memory:
        run = step(options.peak_memory, options)
        run()  # gradients, libraries and their buffers
        print(peak_memory(run) // 2**20)
        return
    names = (BARE, *STRUCTURES)
    if options.grad_checkpointing:
        names = tuple(each for name in STRUCTURES for each in (name, name + CHECKPOINTED))
    seconds = measure({name: step(name, options) for name in names}, options.repeats)
    memory = {name: peak(name) for name in names}
    setting = f"{options.backbone}, {options.size} x {options.size}, batch {options.batch}, {options.classes} classes"
    title = f"training step: {setting}, {options.present} present, {options.threads} threads, of {options.repeats}"
    title += f", up-sampling {options.upsampling}"
    against = "x without" if options.grad_checkpointing else "x bare"
    table = Table("", "ms", against, "peak MiB", against, title=title)
    for name in names:
        base = name.removesuffix(CHECKPOINTED) if options.grad_checkpointing else BARE
        ratio, held = seconds[name] / seconds[base], memory[name] / memory[base]
        table.add_row(name, f"{1000 * seconds[name]:.0f}", f"{ratio:.3f}", str(memory[name]), f"{held:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()

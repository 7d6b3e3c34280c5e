"""The memory that `segvit info --plan` expects, beside what steps on this machine's CPU take.

    python benchmarks/plan.py [--backbone vit_small_patch16_384] [--size 256] [--batch 4] [--classes 150] \\
        [--upsampling tap]

Each case trains for two steps, model and optimizer included, in a process of its own (Linux), whose peak is told. There
glibc gives freed tensors back to the system at once; with --gaps it keeps what it likes, as in a run.
Random weights and images, classes in stripes.
"""

import argparse
import os
import subprocess
import sys
from contextlib import nullcontext
from typing import get_args

import torch
from rich.console import Console
from rich.table import Table
from training_step import present_labels

from segvit.config import ModelConfig, OptimConfig, PrecisionName, Structure, TrainConfig, Upsampling
from segvit.inference.precision import HALVES
from segvit.losses import criterion
from segvit.models.create import create_model
from segvit.profiling.benchmark import peak_memory
from segvit.profiling.plan import MEBIBYTE, PRESENT, plan
from segvit.training.ema import create_average
from segvit.training.optim import create_optimizer

CASES: dict[str, tuple[Structure, bool, PrecisionName, int, bool]] = {
    "plain": ("plain", False, "fp32", 1, False),
    "plain, checkpointed": ("plain", True, "fp32", 1, False),
    "plain, bf16": ("plain", False, "bf16", 1, False),
    "two parts, averaged": ("plain", False, "fp32", 2, True),
    "shrunk": ("shrunk", False, "fp32", 1, False),
    "shrunk, checkpointed": ("shrunk", True, "fp32", 1, False),
}
"""Structure, grad_checkpointing, precision, accumulate, whether weights are averaged."""


def config_of(case: str, options: argparse.Namespace, *, small: bool = False) -> TrainConfig:
    """The run of a case; or a small one of its kind."""
    structure, checkpointing, precision, parts, averaged = CASES[case]
    upsampling = options.upsampling if structure == "shrunk" else ModelConfig.upsampling
    size, batch = (64, parts) if small else (options.size, options.batch)
    return TrainConfig(
        model=ModelConfig(backbone=options.backbone, structure=structure, upsampling=upsampling, image_size=size),
        optim=OptimConfig(),
        batch_size=batch,
        precision=precision,
        grad_checkpointing=checkpointing,
        accumulate=parts,
        ema_decay=0.999 if averaged else None,
        device="cpu",
    )


def train(config: TrainConfig, classes: int) -> None:
    """Two steps, in the order of the trainer."""
    model = create_model(config=config.model, num_classes=classes).train()
    model.backbone.grad_checkpointing = config.grad_checkpointing
    average = None if config.ema_decay is None else create_average(model, decay=config.ema_decay)
    optimizer = create_optimizer(model, config.optim)
    size, images = config.model.image_size, config.batch_size // config.accumulate
    halves = HALVES.get(config.precision)
    for _ in range(2):
        optimizer.zero_grad()
        for _ in range(config.accumulate):
            batch = torch.randint(0, 256, (images, 3, size, size), dtype=torch.uint8)
            with torch.autocast("cpu", halves) if halves else nullcontext():
                output = model(batch)
            criterion(output, present_labels(images, size, min(PRESENT, classes))).total.backward()
        optimizer.step()
        if average is not None:
            average.update_parameters(model)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="vit_small_patch16_384")
    parser.add_argument("--size", type=int, default=256, help="side of the images in pixels")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--classes", type=int, default=150)
    parser.add_argument(
        "--upsampling", choices=get_args(Upsampling), default=ModelConfig.upsampling, help="that of shrunk"
    )
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--gaps", action="store_true", help="leave the gaps of malloc in")
    parser.add_argument("--measure", metavar="CASE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.measure:
        train(config_of(options.measure, options, small=True), options.classes)  # libraries and their buffers
        config = config_of(options.measure, options)
        print(peak_memory(lambda: train(config, options.classes)))
        return
    setting = f"{options.backbone}, {options.size} x {options.size}, batch {options.batch}, {options.classes} classes"
    setting += f", up-sampling {options.upsampling}"
    table = Table("", "expected MiB", "measured MiB", "expected / measured", title=setting)
    for case in options.cases:
        expected = plan(config_of(case, options), num_classes=options.classes)
        words = [sys.executable, __file__, *sys.argv[1:], "--measure", case]
        options_of_malloc = {} if options.gaps else {"MALLOC_MMAP_THRESHOLD_": "131072"}
        done = subprocess.run(words, check=True, capture_output=True, text=True, env=os.environ | options_of_malloc)
        measured = int(done.stdout)
        peak = expected.memory[expected.chosen].peak
        table.add_row(case, f"{peak / MEBIBYTE:.0f}", f"{measured / MEBIBYTE:.0f}", f"{peak / measured:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()

"""A training step on a small machine: all weights, LoRA, a frozen backbone, and a frozen backbone with cached features.

    python benchmarks/cached_features.py --spec camvid --root camvid --weights WEIGHTS.safetensors

Median milliseconds of a step in interleaved rounds, loading and augmentation included; peak memory is that of a process
of its own (Linux), with a full cache. Without --weights they are random; without --spec the scenes are made up. The
last lines compare the losses of the same steps with and without the cache.
"""

import argparse
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from rounds import measure

from segvit.config import AugmentConfig, DataConfig, ModelConfig, OptimConfig, Structure, TrainConfig
from segvit.profiling.benchmark import peak_memory
from segvit.training.train import Trainer

FULL, LORA, FROZEN, CACHED = "all weights learn", "LoRA", "frozen backbone", "frozen backbone, cached features"
ROWS = (FULL, LORA, FROZEN, CACHED)


def config_of(name: str, options: argparse.Namespace, folder: Path) -> TrainConfig:
    """Return the run of a row."""
    data = DataConfig(spec="shapes", workers=options.workers)
    if options.spec is not None:
        data = DataConfig(spec=options.spec, root=options.root, workers=options.workers)
    freeze: Any = int(options.freeze) if options.freeze.isdigit() else options.freeze
    optim = OptimConfig(lr=1e-5, head_lr_factor=50, warmup_steps=0)
    if name == LORA:
        optim = replace(optim, lora_rank=options.rank)
    if name in (FROZEN, CACHED):
        optim = replace(optim, freeze=freeze)
    if name == CACHED:
        data = replace(data, cache_features=folder / "features")
    structure: Structure = options.structure
    return TrainConfig(
        model=ModelConfig(
            backbone=options.backbone, image_size=options.size, structure=structure, pretrained_file=options.weights
        ),
        data=data,
        augment=AugmentConfig(views=options.views),
        optim=optim,
        steps=10_000,
        batch_size=options.batch,
        device="cpu",
        loggers=(),
        output=folder / uuid.uuid4().hex,
    )


def stepper(name: str, options: argparse.Namespace, folder: Path) -> Callable[[], float]:
    """Return a function that does the next step of a run and returns its loss."""
    trainer = Trainer(config_of(name, options, folder), resume=False)
    trainer.progress.console.quiet = True
    batches: Iterator[Any] = trainer.batches()

    def step() -> float:
        number, (images, labels, indices) = next(batches)
        return float(trainer.step(number, images, labels, indices).total)

    return step


def peak(name: str, folder: Path) -> int:
    """Return the peak memory in MiB of a step, in a process of its own that reads the cache of `folder`."""
    words = [sys.executable, __file__, *sys.argv[1:], "--workers", "0", "--peak-memory", name, str(folder)]
    return int(subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="vit_small_patch14_dinov2.lvd142m")
    parser.add_argument("--weights", type=Path, help="file of the backbone's weights in timm's names")
    parser.add_argument("--structure", default="plain")
    parser.add_argument("--spec", help="dataset, such as camvid; default: made-up scenes")
    parser.add_argument("--root", type=Path, help="its folder")
    parser.add_argument("--size", type=int, default=252, help="side of the crops in pixels")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--views", type=int, default=1)
    parser.add_argument("--freeze", default="backbone", help="backbone, or a number of blocks")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), help="names of the rows")
    parser.add_argument("--peak-memory", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.peak_memory:
        name, place = options.peak_memory
        step = stepper(name, options, Path(place))
        step()  # gradients, optimizer state, libraries and their buffers
        print(peak_memory(step) // 2**20)
        return
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if CACHED in options.rows:  # fill the cache with the crops of all steps that are measured
            fill = stepper(CACHED, options, folder)
            for _ in range(options.repeats + 1):
                fill()
        steps = {name: stepper(name, options, folder) for name in options.rows}
        losses: dict[str, list[float]] = {name: [] for name in steps}

        def noted(name: str) -> Callable[[], None]:
            return lambda: losses[name].append(steps[name]())

        seconds = measure({name: noted(name) for name in steps}, options.repeats)
        memory = {name: peak(name, folder) for name in options.rows}
    title = (
        f"{options.backbone} ({options.structure}), {options.size} px, batch {options.batch}, freeze {options.freeze}"
    )
    table = Table("", "ms a step", "times faster than frozen", "peak MiB", title=title)
    base = seconds.get(FROZEN, 0.0)
    for name in options.rows:
        ratio = f"{base / seconds[name]:.2f}" if base else ""
        table.add_row(name, f"{1000 * seconds[name]:.0f}", ratio, str(memory[name]))
    Console().print(table)
    if {FROZEN, CACHED} <= losses.keys():
        gaps = [abs(one - other) for one, other in zip(losses[FROZEN], losses[CACHED], strict=True)]
        print(f"largest difference of {len(gaps)} losses around {losses[FROZEN][-1]:.2f}: {max(gaps):.1e}")


if __name__ == "__main__":
    main()

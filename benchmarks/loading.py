"""What a training sample costs to load, and whether the loading processes keep up with a ViT-Tiny on the same cores.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/loading.py [--spec camvid --root camvid] [--crop 256] [--workers 2]

Milliseconds per image, medians of interleaved rounds; the ratio is to a training step on batches that lie in memory.
Rows of one process show processor time alone; the others are wall time, from the first batch of a fresh loader to its
last. Without a dataset made-up scenes of the crop's size are written to a temporary folder. The paper's augmentation,
random weights, float32, on the CPU. `segvit` sets OMP_WAIT_POLICY itself, so that threads do not spin while they wait.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader

import segvit
from segvit.config import AugmentConfig, DataConfig, ModelConfig
from segvit.data.augment.transform import TrainTransform
from segvit.data.dataset import open_dataset
from segvit.data.sampling.crops import TrainingSamples, collate
from segvit.data.sampling.order import EndlessBatches
from segvit.data.shapes.scenes import write_shapes

IN_MEMORY = "training step, batches in memory"


def create_step(num_classes: int, options: argparse.Namespace) -> Callable[[Any], None]:
    """An optimizer step of a ViT-Tiny on a batch."""
    model = segvit.create_model(
        "vit_tiny_patch16_224",
        num_classes=num_classes,
        image_size=options.crop,
        config=ModelConfig(class_token=False),
    ).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def step(batch: Any) -> None:
        images, labels, _ = batch
        optimizer.zero_grad()
        segvit.criterion(model(images), labels).total.backward()
        optimizer.step()

    return step


def processor_time(run: Callable[[int], object], count: int) -> float:
    """Seconds of this thread for each of `run(0)` to `run(count - 1)`."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a loading process
    start = time.thread_time()
    for number in range(count):
        run(number)
    seconds = time.thread_time() - start
    torch.set_num_threads(threads)
    return seconds / count


def candidates(data: DataConfig, options: argparse.Namespace) -> dict[str, Callable[[], float]]:
    """What is measured: each gives its seconds per image."""
    dataset = open_dataset(data, "train")
    transform = TrainTransform(options.crop, AugmentConfig(), (124, 116, 104))
    samples = TrainingSamples(dataset, transform, seed=0)
    step = create_step(dataset.spec.num_classes, options)
    kept = [dataset.read(number % len(dataset)) for number in range(options.batch)]

    def augment(number: int) -> None:
        sample = kept[number % len(kept)]
        transform(sample.image, sample.labels, torch.Generator().manual_seed(number))

    def loader() -> DataLoader[Any]:
        order = EndlessBatches(len(dataset), options.batch, seed=0, steps=options.steps)
        return DataLoader(samples, batch_sampler=order, num_workers=options.workers, collate_fn=collate)

    def from_the_first(batches: Any, use: Callable[[Any], object]) -> float:
        iterator = iter(batches)
        next(iterator)
        start = time.perf_counter()
        for batch in iterator:
            use(batch)
        return (time.perf_counter() - start) / (options.batch * (options.steps - 1))

    in_memory = list(loader())
    count = 4 * options.batch
    workers = f"{options.workers} processes"
    return {
        "one process: read image and labels": lambda: processor_time(lambda n: dataset.read(n % len(dataset)), count),
        "one process: augment": lambda: processor_time(augment, count),
        f"{workers}: load": lambda: from_the_first(loader(), lambda _: None),
        IN_MEMORY: lambda: from_the_first(in_memory, step),
        f"training step, fed by {workers}": lambda: from_the_first(loader(), step),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spec", default="shapes")
    parser.add_argument("--root", type=Path, help="folder of the dataset")
    parser.add_argument("--crop", type=int, default=256, help="side in pixels")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=6, help="batches in a round, of which the first is not counted")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        if options.root is None:
            write_shapes(Path(folder), train=32, val=1, size=options.crop)
        data = DataConfig(spec=options.spec, root=options.root or Path(folder))
        measured = candidates(data, options)
        times: dict[str, list[float]] = {name: [] for name in measured}
        for _ in range(options.repeats):
            for name, run in measured.items():
                times[name].append(run())
    seconds = {name: statistics.median(values) for name, values in times.items()}
    setting = f"{options.spec}, crop {options.crop}, batch {options.batch}, {options.threads} threads"
    table = Table("", "ms / image", "images / s", "x step", title=f"loading: {setting}, median of {options.repeats}")
    for name, value in seconds.items():
        table.add_row(name, f"{1000 * value:.2f}", f"{1 / value:.1f}", f"{value / seconds[IN_MEMORY]:.3f}")
    Console().print(table)


if __name__ == "__main__":
    main()

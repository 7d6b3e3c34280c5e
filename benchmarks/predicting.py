"""What `segvit predict` on a folder gains by threads: the same images, read and written beside the model or in turn.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/predicting.py PHOTOS [--images 32] [--model MODEL]

Images per second of interleaved rounds on the CPU, each into a folder of its own; all files must be the same. Without a
model: a ViT-Tiny with random weights and 11 classes, in windows of 256. `segvit` sets OMP_WAIT_POLICY itself, so that
threads do not spin while they wait.
"""

import argparse
import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from rounds import measure

import segvit
from segvit.config import ModelConfig
from segvit.prediction.inputs import find_images
from segvit.prediction.names import RECORD
from segvit.prediction.predict import predict
from segvit.prediction.predict_files import predict_files

ALONE = "model alone"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="folder of images")
    parser.add_argument("--images", type=int, default=32, help="of the folder, from its start")
    parser.add_argument("--model", help="a model of segvit")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.model:
        model = segvit.load_model(options.model)
    else:
        config = ModelConfig(class_token=False)
        model = segvit.create_model("vit_tiny_patch16_224", num_classes=11, image_size=256, config=config)
    model.eval()
    with tempfile.TemporaryDirectory() as folder:
        photos = [path for path, _ in find_images([options.photos], Path(folder))][: options.images]
        images = [predict(model, path).image for path in photos]
        numbers = itertools.count()

        def write(workers: int) -> Callable[[], object]:
            return lambda: predict_files(model, photos, Path(folder) / f"{workers}-{next(numbers)}", workers=workers)

        candidates: dict[str, Callable[[], object]] = {
            ALONE: lambda: [predict(model, image) for image in images],
            "in turn": write(0),
            "1 thread reads, 1 writes": write(1),
            "2 threads read, 2 write": write(2),
        }
        seconds = measure(candidates, options.repeats)
        runs = sorted(Path(folder).iterdir())
        for run in runs[1:]:
            for path in run.iterdir():
                assert path.name == RECORD or path.read_bytes() == (runs[0] / path.name).read_bytes(), path
    table = Table("", "ms / image", "images / s", "x in turn", title=f"{len(photos)} images, {options.threads} threads")
    for row, value in seconds.items():
        each = value / len(photos)
        table.add_row(row, f"{1000 * each:.1f}", f"{1 / each:.2f}", f"{seconds['in turn'] / value:.3f}")
    Console().print(table)


if __name__ == "__main__":
    main()

"""How near `segvit evaluate` comes to the bare model loop: the same model on images that lie in memory.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/evaluation.py [MODEL --spec camvid --root camvid] [--images 15]

Images per second over the same images under the model's own protocol, medians of interleaved rounds, on the CPU. "one
after the other" reads, labels and counts in one thread (workers = 0). The last rows are what reading and counting take
alone, without the model. Without a model and a dataset: a ViT-Tiny with random weights on made-up scenes of 256 pixels.
`segvit` sets OMP_WAIT_POLICY itself, so that threads do not spin while they wait.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from rounds import measure

import segvit
from segvit.config import DataConfig, ModelConfig
from segvit.data.dataset import Samples, open_dataset
from segvit.data.sample import Sample
from segvit.data.shapes.scenes import write_shapes
from segvit.data.spec import DatasetSpec
from segvit.evaluation.metrics import ConfusionMatrix
from segvit.inference.protocol import image_labels
from segvit.models.segvit import SegViT

BARE = "bare model loop"


class First:
    """The first samples of a dataset."""

    def __init__(self, samples: Samples, count: int) -> None:
        self.samples = samples
        self.count = min(count, len(samples))

    @property
    def spec(self) -> DatasetSpec:
        return self.samples.spec

    def __len__(self) -> int:
        return self.count

    def read(self, index: int) -> Sample:
        return self.samples.read(index)

    def describe(self, index: int) -> str:
        return self.samples.describe(index)


def candidates(model: SegViT, dataset: First) -> dict[str, Callable[[], object]]:
    """What takes turns."""
    pairs = [
        (sample.image.as_subclass(torch.Tensor), sample.labels.as_subclass(torch.Tensor))
        for sample in map(dataset.read, range(len(dataset)))
    ]
    predicted = [image_labels(model, image, model.protocol) for image, _ in pairs]

    def count() -> None:
        matrix = ConfusionMatrix(model.num_classes)
        for labelled, (_, labels) in zip(predicted, pairs, strict=True):
            matrix.update(labelled, labels)

    return {
        BARE: lambda: [image_labels(model, image, model.protocol) for image, _ in pairs],
        "evaluate, 2 workers": lambda: segvit.evaluate(model, dataset, workers=2),
        "evaluate, 1 worker": lambda: segvit.evaluate(model, dataset, workers=1),
        "evaluate, one after the other": lambda: segvit.evaluate(model, dataset, workers=0),
        "reading alone": lambda: [dataset.read(index) for index in range(len(dataset))],
        "counting alone": count,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="a model of segvit")
    parser.add_argument("--spec", default="shapes")
    parser.add_argument("--root", type=Path, help="folder of the dataset")
    parser.add_argument("--images", type=int, default=15, help="of the validation split, from its start")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        if options.root is None:
            write_shapes(Path(folder), train=1, val=options.images, size=256)
        samples = open_dataset(DataConfig(spec=options.spec, root=options.root or Path(folder)), "val")
        if options.model:
            model = segvit.load_model(options.model)
        else:
            config = ModelConfig(class_token=False)
            classes = samples.spec.num_classes
            model = segvit.create_model("vit_tiny_patch16_224", num_classes=classes, image_size=256, config=config)
        dataset = First(samples, options.images)
        seconds = measure(candidates(model.eval(), dataset), options.repeats)
    name = Path(options.model).name if options.model else "random weights"
    setting = f"{name}, {len(dataset)} images of {options.spec}, {options.threads} threads"
    table = Table("", "ms / image", "images / s", "x bare speed", title=f"evaluation: {setting}")
    for row, value in seconds.items():
        each = value / len(dataset)
        table.add_row(row, f"{1000 * each:.1f}", f"{1 / each:.2f}", f"{seconds[BARE] / value:.3f}")
    Console().print(table)


if __name__ == "__main__":
    main()

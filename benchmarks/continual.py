"""Learn classes step by step, from images that label the classes of the step alone, and see what is forgotten.

    python benchmarks/continual.py --spec camvid --root camvid --first 7 --step 2 --output runs/continual \
        [--pretrained-file vit_small_patch14_dinov2.safetensors] [--steps 250] [--added-steps 100]

The overlapped protocol: a step gets every training image that shows one of its classes, whatever else is on it. Pixels
of all other classes are ignored. After the last step, each model is scored on all classes of the validation set.

joint      all classes at once: what step by step is measured against
extend     `segvit train --extend --loss.ignore-as-negative`: a group of classes for each step, all else frozen
finetune   `segvit train --init`: every weight learns on
teacher    the same with `--teacher`: the model before the step labels the pixels that the step ignores

Settings are those that `segvit train` chooses. A run that is complete is not run again.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import segvit
from segvit.config import DataConfig, TrainConfig
from segvit.data.dataset import open_dataset
from segvit.data.sample import Sample, Samples
from segvit.data.spec import IGNORE_INDEX, DatasetSpec
from segvit.recipes.choose import choose_for
from segvit.training.continual.extension import Relabelled
from segvit.training.train import train
from segvit.weights.extend import without_classes

METHODS = ("joint", "extend", "finetune", "teacher")
Splits = dict[str, Samples]


def flat(parts: Sequence[Sequence[int]]) -> list[int]:
    """The numbers in all parts."""
    return [number for part in parts for number in part]


class Part:
    """Some samples of a dataset.

    Args:
        samples: a dataset.
        indices: numbers of the samples to keep.
    """

    def __init__(self, samples: Samples, indices: Sequence[int]) -> None:
        self.samples, self.indices = samples, indices

    @property
    def spec(self) -> DatasetSpec:
        return self.samples.spec

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, index: int) -> Sample:
        return self.samples.read(self.indices[index])

    def describe(self, index: int) -> str:
        return self.samples.describe(self.indices[index])


def with_classes(samples: Samples, known: Sequence[int], labelled: Sequence[int]) -> Samples:
    """Samples whose spec has the classes `known`, of which `labelled` are labelled and the others are ignored."""
    spec = without_classes(samples.spec, [k for k in range(samples.spec.num_classes) if k not in known])
    return Relabelled(samples, spec, {index: known.index(index) for index in labelled})


def showing(samples: Samples) -> Samples:
    """The samples of which a pixel is not ignored."""
    return Part(samples, [i for i in range(len(samples)) if (samples.read(i).labels != IGNORE_INDEX).any()])


def step_of(data: Splits, known: Sequence[int], labelled: Sequence[int]) -> Splits:
    """Training and validation set of a step."""
    sets = {split: with_classes(samples, known, labelled) for split, samples in data.items()}
    return sets | {"train": showing(sets["train"])}


class Benchmark:
    """The runs of a benchmark, each in a folder of its own.

    Args:
        options: of the command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.source = {"data.spec": options.spec, "data.root": str(options.root)}
        self.whole = DataConfig(spec=options.spec, root=options.root)
        self.data: Splits = {split: open_dataset(self.whole, split) for split in ("train", "val")}
        count = self.data["train"].spec.num_classes
        starts = (0, *range(options.first, count, options.step))
        self.parts = [list(range(start, end)) for start, end in zip(starts, (*starts[1:], count), strict=True)]

    def train(self, name: str, data: Splits, *, steps: int, **given: Any) -> Path:
        """Train a model unless it is there, and return its file."""
        options = self.options
        output = options.output / name
        model, done = output / "last.safetensors", output / "done"
        if not done.exists():
            chosen = {"steps": steps, "seed": options.seed, "precision": options.precision, "output": str(output)}
            config = choose_for(self.source | chosen | given).config
            config = replace(config, eval_every=steps, data=replace(DataConfig(), workers=config.data.workers))
            train(config, datasets=data, resume=resumable(config))
            done.touch()
        return model

    def model_of(self, method: str) -> Path:
        """Train a model by a method, step after step, and return its file."""
        options = self.options
        network = {"model.backbone": options.backbone}
        if options.pretrained_file is not None:
            network |= {"model.pretrained": True, "model.pretrained_file": str(options.pretrained_file)}
        if method == "joint":
            known = flat(self.parts)
            return self.train("joint", step_of(self.data, known, known), steps=options.steps, **network)
        first = self.parts[0]
        model = self.train(f"first-{len(first)}", step_of(self.data, first, first), steps=options.steps, **network)
        for number, part in enumerate(self.parts[1:], start=1):
            known = flat(self.parts[: number + 1]) if method != "extend" else part
            sets = step_of(self.data, known, part)
            name = f"{method}-{options.first}-{options.step}-{number}"
            model = self.train(name, sets, steps=options.added_steps, **start_of(method, str(model)))
        return model

    def row(self, method: str) -> list[str]:
        """Scores of a method's model: mIoU of the first classes, of the added ones and of all."""
        model = segvit.load_model(self.model_of(method))
        known = [self.data["val"].spec.classes.index(name) for name in model.classes]
        result = segvit.evaluate(model, with_classes(self.data["val"], known, known))
        iou = dict(zip(model.classes, result.metrics.iou, strict=True))
        names = self.data["val"].spec.classes
        groups = [self.parts[0], flat(self.parts[1:]), range(len(names))]
        means = [sum(float(iou[names[k]]) for k in group) / len(group) for group in groups]
        return [method, *(f"{100 * mean:.2f}" for mean in means)]


def start_of(method: str, model: str) -> Mapping[str, Any]:
    """The settings by which a step of a method starts from a model."""
    return {
        "extend": {"extend": model, "loss.ignore_as_negative": True},
        "finetune": {"init": model},
        "teacher": {"init": model, "teacher": model},
    }[method]


def resumable(config: TrainConfig) -> bool:
    """True if a run was begun."""
    return any(config.output.glob("checkpoint*"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spec", default="camvid", help="name or file of a spec")
    parser.add_argument("--root", type=Path, required=True, help="folder of the dataset")
    parser.add_argument("--backbone", default="vit_small_patch14_dinov2.lvd142m")
    parser.add_argument("--pretrained-file", type=Path)
    parser.add_argument("--first", type=int, default=7, help="number of classes of the first step")
    parser.add_argument("--step", type=int, default=2, help="number of classes of each other step")
    parser.add_argument("--steps", type=int, default=250, help="optimizer steps of the first step, and of joint")
    parser.add_argument("--added-steps", type=int, default=100, help="optimizer steps of each other step")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs")
    options = parser.parse_args()
    benchmark = Benchmark(options)
    title = f"{options.spec} {options.first}-{options.step}, mIoU after the last step, seed {options.seed}"
    table = Table("method", "first", "added", "all", title=title)
    for method in options.methods:
        table.add_row(*benchmark.row(method))
    Console().print(table)


if __name__ == "__main__":
    main()

"""On a GPU: image to label map, and the training step, beside the bare backbone of the same precision, compiled or not.

    python benchmarks/gpu.py [--backbones vit_base_patch16_384 vit_large_patch16_384] [--sizes 512 640] [--batches 1 16]

Label maps are made from logits shaped like a trained model's (benchmarks/inference.py); the training step is forward,
criterion and backward. Medians of interleaved rounds, the device waited for after each run; random weights; peak memory
is what a step takes on top of model, gradients and images. Runs on a CPU too (`--device cpu`), without the memory.
"""

import argparse
from collections.abc import Callable
from itertools import product
from typing import NamedTuple

import timm
import torch
from inference import labelling
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rounds import measure
from torch import Tensor, nn
from training_step import present_labels

import segvit
from segvit.config import ModelConfig, Structure
from segvit.models.modes import evaluating

BARE = "bare backbone"
STRUCTURES: tuple[Structure, ...] = ("plain", "shrunk")
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
MEBIBYTE = 2**20


class Case(NamedTuple):
    """What is the same for the candidates of a comparison."""

    backbone: str
    size: int
    batch: int
    precision: str
    compiled: bool

    def __str__(self) -> str:
        words = f"{self.backbone}, {self.size} x {self.size}, batch {self.batch}, {self.precision}"
        return words + (", compiled" if self.compiled else "")


def create(name: str, case: Case, options: argparse.Namespace) -> nn.Module:
    """The bare backbone, or a model of a structure, on the device."""
    model: nn.Module
    if name == BARE:
        model = timm.create_model(case.backbone, img_size=case.size, num_classes=0)
    else:
        model = segvit.create_model(
            case.backbone,
            num_classes=options.classes,
            structure=next(structure for structure in STRUCTURES if structure == name),
            image_size=case.size,
            config=ModelConfig(class_token=False),
        )
    model.to(options.device)
    if case.compiled:
        model.compile()
    return model


def labels_of(
    name: str, model: nn.Module, images: Tensor, case: Case, options: argparse.Namespace
) -> Callable[[], object]:
    """From images (B, 3, H, W) to the features of the bare backbone, or to label maps."""
    dtype = PRECISIONS[case.precision]
    if isinstance(model, segvit.SegViT):
        return labelling(model, images, options.present, dtype)

    def run() -> Tensor:
        with torch.autocast(images.device.type, dtype=dtype, enabled=dtype != torch.float32):
            features: Tensor = model(images)
        return features

    return run


def step_of(model: nn.Module, images: Tensor, labels: Tensor, case: Case) -> Callable[[], None]:
    """Forward, loss and backward."""
    dtype = PRECISIONS[case.precision]

    def run() -> None:
        with torch.autocast(images.device.type, dtype=dtype, enabled=dtype != torch.float32):
            output = model(images)
        loss = segvit.criterion(output, labels).total if isinstance(model, segvit.SegViT) else output.float().sum()
        loss.backward()

    return run


def waited(run: Callable[[], object], device: torch.device) -> Callable[[], None]:
    """A run until the device is done with it."""

    def whole() -> None:
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return whole


def peak(run: Callable[[], object], device: torch.device) -> int | None:
    """Bytes that a run takes at most on top of what is held before it; None on a CPU."""
    if device.type != "cuda":
        return None
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    run()
    return torch.cuda.max_memory_allocated(device) - before


def inference(case: Case, options: argparse.Namespace) -> dict[str, tuple[float, int | None]]:
    """Seconds and peak bytes from images to label maps, by candidate."""
    images = torch.rand(case.batch, 3, case.size, case.size, device=options.device)
    models = {name: create(name, case, options).eval() for name in (BARE, *STRUCTURES)}
    with torch.inference_mode():
        runs = {
            name: waited(labels_of(name, model, images, case, options), options.device)
            for name, model in models.items()
        }
        plain, shrunk = models["plain"], models["shrunk"]
        assert isinstance(plain, segvit.SegViT) and isinstance(shrunk, segvit.SegViT)
        with evaluating(plain), evaluating(shrunk):
            seconds = measure(runs, options.repeats)
        return {name: (seconds[name], peak(run, options.device)) for name, run in runs.items()}


def training(case: Case, options: argparse.Namespace) -> dict[str, tuple[float, int | None]]:
    """Seconds and peak bytes of a training step, by candidate; one after the other, for their memory."""
    images = torch.rand(case.batch, 3, case.size, case.size, device=options.device)
    labels = present_labels(case.batch, case.size, options.present).to(options.device)
    runs = {
        name: waited(step_of(create(name, case, options).train(), images, labels, case), options.device)
        for name in (BARE, *STRUCTURES)
    }
    seconds = measure(runs, options.repeats)
    return {name: (seconds[name], peak(run, options.device)) for name, run in runs.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=["vit_base_patch16_384", "vit_large_patch16_384"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 640], help="sides of the images in pixels")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--compiled", nargs="+", choices=("off", "on"), default=["off", "on"])
    parser.add_argument("--classes", type=int, default=150)
    parser.add_argument("--present", type=int, default=12, help="classes in each image")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--device", type=torch.device, default="cuda")
    options = parser.parse_args()
    if options.device.type == "cuda" and not torch.cuda.is_available():
        parser.error("no cuda device here: type --device cpu, with small --sizes and --backbones")
    place = torch.cuda.get_device_name(options.device) if options.device.type == "cuda" else "CPU"
    title = f"{options.classes} classes, {options.present} present, {place}, torch {torch.__version__}"
    compiled = [word == "on" for word in options.compiled]
    cases = [
        Case(*values)
        for values in product(options.backbones, options.sizes, options.batches, options.precisions, compiled)
    ]
    for what, run in {"image to label map": inference, "training step": training}.items():
        table = Table("", "ms", "x bare", "peak MiB", "x bare", title=f"{what}: {title}")
        for case in track(cases, description=what, transient=True):
            found = run(case, options)
            table.add_section()
            table.add_row(str(case))
            bare_seconds, bare_peak = found[BARE]
            for name, (seconds, held) in found.items():
                cells = [f"{1000 * seconds:.1f}", f"{seconds / bare_seconds:.3f}"]
                if held is not None and bare_peak:
                    cells += [str(held // MEBIBYTE), f"{held / bare_peak:.2f}"]
                table.add_row(f"  {name}", *cells)
        Console(width=110).print(table)


if __name__ == "__main__":
    main()

"""The compute dial on real images: mIoU over multiply-adds and time of trained plain and shrunk models.

From pretrained weights, with the settings that `segvit train` chooses:

    for seed in 0 1; do for structure in plain naive_shrunk shrunk; do
        segvit train --data.spec camvid --data.root camvid --model.pretrained-file WEIGHTS.safetensors \\
            --model.structure $structure --seed $seed --output runs/dial/${structure}_$seed
    done; done
    python benchmarks/dial.py runs/dial/* --images camvid/images/val --plot docs/images/dial.png

From scratch, train by `segvit train --config camvid/vit_tiny --data.root camvid`, with the last three flags as above.

Reads each run's best model and the scores that it was validated with. Multiply-adds are those of one photo under the
model's test protocol; ms are from decoded photo to label map, medians over the photos, all models in turn.
"""

import argparse
import statistics
from collections import defaultdict
from pathlib import Path

import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from rounds import measure
from torchvision.transforms.v2.functional import pil_to_tensor

import segvit
from segvit.inference.protocol import image_labels, protocol_size, protocol_windows
from segvit.weights.model_file import read_header

COLORS = {"plain": "#4d6fae", "shrunk": "#c8553d", "shrunk, paper's QU": "#d9a441", "naive_shrunk": "#8a8a8a"}


def kind(model: segvit.SegViT) -> str:
    """Return the structure of a model, and its up-sampling if that is not the default."""
    assert model.config is not None
    paper = model.config.structure == "shrunk" and model.config.upsampling == "paper"
    return "shrunk, paper's QU" if paper else model.config.structure


def multiply_adds(model: segvit.SegViT, size: tuple[int, int]) -> float:
    """Return the multiply-adds, in 10^9, of an image (H, W) under the model's test protocol."""
    resized = protocol_size(*size, model.protocol)
    windows = protocol_windows(model, model.protocol)
    if windows is None:
        return segvit.profile(model, resized).multiply_adds / 1e9
    return len(windows.corners(*resized)) * segvit.profile(model, model.image_size).multiply_adds / 1e9


def milliseconds(models: dict[Path, segvit.SegViT], photos: list[torch.Tensor]) -> dict[Path, float]:
    """Median time of each model over the photos, in turn."""
    seconds: dict[Path, list[float]] = defaultdict(list)
    for photo in photos:
        runs = {path: lambda m=model, p=photo: image_labels(m, p) for path, model in models.items()}
        for path, value in measure(runs, 1).items():
            seconds[path].append(value)
    return {path: 1000 * statistics.median(values) for path, values in seconds.items()}


def plot(rows: dict[str, list[tuple[float, float]]], path: Path) -> None:
    """mIoU over multiply-adds: a dot for each seed, their mean as a bar with the structure's name."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6, 3.6), layout="constrained")
    axes = figure.subplots()
    for structure, points in rows.items():
        work, scores = zip(*points, strict=True)
        mean = statistics.mean(scores)
        axes.scatter(work, scores, s=34, color=COLORS[structure], edgecolor="white", linewidth=0.8, zorder=3)
        axes.plot([0.98 * work[0], 1.02 * work[0]], [mean, mean], color=COLORS[structure], linewidth=2, zorder=2)
        axes.annotate(
            f"{structure.replace('_', ' ')} {mean:.1f}",
            (work[0], mean),
            textcoords="offset points",
            xytext=(14, -3),
            color=COLORS[structure],
            fontsize=9,
        )
    axes.set_xlabel("G multiply-adds per image", fontsize=9)
    axes.set_ylabel("mIoU, %", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.6)
    axes.margins(x=0.25, y=0.2)
    axes.tick_params(labelsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=160)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of segvit train")
    parser.add_argument("--images", type=Path, required=True, help="folder of photos to time on")
    parser.add_argument("--photos", type=int, default=15, help="how many of them")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--plot", type=Path, help="picture to write")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    paths = [run / "best.safetensors" for run in options.runs]
    models = {path: segvit.load_model(path) for path in paths}
    files = sorted(options.images.iterdir())
    step = max(len(files) // options.photos, 1)
    photos = [pil_to_tensor(Image.open(file).convert("RGB")) for file in files[::step]][: options.photos]
    size = (photos[0].shape[1], photos[0].shape[2])
    times = milliseconds(models, photos)
    rows: dict[str, list[tuple[float, float]]] = defaultdict(list)
    table = Table(
        "run",
        "structure",
        "mIoU",
        "boundary IoU",
        "G multiply-adds",
        "ms per image",
        title=f"photos of {size[0]} x {size[1]}",
    )
    for path, model in models.items():
        work, metrics = multiply_adds(model, size), read_header(path)["metrics"]
        score, boundary = 100 * metrics["miou"], 100 * metrics["mean_boundary_iou"]
        rows[kind(model)].append((work, score))
        cells = [f"{score:.1f}", f"{boundary:.1f}", f"{work:.2f}", f"{times[path]:.0f}"]
        table.add_row(path.parent.name, kind(model), *cells)
    Console().print(table)
    if options.plot:
        plot(rows, options.plot)


if __name__ == "__main__":
    main()

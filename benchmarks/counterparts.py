"""ATM beside other heads on the same pretrained backbone, under one budget and one protocol: mIoU, cost and time.

    python benchmarks/counterparts.py --weights vit_small_patch14_dinov2.safetensors \\
        --sets camvid=camvid clothing=clothing --frozen --search --plot docs/images/counterparts.png

Every row is trained by `segvit.train` with the same images, crops, optimizer and schedule, and the criterion of its own
paper. `--search` tries three learning rates for every row, on a fifth of the training set held out, before the runs.
`--costs` prints what the rows cost, without any training.

Two protocols. `--frozen` fits a CPU: the backbone keeps its weights, crops are drawn once, and the tokens of frozen
blocks are kept in files (1.3 MB a crop). Without it everything learns, on fresh crops, for a GPU. `--frozen 9` freezes
the first nine blocks alone. Each finished run is a JSON file under `--output`: run the same command to continue. Its
name has a digest of all settings, the weights and the source of the row, so a run with others is another file.
"""

import argparse
import functools
import hashlib
import inspect
import json
import math
import shutil
import statistics
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from heads.data import HELD_OUT, SETS, drawn, in_memory, open_sets
from heads.per_pixel import PerPixelHead
from heads.rows import ROWS, VIT, create
from rich.console import Console
from rich.table import Table
from rounds import measure
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import segvit
from segvit.config import AugmentConfig, DataConfig, EvalConfig, OptimConfig, TrainConfig
from segvit.data.augment.transform import TrainTransform
from segvit.data.sample import Samples
from segvit.inference.protocol import image_labels, protocol_size
from segvit.models.backbone import PlainViT
from segvit.profiling.multiply_adds import fake_twin
from segvit.utils.files import whole_file

RATES = (5e-4, 1.5e-3, 4.5e-3)
"""Learning rates of the head that are tried; the backbone's is a tenth."""
AUGMENT = {
    "camvid": AugmentConfig(resize_long=None, scale=(1.0, 1.5), saturation=0, hue=0),
    "clothing": AugmentConfig(resize_long=None, scale=(0.9, 1.4), max_class_share=1.0),
}
COSTS = ("M parameters", "G multiply-adds", "ms")
COLORS = dict.fromkeys(("plain", "shrunk", "shrunk_paper", "naive_shrunk"), "#c8553d")


@dataclass(frozen=True, kw_only=True)
class Result:
    """Scores of a finished run."""

    row: str
    rate: float
    seed: int
    steps: int
    miou: float
    boundary_iou: float
    iou: dict[str, float | None]
    seconds: float


def data_of(name: str, root: Path, options: argparse.Namespace, *, searching: bool) -> dict[str, Samples]:
    """Read the training and validation set of a run, or of a search, which sees none of the validation set."""
    train, val = open_sets(name, root)
    learnt, held_out = list(range(len(train))), list(range(len(val)))
    if searching:
        val, held_out = train, learnt[-(len(learnt) // HELD_OUT) :]
        learnt = learnt[: -len(held_out)]
    if not options.frozen:
        return {"train": in_memory(train, learnt), "val": in_memory(val, held_out)}
    fill = [round(255 * value) for value in (0.485, 0.456, 0.406)]
    transform = TrainTransform(options.size, augment_of(name, options), fill)
    return {
        "train": drawn(train, learnt, views=options.views, transform=transform),
        "val": in_memory(val, held_out),
    }


def augment_of(name: str, options: argparse.Namespace) -> AugmentConfig:
    """Return the augmentation of a set, whose photos are resized so that a crop shows most of them."""
    return replace(AUGMENT[name], resize_short=options.size)


def config_of(name: str, options: argparse.Namespace, *, rate: float, seed: int, steps: int) -> TrainConfig:
    """Return the settings that all rows share."""
    unchanged = AugmentConfig(
        resize_long=None, scale=(1, 1), max_class_share=1, flip=0, brightness=0, contrast=0, saturation=0, hue=0
    )
    return TrainConfig(
        data=DataConfig(workers=0 if options.frozen else 2),
        augment=unchanged if options.frozen else augment_of(name, options),
        optim=OptimConfig(
            lr=rate / 10,
            weight_decay=0.05,
            warmup_steps=max(steps // 10, 1),
            freeze=options.frozen or "none",
        ),
        eval=EvalConfig(mode="whole", resize_short=options.size),
        steps=steps,
        batch_size=options.batch_size,
        seed=seed,
        eval_every=steps,
        save_every=steps,
        keep_checkpoints=1,
        loggers=(),
        device=options.device,
        precision=options.precision,
    )


def digest_of(row: str, root: Path, config: TrainConfig, options: argparse.Namespace) -> str:
    """Return a digest of all that the result of a run depends on."""
    facts = {
        "config": asdict(config),
        "vit": asdict(VIT),
        "root": root,
        "frozen": options.frozen,
        "size": options.size,
        "views": options.views,
        "threads": options.threads,
        "weights": digest_of_file(options.weights),
        "source": source_of(row),
    }
    return hashlib.blake2b(json.dumps(facts, default=str, sort_keys=True).encode(), digest_size=6).hexdigest()


@functools.cache
def digest_of_file(path: Path) -> str:
    """Return a digest of the content of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@functools.cache
def source_of(row: str) -> list[str]:
    """Return the settings of a row, and the source of its builder, its criterion, its head and its up-sampling.

    The settings include the blocks that the package chooses. The source is the whole file for modules in `heads`, and
    the class for those in the package, whose backbone is left out.
    """
    chosen = ROWS[row]
    criterion, weights = chosen.criterion, {}
    if isinstance(criterion, functools.partial):
        criterion, weights = criterion.func, criterion.keywords
    with torch.device("meta"):
        model = create(chosen, weights=None, num_classes=2, size=VIT.image_size, frozen=0, steps=1)
    package = [part for name, part in model.named_modules() if name.partition(".")[0] in ("head", "upsampling")]
    found = {create, criterion}
    if chosen.head is not None:
        found.add(chosen.head)
    found |= {type(part) for part in package if type(part).__module__.startswith("segvit.")}
    files = {type(part).__module__ for part in model.modules()} | {criterion.__module__}
    found |= {sys.modules[name] for name in files if name.startswith("heads.")}
    vit = next(part for part in model.modules() if isinstance(part, PlainViT))
    settings = (vit.taps, vit.shrink_at, chosen.structure, chosen.upsampling, chosen.masked, weights)
    return [repr(settings), *sorted(map(inspect.getsource, found))]


def run(
    name: str,
    root: Path,
    row: str,
    data: dict[str, Samples],
    options: argparse.Namespace,
    *,
    rate: float,
    seed: int,
    searching: bool,
) -> Result:
    """Train a row and score it, or read the result of an earlier run."""
    steps = options.search_steps if searching else options.steps
    config = config_of(name, options, rate=rate, seed=seed, steps=steps)
    digest = digest_of(row, root, config, options)
    stem = f"{name}-{row}-frozen{options.frozen}-{steps}x{options.batch_size}-{rate:g}-{seed}-{digest}"
    path = options.output / ("search" if searching else "runs") / f"{stem}.json"
    if path.exists():
        return Result(**json.loads(path.read_text()))
    folder = path.with_suffix("")
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was stopped
    torch.manual_seed(seed)
    spec = data["train"].spec
    model = create(
        ROWS[row],
        weights=options.weights,
        num_classes=spec.num_classes,
        size=options.size,
        frozen=options.frozen,
        steps=steps,
        store=options.output / "tokens",
    )
    config = replace(config, output=folder)
    start = time.perf_counter()
    metrics = segvit.train(config, model=model, datasets=data, criterion=ROWS[row].criterion).result.metrics
    result = Result(
        row=row,
        rate=rate,
        seed=seed,
        steps=steps,
        miou=metrics.miou,
        boundary_iou=metrics.mean_boundary_iou,
        iou=dict(zip(spec.classes, metrics.iou, strict=True)),
        seconds=time.perf_counter() - start,
    )
    shutil.rmtree(folder)
    with whole_file(path) as aside:
        aside.write_text(json.dumps(asdict(result), indent=1))
    return result


def results_of(name: str, root: Path, options: argparse.Namespace) -> dict[str, list[Result]]:
    """Return the runs of every row on a set, one a seed, each row at the learning rate that its search found best."""
    rates = dict.fromkeys(options.rows, options.rate)
    if options.search:
        data = data_of(name, root, options, searching=True)
        for row in options.rows:
            tried = [run(name, root, row, data, options, rate=rate, seed=0, searching=True) for rate in RATES]
            rates[row] = max(tried, key=lambda result: result.miou).rate
    data = data_of(name, root, options, searching=False)
    found: dict[str, list[Result]] = {row: [] for row in options.rows}
    for seed in options.seeds:  # every row once before any row twice
        for row in options.rows:
            found[row].append(run(name, root, row, data, options, rate=rates[row], seed=seed, searching=False))
    return found


def costs_of(name: str, root: Path, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Return parameters, multiply-adds up to the logits, and ms from a photo to its label map, of every row.

    Auxiliary outputs do not run at inference and do not count. Weights are random. The rows take turns, and medians are
    reported.
    """
    _, val = open_sets(name, root)
    photo = val.read(0).image.as_subclass(torch.Tensor)
    protocol = EvalConfig(mode="whole", resize_short=options.size)
    size = protocol_size(photo.shape[1], photo.shape[2], protocol)
    models = {
        row: create(
            ROWS[row], weights=None, num_classes=val.spec.num_classes, size=options.size, frozen=0, steps=1
        ).eval()
        for row in options.rows
    }
    for model in models.values():
        model.requires_grad_(False)
    seconds = measure(
        {row: lambda m=model: image_labels(m, photo, protocol) for row, model in models.items()}, options.repeats
    )
    costs = {}
    for row, model in models.items():
        if isinstance(model.head, PerPixelHead):
            del model.head.outputs[:-1]
        parameters = sum(parameter.numel() for parameter in model.parameters())
        costs[row] = {
            "parameters": parameters,
            "multiply_adds": multiply_adds(model, size),
            "ms": 1000 * seconds[row],
        }
    return costs


def multiply_adds(model: segvit.SegViT, size: tuple[int, int]) -> int:
    """Count the multiply-adds of one image (H, W) up to the logits of the prediction, without auxiliary outputs."""
    with FakeTensorMode(), torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        fake_twin(model)(torch.empty((1, 3, *size), dtype=torch.uint8, device="cpu"), deep=False)
    return counter.get_total_flops() // 2


def cost_table(name: str, costs: dict[str, dict[str, float]]) -> Table:
    """Return the table of the costs alone, cheapest first."""
    table = Table("head", *COSTS, title=name)
    for row, cost in sorted(costs.items(), key=lambda item: item[1]["multiply_adds"]):
        table.add_row(ROWS[row].title, *cost_cells(cost))
    return table


def cost_cells(cost: dict[str, float]) -> tuple[str, str, str]:
    """Return the cells of COSTS."""
    return f"{cost['parameters'] / 1e6:.2f}", f"{cost['multiply_adds'] / 1e9:.2f}", f"{cost['ms']:.0f}"


def table_of(name: str, found: dict[str, list[Result]], costs: dict[str, dict[str, float]], *, searched: bool) -> Table:
    """Return the table of one set, best first. A rate that a search found at an end of RATES is marked."""
    table = Table(title=name)
    table.add_column("head")
    for heading in ("mIoU", "of each seed", "boundary IoU", *COSTS, "lr"):
        table.add_column(heading, justify="right")
    for row, results in sorted(found.items(), key=lambda item: -mean(item[1], "miou")):
        at_end = searched and results[0].rate in (RATES[0], RATES[-1])
        if at_end:
            table.caption = "* the lowest or the highest rate tried: one beyond it may be better"
        table.add_row(
            ROWS[row].title,
            f"{mean(results, 'miou'):.1f}",
            ", ".join(f"{100 * result.miou:.1f}" for result in results),
            f"{mean(results, 'boundary_iou'):.1f}",
            *cost_cells(costs[row]),
            f"{results[0].rate:g}{' *' if at_end else ''}",
        )
    return table


def mean(results: list[Result], score: str) -> float:
    """Return the mean of a score over the seeds, in percent."""
    return 100 * statistics.mean(getattr(result, score) for result in results)


def plot(found: dict[str, dict[str, list[Result]]], costs: dict[str, dict[str, dict[str, float]]], path: Path) -> None:
    """Draw mIoU over ms, a panel for each set: a dot for each seed, and the row's name beside their mean."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6 * len(found), 4.2), layout="constrained")
    panels = figure.subplots(1, len(found), squeeze=False)[0]
    for axes, (name, rows) in zip(panels, found.items(), strict=True):
        means = {row: mean(results, "miou") for row, results in rows.items()}
        times = {row: costs[name][row]["ms"] for row in rows}
        gap = 0.045 * max(max(means.values()) - min(means.values()), 1)
        height = -math.inf
        for row in sorted(rows, key=means.__getitem__):
            color = COLORS.get(row, "#4d6fae")
            for result in rows[row]:
                axes.scatter(
                    times[row], 100 * result.miou, s=26, color=color, edgecolor="white", linewidth=0.7, zorder=3
                )
            height = max(means[row], height + gap)  # labels of neighbours do not overlap
            axes.annotate(
                f"{ROWS[row].title} {means[row]:.1f}",
                (times[row], means[row]),
                xytext=(max(times.values()) * 1.04, height),
                arrowprops={"arrowstyle": "-", "color": "#d0d0d0", "linewidth": 0.6},
                color=color,
                fontsize=8.5,
                va="center",
            )
        axes.set_xlim(min(times.values()) * 0.95, max(times.values()) * 1.5)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("ms per image", fontsize=9)
        axes.set_ylabel("mIoU, %", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e6e6e6", linewidth=0.6)
        axes.tick_params(labelsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=160)


def set_and_folder(text: str) -> tuple[str, Path]:
    """Read NAME=FOLDER."""
    name, _, folder = text.partition("=")
    if name not in SETS or not folder:
        raise argparse.ArgumentTypeError(f"{text!r}: give NAME=FOLDER, with {' or '.join(SETS)} as the name")
    return name, Path(folder)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help=f"file of {VIT.backbone}")
    parser.add_argument("--sets", nargs="+", type=set_and_folder, required=True, metavar="NAME=FOLDER")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--frozen", nargs="?", type=int, const=12, default=0, choices=(0, 9, 12), metavar="BLOCKS")
    parser.add_argument("--search", action="store_true", help="choose each row's learning rate")
    parser.add_argument("--search-steps", type=int, default=150, help="steps of each of its runs")
    parser.add_argument("--costs", action="store_true", help="print the costs alone, without training")
    parser.add_argument("--rate", type=float, default=1.5e-3, help="learning rate of the heads without --search")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--size", type=int, default=252, help="side of a crop, and shorter side of a test image")
    parser.add_argument("--views", type=int, default=3, help="crops of each training image, if frozen")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15, help="rounds of the timing")
    parser.add_argument("--output", type=Path, default=Path("runs/counterparts"))
    parser.add_argument("--json", type=Path, help="write the tables to this file")
    parser.add_argument("--plot", type=Path, help="picture to write")
    return parser.parse_args()


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    if options.costs:
        for name, root in options.sets:
            Console(width=120).print(cost_table(name, costs_of(name, root, options)))
        return
    for folder in ("search", "runs"):
        (options.output / folder).mkdir(parents=True, exist_ok=True)
    found = {name: results_of(name, root, options) for name, root in options.sets}
    costs = {name: costs_of(name, root, options) for name, root in options.sets}
    for name, rows in found.items():
        Console(width=120).print(table_of(name, rows, costs[name], searched=options.search))
    if options.json:
        tables = {
            name: {row: {**costs[name][row], "runs": [asdict(one) for one in runs]} for row, runs in rows.items()}
            for name, rows in found.items()
        }
        with whole_file(options.json) as aside:
            aside.write_text(json.dumps(tables, indent=1))
    if options.plot:
        plot(found, costs, options.plot)


if __name__ == "__main__":
    main()

"""The report of a run: one HTML page that needs no other file and no network.

    write_report(Path("runs/camvid"))        # from config.yaml, metrics.jsonl and report.json of that folder

Training writes report.json (the last validation, and where it all ran) and the page at each validation; `segvit report`
makes the page anew. Every text is escaped, and the page forbids the browser to load anything or to run another script.
"""

import base64
import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any, cast

import numpy as np
import torch
import yaml

from segvit.config import EvalConfig, PrecisionChoice, TrainConfig
from segvit.data.dataset import Samples, open_dataset
from segvit.data.palette import Color
from segvit.engine.charts import Points, confusion_chart, line_chart
from segvit.engine.device import device_name
from segvit.engine.evaluate import EvalResult, ImageScore, Progress, evaluate
from segvit.engine.guards import written
from segvit.engine.loggers import RunLog, picture_indices, read_records
from segvit.engine.page import Markup, join, jpeg_uri, table, tag
from segvit.engine.precision import computing_in, resolve_precision
from segvit.engine.shots import COLUMNS, Shot, take_shots
from segvit.errors import UserError
from segvit.models.load import load_model
from segvit.models.segvit import SegViT, evaluating

FACTS, PAGE = "report.json", "report.html"
NUM_EXTREMES = 3
"""Best images, and worst, that are shown."""
SHOWN_SIDE = 320
"""Longer side in pixels of a picture on the page."""
NUM_CONFUSIONS = 10
"""Pairs of classes that are told to be taken for each other."""
PACKAGES = ("segvit", "torch", "torchvision", "timm", "accelerate", "numpy", "pillow")
TERMS = ("class", "focal", "dice")
"""Terms of the loss, whose names in the log end in the number of the output."""


@dataclass(frozen=True, kw_only=True)
class Validation:
    """What a validation found, in plain values."""

    name: str
    """What was scored."""
    scores: dict[str, Any]
    """As `EvalResult.to_dict` gives them."""
    protocol: dict[str, str]
    """How it was scored, in words."""
    palette: list[list[int]]
    """(K, 3) of the classes."""
    confusion: list[list[int]]
    """(K, K) pixels; row = true class."""
    best: list[dict[str, Any]]
    """Name, scores and pictures of the best images, the best first."""
    worst: list[dict[str, Any]]
    """The same of the worst, the worst first."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a run knows besides its config and its log."""

    about: dict[str, str]
    """What it started from, the licence of that, the dataset."""
    environment: dict[str, str]
    """Versions, device, processes."""
    validation: Validation | None


def environment(device: torch.device, *, processes: int) -> dict[str, str]:
    """Where a run goes on: versions, device, processes."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    system = f"{platform.system()} {platform.machine()}"
    place = f"{device.type}, {device_name(device)}"
    return {
        "device": place,
        "processes": str(processes),
        "system": system,
        "Python": platform.python_version(),
    } | versions


def show_validation(
    log: RunLog, step: int, result: EvalResult, *, model: SegViT, dataset: Samples, num_train: int, processes: int
) -> None:
    """Draw some images of a validation, hand them to the loggers, and write the report of the run anew.

    Args:
        log: of the run.
        step: steps done.
        result: of the validation.
        model: what was scored.
        dataset: what it was scored on.
        num_train: training images.
        processes: that train.
    """
    drawn = [result.per_image[place].index for place in picture_indices(len(result.per_image))]
    shots = _take(result, drawn, model=model, dataset=dataset, config=log.config.eval)
    log.pictures(step, [shots[index] for index in drawn], dataset.spec)
    about = origin(model, f"{dataset.spec.name}: {num_train:,} training and {len(dataset):,} validation images")
    where = environment(model.mean.device, processes=processes)
    name = f"The {'averaged ' if log.config.ema_decay else ''}weights after step {step:,}"
    validation = describe_validation(name, result, palette=dataset.spec.palette, shots=shots)
    write_report(log.output, Facts(about=about, environment=where, validation=validation))


def score_best(folder: Path, config: TrainConfig, *, device: torch.device, progress: Progress | None = None) -> Facts:
    """Score the best model of a run anew on its validation set, where no validation has been kept.

    Raises:
        UserError: the model or the data cannot be read.
    """
    model = load_model(folder / "best.safetensors", device=device)
    dataset = open_dataset(config.data, "val", size=config.model.image_size)
    precision: PrecisionChoice = "fp32" if config.precision == "no" else config.precision
    result = evaluate(model, dataset, precision=precision, workers=config.data.workers, progress=progress)
    shots = _take(result, [], model=model, dataset=dataset, config=model.protocol)
    validation = describe_validation("best.safetensors", result, palette=dataset.spec.palette, shots=shots)
    about = origin(model, f"{dataset.spec.name}: {len(dataset):,} validation images")
    return Facts(about=about, environment=environment(device, processes=1), validation=validation)


def _take(
    result: EvalResult, also: Sequence[int], *, model: SegViT, dataset: Samples, config: EvalConfig
) -> dict[int, Shot]:
    """Pictures of the best and worst images and of some others, by number, predicted anew as they were scored."""
    indices = sorted({*also, *(score.index for scores in extremes(result) for score in scores)})
    precision = resolve_precision(model, cast(PrecisionChoice, result.protocol["precision"]))
    with computing_in(precision, model.mean.device), evaluating(model):
        return {shot.index: shot for shot in take_shots(indices, model=model, dataset=dataset, config=config)}


def origin(model: SegViT, dataset: str) -> dict[str, str]:
    """What a model started from, the licence of that, and its data."""
    told = {"started from": "starts_from", "licence of that": "licence"}
    return {"dataset": dataset} | {row: str(model.extra[key]) for row, key in told.items() if model.extra.get(key)}


def extremes(result: EvalResult) -> tuple[list[ImageScore], list[ImageScore]]:
    """The best images, the best first, and the worst, the worst first; no image is both."""
    scored = result.worst()
    count = min(NUM_EXTREMES, (len(scored) + 1) // 2)
    return scored[::-1][: min(count, len(scored) - count)], scored[:count]


def describe_validation(
    name: str, result: EvalResult, *, palette: Sequence[Color], shots: Mapping[int, Shot]
) -> Validation:
    """A validation in plain values.

    Args:
        name: what was scored.
        result: its scores.
        palette: of the classes.
        shots: pictures of the `extremes`, by the number of the image.
    """
    best, worst = ([_seen(score, shots[score.index]) for score in scores] for scores in extremes(result))
    return Validation(
        name=name,
        scores=result.to_dict(),
        protocol=result.protocol_values(),
        palette=[list(color) for color in palette],
        confusion=result.matrix.counts.tolist(),
        best=best,
        worst=worst,
    )


def _seen(score: ImageScore, shot: Shot) -> dict[str, Any]:
    pictures = []
    for picture in shot.pictures:
        small = picture.copy()
        small.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
        pictures.append(jpeg_uri(small))
    return {"name": score.name, "miou": score.miou, "accuracy": score.accuracy, "pictures": pictures}


def write_report(folder: Path, facts: Facts | None = None) -> Path:
    """Write the page of a run, and what it is made of where that is new.

    Args:
        folder: of the run.
        facts: what is new; default: what report.json holds, where there is one.

    Raises:
        UserError: the folder holds no run, or a file in it cannot be read.
    """
    if not (folder / "config.yaml").is_file():
        raise UserError(f"{folder} holds no run of segvit train: there is no config.yaml in it")
    if facts is None:
        facts = _load_facts(folder / FACTS)
    else:
        _replace(folder / FACTS, json.dumps(asdict(facts), ensure_ascii=False), folder)
    config = TrainConfig.load(folder / "config.yaml")
    records = list(read_records(folder / "metrics.jsonl"))
    _replace(folder / PAGE, render(folder.resolve().name, config, records, facts), folder)
    return folder / PAGE


def _load_facts(path: Path) -> Facts | None:
    """What a run wrote down; None where it did not."""
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        validation = content["validation"] and Validation(**content["validation"])
        return Facts(about=content["about"], environment=content["environment"], validation=validation)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not what segvit train wrote ({error}); remove it, and type --score") from error


def _replace(path: Path, text: str, run: Path) -> None:
    """Write a file aside, then rename it: whoever looks at it sees a whole one."""
    with written(path, run=run) as aside:
        aside.write_text(text, encoding="utf-8")


def render(name: str, config: TrainConfig, records: Sequence[Mapping[str, Any]], facts: Facts | None) -> str:
    """The page as text."""
    template = (files("segvit.engine") / "templates" / "report.html").read_text(encoding="utf-8")
    script = template.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    validation = facts.validation if facts else None
    missing = tag(
        "p", "This run kept no validation: ", tag("code", "segvit report RUN --score"), " scores its best model."
    )
    return Template(template).substitute(
        script_digest=digest,
        title=join(name),
        subtitle=join(_subtitle(config, facts)),
        tiles=_tiles(config, records),
        curves=_curves(records, config.steps),
        validation=_validation(validation) if validation else missing,
        origin=_pairs(facts.about) if facts else tag("p", "Not known: the run kept no report.json."),
        environment=_pairs(facts.environment) if facts else tag("p", "Not known: the run kept no report.json."),
        config=tag("pre", yaml.safe_dump(config.to_dict(), sort_keys=False, allow_unicode=True)),
    )


def _subtitle(config: TrainConfig, facts: Facts | None) -> str:
    dataset = facts.about["dataset"] if facts else config.data.spec or str(config.data.images)
    return f"{config.model.backbone}, {config.model.structure}, on {dataset}"


def _tiles(config: TrainConfig, records: Sequence[Mapping[str, Any]]) -> Markup:
    """The numbers that are looked for first."""
    scored = [record for record in records if "miou" in record]
    trained = [record for record in records if "loss" in record]
    done = trained[-1]["step"] if trained else 0
    tiles = [("steps", f"{done:,} of {config.steps:,}", "done" if done >= config.steps else "so far")]
    if scored:
        best = max(scored, key=lambda record: record["miou"])
        tiles.insert(0, ("best mIoU", f"{100 * best['miou']:.2f} %", f"step {best['step']:,}"))
        tiles.insert(1, ("last mIoU", f"{100 * scored[-1]['miou']:.2f} %", f"step {scored[-1]['step']:,}"))
    if trained:
        last = [record["loss"] for record in trained[-100:]]
        tiles.append(("loss", f"{np.mean(last):.3f}", f"mean of the last {len(last)} steps"))
    return join(*(_tile(*tile) for tile in tiles))


def _tile(name: str, value: str, note: str) -> Markup:
    return tag("div", tag("span", name), tag("strong", value), tag("span", note, class_="quiet"), class_="tile")


def _curves(records: Sequence[Mapping[str, Any]], last_step: int) -> Markup:
    """Loss, its terms, learning rate, gradient norm and scores over the steps."""
    terms = {term: _points(records, lambda record, term=term: _sum_of(record, term)) for term in TERMS}
    keys = ("loss", "lr", "gradient_norm", "miou", "overall_accuracy")
    of = {key: _points(records, lambda record, key=key: record.get(key)) for key in keys}
    scores = {"mIoU": of["miou"], "pixels right": of["overall_accuracy"]}
    charts = {
        "Loss": line_chart({"loss": of["loss"]}, last_step=last_step),
        "Terms of the loss, each summed over the outputs": line_chart(terms, last_step=last_step),
        "Validation": line_chart(scores, last_step=last_step, top=1, percent=True, dots=True),
        "Learning rate of the backbone": line_chart({"lr": of["lr"]}, last_step=last_step),
        "Gradient norm before clipping": line_chart({"norm": of["gradient_norm"]}, last_step=last_step),
    }
    return join(*(tag("figure", tag("figcaption", name), chart) for name, chart in charts.items()))


def _points(records: Sequence[Mapping[str, Any]], value_of: Any) -> Points:
    found = ((record["step"], value_of(record)) for record in records)
    return [(step, value) for step, value in found if value is not None]


def _sum_of(record: Mapping[str, Any], term: str) -> float | None:
    """A term of the loss over all outputs; None where a record has none."""
    values = [value for key, value in record.items() if key.startswith(f"{term}_") and key[len(term) + 1 :].isdigit()]
    return sum(values) if values else None


def _validation(validation: Validation) -> Markup:
    """Per-class table, confusion matrix, best and worst images."""
    counts = np.array(validation.confusion)
    classes = validation.scores["classes"]
    protocol = ", ".join(f"{key} {value}" for key, value in validation.protocol.items())
    return join(
        tag("p", f"{validation.name}: {validation.scores['images']:,} images, {protocol}.", class_="quiet"),
        tag("h3", "Classes"),
        _class_table(validation),
        tag("h3", "Where the pixels of each class (rows) go (columns), in %"),
        tag("div", confusion_chart(counts, classes), _confusions(counts, classes), class_="confusion"),
        tag("h3", "Worst images"),
        _images(validation.worst),
        tag("h3", "Best images"),
        _images(validation.best),
    )


def _class_table(validation: Validation) -> Markup:
    """Scores of every class, which the page's script sorts, over their means."""
    scores = validation.scores
    columns = ("IoU", "accuracy", "Dice", "boundary IoU", "share")
    values = [scores[key] for key in ("iou", "accuracy", "dice", "boundary_iou", "labelled")]
    head = [tag("button", name, type="button") for name in ("class", *columns)]
    body = []
    for name, color, row in zip(scores["classes"], validation.palette, zip(*values, strict=True), strict=True):
        chip = tag("i", class_="chip", style=f"background:rgb({','.join(map(str, map(int, color)))})")
        cells = [tag("td", _percent(value), data_value="" if value is None else value) for value in row]
        body.append(tag("tr", tag("th", chip, name, scope="row", data_value=name), *cells))
    means = [scores[key] for key in ("miou", "mean_accuracy", "mean_dice", "mean_boundary_iou")]
    foot = tag("tr", tag("th", "mean", scope="row"), *(tag("td", _percent(value)) for value in means), tag("td"))
    parts = (
        tag("thead", tag("tr", *(tag("th", cell, scope="col") for cell in head))),
        tag("tbody", *body),
        tag("tfoot", foot),
    )
    return tag("div", tag("table", *parts, class_="sortable"), class_="scroll tall")


def _confusions(counts: Any, classes: Sequence[str]) -> Markup | None:
    """The pairs of classes that are most often taken for each other."""
    wrong = counts * (1 - np.eye(len(counts), dtype=counts.dtype))
    rows: list[list[object]] = []
    for place in np.argsort(-wrong, axis=None, kind="stable")[:NUM_CONFUSIONS]:
        row, column = divmod(int(place), len(counts))
        if wrong[row, column] > 0:
            told = (wrong[row, column] / counts[row].sum(), wrong[row, column] / counts.sum())
            rows.append([f"{classes[row]} seen as {classes[column]}", *map(_percent, told)])
    if not rows:
        return None
    return table(["most pixels wrong", "of the class", "of all pixels"], rows)


def _images(images: Sequence[Mapping[str, Any]]) -> Markup:
    """Each image as photo, labels, prediction and errors."""
    if not images:
        return tag("p", "None.", class_="quiet")
    shown = []
    for image in images:
        pictures = [
            tag("figure", tag("img", src=uri, alt=f"{kind} of {image['name']}"), tag("figcaption", kind))
            for kind, uri in zip(COLUMNS, image["pictures"], strict=True)
        ]
        told = f"mIoU {_percent(image['miou'])} %, {_percent(image['accuracy'])} % of the pixels right"
        title = tag("p", tag("strong", image["name"]), " ", tag("span", told, class_="quiet"))
        shown.append(tag("div", title, tag("div", *pictures, class_="row"), class_="image"))
    return join(*shown)


def _pairs(values: Mapping[str, str]) -> Markup:
    return table([], [[key, value] for key, value in values.items()], class_="facts")


def _percent(value: float | None) -> str:
    """A share in 0..1 as a percentage, or a dash where there is none."""
    return "–" if value is None else f"{100 * value:.2f}"

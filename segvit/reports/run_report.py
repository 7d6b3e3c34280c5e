"""Write the report of a run: one HTML page that needs no other file and no network.

    write_report(Path("runs/camvid"))        # from config.yaml, the logs and report.json of that folder

At each validation, training writes report.json (scores, origin, environment) and the page. `segvit report` writes the
page again. All text is escaped, and the page's policy keeps the browser from loading anything or running other scripts.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import cast

import torch
import yaml
from markupsafe import Markup

from segvit.config import EvalConfig, PrecisionChoice, TrainConfig
from segvit.data.dataset import Samples, open_dataset
from segvit.evaluation.evaluate import evaluate
from segvit.evaluation.examples import Shot, take_shots
from segvit.evaluation.result import EvalResult
from segvit.inference.precision import computing_in, resolve_precision
from segvit.models.modes import evaluating
from segvit.models.segvit import SegViT
from segvit.reports.charts import line_chart, small_chart
from segvit.reports.curves import class_charts, run_charts
from segvit.reports.facts import Facts, describe_validation, environment, extremes, origin
from segvit.reports.html import asset, content_policy, fill
from segvit.reports.run_files import FACTS, RunFiles, load_run
from segvit.reports.sections import tiles, validation_values
from segvit.reports.viewer import viewer_script, viewer_style
from segvit.utils.files import whole_file, writing
from segvit.utils.progress import Progress
from segvit.utils.text import counted
from segvit.weights.load import load_model

PAGE = "report.html"
REMEDY = "make room, then run `segvit report` again"


def score_best(folder: Path, config: TrainConfig, *, device: torch.device, progress: Progress | None = None) -> Facts:
    """Score the best model of a run on its validation set, for a run whose report has no validation.

    Raises:
        UserError: the model or the data cannot be read.
    """
    model = load_model(folder / "best.safetensors", device=device)
    dataset = open_dataset(config.data, "val", size=config.model.image_size)
    result = evaluate(model, dataset, precision=config.precision, workers=config.data.workers, progress=progress)
    shots = take_pictures(result, [], model=model, dataset=dataset, config=model.protocol)
    validation = describe_validation("best.safetensors", result, palette=dataset.spec.palette, shots=shots)
    about = origin(model, f"{dataset.spec.name}: {counted(len(dataset), 'validation image', ',')}")
    return Facts(about=about, environment=environment(device, processes=1), validation=validation)


def take_pictures(
    result: EvalResult, also: Sequence[int], *, model: SegViT, dataset: Samples, config: EvalConfig
) -> dict[int, Shot]:
    """Return pictures of the best, the worst and the images `also`, by index, predicted again as they were scored."""
    indices = sorted({*also, *(score.index for scores in extremes(result) for score in scores)})
    precision = resolve_precision(model, cast(PrecisionChoice, result.protocol["precision"]))
    with computing_in(precision, model.mean.device), evaluating(model):
        return {shot.index: shot for shot in take_shots(indices, model=model, dataset=dataset, config=config)}


def write_report(
    folder: Path, facts: Facts | None = None, config: TrainConfig | None = None, *, remedy: str = REMEDY
) -> Path:
    """Write the page of a run, and report.json if there are new facts.

    Args:
        folder: folder of the run.
        facts: new facts for report.json. Default: the facts already in it, if any.
        config: settings of the run. Default: those in its config.yaml.
        remedy: advice in the imperative for the error if the page cannot be written.

    Returns:
        Path of the page.

    Raises:
        UserError: the folder is not a run, or a file in it cannot be read or written.
    """
    run = load_run(folder, facts, config)
    if facts is not None:
        replace_file(folder / FACTS, json.dumps(asdict(facts), ensure_ascii=False), remedy)
    replace_file(folder / PAGE, render(run), remedy)
    return folder / PAGE


def replace_file(path: Path, text: str, remedy: str) -> None:
    """Write to a temporary file and rename it, so that readers always see a complete file."""
    with writing(path, remedy), whole_file(path) as aside:
        aside.write_text(text, encoding="utf-8")


def render(run: RunFiles) -> str:
    """Return the page as text."""
    script = asset("report.js") + asset("charts.js") + viewer_script()
    validation = run.facts.validation if run.facts else None
    page = fill(
        "report.html",
        policy=content_policy(script),
        style=Markup(asset("report.css") + viewer_style()),
        script=Markup(script),
        title=run.name,
        subtitle=run.describe(),
        tiles=tiles(run),
        charts=[(chart, line_chart(chart)) for chart in run_charts(run)],
        classes=[(chart, small_chart(chart)) for chart in class_charts([run])],
        colors=dict(zip(validation.scores["classes"], validation.palette, strict=True)) if validation else {},
        validation=validation_values(validation) if validation else None,
        facts=run.facts,
        config=yaml.safe_dump(run.config.to_dict(), sort_keys=False, allow_unicode=True),
    )
    return str(page)

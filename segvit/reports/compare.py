"""Write the comparison of several runs: one HTML page that needs no other file and no network.

write_comparison([Path("runs/plain"), Path("runs/shrunk")], Path("comparison.html"))
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from markupsafe import Markup

from segvit.errors import UserError
from segvit.pictures.chart import COLORS
from segvit.reports.charts import line_chart, small_chart
from segvit.reports.curves import class_charts, compared_charts
from segvit.reports.facts import Validation
from segvit.reports.html import asset, content_policy, fill
from segvit.reports.run_files import RunFiles, load_run
from segvit.reports.run_report import REMEDY, replace_file
from segvit.reports.sections import tiles

MAX_RUNS = len(COLORS)
"""Maximum number of runs on a page: as many as there are line colours."""
SAME = ("output",)
"""Settings that differ between any two runs and are not listed."""


def load_runs(folders: Sequence[Path]) -> list[RunFiles]:
    """Load several runs to compare. Runs whose folders have the same name are named by their paths.

    Raises:
        UserError: there are too few or too many runs, one is given twice or is not a run, or a file cannot be read.
    """
    if not 2 <= len(folders) <= MAX_RUNS:
        raise UserError(f"{len(folders)} runs: give 2 to {MAX_RUNS} to compare")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UserError("a run is given twice: give the folders of different runs")
    runs = [load_run(folder) for folder in folders]
    if len({run.name for run in runs}) < len(runs):
        runs = [replace(run, name=str(folder.resolve())) for run, folder in zip(runs, folders, strict=True)]
    return runs


def write_comparison(runs: Sequence[RunFiles], path: Path) -> Path:
    """Write the page that compares runs, and return its path.

    Raises:
        UserError: the page cannot be written.
    """
    replace_file(path, render(runs), REMEDY)
    return path


def render(runs: Sequence[RunFiles]) -> str:
    """Return the page as text."""
    script = asset("report.js") + asset("charts.js")
    scored = [run.facts.validation if run.facts else None for run in runs]
    page = fill(
        "compare.html",
        policy=content_policy(script),
        style=Markup(asset("report.css")),
        script=Markup(script),
        title=" and ".join(run.name for run in runs) if len(runs) == 2 else f"{len(runs)} runs",
        runs=[run.name for run in runs],
        descriptions=[run.describe() for run in runs],
        rows=_rows(runs),
        charts=[(chart, line_chart(chart)) for chart in compared_charts(runs)],
        classes=[(chart, small_chart(chart)) for chart in class_charts(runs)],
        colors=_colors(scored),
        unequal=_unequal(runs, scored),
        scores=_scores(scored),
        settings=_settings(runs),
    )
    return str(page)


def _rows(runs: Sequence[RunFiles]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the key numbers of the runs: name, and value and note of each run."""
    found = [{name: (value, note) for name, value, note in tiles(run)} for run in runs]
    names = dict.fromkeys(name for one in found for name in one)
    return [(name, [one.get(name, ("–", "")) for one in found]) for name in names]


def _unequal(runs: Sequence[RunFiles], scored: Sequence[Validation | None]) -> list[str]:
    """Return the reasons for which the scores cannot be compared: dataset, classes or test protocol differ."""
    known = [(run, validation) for run, validation in zip(runs, scored, strict=True) if validation]
    asked: dict[str, list[Any]] = {
        "datasets": [run.facts.about.get("dataset") for run, _ in known if run.facts],
        "classes": [validation.scores["classes"] for _, validation in known],
        "test protocols": [validation.protocol for _, validation in known],
    }
    return [name for name, values in asked.items() if any(value != values[0] for value in values)]


def _scores(scored: Sequence[Validation | None]) -> list[tuple[str, list[float | None], float | None]]:
    """Return the IoU of each class in the last validations, and of two runs the second's minus the first's.

    The last row is the mean. There are no rows if no run has a validation.
    """
    found = [dict(zip(one.scores["classes"], one.scores["iou"], strict=True)) if one else {} for one in scored]
    rows = [(name, [one.get(name) for one in found]) for name in dict.fromkeys(name for one in found for name in one)]
    if rows:
        rows.append(("mean", [one.scores["miou"] if one else None for one in scored]))
    return [(name, values, _change(values)) for name, values in rows]


def _change(values: Sequence[float | None]) -> float | None:
    """Return the second of two values minus the first; None if one is missing or there are not two."""
    first, last = values[0], values[-1]
    return last - first if len(values) == 2 and first is not None and last is not None else None


def _colors(scored: Sequence[Validation | None]) -> dict[str, list[int]]:
    """Return the colour of each class."""
    known = [one for one in scored if one]
    return {name: color for one in known for name, color in zip(one.scores["classes"], one.palette, strict=True)}


def _settings(runs: Sequence[RunFiles]) -> list[tuple[str, list[str]]]:
    """Return the settings that differ: name, and value in each run."""
    found = [dict(_flat(run.config.to_dict())) for run in runs]
    rows = [
        (name, [one.get(name, "–") for one in found]) for name in dict.fromkeys(name for one in found for name in one)
    ]
    return [(name, values) for name, values in rows if len(set(values)) > 1 and name not in SAME]


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return settings as pairs of dotted name and text."""
    pairs = []
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            pairs += _flat(value, f"{name}.")
        else:
            pairs.append((name, " ".join(map(_word, value)) if isinstance(value, (list, tuple)) else _word(value)))
    return pairs


def _word(value: Any) -> str:
    """Return a single value as a reader of the page knows it."""
    return "not set" if value is None else str(value).lower() if isinstance(value, bool) else str(value)

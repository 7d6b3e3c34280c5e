"""Charts of runs: loss, scores, learning rate, gradient norm and speed over the steps, and the IoU of each class.

run_charts(run)                     # one run: lines that belong together share a chart
compared_charts([run, other])       # several runs: each chart has a line per run
class_charts([run, other])          # a chart per class
"""

from collections.abc import Sequence

from segvit.pictures.chart import Chart, Points
from segvit.reports.records import loss_terms
from segvit.reports.run_files import RunFiles


def run_charts(run: RunFiles) -> list[Chart]:
    """Return the charts of one run."""
    end, terms = run.config.steps, _terms(run)
    scores = {"mIoU": _values(run, "miou"), "pixel accuracy": _values(run, "overall_accuracy")}
    return [
        Chart(name="loss", title="Loss", series={"loss": _values(run, "loss")}, last_step=end),
        Chart(name="loss_terms", title="Loss terms, each summed over the outputs", series=terms, last_step=end),
        Chart(name="validation", title="Validation", series=scores, last_step=end, top=1, percent=True, dots=True),
        *(
            Chart(name=name, title=title, series={label: points}, last_step=end)
            for name, title, label, points in (
                ("learning_rate", "Learning rate of the backbone", "learning rate", _values(run, "lr")),
                ("gradient_norm", "Gradient norm before clipping", "norm", _values(run, "gradient_norm")),
                ("images_per_second", "Images per second", "images/s", _speed(run)),
            )
            if points
        ),
    ]


def compared_charts(runs: Sequence[RunFiles]) -> list[Chart]:
    """Return the charts of several runs, with a line per run."""
    end = max(run.config.steps for run in runs)
    terms = {run.name: _terms(run) for run in runs}
    plain = {
        "loss": ("Loss", {run.name: _values(run, "loss") for run in runs}),
        **{
            f"loss_{term}": (f"Loss term: {term}", {name: found.get(term, []) for name, found in terms.items()})
            for term in dict.fromkeys(term for found in terms.values() for term in found)
        },
        "learning_rate": ("Learning rate of the backbone", {run.name: _values(run, "lr") for run in runs}),
        "gradient_norm": ("Gradient norm before clipping", {run.name: _values(run, "gradient_norm") for run in runs}),
        "images_per_second": ("Images per second", {run.name: _speed(run) for run in runs}),
    }
    scores = {"miou": "Validation mIoU", "overall_accuracy": "Validation pixel accuracy"}
    charts = [
        Chart(
            name=key,
            title=title,
            series={run.name: _values(run, key) for run in runs},
            last_step=end,
            top=1,
            percent=True,
            dots=True,
        )
        for key, title in scores.items()
    ]
    charts += [Chart(name=key, title=title, series=lines, last_step=end) for key, (title, lines) in plain.items()]
    return [chart for chart in charts if any(chart.series.values())]


def class_charts(runs: Sequence[RunFiles]) -> list[Chart]:
    """Return a chart of the IoU of each class over the validations, with a line per run.

    The line of a single run is called IoU. Runs that did not log the IoU of each class have no line.
    """
    labels = [run.name for run in runs] if len(runs) > 1 else ["IoU"]
    logged = {label: [r for r in run.records if "iou" in r] for label, run in zip(labels, runs, strict=True)}
    names = dict.fromkeys(name for records in logged.values() for record in records for name in record["iou"])
    charts = []
    for index, name in enumerate(names):
        lines = {
            run: [(r["step"], r["iou"][name]) for r in records if r["iou"].get(name) is not None]
            for run, records in logged.items()
        }
        end = max(run.config.steps for run in runs)
        charts.append(Chart(name=f"class_{index}", title=name, series=lines, last_step=end, top=1, percent=True))
    return charts


def _values(run: RunFiles, key: str) -> Points:
    """Return the values under a key of the records."""
    return [(record["step"], record[key]) for record in run.records if record.get(key) is not None]


def _terms(run: RunFiles) -> dict[str, Points]:
    """Return the terms of the loss by name, each summed over the outputs."""
    steps = [(record["step"], loss_terms(record)) for record in run.records]
    names = dict.fromkeys(name for _, terms in steps for name in terms)
    return {name: [(step, terms[name]) for step, terms in steps if name in terms] for name in names}


def _speed(run: RunFiles) -> Points:
    """Return the images per second of each step."""
    steps = [(record["step"], record["seconds"]) for record in run.times if record.get("seconds")]
    return [(step, run.config.batch_size / seconds) for step, seconds in steps]

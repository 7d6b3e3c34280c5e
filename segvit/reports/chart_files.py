"""Write the charts of runs as figures, one file per chart.

write_charts([load_run(Path("runs/camvid"))], Path("figures"), format="pdf")
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segvit.pictures.chart import draw_chart, draw_small_charts
from segvit.pictures.formats import FigureFormat
from segvit.pictures.plots import confusion_matrix
from segvit.reports.curves import class_charts, compared_charts, run_charts
from segvit.reports.run_files import RunFiles
from segvit.utils.files import writing


def write_charts(runs: Sequence[RunFiles], folder: Path, *, format: FigureFormat) -> list[Path]:
    """Write the charts of a run's page, or of a comparison, and return their paths.

    Args:
        runs: one run, or several whose lines share the charts.
        folder: output folder, created if missing. Files of the same names are replaced.
        format: png (300 dots per inch), pdf or svg.

    Raises:
        UserError: the folder cannot be written to.
    """
    with writing(folder, "give another folder"):
        folder.mkdir(parents=True, exist_ok=True)
    written = []
    for chart in run_charts(runs[0]) if len(runs) == 1 else compared_charts(runs):
        if any(chart.series.values()):
            written.append(folder / f"{chart.name}.{format}")
            draw_chart(chart, written[-1])
    if classes := class_charts(runs):
        written.append(folder / f"classes.{format}")
        draw_small_charts(classes, written[-1])
    facts = runs[0].facts
    if len(runs) == 1 and facts and facts.validation:
        written.append(folder / f"confusion.{format}")
        confusion_matrix(np.array(facts.validation.confusion), facts.validation.scores["classes"], written[-1])
    return written

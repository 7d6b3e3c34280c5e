"""The command `segvit report`."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from segvit.cli.flags import bar, check_paths
from segvit.config import Device, TrainConfig
from segvit.config_files import RUN_CONFIG
from segvit.errors import UserError
from segvit.pictures.formats import FigureFormat


def report(
    runs: Annotated[list[Path], Parameter(negative=())],
    *,
    output: Path | None = None,
    charts: Path | None = None,
    format: FigureFormat | None = None,
    score: bool = False,
    root: Path | None = None,
    device: Device = "auto",
) -> None:
    """Write report.html of a run, or a page that compares several runs.

    The page of a run holds curves, scores, confusion matrix, best and worst images, settings and environment. Training
    writes it at each validation. This command writes it again, even while the run is still training.

    The page of several runs holds their curves in the same charts, the IoU of each class side by side, and the settings
    that differ.

    Parameters
    ----------
    runs
        Folder of a run, or folders of 2 to 6 runs to compare.
    output
        With several runs: file to write. Default: comparison.html in the folder of the first run.
    charts
        Also write each chart as a figure into this folder.
    format
        With --charts: format of the figures: png (default), pdf or svg.
    score
        Score best.safetensors on the validation set now, instead of showing the run's last validation.
    root
        With --score: folder of the dataset, if it has moved.
    device
        With --score: device to run on.
    """
    if root and not score:
        raise UserError("--root works only with --score: add --score, or leave --root out")
    if format and not charts:
        raise UserError("--format works only with --charts: add --charts FOLDER, or leave --format out")
    if output and len(runs) == 1:
        raise UserError(
            "--output works only with several runs: leave it out, and the page of one run is report.html in its folder"
        )
    if score and len(runs) > 1:
        raise UserError(f"--score works with one run, not {len(runs)}: score each run first, then compare them")
    if missing := next((run for run in runs if not run.is_dir()), None):
        raise UserError(f"no folder {missing}: give the folder of a run, such as runs/photos")
    if root and not root.is_dir():
        raise UserError(f"--root {root} is not a folder: give the folder of the dataset")
    check_paths(files=(output,), folder=charts, flag="--charts")
    from segvit.reports.chart_files import write_charts
    from segvit.reports.compare import load_runs, write_comparison
    from segvit.reports.run_files import load_run

    if len(runs) == 1:
        _write_one(runs[0], score=score, root=root, device=device)
        loaded = [load_run(runs[0])]
    else:
        loaded = load_runs(runs)
        print(write_comparison(loaded, output or runs[0] / "comparison.html"))
    if charts:
        written = write_charts(loaded, charts, format=format or "png")
        print(f"{len(written)} charts in {charts}")


def _write_one(run: Path, *, score: bool, root: Path | None, device: Device) -> None:
    """Write the page of one run, after scoring its best model if asked to."""
    from segvit.reports.run_report import score_best, write_report
    from segvit.utils.device import resolve_device

    facts = None
    if score:
        if not (run / "best.safetensors").is_file():
            raise UserError(f"{run} has no best.safetensors: the run has not validated yet; leave --score out")
        config = TrainConfig.load(run / RUN_CONFIG)
        if root:
            config = replace(config, data=replace(config.data, root=root))
        with bar("evaluating") as progress:
            facts = score_best(run, config, device=resolve_device(device), progress=progress)
    print(write_report(run, facts))

"""The command `segvit report`."""

from dataclasses import replace
from pathlib import Path

from segvit.cli.flags import bar
from segvit.config import Device, TrainConfig
from segvit.errors import UserError


def report(run: Path, *, score: bool = False, root: Path | None = None, device: Device = "auto") -> None:
    """Write report.html of a run: curves, scores, confusion matrix, best and worst images, settings, environment.

    Training writes it at each validation. This command writes it again, even while the run is still training.

    Parameters
    ----------
    run
        Folder of the run.
    score
        Score best.safetensors on the validation set now, instead of showing the run's last validation.
    root
        With --score: folder of the dataset, if it has moved.
    device
        With --score: device to run on.
    """
    from segvit.reports.run_report import score_best, write_report
    from segvit.utils.device import resolve_device

    if root and not score:
        raise UserError("--root works only with --score: add --score, or leave --root out")
    facts = None
    if score:
        if not (run / "best.safetensors").is_file():
            raise UserError(f"{run} has no best.safetensors: the run has not validated yet; leave --score out")
        config = TrainConfig.load(run / "config.yaml")
        if root:
            config = replace(config, data=replace(config.data, root=root))
        with bar("evaluating") as progress:
            facts = score_best(run, config, device=resolve_device(device), progress=progress)
    print(write_report(run, facts))

"""What there is to tell of a run: `segvit report` makes its page, `segvit info --plan` what it will take."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import App

from segvit.cli.flags import BackboneFlags, bar
from segvit.config import Device, TrainConfig
from segvit.errors import UserError

if TYPE_CHECKING:
    from segvit.profiling.plan import Plan


def register(app: App) -> None:
    """Add the verb to the command line."""
    app.command(report)


def report(run: Path, *, score: bool = False, root: Path | None = None, device: Device = "auto") -> None:
    """Write report.html of a run: curves, scores, confusion matrix, best and worst images, settings, environment.

    Training writes it at each validation; this makes it anew, also of a run that is still going on.

    Parameters
    ----------
    run
        Folder of the run.
    score
        Score best.safetensors on the validation set for it, rather than show the run's last validation.
    root
        With --score: folder of the dataset, where it has moved.
    device
        With --score: where to run.
    """
    from segvit.reports.run_report import score_best, write_report
    from segvit.utils.device import resolve_device

    if root and not score:
        raise UserError("--root is where --score finds the images: add --score, or leave it out")
    facts = None
    if score:
        if not (run / "best.safetensors").is_file():
            raise UserError(f"{run} has no best.safetensors to score: its run has not validated yet; leave --score out")
        config = TrainConfig.load(run / "config.yaml")
        if root:
            config = replace(config, data=replace(config.data, root=root))
        with bar("evaluating") as progress:
            facts = score_best(run, config, device=resolve_device(device), progress=progress)
    print(write_report(run, facts))


def plan_of(
    config: str,
    *,
    name: str | None,
    gpus: int,
    tflops: float | None,
    size: tuple[int, int] | None,
    backbone: BackboneFlags,
) -> "Plan":
    """What training by a config takes, which `segvit info --plan` tells.

    Raises:
        UserError: flags that say something else than the config, no such config, or a batch that cannot be dealt out.
    """
    from segvit.profiling.info import ASSUMED_CLASSES, find_network
    from segvit.profiling.plan import plan

    others = {"a name": name, "--size": size, "--image-size": backbone.image_size}
    others |= {"--class-token": backbone.class_token, "--structure": backbone.structure}
    if said := [flag for flag, value in others.items() if value is not None]:
        raise UserError(f"the config says what is trained: leave out {' and '.join(said)} beside --plan {config}")
    settings = TrainConfig.load(config)
    network = find_network(config, num_classes=backbone.num_classes)
    return plan(settings, num_classes=network.num_classes or ASSUMED_CLASSES, gpus=gpus, tflops=tflops)

"""The commands `segvit demo` and `segvit train`."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from segvit.cli.flags import FOLDER_SETTINGS, Flat, Given, check_paths, with_folders, with_recipe
from segvit.config import Device, TrainConfig
from segvit.errors import UserError
from segvit.utils.text import score_text

if TYPE_CHECKING:
    from segvit.training.run_folder.result import Run


def demo(*, output: Path = Path("runs/demo"), steps: int | None = None, device: Device = "auto") -> None:
    """Run the whole tour on synthetic scenes: train, evaluate, predict, draw.

    Parameters
    ----------
    output
        Folder for the pictures and the model.
    steps
        Number of training steps. Default: as many as take about four minutes on two cores.
    device
        Device to run on.
    """
    check_paths(files=(), folder=output, flag="--output")
    from segvit.demo import run_demo

    run_demo(output=output, steps=steps, device=device)


def train(
    photos: Path | None = None,
    masks: Path | None = None,
    /,
    *,
    config: Path | None = None,
    resume: bool = False,
    accept_changed_data: bool = False,
    overwrite: bool = False,
    replay: Path | None = None,
    settings: Annotated[TrainConfig, Flat] = TrainConfig(),
    given: Given = (),
) -> None:
    """Train a model.

    Without --config, segvit chooses settings that fit this machine and your images, and prints the reason of each. The
    defaults below are then those of settings that it does not choose.

    Parameters
    ----------
    photos
        Folder of photos; the same as --data.images.
    masks
        Folder of masks with the photos' names; the same as --data.labels.
    config
        YAML file of settings, or a shipped recipe such as finetune or camvid/vit_tiny. Flags override it.
    resume
        Resume from the newest checkpoint in the output folder, with the settings of that run. Without --output, resume
        the only run in runs. --steps gives a finished run more steps.
    accept_changed_data
        With --resume: resume even if the dataset has changed since the run started.
    overwrite
        Replace the run that the output folder holds.
    replay
        Do not train. Run the step saved in this not-finite-stepN.pt again, and report the first layer whose numbers are
        not finite (exit code 2), or that all are finite (0). Only --device may be combined with it.
    """
    if replay:
        if resume or config or photos or set(given) - {"device"}:
            raise UserError(f"the saved step holds its own settings: type --replay {replay} alone, or with --device")
        _replay(replay, settings.device)
        return
    from segvit.data.folder_spec import check_places
    from segvit.training.run_folder.names import known_part
    from segvit.weights.names import check_weights_file

    if accept_changed_data and not resume:
        raise UserError(
            "--accept-changed-data works only with --resume: a new run always uses the current dataset; leave it out"
        )
    data = with_folders(settings.data, photos, masks, verb="train", given=given)
    settings, given = replace(settings, data=data), (*given, *(FOLDER_SETTINGS if photos else ()))
    check_paths(files=(), folder=known_part(settings.output), flag="--output")
    if not resume:
        check_places(settings.data)
        check_weights_file(settings.model)
    from segvit.training.train import train as run_training
    from segvit.utils.distributed import rank

    if not (config or resume):
        settings = with_recipe(settings, given)
    run = run_training(settings, resume=resume, accept_changed_data=accept_changed_data, overwrite=overwrite)
    if rank() == 0:
        _tell(run)


def _tell(run: "Run") -> None:
    """Print the scores of a run, its files, and what to type next."""
    from rich import print as rich_print

    from segvit.training.run_folder.result import next_commands

    rich_print(run.result.table(title="per class, last validation"))
    print(f"best model {run.path}")
    print(f"mIoU {score_text(run.miou, '.3f')}")
    print(f"report {run.path.parent / 'report.html'}")
    print("Next:", *(f"  {line}" for line in next_commands(run)), sep="\n")


def _replay(path: Path, device: Device) -> None:
    """Run a saved step again, print the result, and exit with 2 if something is not finite."""
    from segvit.training.replay import replay

    seen = replay(path, device=device)
    print(seen.text)
    if seen.finding:
        sys.exit(2)

"""The commands `segvit demo` and `segvit train`."""

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from segvit.cli.flags import Flat, Given, check_paths, with_recipe
from segvit.config import Device, TrainConfig
from segvit.errors import UserError
from segvit.utils.launcher import first_process
from segvit.utils.text import score_text


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
    *,
    config: Path | None = None,
    resume: bool = False,
    accept_changed_data: bool = False,
    replay: Path | None = None,
    settings: Annotated[TrainConfig, Flat] = TrainConfig(),
    given: Given = (),
) -> None:
    """Train a model.

    Without --config, segvit chooses settings that fit this machine and your images, and prints the reason of each. The
    defaults below are then those of settings that it does not choose.

    Parameters
    ----------
    config
        YAML file of settings, or a shipped recipe such as finetune or camvid/vit_tiny. Flags override it.
    resume
        Resume from the newest checkpoint in the output folder, with the settings of that run.
    accept_changed_data
        With --resume: resume even if the dataset has changed since the run started.
    replay
        Do not train. Run the step saved in this not-finite-stepN.pt again, and report the first layer whose numbers are
        not finite (exit code 2), or that all are finite (0). Only --device may be combined with it.
    """
    if replay:
        if resume or config or set(given) - {"device"}:
            raise UserError(f"the saved step holds its own settings: type --replay {replay} alone, or with --device")
        _replay(replay, settings.device)
        return
    from segvit.data.folder_spec import check_places
    from segvit.weights.names import check_weights_file

    if accept_changed_data and not resume:
        raise UserError(
            "--accept-changed-data works only with --resume: a new run always uses the current dataset; leave it out"
        )
    check_paths(files=(), folder=settings.output, flag="--output")
    if not resume:
        check_places(settings.data)
        check_weights_file(settings.model)
    from segvit.training.train import train as run_training
    from segvit.utils.distributed import rank

    on_step = None
    if not (config or resume):
        settings = with_recipe(settings, given)
        on_step = partial(_name_config_file, settings.output)
    run = run_training(settings, resume=resume, accept_changed_data=accept_changed_data, on_step=on_step)
    if rank() == 0:
        print(f"best model {run.path}")
        print(f"mIoU {score_text(run.miou, '.3f')}")


def _name_config_file(output: Path, step: int, _: Any) -> None:
    """Print after the first step where the chosen settings are; before it the run may be refused."""
    if step == 1 and first_process():
        print(f"These settings are in {output / 'config.yaml'}. Give that file as --config to repeat the run.")


def _replay(path: Path, device: Device) -> None:
    """Run a saved step again, print the result, and exit with 2 if something is not finite."""
    from segvit.training.replay import replay

    seen = replay(path, device=device)
    print(seen.text)
    if seen.finding:
        sys.exit(2)

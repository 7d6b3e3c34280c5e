"""The commands `segvit demo` and `segvit train`."""

import sys
from pathlib import Path
from typing import Annotated

from segvit.cli.flags import Flat
from segvit.config import Device, TrainConfig
from segvit.errors import UserError


def demo(*, output: Path = Path("runs/demo"), steps: int | None = None, device: Device = "auto") -> None:
    """The whole tour on made-up scenes: train, evaluate, predict, paint.

    Parameters
    ----------
    output
        Folder of the pictures and of the model.
    steps
        Training steps. Default: about four minutes on two cores.
    device
        Where to run.
    """
    from segvit.demo import run_demo

    run_demo(output=output, steps=steps, device=device)


def train(
    *,
    config: Path | None = None,
    resume: bool = False,
    accept_changed_data: bool = False,
    replay: Path | None = None,
    settings: Annotated[TrainConfig, Flat] = TrainConfig(),
) -> None:
    """Train a model.

    Parameters
    ----------
    config
        YAML file of settings, or a shipped recipe such as camvid/vit_tiny; flags override it.
    resume
        Go on from the checkpoint in the output folder.
    accept_changed_data
        With --resume: go on although the dataset is no longer what the run was started on.
    replay
        Instead: run the step in this not-finite-stepN.pt again and say which layer is the first whose numbers are not
        finite (exit code 2), or that all are (0). Only --device goes with it.
    """
    if replay:
        if resume or config or settings != TrainConfig(device=settings.device):
            raise UserError(f"the step has its settings with it: type --replay {replay} alone, or with --device")
        _replay(replay, settings.device)
        return
    if accept_changed_data and not resume:
        raise UserError("--accept-changed-data belongs to --resume: a new run takes the dataset as it is")
    from segvit.training.train import train as run_training
    from segvit.utils.distributed import rank

    run = run_training(settings, resume=resume, accept_changed_data=accept_changed_data)
    if rank() == 0:
        print(f"best model {run.path}")
        print(f"mIoU {run.miou:.3f}")


def _replay(path: Path, device: Device) -> None:
    """Run a saved step again, say what came of it, and leave with 2 where something is not finite."""
    from segvit.training.replay import replay

    seen = replay(path, device=device)
    print(seen.text)
    if seen.finding:
        sys.exit(2)

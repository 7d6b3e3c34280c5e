"""What `tests/training/test_parallel.py` starts in two processes: a training run.

    torchrun --nproc-per-node 2 -m tests.helpers.two_processes FOLDER RUN

A run whose name is one of FAULTS goes wrong in the second process after a few steps.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.distributed.tensor import DTensor

import segvit.data.dataset as dataset_module
import segvit.data.sampling.crops as crops_module
import segvit.training.learner as learner_module
from segvit.config import TrainConfig
from segvit.errors import UserError
from segvit.losses import Losses
from segvit.models.segvit import SegViT
from segvit.training.train import train

SCENES = {"train": 12, "val": 5}
"""Five to validate on: the second process has fewer."""
FAULTS = ("dies", "raises")


def watch_shards() -> Callable[[int, Losses], None]:
    """What asserts after every step that each parameter of the model trained is shared out."""
    shared: list[SegViT] = []
    shard = learner_module.shard

    def note(model: SegViT, *arguments: object) -> None:
        shard(model, *arguments)  # type: ignore[arg-type]
        shared.append(model)

    learner_module.shard = note  # type: ignore[assignment]

    def check(step: int, losses: Losses) -> None:
        (model,) = shared
        for name, parameter in model.named_parameters():
            assert isinstance(parameter, DTensor), name
            assert parameter.to_local().numel() < parameter.numel() or parameter.shape[0] == 1, name

    return check


def go_wrong(kind: str, incident: Path) -> Callable[[int, Losses], None]:
    """What makes the second process die, or its data raise; the moment is left as a time in a file."""
    read = crops_module.TrainingSamples.__getitem__
    wrong = []

    def read_until_then(samples: crops_module.TrainingSamples, key: tuple[int, int]) -> object:
        return UserError("the image is gone") if wrong else read(samples, key)

    crops_module.TrainingSamples.__getitem__ = read_until_then  # type: ignore[assignment,method-assign]

    def on_step(step: int, _: Losses) -> None:
        if step == 3 and os.environ["RANK"] == "1":
            incident.write_text(str(time.time()))
            if kind == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            wrong.append(kind)

    return on_step


def main() -> None:
    folder, run = sys.argv[1:]
    dataset_module.SHAPES_LENGTH = SCENES
    torch.set_num_threads(1)
    config = TrainConfig.load(Path(folder) / f"{run}.yaml")
    on_step = watch_shards() if config.parallel == "fsdp" else None
    if run in FAULTS:
        on_step = go_wrong(run, Path(folder) / "incident")
    train(config, on_step=on_step)


if __name__ == "__main__":
    main()

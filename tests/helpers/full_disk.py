"""What `tests/training/test_loader_guard.py` starts in a process of its own: runs whose disk is full at some moment.

    unshare --mount python -m tests.helpers.full_disk FOLDER

The disk is a tmpfs of 16 MB that is filled up. Where nothing may be mounted, the system refuses to let files grow
(RLIMIT_FSIZE) instead. Printed is, as JSON, what each run said, and whether it went on to the bit afterwards.
"""

import json
import math
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

import segvit.training.start as start_module
import segvit.training.train as train_module
import segvit.training.validation as validation_module
from segvit.config import DataConfig, TrainConfig
from segvit.data.sampling.order import EndlessBatches
from segvit.data.shapes.scenes import write_shapes
from segvit.errors import UserError
from segvit.reports.records import read_records
from segvit.training.checkpoint import checkpoints
from segvit.training.train import Trainer, train
from tests.helpers.tiny import tiny_run


class Disk:
    """A place that can be full."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)]
        done = subprocess.run(mount, capture_output=True, text=True)
        self.mounted = done.returncode == 0
        self.reason = "No space left on device" if self.mounted else "File too large"
        if not self.mounted:
            print(f"no tmpfs ({done.stderr.strip()}), files may not grow instead")

    def fill(self, *, grown: int = 20) -> None:
        """Leave no room; without a tmpfs no file may be larger than `grown` bytes."""
        if not self.mounted:
            resource.setrlimit(resource.RLIMIT_FSIZE, (grown, resource.RLIM_INFINITY))
            return
        with (self.folder / "ballast").open("wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                pass

    def free(self) -> None:
        """Make room again."""
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        (self.folder / "ballast").unlink(missing_ok=True)

    def close(self) -> None:
        """Take the tmpfs away, which outlives this process where it has no mounts of its own."""
        if self.mounted:
            subprocess.run(["umount", str(self.folder)], check=True)


def after_save(step: int, act: Callable[[Trainer], None]) -> Any:
    """Lets something happen once the checkpoint of a step is written."""
    save = Trainer.save

    def then(trainer: Trainer, done: int) -> None:
        save(trainer, done)
        if done == step:
            act(trainer)

    return patch.object(Trainer, "save", then)


def before(module: Any, name: str, act: Callable[[], None]) -> Any:
    """Lets something happen each time that a function is called."""
    function = getattr(module, name)

    def first(*arguments: Any, **settings: Any) -> Any:
        act()
        return function(*arguments, **settings)

    return patch.object(module, name, first)


def spoil(trainer: Trainer) -> None:
    with torch.no_grad():
        trainer.learner.model.backbone.patch_embed.proj.bias.fill_(math.inf)  # type: ignore[union-attr,operator]


def attempt(config: TrainConfig, disk: Disk, moment: Any) -> dict[str, Any]:
    """A run with a full disk, and the same one when there is room again."""
    whole = replace(config, output=disk.folder.parent / f"whole-{config.output.name}")
    train(whole)
    seen: dict[str, Any] = {"error": None, "text": "", "reason": disk.reason}
    try:
        with moment:
            train(config)
    except UserError as error:
        seen |= {"error": type(error).__name__, "text": str(error)}
    disk.free()
    seen["partial"] = [str(path) for path in config.output.rglob("*.partial")]
    seen["saved"] = [path.name for path in checkpoints(config.output)]
    train(config, resume=bool(seen["saved"]))
    seen["resumed"], seen["whole"] = (list(read_records(run.output)) for run in (config, whole))
    return seen


def main() -> None:
    folder = Path(sys.argv[1])
    disk = Disk(folder / "disk")
    write_shapes(folder / "scenes", train=6, val=3, size=32, seed=0)
    data = DataConfig(spec="shapes", root=folder / "scenes", workers=0)

    def run(name: str, **changes: Any) -> TrainConfig:
        return tiny_run(disk.folder / name, **{"data": data, "save_every": 2, **changes})

    def fill(trainer: Trainer) -> None:
        disk.fill(grown=(trainer.output / "metrics.jsonl").stat().st_size + 100)

    seen = {
        "start": attempt(run("start"), disk, before(start_module, "written", disk.fill)),
        "log": attempt(run("log", steps=40, save_every=20, eval_every=40), disk, after_save(20, fill)),
        "picture": attempt(run("picture"), disk, before(train_module, "show_validation", disk.fill)),
        "report": attempt(run("report"), disk, before(validation_module, "write_report", disk.fill)),
        "batch": attempt(run("batch"), disk, after_save(2, lambda trainer: (spoil(trainer), disk.fill()))),
    }
    second = list(EndlessBatches(6, 2, seed=0, steps=2))[1][0][0]  # first seen in the second step
    bad = sorted((folder / "scenes" / "images" / "train").glob("*"))[second]
    bad.write_bytes(bad.read_bytes()[:100])
    skipping = replace(data, skip_unreadable=1)
    filled = after_save(1, lambda trainer: disk.fill())
    seen["list"] = attempt(run("list", data=skipping, save_every=1), disk, filled)
    disk.close()
    print(json.dumps(seen))


if __name__ == "__main__":
    main()

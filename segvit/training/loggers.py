"""Log a run: metrics.jsonl, the loggers in the config, and the progress in the terminal.

    log = RunLog(config, accelerator, start=0)
    log.write(1, {"loss": 3.2})
    log.pictures(500, shots, spec)

TensorBoard, W&B, DVCLive and SwanLab write into the run's folder, Aim beside it. The others write where their own
environment variables direct them. In all but TensorBoard and DVCLive, a resumed run is a new one of the same name.
Only the main process logs. `TrainProgress` is a live bar in a terminal, and plain lines elsewhere.
"""

import importlib.util
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from segvit.config import LoggerName, TrainConfig
from segvit.data.spec import DatasetSpec
from segvit.errors import UserError
from segvit.evaluation.examples import Shot
from segvit.pictures import contact_sheet, side_by_side, with_legend
from segvit.reports.records import LOG, TIMES, RecordLog
from segvit.training.loader_guard import writing, written
from segvit.training.settings import flat
from segvit.utils.time_left import TimeLeft

PROJECT = "segvit"
"""Project name of the runs in services."""
SMOOTHING = 0.98
"""Share of the old value in the running mean of the loss."""


def check_loggers(names: Sequence[LoggerName]) -> None:
    """Check that loggers are installed. A logger's name is that of its package.

    Raises:
        UserError: one is not, or this version of accelerate does not know it.
    """
    for name in names:
        others = " ".join(other for other in names if other != name)
        without = f"--loggers {others}" if others else "--empty-loggers"
        if name not in LOGGER_TYPE_TO_CLASS:
            raise UserError(
                f"logger {name} needs a newer accelerate: pip install --upgrade accelerate, or go without: {without}"
            )
        if importlib.util.find_spec(name) is None:
            raise UserError(f"logger {name} is not installed: pip install {name}, or go without: {without}")


class RunLog:
    """The open logs of a run.

    Args:
        config: of the run.
        accelerator: holds the trackers.
        start: steps done already. Records of later steps are dropped, since the resumed run logs them again.

    Raises:
        UserError: a logger does not start.
    """

    def __init__(self, config: TrainConfig, accelerator: Accelerator, *, start: int) -> None:
        self.accelerator = accelerator
        self.config, self.output = config, config.output
        self.records = None
        if accelerator.is_main_process:
            with writing(config.output / LOG, run=config.output):
                self.records = RecordLog(config.output, start=start)
                self.times = RecordLog(config.output, start=start, name=TIMES)
        self.since = time.monotonic()
        accelerator.log_with = [_tracker(name, config.output, start) for name in config.loggers]
        try:
            accelerator.init_trackers(PROJECT)
            self._name_experiments()
        except Exception as error:  # each service has its own kinds
            named = " and ".join(config.loggers)
            raise UserError(
                f"the run cannot be logged by {named}: {error}; fix that, or choose other --loggers"
            ) from error
        for tracker in accelerator.trackers:
            if tracker.name != "tensorboard":  # which would make a second run of them
                tracker.store_init_configuration({key: _plain(value) for key, value in flat(config.to_dict())})

    def _name_experiments(self) -> None:
        """Give the run's name to trackers that take none when they start."""
        for tracker in self.accelerator.trackers:
            if tracker.name == "comet_ml" and self.accelerator.is_main_process:
                tracker.tracker.set_name(self.output.name)

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Log a record of a step or a validation. The loggers get its numbers, metrics.jsonl gets all of it."""
        if self.records:
            with writing(self.output / LOG, run=self.output):
                self.records.write(step, values)
            with writing(self.output / "files of the loggers", run=self.output):
                numbers = {name: value for name, value in values.items() if not isinstance(value, dict)}
                self.accelerator.log(numbers, step=step)
        self.lap(step, "seconds" if "loss" in values else "validation_seconds")

    def lap(self, step: int, name: str) -> None:
        """Log the seconds since the last lap under `name`, in timing.jsonl."""
        now = time.monotonic()
        if self.records:
            with writing(self.output / TIMES, run=self.output):
                self.times.write(step, {name: round(now - self.since, 4)})
        self.since = now

    def pictures(self, step: int, shots: Sequence[Shot], spec: DatasetSpec) -> None:
        """Log photo, labels and prediction of some validation images: a PNG in the run's folder, and in every
        logger."""
        if not self.records or not shots:
            return
        path = self.output / "validation" / f"step-{step:07d}.png"
        rows = [(shot.photo, shot.labels, shot.overlay) for shot in shots]
        sheet = contact_sheet(rows, titles=("photo", "labels", "prediction"), captions=[shot.name for shot in shots])
        fractions = np.mean([shot.shares for shot in shots], axis=0)
        sheet = with_legend(sheet, spec.classes, spec.palette, fractions, numbers=False)
        with writing(path, run=self.output):
            path.parent.mkdir(exist_ok=True)
        with written(path, run=self.output) as aside:
            sheet.save(aside, format="PNG")
        rows_by_name = {f"validation/{shot.index}": _row(shot) for shot in shots}
        for tracker in self.accelerator.trackers:
            if tracker.name == "mlflow":
                tracker.log_artifact(str(path), "validation")
            else:
                _log_rows(tracker, rows_by_name, step)

    def close(self) -> None:
        """Close all logs."""
        if self.records:
            self.records.close()
            self.times.close()
        self.accelerator.end_training()


def _tracker(name: LoggerName, output: Path, start: int) -> GeneralTracker:
    """Create Accelerate's tracker of a logger, without starting it."""
    run, environment = output.name, os.environ
    settings: dict[LoggerName, dict[str, Any]] = {
        "tensorboard": {
            "run_name": "tensorboard",
            "logging_dir": output,
            "purge_step": start + 1 if start else None,
        },
        "wandb": {"run_name": PROJECT, "name": run, "group": run, "dir": str(output)},
        "mlflow": {"experiment_name": PROJECT, "run_name": run},
        "comet_ml": {"run_name": PROJECT},
        # Its hooks would log TensorBoard's numbers a second time, and upload every checkpoint.
        "clearml": {
            "project_name": environment.get("CLEARML_PROJECT", PROJECT),
            "task_name": environment.get("CLEARML_TASK", run),
            "reuse_last_task_id": False,
            "auto_connect_frameworks": False,
        },
        "aim": {"run_name": run, "logging_dir": str(output.parent), "experiment": PROJECT},
        "dvclive": {
            "dir": str(output / "dvclive"),
            "dvcyaml": str(output / "dvclive" / "dvc.yaml"),
            "resume": start > 0,
        },
        "swanlab": {"run_name": PROJECT, "experiment_name": run, "logdir": str(output / "swanlab")},
        "trackio": {"run_name": PROJECT, "name": run},
    }
    tracker: GeneralTracker = LOGGER_TYPE_TO_CLASS[name](**settings[name])
    return tracker


def _log_rows(tracker: GeneralTracker, rows: Mapping[str, Any], step: int) -> None:
    """Log pictures (1, H, W, 3) uint8 by name, in the form that a service takes them."""
    if tracker.name == "tensorboard":
        tracker.log_images(rows, step=step, dataformats="NHWC")
    elif tracker.name in ("wandb", "swanlab"):
        tracker.log_images(rows, step=step)
    elif tracker.name == "clearml":
        tracker.log_images({name: row[0] for name, row in rows.items()}, step=step)
    elif tracker.name == "aim":
        tracker.log_images({name: Image.fromarray(row[0]) for name, row in rows.items()}, step=step)
    elif tracker.name == "trackio":
        trackio = importlib.import_module("trackio")
        tracker.log({name: trackio.Image(row[0]) for name, row in rows.items()}, step=step)
    elif tracker.name == "comet_ml":
        for name, row in rows.items():
            tracker.tracker.log_image(row[0], name=name, step=step)
    elif tracker.name == "dvclive":
        for name, row in rows.items():
            tracker.tracker.log_image(f"{name}/{step}.png", row[0])


def _row(shot: Shot) -> Any:
    """Draw one image, (1, H, W, 3) uint8."""
    row = side_by_side([("photo", shot.photo), ("labels", shot.labels), ("prediction", shot.overlay)])
    return np.asarray(row)[None]


def _plain(value: Any) -> Any:
    """Return a setting as a number, boolean or text."""
    return value if isinstance(value, (bool, int, float, str)) else str(value)


class TrainProgress:
    """Step, smoothed loss, learning rate, images per second and time left."""

    def __init__(self, config: TrainConfig, *, start: int, shown: bool) -> None:
        self.config = config
        self.console = Console(quiet=not shown, soft_wrap=True)
        self.bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            disable=not (shown and self.console.is_terminal),
        )
        self.main = self.bar.add_task("training", total=config.steps, completed=start, note="")
        self.loss: float | None = None
        self.since = (time.monotonic(), start)
        self.first = start + 1  # its line comes early, whatever log_every is
        self.left = TimeLeft(steps=config.steps, eval_every=config.eval_every)

    def __enter__(self) -> "TrainProgress":
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def update(self, step: int, *, loss: float, lr: float) -> None:
        """Show a step's loss (total) and learning rate (of the backbone)."""
        self.loss = loss if self.loss is None else SMOOTHING * self.loss + (1 - SMOOTHING) * loss
        start_time, start_step = self.since
        speed = (step - start_step) * self.config.batch_size / max(time.monotonic() - start_time, 1e-9)
        note = f"loss {self.loss:.3f}  lr {lr:.1e}  {speed:.1f} images/s"
        self.bar.update(self.main, completed=step, note=note)
        due = step % self.config.log_every == 0 or step in (self.first, self.config.steps)
        if due and not self.console.is_terminal:
            self.console.print(f"step {step}/{self.config.steps}  {note}")
        if line := self.left.after(step):
            self.say(line)

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self.console.print(text)

    @contextmanager
    def task(self, name: str, total: int) -> Iterator[Callable[[int, int], None]]:
        """Show a second bar during other work, whose time does not count as training time."""
        began = time.monotonic()
        task = self.bar.add_task(name, total=total, note="")
        try:
            yield lambda done, _: self.bar.update(task, completed=done)
        finally:
            self.bar.remove_task(task)
            self.since = (self.since[0] + time.monotonic() - began, self.since[1])

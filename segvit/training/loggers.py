"""What a run writes down as it goes: metrics.jsonl always, and what the loggers of the config take.

    log = RunLog(config, accelerator, start=0)
    log.write(1, {"loss": 3.2})
    log.pictures(500, shots, spec)

TensorBoard events lie in the run's folder. W&B and MLflow go where their own environment variables say; a resumed run
is a new one there, of the same name. In every process but the main one all of this does nothing.
"""

import importlib.util
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from accelerate import Accelerator
from accelerate.tracking import GeneralTracker, MLflowTracker, TensorBoardTracker, WandBTracker

from segvit.config import LoggerName, TrainConfig
from segvit.data.spec import DatasetSpec
from segvit.errors import UserError
from segvit.evaluation.examples import Shot
from segvit.pictures import contact_sheet, side_by_side, with_legend
from segvit.training.loader_guard import writing, written
from segvit.training.settings import flat

PROJECT = "segvit"
"""Name under which W&B and MLflow gather runs."""
PACKAGES: dict[LoggerName, str] = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow"}
"""What to install for each logger."""
NUM_PICTURES = 4
"""Validation images that are drawn at each validation, the same ones each time."""


def check_loggers(names: Sequence[LoggerName]) -> None:
    """Refuse loggers that are not installed.

    Raises:
        UserError: one is not.
    """
    for name in names:
        if importlib.util.find_spec(PACKAGES[name]) is None:
            others = " ".join(other for other in names if other != name)
            without = f"--loggers {others}" if others else "--empty-loggers"
            raise UserError(f"logger {name} is not installed: pip install {PACKAGES[name]}, or go without: {without}")


def picture_indices(length: int) -> list[int]:
    """Which of so many validation images are drawn: evenly spread ones."""
    count = min(NUM_PICTURES, length)
    return [(2 * place + 1) * length // (2 * count) for place in range(count)]


class RunLog:
    """The open logs of a run.

    Args:
        config: of the run.
        accelerator: which keeps the trackers.
        start: steps done already; what was logged after them is dropped, since the resumed run logs it again.

    Raises:
        UserError: a logger does not start.
    """

    def __init__(self, config: TrainConfig, accelerator: Accelerator, *, start: int) -> None:
        self.accelerator = accelerator
        self.config, self.output = config, config.output
        self.file = _open(config.output / "metrics.jsonl", start) if accelerator.is_main_process else None
        accelerator.log_with = [_tracker(name, config.output, start) for name in config.loggers]
        try:
            accelerator.init_trackers(PROJECT)
        except Exception as error:  # each service has its own kinds
            named = " and ".join(config.loggers)
            raise UserError(
                f"the run cannot be logged by {named}: {error}; settle that, or choose other --loggers"
            ) from error
        for tracker in accelerator.trackers:
            if tracker.name != "tensorboard":  # which would make a second run of them
                tracker.store_init_configuration({key: _plain(value) for key, value in flat(config.to_dict())})

    def write(self, step: int, values: dict[str, float]) -> None:
        """One record of a step."""
        if self.file:
            with writing(self.output / "metrics.jsonl", run=self.output):
                try:
                    self.file.write(json.dumps({"step": step, **values}) + "\n")
                except OSError:
                    with suppress(OSError):  # it would try again to write the rest of the line
                        self.file.close()
                    raise
            with writing(self.output / "what the loggers keep", run=self.output):
                self.accelerator.log(values, step=step)

    def pictures(self, step: int, shots: Sequence[Shot], spec: DatasetSpec) -> None:
        """Photo, labels and prediction of some validation images: a PNG in the run's folder, and in every logger."""
        if not self.file or not shots:
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
        for tracker in self.accelerator.trackers:
            if tracker.name == "mlflow":
                tracker.log_artifact(str(path), "validation")
            else:
                form = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
                tracker.log_images({f"validation/{shot.index}": _row(shot) for shot in shots}, step=step, **form)

    def flush(self) -> None:
        """Put what is written so far into the file."""
        if self.file:
            self.file.flush()

    def close(self) -> None:
        """Close all logs."""
        if self.file:
            self.file.close()
        self.accelerator.end_training()


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a metrics.jsonl; a last line that a killed run has left half written is none.

    Raises:
        UserError: the file cannot be read, or another line is broken.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); name the folder of a run of segvit train") from error
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            record["step"] + 0
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines) and not line.endswith("\n"):
                return
            raise UserError(f"{path}: line {number} is no record of a step; remove it") from error
        yield record


def _open(path: Path, start: int) -> IO[str]:
    """The log, without what comes after `start`; a line is in the file as soon as it is written."""
    if start and path.exists():
        kept = [json.dumps(record) + "\n" for record in read_records(path) if record["step"] <= start]
        with written(path, run=path.parent) as aside:
            aside.write_text("".join(kept), encoding="utf-8")
    return path.open("a" if start else "w", buffering=1, encoding="utf-8")


def _tracker(name: LoggerName, output: Path, start: int) -> GeneralTracker:
    """Accelerate's tracker of a logger, not yet started."""
    if name == "tensorboard":
        return TensorBoardTracker("tensorboard", output, purge_step=start + 1 if start else None)
    if name == "wandb":
        return WandBTracker(PROJECT, name=output.name, group=output.name, dir=str(output))
    return MLflowTracker(PROJECT, run_name=output.name)


def _row(shot: Shot) -> Any:
    """A picture of one image, (1, H, W, 3) uint8."""
    row = side_by_side([("photo", shot.photo), ("labels", shot.labels), ("prediction", shot.overlay)])
    return np.asarray(row)[None]


def _plain(value: Any) -> Any:
    """A setting as a number, truth or text."""
    return value if isinstance(value, (bool, int, float, str)) else str(value)

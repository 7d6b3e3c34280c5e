"""The result of a training run, and the commands to type next."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from segvit.config_files import RUN_CONFIG
from segvit.data.dataset import SegmentationDataset
from segvit.data.sample import Samples
from segvit.evaluation.result import EvalResult


@dataclass(frozen=True, kw_only=True)
class Run:
    """Result of a training run."""

    miou: float | None
    """Best validation mIoU, 0..1; None if every pixel of the validation set is ignored."""
    path: Path
    """Model file with that score; without a score, the model of the last validation."""
    result: EvalResult
    """Result of the last validation."""
    example: Path | None = None
    """A validation photo. None if the dataset has no files."""


def example_of(samples: Samples) -> Path | None:
    """Return a photo of a dataset, if it has files."""
    image = samples.pairs[0].image if isinstance(samples, SegmentationDataset) else None
    return image if isinstance(image, Path) else None


def next_commands(run: Run) -> Iterator[str]:
    """Yield the commands to type after a run: label a photo, score the model again, look at it in a browser."""
    model, settings = str(run.path), str(run.path.parent / RUN_CONFIG)
    yield shlex.join(["segvit", "predict", model, str(run.example or "photo.jpg"), "--output", "seen"])
    yield shlex.join(["segvit", "evaluate", model, "--config", settings])
    yield shlex.join(["segvit", "app", model])


def stopped_text(signal_name: str, step: int, output: Path) -> str:
    """Return the text for a run that a signal has stopped, with its model and the way to resume."""
    resume = shlex.join(["segvit", "train", "--resume", "--output", str(output)])
    return (
        f"stopped by {signal_name} after step {step}; its checkpoint is written, and its model "
        f"{output / 'last.safetensors'}. Resume with: {resume}"
    )

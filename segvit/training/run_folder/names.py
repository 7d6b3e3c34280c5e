"""Name the folder of a run after its data, and find the run to resume.

    output = claim(Path("runs/*"), name_of(config))         # runs/photos, or runs/photos-2 if that exists
    output = run_to_resume(Path("runs/*"), name=None)       # the only run with a checkpoint in runs

This module imports no torch, so that the command line can read a run's settings early.
"""

import itertools
import re
import shlex
from pathlib import Path

from segvit.config import DataConfig, TrainConfig
from segvit.data.pairs import WILDCARD
from segvit.errors import UserError
from segvit.utils.files import remove, writing

STAR = "*"
"""Part of `output` that stands for the name of the run."""
BEFORE_NUMBERS = re.compile(r"[-_.]*([{*?\[].*)?(\.tar)?$")
"""End of a pattern of shards that is not part of a run's name: `-{000..009}.tar`."""
CHECKPOINT = re.compile(r"checkpoint-(\d{7,})\.pt")
"""Name of a checkpoint, with its step."""
MODELS = ("best.safetensors", "last.safetensors")
"""Models that a run leaves."""
REPLACED = (
    *MODELS,
    "checkpoint-[0-9]*.pt",
    "metrics.jsonl",
    "report.html",
    "report.json",
    "unreadable.txt",
    "not-finite-step*.pt",
    "validation/step-*.png",
    "tensorboard/events.out.tfevents.*",
)
"""Files of a run that a new run in its folder must not continue. Other files in the folder may be the user's."""
SHOWN = 5
"""Number of runs that an error lists."""


def checkpoints(folder: Path) -> list[Path]:
    """List the checkpoints in a run's folder, newest first."""
    found = ((CHECKPOINT.fullmatch(path.name), path) for path in folder.glob("checkpoint-*.pt"))
    return [path for _, path in sorted(((int(match[1]), path) for match, path in found if match), reverse=True)]


def name_of(data: DataConfig, *, otherwise: str = "run") -> str:
    """Return the name of a run on a dataset: that of the folder of photos, the packed dataset, or the spec.

    Args:
        data: the dataset.
        otherwise: name if neither is given.
    """
    if data.images is not None:
        return name_of_folder(data.images)
    if data.hub is not None:
        return Path(data.hub.partition("@")[0]).name or otherwise
    if data.shards is not None:
        return BEFORE_NUMBERS.sub("", Path(data.shards).name) or otherwise
    return Path(data.spec).stem if data.spec else otherwise


def name_of_folder(images: Path) -> str:
    """Return the name of a folder of photos; of a glob, the name of the last folder before its wildcards."""
    parts = list(itertools.takewhile(lambda part: not WILDCARD.search(part), images.parts))
    return Path(*parts).resolve().name or "run"


def is_open(output: Path) -> bool:
    """True if the folder of a run has no name yet."""
    return STAR in output.name


def known_part(output: Path) -> Path:
    """Return the folder of a run, or the folder that will hold it if it has no name yet."""
    return output.parent if is_open(output) else output


def check_free(output: Path) -> None:
    """Check that a folder holds no run. A run that left no checkpoint and no model may be started again.

    Raises:
        UserError: it holds a run.
    """
    remedy = "start anew with --overwrite, or choose another --output"
    if checkpoints(output):
        raise UserError(f"{output} already holds a run: continue it with --resume, {remedy}")
    if model := next((output / name for name in MODELS if (output / name).exists()), None):
        raise UserError(f"{output} already holds a run: {model} is there, without a checkpoint to resume; {remedy}")


def check_replaceable(config: TrainConfig) -> None:
    """Check that a run with --overwrite has a folder by name, and does not start from a file that it would remove.

    Raises:
        UserError: as above.
    """
    output = config.output
    if is_open(output):
        raise UserError("--overwrite replaces the run in a folder: name it, as in --output runs/photos")
    starts = (
        ("init", config.init),
        ("extend", config.extend),
        ("teacher", config.teacher),
        ("model.pretrained_file", config.model.pretrained_file),
    )
    for name, start in starts:
        if start is not None and Path(start).resolve().is_relative_to(output.resolve()):
            raise UserError(
                f"--overwrite would remove {start}, which {name} names: give another --output, or copy that file first"
            )


def clear(output: Path) -> None:
    """Remove what a run has left in its folder, and nothing else.

    Raises:
        UserError: a file cannot be removed.
    """
    with writing(output, "give another --output"):
        for path in (path for name in REPLACED for path in list(output.glob(name))):
            remove(path)


def claim(output: Path, name: str) -> Path:
    """Create the folder of a new run, and return its path.

    Args:
        output: folder; a `*` in its last part becomes the name, with -2, -3, ... if that folder exists.
        name: of the run.

    Raises:
        UserError: the folder cannot be created.
    """
    if not is_open(output):
        with writing(output, "give another --output"):
            output.mkdir(parents=True, exist_ok=True)
        return output
    for number in itertools.count(1):
        path = output.with_name(output.name.replace(STAR, name if number == 1 else f"{name}-{number}"))
        with writing(path, "give another --output"):
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                continue
        return path
    raise AssertionError("there are always more numbers")


def run_to_resume(output: Path, *, name: str | None) -> Path:
    """Return the folder of the run to resume.

    Args:
        output: of the settings. With a `*`, the folders that it matches are searched for runs with a checkpoint.
        name: of the run. None matches all.

    Raises:
        UserError: no run or several runs match.
    """
    if not is_open(output):
        return output
    begins = re.escape(output.name).replace(re.escape(STAR), "(.+)" if name is None else rf"{re.escape(name)}(-\d+)?")
    folders = sorted(output.parent.iterdir()) if output.parent.is_dir() else []
    found = [
        (checkpoints(folder)[0].stat().st_mtime, folder)
        for folder in folders
        if re.fullmatch(begins, folder.name) and checkpoints(folder)
    ]
    if not found:
        wanted = output if name is None else output.with_name(output.name.replace(STAR, name))
        raise UserError(
            f"nothing to resume: there is no checkpoint in {wanted}; give the folder of the run with --output, or "
            "leave --resume out"
        )
    if len(found) > 1:
        newest = [folder for _, folder in sorted(found, reverse=True)]
        lines = [f"  segvit train --resume --output {shlex.quote(str(folder))}" for folder in newest[:SHOWN]]
        raise UserError(f"{len(found)} runs can be resumed; type one of these, the newest first:\n" + "\n".join(lines))
    return found[0][1]

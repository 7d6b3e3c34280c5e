"""Checkpoints: weights, optimizer, step, loss scale and best score, from which a run resumes to the bit.

A checkpoint is written aside, flushed to the disk and renamed: a crash at any byte leaves the last good one. The newest
few are kept. Resuming takes the newest that can be read, and prints what was wrong with newer ones.
"""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from segvit.errors import UserError
from segvit.training.run_folder.names import checkpoints
from segvit.utils.files import PARTIAL, cannot_write, flush_folder, whole_file

__all__ = ["checkpoints", "load_checkpoint", "newest_checkpoint", "save_checkpoint", "sweep"]

KEYS = {"config", "step", "best", "model", "optimizer", "scaler"}
"""Entries of a checkpoint."""


def checkpoint_path(folder: Path, step: int) -> Path:
    """Return the path of a step's checkpoint."""
    return folder / f"checkpoint-{step:07d}.pt"


def save_checkpoint(folder: Path, state: dict[str, Any], *, keep: int) -> Path:
    """Write the checkpoint of `state["step"]`, and remove all but the newest `keep`.

    Raises:
        UserError: the disk does not take it; what was there before is untouched.
    """
    path = checkpoint_path(folder, state["step"])
    try:
        with whole_file(path) as aside, aside.open("wb") as file:
            torch.save(state, file)
        flush_folder(folder)
    except (OSError, RuntimeError) as error:  # the latter by torch's writer, for a full disk
        before = checkpoints(folder)
        if before:
            remedy = f"{before[0]} is whole. Make room, then type --resume"
        else:
            remedy = (
                f"no checkpoint had been written before. Make room, then start again with --output {folder} --overwrite"
            )
        raise cannot_write(path, error, remedy) from error
    found = checkpoints(folder)
    ahead = found[: found.index(path)]  # of a later step that could not be read when the run was resumed
    for old in ahead + found[found.index(path) + keep :]:
        old.unlink(missing_ok=True)
    return path


def newest_checkpoint(folder: Path, *, say: Callable[[str], None]) -> dict[str, Any]:
    """Load the newest checkpoint of a run that can be read.

    Args:
        folder: of the run.
        say: prints what was wrong with newer ones.

    Raises:
        UserError: there is none.
    """
    found = checkpoints(folder)
    if not found:
        began = "with --overwrite instead of" if any(folder.glob("*.safetensors")) else "without"
        raise UserError(f"nothing to resume: there is no checkpoint in {folder}; start the run {began} --resume")
    problems = []
    for path in found:
        try:
            state = load_checkpoint(path)
        except UserError as error:
            problems.append(str(error))
        else:
            for problem in problems:
                say(f"{problem}; resuming from {path.name}")
            return state
    raise UserError("\n".join(problems))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Load a file of `save_checkpoint`: tensors and plain values only, and nothing is executed.

    Raises:
        UserError: no such file, or not a checkpoint of ours.
    """
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}")
    try:
        damaged = zipfile.ZipFile(path).testzip()  # torch does not verify its checksums
        if damaged is not None:
            raise ValueError(f"{damaged} is damaged")
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        missing = KEYS - state.keys()
    except Exception as error:  # torch raises many kinds for a broken or foreign file
        raise UserError(f"{path}: not a checkpoint that segvit wrote, or cut short ({error})") from error
    if missing:
        raise UserError(f"{path}: not a checkpoint that segvit wrote, or cut short (no {', '.join(sorted(missing))})")
    return state


def sweep(folder: Path) -> None:
    """Remove unfinished files of a run that was killed."""
    for path in folder.glob("*" + PARTIAL):
        path.unlink(missing_ok=True)

"""What a run needs to go on to the bit: weights, optimizer, step, loss scale, best score. Whole or not at all."""

import os
from pathlib import Path
from typing import Any

import torch

from segvit.errors import UserError

KEYS = {"config", "step", "best", "model", "optimizer", "scaler"}
"""What a checkpoint holds."""


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write aside, flush to the disk, then rename: a crash at any moment leaves the last good file."""
    aside = path.with_name(path.name + ".partial")
    with aside.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """What `save_checkpoint` wrote; tensors and plain values only, nothing is executed.

    Raises:
        UserError: no such file, or not a checkpoint of ours.
    """
    if not path.is_file():
        raise UserError(f"nothing to resume: there is no {path}; start the run without --resume")
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        missing = KEYS - state.keys()
    except Exception as error:  # torch raises many kinds for a broken or foreign file
        raise UserError(f"{path}: not a checkpoint that segvit wrote, or cut short ({error})") from error
    if missing:
        raise UserError(f"{path}: not a checkpoint that segvit wrote, or cut short (no {', '.join(sorted(missing))})")
    return state

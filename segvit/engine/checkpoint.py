"""What a run needs to go on to the bit: weights, optimizer, step, random state, best score. Whole or not at all."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segvit.errors import UserError

KEYS = {"config", "step", "best", "model", "optimizer", "random"}
"""What a checkpoint holds."""


def random_state() -> dict[str, Tensor]:
    """The state of torch's generators, on the CPU and on the current accelerator."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict[str, Tensor]) -> None:
    """Put back what `random_state` gave."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


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

"""What the settings of a run may be: numbers that can be meant, and on resuming those that it was started with."""

from typing import Any

from segvit.config import TrainConfig
from segvit.errors import UserError

RUN_DEPENDENT = ("output", "device", "log_every", "save_every", "eval_every", "data.workers", "data.root")
"""Settings that may change when a run is resumed: they do not alter the numbers."""


def check_settings(config: TrainConfig) -> None:
    """Refuse numbers that cannot be meant."""
    positive = {
        "steps": config.steps,
        "batch_size": config.batch_size,
        "eval_every": config.eval_every,
        "save_every": config.save_every,
        "log_every": config.log_every,
        "optim.lr": config.optim.lr,
        "optim.clip_norm": config.optim.clip_norm,
        "model.image_size": config.model.image_size,
    }
    for name, value in positive.items():
        if value <= 0:
            raise UserError(f"{name} is {value}: it must be above 0")


def check_same_run(config: TrainConfig, saved: dict[str, Any]) -> None:
    """Refuse to resume under settings that would make it another run."""
    old, new = dict(_flat(saved)), dict(_flat(config.to_dict()))  # other versions have other keys
    changed = [
        f"  {key}: {old.get(key)!r} in the run, {new.get(key)!r} now"
        for key in old | new
        if old.get(key) != new.get(key) and key not in RUN_DEPENDENT
    ]
    if changed:
        raise UserError(
            f"{config.output} was started with other settings; resume with its own, or start anew in another "
            "--output:\n" + "\n".join(changed)
        )


def _flat(settings: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested settings as (dotted key, value), in order."""
    rows: list[tuple[str, Any]] = []
    for key, value in settings.items():
        rows += _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]
    return rows

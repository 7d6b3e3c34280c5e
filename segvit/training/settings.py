"""Check the settings of a run: numbers in range, and on resuming the same settings as at the start."""

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from segvit.config import LossConfig, ModelConfig, PrecisionName, TrainConfig
from segvit.config_files import with_older_defaults
from segvit.errors import UserError

RUN_DEPENDENT = (
    "output",
    "device",
    "parallel",
    "accumulate",
    "log_every",
    "loggers",
    "save_every",
    "keep_checkpoints",
    "eval_every",
    "grad_checkpointing",
    "early_stop",
    "data.workers",
    "data.skip_unreadable",
    "data.spec",
    "data.root",
    "data.images",
    "data.labels",
    "data.val_images",
    "data.val_labels",
    "data.hub",
    "data.shards",
    "data.val_shards",
    "data.train_list",
    "data.val_list",
    "data.cache",
    "data.cache_features",
    "data.cache_features_gb",
)
"""Settings that may change when a run is resumed: they do not alter the results, or dataset.json proves that the data
are the same."""
MAY_MOVE = ("init", "extend", "teacher", "model.pretrained_file")
"""Files that may be in another folder when a run is resumed, under the same name."""


def check_settings(config: TrainConfig) -> None:
    """Check that the numbers of a run are in range.

    Raises:
        UserError: one is not, with the range.
    """
    positive = {
        "steps": config.steps,
        "batch_size": config.batch_size,
        "eval_every": config.eval_every,
        "save_every": config.save_every,
        "keep_checkpoints": config.keep_checkpoints,
        "accumulate": config.accumulate,
        "log_every": config.log_every,
        "optim.lr": config.optim.lr,
        "optim.clip_norm": config.optim.clip_norm,
        "model.image_size": config.model.image_size,
    }
    if config.early_stop is not None:
        positive["early_stop"] = config.early_stop
    for name, value in positive.items():
        if value <= 0:
            raise UserError(f"{name} is {value}: it must be above 0")
    if config.precision not in get_args(PrecisionName):
        raise UserError(f"precision {config.precision!r}: give {', '.join(get_args(PrecisionName))}")
    if config.data.skip_unreadable < 0:
        raise UserError(f"data.skip_unreadable is {config.data.skip_unreadable}: give a number of images, 0 or more")
    if config.ema_decay is not None and not 0 <= config.ema_decay < 1:
        raise UserError(
            f"ema_decay is {config.ema_decay}: give a share from 0 up to but not including 1, such as 0.999"
        )
    if not 0 < config.optim.layer_decay <= 1:
        raise UserError(f"optim.layer_decay is {config.optim.layer_decay}: give a factor above 0, and 1 or less")
    edge_coefficient = LossConfig.edge_coefficient
    if config.loss.edge_coefficient != edge_coefficient and config.model.downsampling != "edge":
        raise UserError(
            f"loss.edge_coefficient {config.loss.edge_coefficient} with model.downsampling {config.model.downsampling}"
            ", which has no edge head: set model.downsampling to edge, or leave edge_coefficient out"
        )
    others = replace(config.loss, class_weights=(), edge_coefficient=edge_coefficient)
    if config.model.head == "linear" and others != LossConfig():
        raise UserError(
            "model.head linear learns by the cross entropy of each pixel, and the loss section has settings of other "
            "terms: leave all but loss.class_weights out"
        )
    _check_extension(config)
    if config.data.cache_features is not None:
        _check_cache(config)
    if config.optim.lora_rank or config.optim.lora_alpha is not None:
        _check_lora(config)


def _check_extension(config: TrainConfig) -> None:
    """Check that a run either trains a model of one group of classes, or adds a group to one.

    Raises:
        UserError: settings that contradict this.
    """
    if config.model.added_classes:
        raise UserError(
            f"model.added_classes {config.model.added_classes}: groups of classes are not trained together. Add one "
            "with --extend, or drop those that were added: `segvit drop-group`"
        )
    if config.extend is None:
        return
    rules = {
        "init": (config.init is None, "both name a model; leave one of them out"),
        "teacher": (config.teacher is None, "the old classes are frozen, so they need no labels; leave it out"),
        "optim.freeze": (config.optim.freeze in ("none", "backbone"), "the whole backbone is frozen; leave it out"),
        "optim.lora_rank": (not config.optim.lora_rank, "the backbone is frozen; leave it out"),
        "loss.edge_coefficient": (
            config.loss.edge_coefficient == LossConfig.edge_coefficient,
            "the edge head is frozen; leave it out",
        ),
        "parallel": (
            config.parallel != "fsdp",
            "only a head learns, with little to share out; leave it at data",
        ),
    }
    for name, (good, why) in rules.items():
        if not good:
            raise UserError(f"extend with {name} {dict(flat(config.to_dict()))[name]}: {why}")


def _check_cache(config: TrainConfig) -> None:
    """Check that the outputs of frozen blocks can be kept.

    Raises:
        UserError: no block is frozen, crops are new in each epoch, or the model runs in a way that needs images.
    """
    rules = {
        "optim.freeze": (
            config.optim.freeze != "none",
            "blocks that learn give other outputs in each step; type --optim.freeze backbone or a number of blocks",
        ),
        "augment.views": (
            config.augment.views is not None,
            "each epoch draws new crops; type --augment.views 4 for that many crops of each image",
        ),
        "parallel": (config.parallel != "fsdp", "a step runs no frozen block to share out; leave it at data"),
        "compile": (not config.compile, "the part behind frozen blocks is not compiled; leave --compile out"),
        "data.cache_features_gb": (config.data.cache_features_gb > 0, "give a number of gigabytes above 0"),
    }
    for name, (good, why) in rules.items():
        if not good:
            value = dict(flat(config.to_dict()))[name]
            raise UserError(f"data.cache_features with {name} {value}: {why}")


def _check_lora(config: TrainConfig) -> None:
    """Check that the backbone can learn by low-rank weights.

    Raises:
        UserError: a number out of range, frozen layers, or shared parameters.
    """
    optim = config.optim
    if optim.lora_rank < 1:
        raise UserError(f"optim.lora_rank is {optim.lora_rank}: give a rank of 1 or more, such as 8, or leave it out")
    if optim.lora_alpha is not None and optim.lora_alpha <= 0:
        raise UserError(f"optim.lora_alpha is {optim.lora_alpha}: it must be above 0")
    if optim.freeze != "none":
        raise UserError(
            f"optim.lora_rank {optim.lora_rank} with optim.freeze {optim.freeze}: LoRA already freezes the "
            "backbone; leave one of the two out"
        )
    if config.parallel == "fsdp":
        raise UserError(
            f"optim.lora_rank {optim.lora_rank} with parallel fsdp: the backbone has no gradients or optimizer state "
            "to share out; leave parallel at data"
        )


def check_same_run(config: TrainConfig, saved: dict[str, Any], *, done: int = 0) -> None:
    """Check that a resumed run has the settings that it was started with. It may have another number of steps.

    Args:
        config: settings now.
        saved: settings in the checkpoint.
        done: steps of the checkpoint.

    Raises:
        UserError: some differ (both values of each are listed), or the new number of steps is already done.
    """
    steps = saved.get("steps", config.steps)
    if config.steps != steps and config.steps <= done:
        raise UserError(
            f"{config.output} has done {done} steps, and steps is {config.steps}: give more with --steps, or leave it "
            "out to resume with the run's own"
        )
    model = with_older_defaults(saved.get("model", {}))
    missing = {f"model.{key}": value for key, value in model.items() if key not in saved.get("model", {})}
    hints = {key: f"; type --{key.replace('_', '-')} {value}" for key, value in missing.items()}
    # Other settings unknown to an older version had the defaults of today.
    old = dict(flat(TrainConfig().to_dict())) | dict(flat(saved | {"model": model}))
    new = dict(flat(config.to_dict()))
    for settings in (old, new):
        settings["model.position_grid"] = _learned_grid(settings)
        for name in MAY_MOVE:
            settings[name] = settings.get(name) and Path(settings[name]).name
    changed = [
        f"  {key}: {old.get(key)!r} in the run, {new.get(key)!r} now{hints.get(key, '')}"
        for key in old | new
        if old.get(key) != new.get(key) and key not in (*RUN_DEPENDENT, "steps")
    ]
    if changed:
        raise UserError(
            f"{config.output} was started with other settings; resume with its own, or start a new run in another "
            "--output:\n" + "\n".join(changed)
        )


def _learned_grid(settings: dict[str, Any]) -> str:
    """Return the grid of the positions, from the settings of a run by dotted key."""
    names = ("pretrained", "pretrained_file", "position_grid")
    return ModelConfig(**{name: settings[f"model.{name}"] for name in names}).learned_grid


def flat(settings: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Return nested settings as (dotted key, value), in order."""
    rows: list[tuple[str, Any]] = []
    for key, value in settings.items():
        rows += flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]
    return rows

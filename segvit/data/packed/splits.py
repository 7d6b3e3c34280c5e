"""Choose the training and the validation split of a packed dataset among the splits that it has."""

from collections.abc import Collection
from typing import NamedTuple

from segvit.config import DataConfig
from segvit.data.pairs import first
from segvit.errors import UserError

TRAIN_NAMES = ("train", "training")
"""Names of training splits, in the order in which they are looked for."""
VAL_NAMES = ("val", "validation", "valid", "dev", "test", "testing")
"""Names of validation splits, in the order in which they are looked for."""


class Splits(NamedTuple):
    """Names of the two splits."""

    train: str
    val: str | None
    """None if a share of the training split is held out instead."""


def choose_splits(names: Collection[str], config: DataConfig, where: str) -> Splits:
    """Choose the splits to train on and to validate on.

    `data.train_split` and `data.val_split` name them. By default they are the first of the usual names, and a split by
    itself is the training split. If `data.val_fraction` is set, only a split named by `data.val_split` is used.

    Args:
        names: splits of the dataset.
        config: settings of the dataset.
        where: name of the dataset in error texts.

    Raises:
        UserError: there is no such split, or both a split and a share of another are asked for.
    """
    train = _pick(config.train_split, TRAIN_NAMES, names)
    if train is None and len(names) == 1 and config.train_split == DataConfig.train_split:
        (train,) = names
    if train is None:
        raise _missing(config.train_split, "train", names, where)
    if config.val_split == DataConfig.val_split:
        others = [name for name in names if name != train]
        return Splits(train, None if config.val_fraction is not None else _pick(config.val_split, VAL_NAMES, others))
    if config.val_fraction is not None:
        raise UserError(
            f"data.val_fraction is {config.val_fraction}, but data.val_split names the split {config.val_split!r}; "
            "drop one of them"
        )
    if config.val_split not in names:
        raise _missing(config.val_split, "val", names, where)
    return Splits(train, config.val_split)


def _pick(wanted: str, usual: tuple[str, ...], names: Collection[str]) -> str | None:
    """Return the wanted split, or the first with a usual name if the setting has its default. None: there is none."""
    candidates = usual if wanted == usual[0] else (wanted,)
    return next((name for name in candidates if name in names), None)


def _missing(name: str, role: str, names: Collection[str], where: str) -> UserError:
    """Return the error for a split that the dataset does not have."""
    listed = first(sorted(names), 20)
    return UserError(
        f"{where} has no split {name!r}, only {listed or 'none'}; type `--data.{role.replace('_', '-')}-split NAME`"
    )

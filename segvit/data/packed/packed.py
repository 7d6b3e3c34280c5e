"""Find the pairs of a packed dataset: a dataset of Hugging Face (`data.hub`), or tar shards (`data.shards`).

found = find_packed(config, IndexLabels(), "train")
found.pairs, found.keys, found.is_share     # is_share: a share of these pairs is to be held out
"""

from dataclasses import dataclass
from typing import Literal

from segvit.config import DataConfig
from segvit.data.labels.format import LabelFormat
from segvit.data.packed.hub import parts_of, table_pairs
from segvit.data.packed.hub_source import check_hub, open_tables
from segvit.data.packed.keys import Keys, choose_keys
from segvit.data.packed.shard_places import shard_splits
from segvit.data.packed.shards import endings_of, open_shards, shard_pairs
from segvit.data.packed.splits import choose_splits
from segvit.data.pairs import Orphans, Pair
from segvit.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Found:
    """The pairs of a split."""

    pairs: list[Pair]
    """Complete pairs in the order of the dataset."""
    orphans: Orphans
    """Members without a partner."""
    keys: Keys
    """Columns or endings of the pairs."""
    split: str
    """Name of the split."""
    is_share: bool
    """True if there is no validation split, so that a share of these pairs is held out."""


def find_packed(config: DataConfig, label_format: LabelFormat, role: Literal["train", "val"]) -> Found:
    """Find the pairs to train on or to validate on; if a share is held out, those of the training split.

    Args:
        config: settings of the dataset.
        label_format: format of the label maps.
        role: split to find.

    Raises:
        UserError: the dataset cannot be opened, has no such split, its images or labels cannot be recognised, or labels
            of this format are not one file per image.
    """
    _check_format(label_format, config)
    if config.hub is not None:
        return _find_in_tables(config, role)
    return _find_in_shards(config, label_format, role)


def check_packed(config: DataConfig, label_format: LabelFormat) -> None:
    """Refuse a packed dataset whose files are missing, without opening it.

    Raises:
        UserError: a folder or shard is missing, or labels of this format are not one file per image.
    """
    _check_format(label_format, config)
    if config.hub is not None:
        check_hub(config)
    else:
        shard_splits(config)


def _find_in_tables(config: DataConfig, role: Literal["train", "val"]) -> Found:
    """Find the rows of a split."""
    where = str(config.hub)
    tables = open_tables(config)
    names = choose_splits(tables, config, where)
    split = names.val if role == "val" and names.val is not None else names.train
    keys = choose_keys(parts_of(tables[split], where), config)
    pairs = table_pairs(tables[split], split, keys, where)
    return Found(pairs=pairs, orphans=Orphans(), keys=keys, split=split, is_share=names.val is None)


def _find_in_shards(config: DataConfig, label_format: LabelFormat, role: Literal["train", "val"]) -> Found:
    """Find the samples of a split."""
    splits = shard_splits(config)
    names = choose_splits(splits, config, str(config.shards))
    split = names.val if role == "val" and names.val is not None else names.train
    where = str(config.val_shards if split == "val" and config.val_shards is not None else config.shards)
    indexed = open_shards(splits[split])
    keys = choose_keys(endings_of(indexed, label_format.suffixes, where), config)
    pairs, orphans = shard_pairs(indexed, keys, where)
    return Found(pairs=pairs, orphans=orphans, keys=keys, split=split, is_share=names.val is None)


def _check_format(label_format: LabelFormat, config: DataConfig) -> None:
    """Refuse formats whose labels are one file for many images."""
    if type(label_format).find is not LabelFormat.find:
        setting = "data.hub" if config.hub is not None else "data.shards"
        raise UserError(
            f"{setting}: labels of the format {label_format.name!r} are one file for all images, and cannot be in "
            "columns or shards; give the folders, --data.root FOLDER"
        )

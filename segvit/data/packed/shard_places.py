"""Find the tar shards that a setting names: a folder, a glob, a URL, or braces that stand for several.

shard_splits(config)                # {"train": ["shards/train-000000.tar", ...], "val": [...]}
find_shards("train-{000000..000009}.tar", "data.shards")
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path

from segvit.config import DataConfig
from segvit.data.packed.ranges import is_url
from segvit.data.packed.splits import TRAIN_NAMES, VAL_NAMES
from segvit.errors import UserError
from segvit.utils.files import files_below

RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
"""Numbers of shards, such as `{000000..000009}`."""
BRACES = re.compile(r"(\{[^{}]*\})")
"""Parts of a pattern that stand for several texts."""
MOST_SHARDS = 100_000
"""Largest number of shards that braces may name."""
_NAMES = "|".join(sorted((*TRAIN_NAMES, *VAL_NAMES), key=len, reverse=True))
SPLIT_NAME = re.compile(rf"({_NAMES})(?=[-_./\d])", re.IGNORECASE)
"""Name of a split at the start of a shard's path below the folder."""
PATTERN_REMEDY = "give a folder of .tar files, or a pattern such as 'shards/train-{000000..000009}.tar'"


def shard_splits(config: DataConfig) -> Mapping[str, list[str]]:
    """Return the paths or URLs of the shards of each split.

    `data.val_shards` names those of the split "val". Shards of one folder are divided by names such as `train-0001.tar`
    or `val/0001.tar`, if all have one.

    Raises:
        UserError: no shard is found, one is missing, or only some shards of a folder are named after a split.
    """
    assert config.shards is not None
    if config.val_shards is not None:
        train, val = find_shards(config.shards, "data.shards"), find_shards(config.val_shards, "data.val_shards")
        if both := sorted(set(train) & set(val)):
            raise UserError(f"{both[0]} is in data.shards and in data.val_shards; leave it out of one")
        return {"train": train, "val": val}
    found = find_shards(config.shards, "data.shards")
    if is_url(config.shards) or not Path(config.shards).is_dir():
        return {"train": found}
    names = {place: SPLIT_NAME.match(Path(place).relative_to(config.shards).as_posix()) for place in found}
    named = [place for place, match in names.items() if match]
    if not named:
        return {"train": found}
    if bare := [place for place in found if names[place] is None]:
        raise UserError(
            f"{config.shards}: {named[0]} is named after a split, and {bare[0]} is not; "
            "give data.shards and data.val_shards as patterns"
        )
    splits: dict[str, list[str]] = defaultdict(list)
    for place, match in names.items():
        assert match is not None
        splits[match[1].lower()].append(place)
    return splits


def find_shards(pattern: str, setting: str) -> list[str]:
    """Return the shards of a folder, a path, a glob or a URL. Braces name several: `{0..9}`, `{a,b}`.

    Raises:
        UserError: no shard is found, or one is missing.
    """
    if not is_url(pattern) and Path(pattern).is_dir():
        found = [str(path) for path in files_below(Path(pattern), follow=True) if path.suffix.lower() == ".tar"]
        if not found:
            raise UserError(f"{setting}: no .tar file in {pattern}; {PATTERN_REMEDY}")
        return found
    places: dict[str, None] = {}
    for text in _expand(pattern, setting):
        places |= dict.fromkeys(_match(text, setting))
    return list(places)


def _expand(pattern: str, setting: str) -> Iterator[str]:
    """Yield the texts that the braces of a pattern stand for."""
    choices = []
    number = 1
    for piece in BRACES.split(pattern):
        if match := RANGE.fullmatch(piece):
            begin, end = int(match[1]), int(match[2])
            number *= max(end - begin + 1, 0)
            width = len(match[1])
            choices.append([f"{value:0{width}d}" for value in range(begin, min(end, begin + MOST_SHARDS) + 1)])
        elif BRACES.fullmatch(piece):
            choices.append(piece[1:-1].split(","))
            number *= len(choices[-1])
        else:
            choices.append([piece])
        if not 0 < number <= MOST_SHARDS:
            raise UserError(f"{setting}: {piece} of {pattern} stands for {number} shards; name 1 to {MOST_SHARDS}")
    return ("".join(parts) for parts in product(*choices))


def _match(text: str, setting: str) -> list[str]:
    """Return the shard of a path or a URL, or those of a glob."""
    if is_url(text):
        return [text]
    path = Path(text)
    if path.is_file():
        return [text]
    if not re.search(r"[*?\[]", text):
        raise UserError(f"{setting}: there is no shard {text}; {PATTERN_REMEDY}")
    found = sorted(
        str(each) for each in Path(path.anchor or ".").glob(text.removeprefix(path.anchor)) if each.is_file()
    )
    if not found:
        raise UserError(f"{setting}: no file matches {text}; {PATTERN_REMEDY}")
    return found

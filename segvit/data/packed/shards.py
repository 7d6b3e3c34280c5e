"""Find the pairs in tar shards, as WebDataset writes them: members of one key belong together.

    indexed = open_shards(["train-000000.tar", "train-000001.tar"])
    pairs, orphans = shard_pairs(indexed, keys, where="train-{000000..000001}.tar")

The key of a member is its path up to the first dot of its name, and the rest is its ending. So `street/0001.seg.png`
has the key `street/0001` and the ending `seg.png`.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from segvit.data.images import IMAGE_SUFFIXES, LOSSLESS_SUFFIXES
from segvit.data.packed.keys import IMAGE_NAMES, JOINT, LABEL_NAMES, Keys, Parts, is_named
from segvit.data.packed.shard import Shard, TarMember, look_at
from segvit.data.packed.shard_places import PATTERN_REMEDY
from segvit.data.packed.tar_index import THREADS, Entry, read_indexes
from segvit.data.pairs import Orphans, Pair, first
from segvit.errors import UserError

MEMBER = re.compile(r"(?P<key>(?:.*/)?[^/.]+)\.(?P<ending>[^/]+)")
"""A member's key and ending."""
JUNK = ("/._", "/__MACOSX/")
"""Parts of the paths of files that macOS adds to archives."""


class Indexed(NamedTuple):
    """A shard with its members."""

    shard: Shard
    entries: Sequence[Entry]


def open_shards(places: Sequence[str]) -> list[Indexed]:
    """Return shards with their members.

    Raises:
        UserError: a shard cannot be read, or two have the same name, from which those of their samples are made.
    """
    with ThreadPoolExecutor(max_workers=max(1, min(THREADS, len(places)))) as pool:
        shards = list(pool.map(look_at, places))
    stems: dict[str, Shard] = {}
    for shard in shards:
        if shard.stem in stems:
            raise UserError(
                f"{stems[shard.stem]} and {shard} have the same name, and so would their samples; rename one"
            )
        stems[shard.stem] = shard
    return [Indexed(*each) for each in zip(shards, read_indexes(shards), strict=True)]


def endings_of(indexed: Sequence[Indexed], suffixes: Sequence[str], where: str) -> Parts:
    """Return the endings of all members, with those that may be images and labels.

    Args:
        indexed: shards.
        suffixes: suffixes of label files.
        where: name of the dataset in error texts.
    """
    counts: Counter[str] = Counter()
    for _, entries in indexed:
        counts.update(ending for entry in entries for _, ending in _key_of(entry))
    pictures = [ending for ending in counts if _suffix(ending) in IMAGE_SUFFIXES]
    label_maps = [ending for ending in counts if _suffix(ending) in suffixes]
    usual_labels = [ending for ending in label_maps if is_named(ending, LABEL_NAMES)]
    if not usual_labels:
        usual_labels = [ending for ending in label_maps if "." not in ending and set(pictures) - {ending}]
    usual_images = [ending for ending in pictures if is_named(ending, IMAGE_NAMES)]
    if not usual_images:
        lossy = [ending for ending in pictures if "." not in ending and _suffix(ending) not in LOSSLESS_SUFFIXES]
        plain = [ending for ending in pictures if "." not in ending and ending not in usual_labels]
        usual_images = [JOINT.join(lossy or plain)] if lossy or plain else []
    return Parts(
        where=f"{where}: the endings",
        listed=first([f"{ending} ({count} members)" for ending, count in counts.most_common()], 30) or "none",
        names=list(counts),
        pictures=pictures,
        label_maps=label_maps,
        usual_images=usual_images,
        usual_labels=usual_labels,
    )


def shard_pairs(indexed: Sequence[Indexed], keys: Keys, where: str) -> tuple[list[Pair], Orphans]:
    """Return the complete pairs of shards in the order of their members, and the members without a partner.

    Raises:
        UserError: a key has several images or label maps in one shard, or no pair is complete.
    """
    pairs: list[Pair] = []
    images: list[str] = []
    labels: list[str] = []
    for shard, entries in indexed:
        sides = [_members(shard, entries, key) for key in keys]
        for key in dict.fromkeys([*sides[0], *sides[1]]):
            image, label = sides[0].get(key), sides[1].get(key)
            if image is not None and label is not None:
                pairs.append(Pair(f"{shard.stem}/{key}", image, label))
            elif image is not None:
                images.append(str(image))
            else:
                labels.append(str(label))
    orphans = _describe(images, labels, keys, where)
    if orphans and not pairs:
        raise UserError(orphans.error)
    if not pairs:
        raise UserError(f"{where}: there is no sample in the shards; {PATTERN_REMEDY}")
    return pairs, orphans


def _members(shard: Shard, entries: Sequence[Entry], key: str) -> dict[str, TarMember]:
    """Return the members with one of the endings in `key`, by the keys of their samples."""
    endings = key.split(JOINT)
    found: dict[str, TarMember] = {}
    for entry in entries:
        for name, ending in _key_of(entry):
            if ending not in endings:
                continue
            if name in found:
                raise UserError(
                    f"{shard}: the key {name!r} has two members for one part, {found[name].path} and {entry.path}; "
                    "keep one, or choose by --data.image-key and --data.labels-key"
                )
            found[name] = TarMember(shard, entry.path, entry.offset, entry.size)
    return found


def _key_of(entry: Entry) -> Iterator[tuple[str, str]]:
    """Yield the key and the ending of a member. Hidden ones, and names without a dot, have none."""
    match = MEMBER.fullmatch(entry.path.removeprefix("./"))
    if match and not any(mark in f"/{entry.path}" for mark in JUNK):
        yield match["key"], match["ending"].lower()


def _suffix(ending: str) -> str:
    """Return the suffix of an ending with its dot."""
    return "." + ending.rpartition(".")[2]


def _describe(images: Sequence[str], labels: Sequence[str], keys: Keys, where: str) -> Orphans:
    """Return the members without a partner, with the error for the first."""
    remedy = "every key needs an image and a label map in the same shard: write these samples again, or leave them out"
    for found, lacking in ((images, keys.labels), (labels, keys.image)):
        if found:
            text = f"{where}: {len(found)} keys have no member {lacking} ({first(found)}); {remedy}"
            return Orphans(images=tuple(images), labels=tuple(labels), error=text, remedy=remedy)
    return Orphans()

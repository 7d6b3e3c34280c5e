"""What a dataset consists of, so that a run which is resumed knows whether it is still the same.

    manifest = take_manifest({"train": train_set, "val": val_set})
    differences(old, manifest)                  # ["added: train image street/0101.jpg", ...]

Names and sizes in bytes of the files, in their order, by which batches are drawn, and the spec; no times, which change
when a dataset is copied, and no folders, which may be others when it is moved. A file whose content changes and whose
size does not goes unnoticed.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segvit.data.dataset import SegmentationDataset
from segvit.data.pairs import Pair
from segvit.data.sample import Samples

Manifest = dict[str, Any]
"""`specs`: what each split's labels mean; `files`: bytes by name, None where there is no such file."""


def take_manifest(splits: Mapping[str, Samples]) -> Manifest:
    """The manifest of some splits, by their names."""
    files: dict[str, int | None] = {}
    specs = {}
    sizes: dict[Path, int | None] = {}  # one JSON file may hold the labels of all images
    for split, samples in splits.items():
        specs[split] = json.loads(json.dumps(samples.spec.to_dict()))
        if not isinstance(samples, SegmentationDataset):  # drawn: the first and the last scene say which ones
            files[f"{split} {len(samples)} scenes, {samples.describe(0)} to {samples.describe(len(samples) - 1)}"] = 0
            continue
        for pair in samples.pairs:
            for name, path in _named(pair):
                if path not in sizes:
                    sizes[path] = _size(path)
                files[f"{split} {name}"] = sizes[path]
    return {"specs": specs, "files": files}


def _named(pair: Pair) -> list[tuple[str, Path]]:
    """The two files of a pair, and what they are called wherever the dataset lies."""
    labels = pair.labels.name if pair.shared else pair.name + pair.labels.suffix
    return [(f"image {pair.name}{pair.image.suffix}", pair.image), (f"labels {labels}", pair.labels)]


def _size(path: Path) -> int | None:
    """Bytes in a file; None where it cannot be asked, which whoever reads it will tell."""
    try:
        return path.stat().st_size
    except OSError:
        return None


def digest(manifest: Manifest) -> str:
    """What two manifests have in common if they are the same, in the same order."""
    return hashlib.sha256(json.dumps(manifest).encode()).hexdigest()


def differences(old: Manifest, new: Manifest) -> list[str]:
    """What is not as it was, a line each: the specs, then files added, removed, and changed in size, or their order."""
    lines = []
    for split, spec in new["specs"].items():
        before = old["specs"].get(split, {})
        keys = [key for key in before | spec if before.get(key) != spec.get(key)]
        if keys:
            lines.append(f"changed: the spec of {split} ({', '.join(keys)})")
    before, now = old["files"], new["files"]
    lines += [f"added: {name}" for name in now if name not in before]
    lines += [f"removed: {name}" for name in before if name not in now]
    both = [name for name in now if name in before and now[name] != before[name]]
    lines += [f"changed: {name}: {before[name]} bytes in the run, {now[name]} now" for name in both]
    return lines if lines or list(before) == list(now) else ["changed: the order of the images"]

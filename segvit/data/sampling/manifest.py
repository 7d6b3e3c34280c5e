"""Record the files of a dataset, so that a resumed run can check that the dataset is still the same.

    manifest = take_manifest({"train": train_set, "val": val_set})
    differences(old, manifest)                  # ["added: train image street/0101.jpg", ...]

A manifest holds the spec, and the names and sizes in bytes of the files in the order from which batches are drawn. It
holds no times, which change when a dataset is copied, and no folders, which change when it is moved. A change of a
file's content is not noticed if its size stays.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from segvit.data.dataset import SegmentationDataset
from segvit.data.member import File
from segvit.data.pairs import Pair
from segvit.data.sample import Samples

Manifest = dict[str, Any]
"""`specs`: the spec of each split. `files`: bytes by name, None if there is no such file."""


def take_manifest(splits: Mapping[str, Samples]) -> Manifest:
    """Return the manifest of some splits, given by name."""
    files: dict[str, int | None] = {}
    specs = {}
    sizes: dict[File, int | None] = {}  # one JSON file may hold the labels of all images
    for split, samples in splits.items():
        spec = {key: value for key, value in samples.spec.to_dict().items() if key != "splits"}  # they are folders
        specs[split] = json.loads(json.dumps(spec))
        if not isinstance(samples, SegmentationDataset):  # drawn: the first and the last scene identify them
            files[f"{split} {len(samples)} scenes, {samples.describe(0)} to {samples.describe(len(samples) - 1)}"] = 0
            continue
        for pair in samples.pairs:
            for name, path in _named(pair):
                if path not in sizes:
                    sizes[path] = _size(path)
                files[f"{split} {name}"] = sizes[path]
    return {"specs": specs, "files": files}


def _named(pair: Pair) -> list[tuple[str, File]]:
    """Return the two files of a pair, with names that do not depend on the dataset's folder."""
    labels = pair.labels.name if pair.shared else pair.name + pair.labels.suffix
    return [(f"image {pair.name}{pair.image.suffix}", pair.image), (f"labels {labels}", pair.labels)]


def _size(path: File) -> int | None:
    """Return the bytes in a file. None if they cannot be read, which reading the file will report."""
    try:
        return path.stat().st_size
    except OSError:
        return None


def digest(manifest: Manifest) -> str:
    """Hash a manifest. Equal manifests in the same order have the same hash."""
    return hashlib.sha256(json.dumps(manifest).encode()).hexdigest()


def differences(old: Manifest, new: Manifest) -> list[str]:
    """List the changes, one per line: the specs, then files added, removed and changed in size, or their order."""
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

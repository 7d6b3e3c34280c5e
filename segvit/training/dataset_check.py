"""Whether the dataset of a run that is resumed is still the one that it was started on.

Every checkpoint holds the digest of the dataset's manifest (data/sampling/manifest.py). The manifest itself, which
tells what has changed, is dataset.json in the run's folder.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from segvit.data.sample import Samples
from segvit.data.sampling.manifest import Manifest, differences, digest, take_manifest
from segvit.errors import UserError
from segvit.training.loader_guard import written

MANIFEST = "dataset.json"
NUM_SHOWN = 5
"""Differences that are listed; the others are counted."""


def check_same_data(
    splits: Mapping[str, Samples],
    run: Path,
    state: Mapping[str, Any] | None,
    *,
    accept: bool,
    main_process: bool,
    say: Callable[[str], None],
) -> str:
    """The digest of a dataset, whose manifest is written to the folder of the run.

    Args:
        splits: of the dataset.
        run: folder of the run.
        state: the checkpoint that the run goes on from; one of an older segvit has no digest, and is taken as it is.
        accept: go on with another dataset than that of the checkpoint.
        main_process: whether this one writes.
        say: takes what has changed, where it is accepted.

    Raises:
        UserError: it is another one, or the disk does not take the manifest.
    """
    manifest = take_manifest(splits)
    now = digest(manifest)
    before = state.get("data") if state else None
    if before not in (None, now):
        told = _tell(_load(run / MANIFEST, before), manifest)
        if not accept:
            raise UserError(
                f"the dataset is not the one that {run} was started on:\n{told}\nput it back as it was, or type "
                "--resume --accept-changed-data to go on with it as it is: the order of the images, and so the rest of "
                "the run, may be another one then"
            )
        if main_process:
            say(f"the dataset has changed, which is accepted:\n{told}")
    if main_process:
        with written(run / MANIFEST, run=run) as aside:
            aside.write_text(json.dumps(manifest), encoding="utf-8")
    return now


def _load(path: Path, expected: str | None) -> Manifest | None:
    """The manifest in a file; None where it is missing, damaged, or not that of the digest."""
    try:
        manifest: Manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if digest(manifest) == expected else None


def _tell(old: Manifest | None, new: Manifest) -> str:
    """What is different, the first few lines of it."""
    if old is None:
        return f"  what it was is not known: {MANIFEST} is missing from the run's folder, or another's"
    lines = differences(old, new)
    more = [f"and {len(lines) - NUM_SHOWN} more"] if len(lines) > NUM_SHOWN else []
    return "\n".join(f"  {line}" for line in lines[:NUM_SHOWN] + more)

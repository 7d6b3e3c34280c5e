"""Check that a resumed run still has the dataset that it was started on.

Every checkpoint holds the digest of the dataset's manifest (data/sampling/manifest.py). The manifest itself, which
shows what has changed, is dataset.json in the run's folder.
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
"""Number of differences to list; the others are counted."""


def check_same_data(
    splits: Mapping[str, Samples],
    run: Path,
    state: Mapping[str, Any] | None,
    *,
    accept: bool,
    main_process: bool,
    say: Callable[[str], None],
) -> str:
    """Check the dataset of a run, write its manifest to the run's folder, and return its digest.

    Args:
        splits: of the dataset.
        run: folder of the run.
        state: the checkpoint that the run resumes from. One of an older segvit has no digest, and is not checked.
        accept: continue with another dataset than the checkpoint's.
        main_process: True in the process that writes.
        say: prints an accepted change.

    Raises:
        UserError: the dataset has changed, or the manifest cannot be written.
    """
    manifest = take_manifest(splits)
    now = digest(manifest)
    before = state.get("data") if state else None
    if before not in (None, now):
        told = _tell(_load(run / MANIFEST, before), manifest)
        if not accept:
            raise UserError(
                f"the dataset has changed since {run} was started:\n{told}\nRestore it, or type --resume "
                "--accept-changed-data to continue: the image order may change, so the rest of the run will not match"
            )
        if main_process:
            say(f"the dataset has changed, and --accept-changed-data accepts it:\n{told}")
    if main_process:
        with written(run / MANIFEST, run=run) as aside:
            aside.write_text(json.dumps(manifest), encoding="utf-8")
    return now


def _load(path: Path, expected: str | None) -> Manifest | None:
    """Load a manifest; None if it is missing, damaged, or has another digest."""
    try:
        manifest: Manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if digest(manifest) == expected else None


def _tell(old: Manifest | None, new: Manifest) -> str:
    """List the first few differences."""
    if old is None:
        return f"  the differences are not known: {MANIFEST} is missing from the run's folder, or is another run's"
    lines = differences(old, new)
    more = [f"and {len(lines) - NUM_SHOWN} more"] if len(lines) > NUM_SHOWN else []
    return "\n".join(f"  {line}" for line in lines[:NUM_SHOWN] + more)

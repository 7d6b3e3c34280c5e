"""Names of the files that a prediction writes, and the facts in them. Nothing here needs torch.

    named(Path("seen/photo"), LABELS)       # seen/photo.png
    source_in(read_facts(Path("seen/photo.json")))      # the photo that the outputs belong to

A photo and a video may share their name, since their outputs have different endings.
"""

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from segvit.utils.files import whole_file, writing

RECORD = "predict.yaml"
"""Name of the record of settings in an output folder. No output has this ending."""
FACTS = ".json"
LABELS, OVERLAY, CONFIDENCE = PICTURES = (".png", "_overlay.png", "_confidence.png")
ENDINGS = (*PICTURES, FACTS)
"""Endings that turn the name of an image into those of its outputs."""
VIDEO_OVERLAY, VIDEO_CONFIDENCE, VIDEO_SHARES = "_overlay.mp4", "_confidence.mp4", "_shares.csv"
VIDEO_FRAMES, VIDEO_FACTS = "_frames", "_video.json"
VIDEO_ENDINGS = (VIDEO_OVERLAY, VIDEO_CONFIDENCE, VIDEO_SHARES, VIDEO_FRAMES, VIDEO_FACTS)
"""Endings that turn the name of a video into those of its outputs."""
SCENE_LABELS, SCENE_POLYGONS, SCENE_ROWS = "_labels.tif", "_polygons.geojson", "_labels.rows"
SCENE_ENDINGS = (SCENE_LABELS, SCENE_POLYGONS, FACTS)
"""Endings that turn the name of a scene into those of its outputs. The rows are those of an unfinished label map."""
ASIDE = ".segvit-partial"
"""Ending of an unfinished file."""
ANNOTATIONS = "annotations"
"""Subfolder of an output folder with the files of labelling tools."""
OUR_SUFFIXES = (".json", ".yaml", ".csv", ".png", ".mp4", ".tif", ".geojson", ".rows", ASIDE)
"""Suffixes of the files in an output folder."""


def named(target: Path, ending: str) -> Path:
    """Return the path of an output; `target` is the path of all outputs of an image, without suffix."""
    return target.with_name(target.name + ending)


def read_facts(path: Path) -> dict[str, Any]:
    """Return the facts in the JSON beside pictures, or nothing if the file is missing or is damaged."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def source_in(facts: dict[str, Any]) -> str | None:
    """Return the photo or video that facts belong to, or None if no prediction wrote them."""
    source = facts.get("image", facts.get("video"))
    return source if isinstance(source, str) and "fingerprint" in facts else None


def left_by_us(pictures: Sequence[Path]) -> set[Path]:
    """Return the pictures of a folder that are outputs of another picture in it."""
    there, ours = set(pictures), set()
    for path in pictures:
        target = path.with_suffix("")
        outputs = {named(target, ending) for ending in (*PICTURES, SCENE_LABELS)} & there - {path}
        if outputs:
            source = source_in(read_facts(named(target, FACTS)))
            if source is not None and Path(source).name == path.name:
                ours |= outputs
    return ours


def left_by_our_videos(files: Sequence[Path]) -> set[Path]:
    """Return the pictures and videos of a folder that are outputs of a video or stream."""
    known: dict[Path, bool] = {}

    def ours(path: Path) -> bool:
        for place, ending in ((path, VIDEO_OVERLAY), (path, VIDEO_CONFIDENCE), (path.parent, VIDEO_FRAMES)):
            if place.name.endswith(ending):
                target = place.with_name(place.name.removesuffix(ending))
                if target not in known:
                    known[target] = "fingerprint" in read_facts(named(target, VIDEO_FACTS))
                if known[target]:
                    return True
        return False

    return {path for path in files if ours(path)}


def aside(path: Path) -> AbstractContextManager[Path]:
    """Give a path to write a file or folder to, which is renamed to `path` at the end of the block; see `whole_file`.

    Its name is unique, since a process that should have been killed may still be writing the same file.
    """
    return whole_file(path, ending=ASIDE)


def explaining(path: Path) -> AbstractContextManager[None]:
    """Turn the system's error about a file that cannot be written into a UserError."""
    return writing(path, "make room or give another --output, then run the same command again to resume")

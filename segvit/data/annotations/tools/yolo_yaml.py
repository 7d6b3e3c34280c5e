"""Turn the YAML file of a YOLO dataset into a spec, so that `--data.spec data.yaml` reads it.

    content = spec_content(parse_yaml(path, "data.yaml"), path)       # DatasetSpec.from_dict(content)

`path`, `train` and `val` name folders of images, lists of them, or text files with one image a line. The labels are in
the folder whose path has `labels` in place of the last `images`, or beside the images.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segvit.data.annotations.tools.yolo import read_names
from segvit.data.labels.background import BACKGROUND, is_background
from segvit.errors import UserError
from segvit.utils.files import files_below

SPLITS = ("train", "val", "test")
"""Keys of the splits."""


def is_yolo(content: Mapping[str, Any]) -> bool:
    """Return True for the content of a YOLO dataset's YAML file."""
    return "names" in content and "classes" not in content and any(key in content for key in SPLITS)


def with_masks(content: Mapping[str, Any]) -> str:
    """Return the remedy for a YAML file whose images have masks instead of labels of YOLO."""
    names = content["names"]
    listed = tuple(map(str, names.values() if isinstance(names, dict) else names))
    return (
        "With masks in a folder, type `segvit check-data images masks`, or write in Python "
        f'segvit.DataConfig(images="images", labels="masks", classes={listed})'
    )


def spec_content(content: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """Return the plain form of a spec.

    Args:
        content: content of the YAML file.
        file: the file, whose folder relative paths start from.

    Raises:
        UserError: `names` or a split is malformed.
    """
    names = read_names(content, str(file))
    listed = [names.get(number, f"class_{number}") for number in range(max(names, default=-1) + 1)]
    return {
        "name": file.stem,
        "classes": [BACKGROUND, *(name for name in dict.fromkeys(names.values()) if not is_background(name))],
        "labels": {"format": "yolo", "names": listed, "missing": "skip"},
        "splits": {key: _split(content[key], key, content, file) for key in SPLITS if content.get(key)},
    }


def _split(value: Any, key: str, content: Mapping[str, Any], file: Path) -> dict[str, str]:
    """Return the folders and the list of one split."""
    entries = value if isinstance(value, list) else [value]
    if not all(isinstance(entry, str) and entry for entry in entries):
        raise UserError(f"{file}: `{key}` is {repr(value)[:80]}; give a folder of images, or a list of folders")
    places = [_place(entry, content, file) for entry in entries]
    if len(places) == 1 and places[0].suffix.lower() == ".txt":
        folder = places[0].parent
        images = folder / "images" if (folder / "images").is_dir() else folder
        return {"images": str(images), "labels": str(_labels(images)), "list": str(places[0])}
    if len(places) == 1:
        labels = _labels(places[0])
        if labels.is_dir() and not any(path.suffix.lower() == ".txt" for path in files_below(labels, follow=True)):
            raise UserError(f"{file}: `{key}` has no labels of YOLO (.txt) in {labels}. {with_masks(content)}")
        return {"images": str(places[0]), "labels": str(labels)}
    return {"images": _glob(places), "labels": _glob([_labels(place) for place in places])}


def _glob(folders: Sequence[Path]) -> str:
    """Return a glob of all files in several folders. Names are relative to each of them."""
    above = Path(os.path.commonpath([folder.parent for folder in folders]))
    inside = ",".join(folder.relative_to(above).as_posix() for folder in folders)
    return f"{above.as_posix()}/{{{inside}}}/**/*"


def _place(entry: str, content: Mapping[str, Any], file: Path) -> Path:
    """Return the path of an entry: below `path`, below the folder of the file, or without the `../` that some write."""
    base = file.parent / str(content.get("path") or "")
    tried = [base / entry, file.parent / entry, file.parent / entry.removeprefix("../")]
    return next((path for path in tried if path.exists()), tried[0])


def _labels(images: Path) -> Path:
    """Return the folder of the labels of a folder of images."""
    parts = list(images.parts)
    if "images" not in parts:
        return images
    parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return Path(*parts)

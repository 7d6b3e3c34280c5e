"""Check the two folders of a user's own dataset before anything is read, and say what to type if they are wrong.

check_folders(Path("photos"), Path("masks"), verb="train")
"""

import re
import shlex
from pathlib import Path

from segvit.config_files import find_config
from segvit.data.annotations.recognise import shapes_in
from segvit.data.given import YAML_SUFFIXES
from segvit.data.images import IMAGE_SUFFIXES, LOSSLESS_SUFFIXES, LOSSY_SUFFIXES, open_picture
from segvit.data.masks_beside import has_masks
from segvit.data.pairs import WILDCARD
from segvit.data.spec import load_spec
from segvit.errors import UserError
from segvit.utils.text import suggest

LOOKED_AT = 5
"""Number of files that are looked at in a folder."""
MASK_COLORS = 64
"""Largest number of values or colours of a file that looks like a mask."""
PHOTO_COLORS = 256
"""Number of colours that a photo exceeds."""
MASK_FOLDERS = ("masks", "labels", "annotations", "mask", "label", "gt", "SegmentationClass")
"""Usual names of folders of masks."""
PHOTO_FOLDERS = ("photos", "images", "image", "img", "imgs", "JPEGImages")
"""Usual names of folders of photos."""
YOLO_NAMES = re.compile(r"^names\s*:", re.MULTILINE)
"""Line in the YAML file of a YOLO dataset."""
ROBOFLOW_COCO = "_annotations.coco.json"
"""Roboflow's file of COCO, in the folder of the photos of a split."""
ROBOFLOW_SPLITS = ("train", "valid", "test")
"""Roboflow's folders of splits."""


def check_folders(photos: Path, masks: Path | None, *, verb: str) -> None:
    """Check the folders that follow a command.

    Args:
        photos: first folder or glob.
        masks: second folder or glob, or one file of a labelling tool.
        verb: command, such as `train`.

    Raises:
        UserError: one is missing or is a file, or the folders are swapped.
    """
    if masks is None:
        raise UserError(_explain_one(photos, verb))
    for path, what in ((photos, "photos"), (masks, "masks")):
        if WILDCARD.search(path.as_posix()) or (path == masks and _is_annotations(path)):
            continue
        if path.is_file():
            raise UserError(
                f"{path} is a file: give the folder of the {what}, as in `segvit {verb} PHOTOS MASKS`"
                f"{_explain_file(path, verb)}"
            )
        if not path.is_dir():
            beside = [each.name for each in path.parent.iterdir() if each.is_dir()] if path.parent.is_dir() else []
            raise UserError(f"there is no folder {path}{suggest(path.name, beside)}: give the folder of the {what}")
    if photos.is_dir() and photos.resolve() == masks.resolve() and _holds_photos_alone(photos):
        raise UserError(
            f"{photos} holds photos alone, neither masks such as 0_mask.png nor annotations: give the folder of the "
            f"masks as the second, as in `segvit {verb} {photos} MASKS`"
        )
    check_order(photos, masks)


def _holds_photos_alone(folder: Path) -> bool:
    """True if a folder has pictures, each with a name of its own, and no masks or annotations beside them."""
    names = [path.stem for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES]
    return len(set(names)) == len(names) > 0 and not is_folder_of_both(folder)


def is_folder_of_both(folder: Path) -> bool:
    """Return True if a folder holds photos and, beside them, masks such as `0_mask.png` or files of a labelling tool.

    Raises:
        UserError: it holds files of several tools, or all of them are damaged.
    """
    if not folder.is_dir():
        return False
    return has_masks(folder, LOSSLESS_SUFFIXES) or (bool(_pictures(folder)) and shapes_in(folder, folder) is not None)


def check_order(photos: Path, masks: Path) -> None:
    """Check that the first folder does not hold masks while the second holds photos.

    Raises:
        UserError: they are swapped.
    """
    first, second = _pictures(photos), _pictures(masks)
    if first and second and all(map(_is_mask, first)) and all(map(_is_photo, second)):
        raise UserError(
            f"{photos} holds masks and {masks} holds photos: swap them, as in `segvit check-data {masks} {photos}`"
        )


def _is_annotations(path: Path) -> bool:
    """True if a path is a file that may be a labelling tool's. `recognise` reports one that is not."""
    return path.is_file() and path.suffix.lower() not in (*IMAGE_SUFFIXES, *YAML_SUFFIXES)


def _pictures(folder: Path) -> list[Path]:
    """Return a few pictures in a folder; none for a glob or a file."""
    if not folder.is_dir():
        return []
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    return [path for path in found if not path.name.startswith(".")][:LOOKED_AT]


def _is_mask(path: Path) -> bool:
    """True if a picture is stored without loss and has few values or colours. False if it cannot be read."""
    if path.suffix.lower() not in LOSSLESS_SUFFIXES:
        return False
    try:
        with open_picture(path, "an image") as opened:
            return opened.mode in ("1", "P") or opened.getcolors(MASK_COLORS) is not None
    except UserError:  # the check of the dataset reports it
        return False


def _is_photo(path: Path) -> bool:
    """True if a picture is stored with loss, or has colour channels and many colours. False if it cannot be read."""
    if path.suffix.lower() in LOSSY_SUFFIXES:
        return True
    try:
        with open_picture(path, "an image") as opened:
            return len(opened.getbands()) >= 3 and opened.getcolors(PHOTO_COLORS) is None
    except UserError:
        return False


def _explain_one(path: Path, verb: str) -> str:
    """Return the error text for one path alone."""
    both = f"`segvit {verb} PHOTOS MASKS`"
    if path.is_file():
        return f"{path} is a file: give two folders, {both}{_explain_file(path, verb)}"
    if not path.is_dir():
        if remedy := _known_name(str(path)):
            return f"{path} is no folder: type `segvit {verb} {remedy}`"
        return f"there is no folder {path}: give two folders, {both}"
    if remedy := _export_of_a_tool(path):
        return f"{path} is the export of a labelling tool: type `segvit {verb} {remedy}`"
    inside = {child.name for child in path.iterdir() if child.is_dir()}
    masks = next((name for name in MASK_FOLDERS if name in inside), None)
    photos = next((name for name in PHOTO_FOLDERS if name in inside), None)
    if masks and photos:
        return f"give two folders: `segvit {verb} {path / photos} {path / masks}`"
    return f"give the folder of the masks as well: `segvit {verb} {path} MASKS`"


def _export_of_a_tool(folder: Path) -> str | None:
    """Return what to type for the root of an export of YOLO, Roboflow or Supervisely. None for another folder."""
    for file in sorted(path for path in folder.iterdir() if path.suffix.lower() in YAML_SUFFIXES):
        if YOLO_NAMES.search(file.read_text(encoding="utf-8", errors="replace")):
            return shlex.join(["--data.spec", str(file), "--data.root", str(folder)])
    splits = {name: folder / name for name in ROBOFLOW_SPLITS if (folder / name / ROBOFLOW_COCO).is_file()}
    if "train" in splits:
        words = [str(splits.pop("train"))] * 2
        for place in list(splits.values())[:1]:
            words += ["--data.val-images", str(place), "--data.val-labels", str(place)]
        return shlex.join(words)
    found = [(child / "img", child / "ann") for child in (folder, *sorted(folder.iterdir()))]
    complete = [pair for pair in found if all(place.is_dir() for place in pair)]
    return shlex.join(map(str, complete[0])) if complete else None


def _explain_file(path: Path, verb: str) -> str:
    """Return what to type for a file in the place of a folder, or an empty text."""
    if path.suffix.lower() in YAML_SUFFIXES:
        text = path.read_text(encoding="utf-8", errors="replace")
        dataset = "splits:" in text or "names:" in text  # the second of YOLO
        remedy = f"--data.spec {path} --data.root FOLDER" if dataset else f"--config {path}"
        return f". For a {'dataset' if dataset else 'file of settings'} in YAML, type `segvit {verb} {remedy}`"
    return ""


def _known_name(name: str) -> str | None:
    """Return the flags for the name of a shipped recipe or dataset, or None for any other name."""
    try:
        find_config(name)
    except UserError:
        pass
    else:
        return f"--config {name}"
    try:
        load_spec(name)
    except UserError:
        return None
    return f"--data.spec {name} --data.root FOLDER"

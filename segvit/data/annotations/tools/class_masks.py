"""Read binary masks, one picture per class: in a folder per class, or with the class at the end of the name.

    masks/car/0.png                 a folder per class: the image 0
    masks/0_car.png                 the class at the end: the image 0

A pixel above 0 belongs to the class. If several masks have a pixel, the last of them in the list of classes wins.
Pixels of no mask are background.

Letters: H, W size of a label map.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from segvit.data.annotations.format import Content, ShapeLabels
from segvit.data.annotations.shapes import Drawing, PlacedMask, Shape
from segvit.data.annotations.summary import Summary
from segvit.data.frames import check_labels
from segvit.data.images import IMAGE_SUFFIXES, LOSSLESS_SUFFIXES, Unreadable, open_picture, upright
from segvit.data.labels.format import Classes
from segvit.data.labels.memory import LabelMemory
from segvit.data.lists import stem
from segvit.data.pairs import Orphans, Pair, Place, files_of, find_images, find_pairs
from segvit.errors import UserError
from segvit.utils.files import files_below

Masks = Mapping[str, Mapping[str, Path]]
"""Files by the name of the image and the class."""
SEPARATORS = ("_", "-", ".")
"""Marks between the name of an image and the class at its end."""
TRAINING = ("train", "training")
"""Usual names of folders of training images, which are no classes."""
HELD_OUT = ("val", "valid", "validation", "test", "testing")
"""Usual names of folders of other images, the likeliest to validate on first."""
LOOKED_AT = 6
"""Number of masks that are looked at to recognise them."""


@dataclass(frozen=True, kw_only=True)
class ClassMaskLabels(ShapeLabels):
    """Pictures of one class each."""

    name: ClassVar[str] = "class_masks"
    title: ClassVar[str] = "masks of one class each"
    suffixes: ClassVar[Sequence[str]] = LOSSLESS_SUFFIXES
    slow_to_decode: ClassVar[bool] = False

    @classmethod
    def recognises(cls, content: Content) -> bool:
        """Return False: such masks are recognised by their names (`recognise_masks`)."""
        return False

    def find(self, place: Place, classes: Classes, memory: LabelMemory) -> tuple[list[Pair], Orphans]:
        """Find the images that have masks."""
        folder = place.root / place.split.labels
        masks = memory.once((self.name, folder), lambda: find_masks(find_images(place), folder))
        return self._kept(*find_pairs(place, suffixes=self.suffixes, described=masks))

    def summarise(self, labels: Sequence[Path]) -> Summary:
        """Count masks by the folder that they are in."""
        summary = Summary(files=len(labels))
        summary.kinds["mask"] = len(labels)
        summary.names.update(path.parent.name for path in labels)
        return summary

    def drawing(self, pair: Pair, memory: LabelMemory) -> Drawing:
        """Return the masks of one image.

        Raises:
            UserError: there is none, one is not binary, or their sizes differ.
        """
        masks: Masks = memory.once((self.name, pair.labels), lambda: find_masks([pair.name], pair.label_path))
        if pair.name not in masks:
            raise UserError(f"{pair.source}: there is no mask of this image")
        found = {name: _read_mask(path) for name, path in masks[pair.name].items()}
        sizes = {mask.shape: masks[pair.name][name] for name, mask in found.items()}
        if len(sizes) > 1:
            files = ", ".join(f"{path} ({shape[1]} x {shape[0]})" for shape, path in sizes.items())
            raise Unreadable(f"{pair.source}: its masks have different sizes: {files}; export them again")
        ((height, width),) = sizes
        shapes = [
            Shape(name=name, kind="mask", area=PlacedMask(mask, top=0, left=0)) for name, mask in sorted(found.items())
        ]
        return Drawing(where=pair.source, size=(height, width), shapes=tuple(shapes))

    def ordered(self, drawing: Drawing, classes: Classes) -> Drawing:
        """Return the masks in the order of the classes, each painted over those before."""
        order = {name: position for position, name in enumerate(classes.classes)}
        shapes = sorted(drawing.shapes, key=lambda shape: order.get(self.class_of(shape, classes) or "", -1))
        return replace(drawing, shapes=tuple(shapes))


def find_masks(images: Iterable[str], folder: Path) -> Masks:
    """Return the masks of each image by class. A mask whose image is unknown is under the name that it would have.

    Args:
        images: names of the images.
        folder: folder of the masks.

    Raises:
        UserError: two files are the mask of one class of an image.
    """
    known = set(images)
    found: dict[str, dict[str, Path]] = {}
    for path in files_of(Path(), str(folder), "masks"):
        if path.suffix.lower() not in LOSSLESS_SUFFIXES:
            continue
        own = stem(path.relative_to(folder).as_posix())
        name, kind = _by_folder(own, known) or _by_ending(own, known) or (own, "")
        if kind in found.setdefault(name, {}):
            raise UserError(f"{found[name][kind]} and {path} are both the mask of {kind!r} of {name!r}; keep one")
        found[name][kind] = path
    return found


def are_label_maps(images: Path, folder: Path) -> bool:
    """Return True if a folder has no pictures, or if the first of them has the name of an image.

    This looks at one picture, because most folders hold label maps of many images.
    """
    paths = files_below(folder, follow=True)
    path = next((path for path in paths if path.suffix.lower() in LOSSLESS_SUFFIXES), None)
    if path is None:
        return True
    own = (images / path.relative_to(folder)).with_suffix("")
    suffixes = [*IMAGE_SUFFIXES, *(suffix.upper() for suffix in IMAGE_SUFFIXES)]
    return any(own.with_name(own.name + suffix).is_file() for suffix in suffixes)


def recognise_masks(images: Iterable[str], folder: Path) -> Masks | None:
    """Return the masks in a folder if they are of one class each. None if they are label maps or something else.

    Every mask must belong to an image, and those looked at must be binary. Some image must have masks of two classes,
    or the masks must be in a folder per class, or end with the names of a few classes that images share.

    Raises:
        UserError: all masks are in one folder, so they are label maps of that class.
    """
    try:
        masks = find_masks(images, folder)
        files = [path for kinds in masks.values() for path in kinds.values()]
        classes = {kind for kinds in masks.values() for kind in kinds}
        several = any(len(kinds) > 1 for kinds in masks.values())
        in_folders = classes.isdisjoint((*TRAINING, *HELD_OUT)) and all((folder / kind).is_dir() for kind in classes)
        shared = 1 < len(classes) < len(files)  # an ending of its own for each image, such as a date, is no class
        if "" in classes or not (several or in_folders or shared):
            return None
    except UserError:
        return None
    if len(classes) == 1:
        own = folder / next(iter(classes))
        raise UserError(
            f"all masks in {folder} are in the folder {own.name}: give that folder, as in "
            f"`segvit check-data PHOTOS {own}`"
        )
    try:
        for path in files[:LOOKED_AT]:
            _read_mask(path)
    except UserError:
        return None
    return masks


def _by_folder(own: str, known: set[str]) -> tuple[str, str] | None:
    """Return image and class of `CLASS/NAME`."""
    kind, _, name = own.partition("/")
    return (name, kind) if name in known and own not in known else None


def _by_ending(own: str, known: set[str]) -> tuple[str, str] | None:
    """Return image and class of `NAME_CLASS`, for the longest name of an image that fits."""
    ends = [place for place, mark in enumerate(own) if mark in SEPARATORS and own[:place] in known]
    return (own[: ends[-1]], own[ends[-1] + 1 :]) if ends and own not in known else None


def _read_mask(path: Path) -> npt.NDArray[np.bool_]:
    """Read the mask (H, W) of one class.

    Raises:
        Unreadable: the picture has more than two values.
    """
    with open_picture(path, "a mask") as opened:
        check_labels(opened, path)
        opened.load()
        picture = upright(opened)
        if picture.mode in ("RGB", "RGBA", "LA"):
            picture = picture.convert("L")
        pixels: npt.NDArray[Any] = np.asarray(picture)
    values = np.unique(pixels)
    if pixels.ndim != 2 or len(values) > 2 or (len(values) == 2 and values[0] != 0):
        raise Unreadable(f"{path}: holds {len(values)} values; a mask of one class has 0 and one other value")
    inside: npt.NDArray[np.bool_] = pixels != 0
    return inside

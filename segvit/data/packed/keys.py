"""Choose the images and the labels among the parts of a sample: columns of a table, or endings of a shard's members.

keys = choose_keys(parts, config)
keys.image, keys.labels                     # ("image", "annotation"), or ("jpg", "seg.png")
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from segvit.config import DataConfig
from segvit.errors import UserError
from segvit.utils.text import suggest

IMAGE_NAMES = ("image", "images", "pixel_values", "img", "photo")
"""Usual names of images, in lower case."""
LABEL_NAMES = (
    *("label", "labels", "annotation", "annotations", "mask", "masks", "segmentation_mask", "segmentation", "seg"),
    *("semantic", "semantic_segmentation", "seg_map", "label_map", "segmentation_map", "gt"),
)
"""Usual names of label maps, in lower case."""
JOINT = ";"
"""Sign between endings that stand for one part, as in WebDataset: `jpg;jpeg`."""


class Keys(NamedTuple):
    """The parts of a sample that are used."""

    image: str
    labels: str

    def __str__(self) -> str:
        return f"images in {self.image!r}, labels in {self.labels!r}"


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The parts of a dataset's samples."""

    where: str
    """Name of the dataset and word for its parts, such as "user/dataset: the columns"."""
    listed: str
    """All parts for error texts, such as "image (Image), id (int64)"."""
    names: Sequence[str]
    """All parts."""
    pictures: Sequence[str]
    """Parts that may be images."""
    label_maps: Sequence[str]
    """Parts that may be label maps."""
    usual_images: Sequence[str]
    """Parts that look like the images, by their names."""
    usual_labels: Sequence[str]
    """Parts that look like the label maps, by their names."""


def choose_keys(parts: Parts, config: DataConfig) -> Keys:
    """Return the parts that `data.image_key` and `data.labels_key` name, or the only ones with a usual name.

    Raises:
        UserError: a named part is missing or of the wrong type, no part or several parts fit, or both are the same.
    """
    labels = config.labels_key or _guess(
        "labels", [name for name in parts.usual_labels if name != config.image_key], parts
    )
    image = config.image_key or _guess("image", [name for name in parts.usual_images if name != labels], parts)
    for role, key, fit in (("image", image, parts.pictures), ("labels", labels, parts.label_maps)):
        for name in key.split(JOINT):
            _check(role, name, fit, parts)
    if set(image.split(JOINT)) & set(labels.split(JOINT)):
        raise UserError(f"data.image_key is {image!r} and data.labels_key is {labels!r}; name two different parts")
    return Keys(image, labels)


def is_named(part: str, names: Sequence[str]) -> bool:
    """True if a column, or what is before the suffix of an ending, is one of the names."""
    return part.lower().partition(".")[0] in names


def _check(role: str, name: str, fit: Sequence[str], parts: Parts) -> None:
    """Check that a part exists and may have this role."""
    if name not in parts.names:
        hint = suggest(name, parts.names)
        raise UserError(
            f"data.{role}_key is {name!r}{hint}, but {parts.where} are {parts.listed}; "
            f"type `--data.{role}-key {fit[0] if fit else 'NAME'}`"
        )
    if name not in fit:
        needed = "pictures" if role == "image" else "label maps"
        raise UserError(
            f"data.{role}_key is {name!r}, which cannot hold {needed}: {parts.where} are {parts.listed}; "
            f"type `--data.{role}-key {fit[0] if fit else 'NAME'}`"
        )


def _guess(role: str, found: Sequence[str], parts: Parts) -> str:
    """Return the only candidate."""
    if len(found) == 1:
        return found[0]
    what, flag = ("images", "--data.image-key") if role == "image" else ("label maps", "--data.labels-key")
    if found:
        raise UserError(f"{parts.where} {' and '.join(found)} may be the {what}; choose one, `{flag} {found[0]}`")
    raise UserError(
        f"{parts.where} are {parts.listed}, and none looks like the {what}; choose one with `{flag}`, or give a "
        f"dataset with {what}"
    )

"""Read labels in COCO's JSON: images, categories, and annotations of polygons or run-length masks.

The polygons of one annotation are joined. Annotations are painted in the order of the file, each over the ones before.

Letters: H, W size of an image.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from segvit.data.labels.format import (
    IGNORED,
    MAX_RAW,
    Classes,
    LabelFormat,
    check_class_or_ignored,
    check_ignored_value,
)
from segvit.data.labels.memory import LabelMemory
from segvit.data.labels.rasterize import decode_rle, fill_polygon
from segvit.data.pairs import Orphans, Pair, Place, find_pairs, stem
from segvit.data.yaml_values import check_keys, is_whole, read_text
from segvit.errors import UserError

FARTHEST = 1e7
"""Largest coordinate, in pixels, that is accepted."""


@dataclass(frozen=True, kw_only=True)
class CocoLabels(LabelFormat):
    """One JSON file per split with polygons and run-length masks. Raw values are its category ids."""

    name: ClassVar[str] = "coco"
    class_keys: ClassVar[Mapping[str, str]] = {
        "raw": "in the format coco, it is the id of the category in the JSON file"
    }
    slow_to_decode: ClassVar[bool] = True

    unlabeled: str
    """Class of the pixels outside every annotation, or `ignore`."""
    crowd: Literal["class", "ignore"] = "class"
    """Treatment of regions marked `iscrowd`: they belong to their class, or are ignored."""

    @classmethod
    def parse(cls, options: Mapping[str, Any], where: str) -> Self:
        """Read `unlabeled`, which must be given, and `crowd`.

        Raises:
            UserError: an option is missing, unknown or wrong.
        """
        check_keys(options, {"unlabeled": True, "crowd": False}, where)
        crowd = options.get("crowd", "class")
        if crowd not in ("class", "ignore"):
            raise UserError(f"{where}: `crowd` is {crowd!r}; give class or ignore")
        return cls(unlabeled=read_text(options["unlabeled"], "unlabeled", where), crowd=crowd)

    def check(self, classes: Classes, where: str) -> None:
        """Check that `unlabeled` is a class or ignored, and that dropped regions have an ignored value."""
        check_class_or_ignored(self.unlabeled, classes, "labels: unlabeled", where)
        for key, value in (("unlabeled", self.unlabeled), ("crowd", self.crowd)):
            if value == IGNORED:
                check_ignored_value(key, classes, where)

    def find(self, place: Place, classes: Classes, memory: LabelMemory) -> tuple[list[Pair], Orphans]:
        """Find the images that the JSON file describes."""
        described = self._file(place.root / place.split.labels, classes, memory).names
        return find_pairs(place, suffixes=self.suffixes, described=described)

    def read(self, pair: Pair, classes: Classes, memory: LabelMemory) -> npt.NDArray[Any]:
        """Paint the annotations of one image, (H, W)."""
        path = pair.labels
        assert isinstance(path, Path), "one file for all images is on its own"
        rest = classes.raw_of(self.unlabeled)
        ignored = classes.raw_of(IGNORED) if self.crowd == "ignore" else None
        return memory.decoded(
            path,
            lambda: self._file(path, classes, memory).paint(pair.name, unlabeled=rest, crowd=ignored),
            item=pair.name,
            settings=f"coco {rest} {ignored}",
        )

    def _file(self, path: Path, classes: Classes, memory: LabelMemory) -> "PolygonFile":
        """Return the parsed file, which is read once.

        Raises:
            UserError: the file cannot be read, or uses a category that is neither a class nor ignored.
        """
        return memory.once(path, lambda: _read_file(path, classes))


class Entry(NamedTuple):
    """One image of the file."""

    height: int
    width: int
    annotations: bytes
    """Its annotations as JSON text. Parsed ones of a hundred thousand images would fill the memory of every worker."""


class PolygonFile:
    """A parsed JSON file."""

    def __init__(self, path: Path) -> None:
        """Read the whole file.

        Raises:
            UserError: the file does not exist, is not JSON, or does not follow COCO (the text names entry and key).
        """
        self.path = path
        content = _parse(path)
        for key in ("images", "annotations", "categories"):
            if not isinstance(content.get(key), list):
                raise self._error(f"has no list `{key}`; COCO's format needs images, annotations and categories")
        self.categories: dict[int, str] = {}
        """Category names by id."""
        for row in content["categories"]:
            self.categories[self._whole(row, "id", "a category")] = str(row.get("name", ""))
        self.categories_used: Counter[int] = Counter()
        """Number of annotations by category id."""
        self._images = self._read_images(content)

    @property
    def names(self) -> list[str]:
        """Names of the images, which are their `file_name` without suffix."""
        return list(self._images)

    def paint(self, name: str, *, unlabeled: int, crowd: int | None) -> npt.NDArray[Any]:
        """Paint the category ids (H, W) of one image, uint8 or uint16.

        Args:
            name: one of `names`.
            unlabeled: value of pixels outside every annotation.
            crowd: value of regions marked `iscrowd`. None gives them their category.

        Raises:
            UserError: there is no such image, or an annotation is malformed (the text names its id).
        """
        if name not in self._images:
            raise self._error(f"describes no image {name!r}")
        image = self._images[name]
        highest = max(unlabeled, crowd or 0, *self.categories_used)
        labels = np.full((image.height, image.width), unlabeled, dtype=np.uint8 if highest < 256 else np.uint16)
        for annotation in json.loads(image.annotations):
            where = f"annotation {annotation.get('id')} of image {name!r}"
            is_crowd = bool(annotation.get("iscrowd", 0)) and crowd is not None
            self._paint(labels, annotation.get("segmentation"), crowd if is_crowd else annotation["category_id"], where)
        return labels

    def _paint(self, labels: npt.NDArray[Any], shape: Any, value: Any, where: str) -> None:
        """Set the pixels of one segmentation."""
        if isinstance(shape, dict):
            try:
                labels[decode_rle(shape, (labels.shape[0], labels.shape[1]))] = value
            except ValueError as error:
                raise self._error(f"{where}: {error}") from error
        elif isinstance(shape, list) and shape:
            for polygon in shape:
                numbers = isinstance(polygon, list) and all(is_whole(n) or isinstance(n, float) for n in polygon)
                if not numbers or len(polygon) % 2 or not all(abs(n) <= FARTHEST for n in polygon):
                    raise self._error(f"{where}: a polygon is a list x, y, x, y, ...; found {repr(polygon)[:80]}")
                fill_polygon(labels, np.array(polygon, dtype=np.float64).reshape(-1, 2), value)
        else:
            raise self._error(
                f"{where}: `segmentation` is {repr(shape)[:80]}; give polygons or run lengths (a box alone labels no "
                "pixels)"
            )

    def _read_images(self, content: Any) -> dict[str, Entry]:
        """Return the images by name, each with its annotations."""
        rows: dict[int, dict[str, Any]] = {}
        for row in content["images"]:
            identity = self._whole(row, "id", "an image")
            where = f"image {identity}"
            if identity in rows:
                raise self._error(f"two images have the id {identity}; give each its own")
            if not isinstance(row.get("file_name"), str) or not row["file_name"]:
                raise self._error(f"{where}: `file_name` is {row.get('file_name')!r}; give the image's file")
            if min(self._whole(row, key, where) for key in ("height", "width")) < 1:
                raise self._error(f"{where}: its size is {row['width']} x {row['height']} pixels; give the real one")
            rows[identity] = row
        shapes: dict[int, list[Any]] = {identity: [] for identity in rows}
        for annotation in content["annotations"]:
            where = f"annotation {annotation.get('id') if isinstance(annotation, dict) else annotation!r}"
            image = self._whole(annotation, "image_id", where)
            category = self._whole(annotation, "category_id", where)
            if image not in rows:
                raise self._error(f"{where} belongs to image {image}, which the file does not describe")
            if not 0 <= category <= MAX_RAW:
                raise self._error(f"{where}: category {category} is not in 0..{MAX_RAW}")
            self.categories_used[category] += 1
            kept = ("id", "category_id", "segmentation", "iscrowd")
            shapes[image].append({key: annotation[key] for key in kept if key in annotation})
        images: dict[str, Entry] = {}
        for identity, row in rows.items():
            name = stem(row["file_name"])
            if name in images:
                raise self._error(f"two images have the name {name!r}; give each file once")
            images[name] = Entry(row["height"], row["width"], json.dumps(shapes.pop(identity)).encode())
        return images

    def _whole(self, row: Any, key: str, where: str) -> int:
        """Return a whole number of an entry."""
        value: Any = row.get(key) if isinstance(row, dict) else None
        if not is_whole(value):
            raise self._error(f"{where}: `{key}` is {value!r}; give a whole number")
        return int(value)

    def _error(self, text: str) -> UserError:
        return UserError(f"{self.path}: {text}")


def _read_file(path: Path, classes: Classes) -> PolygonFile:
    """Parse the file, and check that the spec knows all of its categories."""
    polygons = PolygonFile(path)
    if unknown := classes.unknown(polygons.categories_used):
        first = unknown[0]
        raise UserError(
            f"{path}: category {first} ({polygons.categories.get(first, 'without a name')!r}, "
            f"{polygons.categories_used[first]} annotations) is not a class of {classes.name!r} and not ignored"
            f"{f', nor are {len(unknown) - 1} others' if unknown[1:] else ''}; in the spec, add "
            f"`{{name: NAME, raw: {first}}}` to the classes, or drop it with `ignore` or `others: ignore`"
        )
    return polygons


def _parse(path: Path) -> dict[str, Any]:
    """Return the mapping in a JSON file."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error}); fetch it again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a mapping; COCO's format needs one of images, annotations and categories")
    return content

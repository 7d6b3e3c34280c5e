"""Labels in the JSON of COCO: images, categories, and annotations of polygons or run-length masks.

A pixel belongs to a polygon when its centre lies inside (even-odd rule; a centre on a left or upper edge is inside, on
a right or lower edge outside, so that neighbours share no pixel): pixel (row, column) has its centre at
(column + 0.5, row + 0.5), and the pixel at the origin covers 0..1. Polygons of one annotation are joined. Annotations
are painted in the order of the file, each over those before.

Letters: H, W size of an image, N points of a polygon.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from segvit.data.files import stem
from segvit.data.spec import MAX_RAW
from segvit.data.yaml_values import is_whole
from segvit.errors import UserError

FARTHEST = 1e7
"""Largest coordinate, in pixels, that is taken for one."""


class Entry(NamedTuple):
    """One image of the file."""

    height: int
    width: int
    annotations: bytes
    """Its annotations as JSON: a hundred thousand images of parsed ones would fill the memory of every worker."""


class PolygonFile:
    """A parsed JSON file."""

    def __init__(self, path: Path) -> None:
        """Read the whole file.

        Raises:
            UserError: no such file, no JSON, or not of the form of COCO: the entry and the key are named.
        """
        self.path = path
        content = _parse(path)
        for key in ("images", "annotations", "categories"):
            if not isinstance(content.get(key), list):
                raise self._error(f"has no list `{key}`; the form of COCO needs images, annotations and categories")
        self.categories: dict[int, str] = {}
        """Category names by id."""
        for row in content["categories"]:
            self.categories[self._whole(row, "id", "a category")] = str(row.get("name", ""))
        self.categories_used: Counter[int] = Counter()
        """Number of annotations by category id."""
        self._images = self._read_images(content)

    @property
    def names(self) -> list[str]:
        """Names of the images: their `file_name` without suffix."""
        return list(self._images)

    def paint(self, name: str, *, unlabeled: int, crowd: int | None) -> npt.NDArray[Any]:
        """The category ids (H, W) of one image, uint8 or uint16.

        Args:
            name: one of `names`.
            unlabeled: value of pixels outside every annotation.
            crowd: value of regions marked `iscrowd`; None: their category, as for others.

        Raises:
            UserError: no such image, or an annotation is ill-formed: its id is named.
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
                f"{where}: `segmentation` is {repr(shape)[:80]}, neither polygons nor run lengths; a box alone labels "
                "no pixels"
            )

    def _read_images(self, content: Any) -> dict[str, Entry]:
        """The images by name, each with its annotations."""
        rows: dict[int, dict[str, Any]] = {}
        for row in content["images"]:
            identity = self._whole(row, "id", "an image")
            where = f"image {identity}"
            if identity in rows:
                raise self._error(f"two images have the id {identity}; give each its own")
            if not isinstance(row.get("file_name"), str) or not row["file_name"]:
                raise self._error(f"{where}: `file_name` is {row.get('file_name')!r}; give the image's file")
            if min(self._whole(row, key, where) for key in ("height", "width")) < 1:
                raise self._error(f"{where}: it is {row['width']} x {row['height']} pixels; give its size")
            rows[identity] = row
        shapes: dict[int, list[Any]] = {identity: [] for identity in rows}
        for annotation in content["annotations"]:
            where = f"annotation {annotation.get('id') if isinstance(annotation, dict) else annotation!r}"
            image = self._whole(annotation, "image_id", where)
            category = self._whole(annotation, "category_id", where)
            if image not in rows:
                raise self._error(f"{where} is of image {image}, which the file does not describe")
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
        """A whole number of an entry."""
        value: Any = row.get(key) if isinstance(row, dict) else None
        if not is_whole(value):
            raise self._error(f"{where}: `{key}` is {value!r}; give a whole number")
        return int(value)

    def _error(self, text: str) -> UserError:
        return UserError(f"{self.path}: {text}")


def fill_polygon(labels: npt.NDArray[Any], points: npt.NDArray[np.float64], value: int) -> None:
    """Set the pixels of `labels` (H, W) whose centres lie inside the polygon `points` (N, 2), each x, y in pixels.

    Fewer than three points hold no centre.
    """
    height, width = labels.shape
    (x, y), (to_x, to_y) = points.T, np.roll(points, -1, axis=0).T  # edges (N,), the last closes the polygon
    first = np.ceil(np.minimum(y, to_y) - 0.5).clip(0, height).astype(np.int64)  # rows whose centre an edge crosses
    count = np.ceil(np.maximum(y, to_y) - 0.5).clip(0, height).astype(np.int64) - first
    if not count.any():
        return
    edge = np.repeat(np.arange(len(points)), count)  # (C,) one entry for each row that an edge crosses
    row = first[edge] + np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count)
    crossing = x[edge] + (row + 0.5 - y[edge]) * ((to_x - x)[edge] / (to_y - y)[edge])
    column = np.ceil(crossing - 0.5).clip(0, width).astype(np.int64)  # first pixel to the right of the crossing
    top, left = row.min(), column.min()
    flips = np.zeros((row.max() - top + 1, column.max() - left + 1), dtype=np.uint8)
    np.bitwise_xor.at(flips, (row - top, column - left), 1)
    inside = np.bitwise_xor.accumulate(flips, axis=1)[:, :-1].astype(bool)  # right of an odd number of crossings
    labels[top : top + inside.shape[0], left : left + inside.shape[1]][inside] = value


def decode_rle(rle: dict[str, Any], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """The mask (H, W) of a run-length code: runs of 0 and 1 in turn, down the columns, from 0.

    Args:
        rle: `size` [H, W] and `counts`, a list of lengths or COCO's compressed text.
        size: (H, W) of the image.

    Raises:
        ValueError: another size, or lengths that are none or do not add up to H * W.
    """
    counts, height, width = rle.get("counts"), *size
    if rle.get("size") != [height, width]:
        raise ValueError(f"the mask's size is {rle.get('size')!r}, but the image's [{height}, {width}] (height, width)")
    runs = _decompress(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(is_whole(run) and run >= 0 for run in runs):
        raise ValueError(f"`counts` is {repr(counts)[:80]}; give lengths of runs, or COCO's compressed text")
    if sum(runs) != height * width:
        raise ValueError(f"the run lengths add up to {sum(runs)}, but the image has {height * width} pixels")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def _decompress(text: str) -> list[int]:
    """Run lengths from COCO's text: 5 bits a character from "0" on, low bits first, bit 6 says that more follow.

    The last character's bit 5 is the sign. From the fourth on, a number is the difference to the run two before.
    """
    runs: list[int] = []
    number = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise ValueError(f"`counts` has the character {character!r}, which COCO's compressed text does not use")
        number |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            number -= 1 << shift
        runs.append(number + runs[-2] if len(runs) > 2 else number)
        number = shift = 0
    if shift:
        raise ValueError("`counts` is cut short")
    return runs


def _parse(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error}); fetch it again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: the form of COCO is a mapping of images, annotations and categories")
    return content

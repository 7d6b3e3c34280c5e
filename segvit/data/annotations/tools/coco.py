"""Read labels in COCO's JSON: images, categories, and annotations of polygons or run-length masks.

The polygons of one annotation are joined. Annotations are painted in the order of the file, each over the ones before.
A spec finds its classes by the ids of the categories (`raw`), or with `match: name` by their names. Files without a
spec are matched by name, so that training and validation files may number their categories differently.

coco_panoptic.py reads panoptic files. Letters: H, W size of an image.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, NoReturn, Self

import numpy as np

from segvit.data.annotations.format import Content, Index, ShapeLabels, SharedLabels
from segvit.data.annotations.names import image_name
from segvit.data.annotations.parse import FARTHEST, read_json
from segvit.data.annotations.shapes import Drawing, Ring, Rings, RunLengths, Shape, box
from segvit.data.annotations.summary import Summary
from segvit.data.labels.background import BACKGROUND
from segvit.data.labels.format import MAX_RAW, Classes, check_ignored_value
from segvit.data.labels.memory import LabelMemory
from segvit.data.pairs import Orphans, Pair, Place
from segvit.data.yaml_values import check_keys, is_whole, quoted
from segvit.errors import UserError

LISTS = ("images", "annotations", "categories")
"""Keys that every file has."""
KEPT = ("id", "category_id", "segmentation", "iscrowd")
"""Keys of an annotation that are kept in memory."""
NO_OUTLINE = "annotation without an outline"
"""Kind of annotations that have at most a box."""


@dataclass
class CocoIndex(Index):
    """A parsed file of COCO."""

    categories: dict[int, str] = field(default_factory=dict)
    """Category names by id."""
    used: Counter[int] = field(default_factory=Counter)
    """Number of annotations by category id."""


@dataclass(frozen=True, kw_only=True)
class CocoLabels(SharedLabels):
    """One JSON file per split with polygons and run-length masks. Raw values are its category ids."""

    name: ClassVar[str] = "coco"
    title: ClassVar[str] = "COCO"
    suffixes: ClassVar[Sequence[str]] = (".json",)
    class_keys: ClassVar[Mapping[str, str]] = {
        "raw": "in the format coco, it is the id of the category in the JSON file"
    }
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **ShapeLabels.choices,
        "crowd": ("class", "ignore"),
        "empty": ("ignore", "box", "error"),
        "match": ("id", "name"),
    }
    lenient: ClassVar[Mapping[str, Any]] = {**ShapeLabels.lenient, "match": "name"}

    crowd: Literal["class", "ignore"] = "class"
    """Treatment of regions marked `iscrowd`: they belong to their class, or are ignored."""
    empty: Literal["ignore", "box", "error"] = "ignore"
    """Treatment of annotations without an outline: ignore the pixels of their box, label them, or raise an error."""
    match: Literal["id", "name"] = "id"
    """Property of a category that finds its class: the id, which is the `raw` of the class, or the name."""

    @classmethod
    def parse(cls, options: Mapping[str, Any], where: str) -> Self:
        """Read the options. `unlabeled` must be given unless categories are matched by name.

        Raises:
            UserError: an option is missing, unknown or wrong.
        """
        found = super().parse(options, where)
        if found.match == "id":
            check_keys(options, {**dict.fromkeys(options, False), "unlabeled": True}, where)
        return found

    @classmethod
    def recognises(cls, content: Content) -> bool:
        """Return True for a mapping with the lists of COCO, unless it is panoptic."""
        return has_lists(content.value) and not is_panoptic(content.value)

    @classmethod
    def remedy(cls, summary: Summary, images: Path, labels: str) -> str:
        """Return the spec that labels whole boxes, for a file of boxes alone."""
        if not any(text.startswith(NO_OUTLINE) for text in summary.remarks):
            return ""
        names = ", ".join(map(quoted, (BACKGROUND, *summary.classes)))
        return (
            "; to label whole boxes instead, save these lines as boxes.yaml, and give `--data.spec boxes.yaml "
            f"--data.root .` in place of the folders:\nname: boxes\nclasses: [{names}]\n"
            "labels: {format: coco, match: name, empty: box}\n"
            f"splits: {{train: {{images: {quoted(str(images))}, labels: {quoted(labels)}}}}}\nval_fraction: 0.1"
        )

    @property
    def required_keys(self) -> Mapping[str, str]:
        """Keys that each class of a spec must have: `raw`, unless categories are matched by name."""
        return {} if self.match == "name" else self.class_keys

    def check(self, classes: Classes, where: str) -> None:
        """Check the options as all formats of shapes do, and that dropped crowds have an ignored value."""
        super().check(classes, where)
        if self.crowd == "ignore":
            check_ignored_value("crowd", classes, where)

    def find(self, place: Place, classes: Classes, memory: LabelMemory) -> tuple[list[Pair], Orphans]:
        """Find the images that the JSON file describes, and check that the spec knows its categories."""
        if self.match == "id":
            path = place.root / place.split.labels
            _check_ids(self.indexed(path, memory), classes, path)
        return super().find(place, classes, memory)

    def value_of(self, shape: Shape, classes: Classes, where: str) -> int:
        """Return the raw value of a shape: its category id, or that of the class with its name.

        Raises:
            UserError: the spec does not know the name, or has no raw value that is ignored.
        """
        if self.match == "name" or shape.category is None or shape.ignored:
            return super().value_of(shape, classes, where)
        return shape.category

    def index(self, path: Path) -> CocoIndex:
        """Parse the whole file once.

        Raises:
            UserError: the file does not exist, is not JSON, or does not follow COCO (the text names entry and key).
        """
        content = read_json(path)
        if not isinstance(content, dict):
            _fail(path, "not a mapping; COCO's format needs one of images, annotations and categories")
        for key in LISTS:
            if not isinstance(content.get(key), list):
                _fail(path, f"has no list `{key}`; COCO's format needs images, annotations and categories")
        images = read_images(content["images"], path)
        categories = read_categories(content["categories"], path)
        summary = Summary(declared=declared(content["categories"], content["annotations"]))
        used: Counter[int] = Counter()
        rows: dict[int, list[Any]] = {identity: [] for identity in images}
        for annotation in content["annotations"]:
            where = f"annotation {annotation.get('id') if isinstance(annotation, dict) else annotation!r}"
            image = whole(annotation, "image_id", where, path)
            category = whole(annotation, "category_id", where, path)
            if image not in images:
                if self.missing == "error":
                    _fail(path, f"{where} belongs to image {image}, which the file does not describe")
                summary.remarks["annotation of images that the file does not list"] += 1
                continue
            if self.match == "name" and category not in categories:
                _fail(path, f"{where} has the category {category}, which the file does not list")
            if self.match == "id" and not 0 <= category <= MAX_RAW:
                _fail(path, f"{where}: category {category} is not in 0..{MAX_RAW}; write `match: name` in the spec")
            used[category] += 1
            rows[image].append(self._compact(annotation, categories.get(category, ""), summary))
        entries = {
            row["name"]: json.dumps([row["height"], row["width"], rows.pop(identity)]).encode()
            for identity, row in images.items()
        }
        return CocoIndex(summary, entries, categories=categories, used=used)

    def _compact(self, annotation: dict[str, Any], name: str, summary: Summary) -> dict[str, Any]:
        """Return what is kept of an annotation, and count it."""
        outline = annotation.get("segmentation")
        kept = {key: annotation[key] for key in KEPT if key in annotation} | {"name": name}
        if outline:
            summary.kinds["mask" if isinstance(outline, dict) else "polygon"] += 1
            summary.names[name] += 1
            return kept
        what = "boxes are labelled" if self.empty == "box" else "boxes are ignored"
        summary.remarks[f"annotation without an outline ({what})"] += 1
        return kept | {"bbox": annotation.get("bbox")}

    def draw(self, entry: bytes, path: Path, name: str) -> Drawing:
        """Return the shapes of one image.

        Raises:
            UserError: an annotation is malformed (the text names its id).
        """
        height, width, rows = json.loads(entry)
        shapes: list[Shape] = []
        skipped: Counter[str] = Counter()
        for row in rows:
            where = f"{path}: annotation {row.get('id')} of image {name!r}"
            outline, ignored = row.get("segmentation"), bool(row.get("iscrowd", 0)) and self.crowd == "ignore"
            if not outline:
                ring = self._box(row, where)
                if ring is None:
                    skipped[NO_OUTLINE] += 1
                    continue
                area: Rings | RunLengths = Rings((ring,))
                ignored = ignored or self.empty == "ignore"
            else:
                area = area_of(outline, where)
            kind = "mask" if isinstance(outline, dict) else "polygon" if outline else "box"
            shapes.append(Shape(name=row["name"], kind=kind, area=area, ignored=ignored, category=row["category_id"]))
        where = f"{path}: image {name!r}"
        return Drawing(where=where, size=(height, width), shapes=tuple(shapes), skipped=skipped)

    def _box(self, row: dict[str, Any], where: str) -> Ring | None:
        """Return the box of an annotation without an outline. None if it has none either."""
        bounds = row.get("bbox")
        if self.empty == "error":
            raise UserError(
                f"{where}: `segmentation` is {row.get('segmentation')!r}; give polygons or run lengths (a box alone "
                "labels no pixels), or write `empty: ignore` or `empty: box` under `labels`"
            )
        if bounds is None:
            return None
        if not (isinstance(bounds, list) and len(bounds) == 4 and _are_numbers(bounds)):
            raise UserError(f"{where}: `bbox` is {repr(bounds)[:80]}; COCO writes x, y, width, height")
        left, top, width, height = bounds
        return box(left, top, left + width, top + height)


def has_lists(value: Any) -> bool:
    """True if parsed JSON has the lists of COCO."""
    return isinstance(value, dict) and all(isinstance(value.get(key), list) for key in LISTS)


def is_panoptic(value: Any) -> bool:
    """True if parsed JSON with COCO's lists describes panoptic labels."""
    return any(isinstance(row, dict) and "segments_info" in row for row in value["annotations"][:1])


def area_of(outline: Any, where: str) -> Rings | RunLengths:
    """Return a `segmentation` as an area: polygons, one polygon without a list around it, or run lengths.

    Raises:
        UserError: it is malformed.
    """
    if isinstance(outline, dict):
        return RunLengths(outline)
    if not isinstance(outline, list):
        raise UserError(f"{where}: `segmentation` is {repr(outline)[:80]}; give polygons or run lengths")
    polygons = outline if isinstance(outline[0], list) else [outline]  # some tools write one polygon flat
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) % 2 or not _are_numbers(polygon):
            raise UserError(f"{where}: a polygon is a list x, y, x, y, ...; found {repr(polygon)[:80]}")
    return Rings(tuple(np.array(polygon, dtype=np.float64).reshape(-1, 2) for polygon in polygons if polygon))


def read_images(rows: Sequence[Any], path: Path) -> dict[int, dict[str, Any]]:
    """Return `name`, `height` and `width` of each image by its id.

    Raises:
        UserError: a key is missing or wrong, or an id or name occurs twice.
    """
    images: dict[int, dict[str, Any]] = {}
    names: set[str] = set()
    for row in rows:
        identity = whole(row, "id", "an image", path)
        where = f"image {identity}"
        if identity in images:
            _fail(path, f"two images have the id {identity}; give each its own")
        if not isinstance(row.get("file_name"), str) or not row["file_name"]:
            _fail(path, f"{where}: `file_name` is {row.get('file_name')!r}; give the image's file")
        if min(whole(row, key, where, path) for key in ("height", "width")) < 1:
            _fail(path, f"{where}: its size is {row['width']} x {row['height']} pixels; give the real one")
        name = image_name(row["file_name"])
        if name in names:
            _fail(path, f"two images have the name {name!r}; give each file once")
        names.add(name)
        images[identity] = {"name": name, "height": row["height"], "width": row["width"]}
    return images


def read_categories(rows: Sequence[Any], path: Path) -> dict[int, str]:
    """Return the names of the categories by id.

    Raises:
        UserError: an id is missing, no whole number or that of two categories, or a category has no name.
    """
    names: dict[int, str] = {}
    for row in rows:
        identity = whole(row, "id", "a category", path)
        name = row.get("name")
        if not isinstance(name, str) or not name.strip():
            _fail(path, f"category {identity}: `name` is {repr(name)[:80]}, not text; name it in the labelling tool")
        if identity in names:
            _fail(path, f"two categories have the id {identity}, {names[identity]!r} and {name!r}; give each its own")
        names[identity] = name
    return names


def declared(categories: Sequence[Any], annotations: Sequence[Any]) -> tuple[str, ...]:
    """Return the names of the categories, without an unused one that only groups others, as Roboflow writes."""
    groups = {str(row.get("supercategory")) for row in categories if row.get("supercategory") != row.get("name")}
    rows = [row for row in annotations if isinstance(row, dict)]
    inside = [segment for row in rows if isinstance(row.get("segments_info"), list) for segment in row["segments_info"]]
    found = [row.get("category_id") for row in (*rows, *inside) if isinstance(row, dict)]
    used = {category for category in found if is_whole(category)}
    kept = [row for row in categories if row["id"] in used or str(row.get("name")) not in groups]
    return tuple(dict.fromkeys(str(row.get("name", "")) for row in kept))


def whole(row: Any, key: str, where: str, path: Path) -> int:
    """Return a whole number of an entry.

    Raises:
        UserError: it is missing or something else.
    """
    value: Any = row.get(key) if isinstance(row, dict) else None
    if not is_whole(value):
        _fail(path, f"{where}: `{key}` is {value!r}; give a whole number")
    return int(value)


def _check_ids(index: Index, classes: Classes, path: Path) -> None:
    """Check that the spec knows the categories of a file.

    Raises:
        UserError: a category is neither a class nor ignored.
    """
    assert isinstance(index, CocoIndex)
    if unknown := classes.unknown(index.used):
        first = unknown[0]
        raise UserError(
            f"{path}: category {first} ({index.categories.get(first, 'without a name')!r}, "
            f"{index.used[first]} annotations) is not a class of {classes.name!r} and not ignored"
            f"{f', nor are {len(unknown) - 1} others' if unknown[1:] else ''}; in the spec, add "
            f"`{{name: NAME, raw: {first}}}` to the classes, or drop it with `ignore` or `others: ignore`"
        )


def _are_numbers(values: Sequence[Any]) -> bool:
    """True if all values are numbers of pixels."""
    return all((is_whole(value) or isinstance(value, float)) and abs(value) <= FARTHEST for value in values)


def _fail(path: Path, text: str) -> NoReturn:
    raise UserError(f"{path}: {text}")

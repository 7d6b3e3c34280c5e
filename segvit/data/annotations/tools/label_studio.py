"""Read exports of Label Studio: the forms JSON and JSON-MIN, one file for many images.

Polygons, rectangles, ellipses and brushes are areas. Key points, lines and classes of whole images are not. Coordinates
are percent of the image's size. Pixels outside every region are background.

A task that was skipped, or has no annotation, is no labelled image. If several people annotated a task, the one marked
as ground truth counts, or else the latest. Predictions count if the task has no annotation.

Letters: H, W size of an image.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from segvit.data.annotations.brush import decode_brush
from segvit.data.annotations.format import Content, Index, SharedLabels
from segvit.data.annotations.names import NameTable, image_name, match_names
from segvit.data.annotations.parse import list_of, mapping_of, number_of, read_json, ring_of, size_of
from segvit.data.annotations.shapes import Drawing, PlacedMask, Rings, Shape, box, ellipse
from segvit.data.annotations.summary import Summary
from segvit.data.images import IMAGE_SUFFIXES, Unreadable
from segvit.data.labels.format import Classes
from segvit.data.labels.memory import LabelMemory
from segvit.data.pairs import Orphans, Pair, Place, find_images, find_pairs
from segvit.errors import UserError

UPLOADED = re.compile(r"^[0-9a-f]{8}-")
"""Prefix that Label Studio puts before the name of an uploaded file."""
AREAS = ("points", "rle", "width", "radiusX")
"""Keys of a region's value that are present in areas alone: polygon, brush, rectangle, ellipse."""


@dataclass(frozen=True, kw_only=True)
class LabelStudioLabels(SharedLabels):
    """Exports of Label Studio."""

    name: ClassVar[str] = "label_studio"
    title: ClassVar[str] = "Label Studio"
    suffixes: ClassVar[Sequence[str]] = (".json",)

    @classmethod
    def recognises(cls, content: Content) -> bool:
        """Return True for a list of tasks, in either form."""
        value = content.value
        task = value[0] if isinstance(value, list) and value else None
        if not isinstance(task, dict):
            return False
        full = isinstance(task.get("data"), dict) and bool({"annotations", "predictions"} & task.keys())
        return full or any(_is_minimal(each) for each in value[:20])

    def index(self, path: Path) -> Index:
        """Parse the whole file once.

        Raises:
            UserError: it is no list of tasks, a task has no image, or two tasks have one image.
        """
        tasks = read_json(path)
        if not isinstance(tasks, list):
            raise UserError(f"{path}: is no list of tasks; export it as JSON")
        summary = Summary()
        found: dict[str, bytes] = {}
        for position, item in enumerate(tasks, start=1):
            where = f"{path}: task {position}"
            task = mapping_of(item, where)
            regions = _regions_of(task, where, summary)
            if regions is None:
                continue
            name = _image_of(task, where)
            if name in found:
                raise UserError(f"{where}: {name!r} is the image of an earlier task too; delete one of the tasks")
            found[name] = json.dumps(regions).encode()
            areas, skipped = _areas_in(regions, where)
            for kind, label, _ in areas:
                summary.kinds[kind] += 1
                summary.names[label] += 1
            summary.skipped.update(skipped)
        plain = Counter(UPLOADED.sub("", name) for name in found)
        shorter = {name: UPLOADED.sub("", name) for name in found}
        index = Index(summary, {shorter[n] if plain[shorter[n]] == 1 else n: entry for n, entry in found.items()})
        index.lookup = _UploadTable(index.images)
        return index

    def find(self, place: Place, classes: Classes, memory: LabelMemory) -> tuple[list[Pair], Orphans]:
        """Find the images of the tasks. Those in the folder may have the prefix of uploaded files or lack it."""
        images = list(find_images(place))
        plain = {UPLOADED.sub("", name): name for name in images}
        described = self.indexed(place.root / place.split.labels, memory).images
        matched = match_names(described, images)
        rest = [name for name, image in matched.items() if image not in images]
        again = {name: plain.get(image, name) for name, image in match_names(rest, plain).items()}
        return self._kept(*find_pairs(place, suffixes=self.suffixes, described=(matched | again).values()))

    def draw(self, entry: bytes, path: Path, name: str) -> Drawing:
        """Return the regions of one image.

        Raises:
            UserError: a region is malformed.
        """
        where = f"{path}: image {name!r}"
        areas, skipped = _areas_in(json.loads(entry), where)
        sizes: list[tuple[int, int]] = []
        shapes: list[Shape] = []
        for position, (kind, label, region) in enumerate(areas, start=1):
            at = f"{where}: area {position}"
            size = size_of(region, "original_height", "original_width", at)
            if size is None or region.get("image_rotation") not in (0, None):
                fault = "has no `original_width`" if size is None else "was drawn on a turned image"
                raise Unreadable(f"{at}: {fault}; open and submit the task again without turning the image")
            sizes.append(size)
            shapes.append(Shape(name=label, kind=kind, area=_area(region["value"], size, at)))
        if len(set(sizes)) > 1:
            raise Unreadable(f"{where}: its regions were drawn on images of different sizes; draw them again")
        return Drawing(where=where, size=sizes[0] if sizes else None, shapes=tuple(shapes), skipped=skipped)


class _UploadTable(NameTable):
    """Names of tasks, which may lack the prefix that the images have."""

    def match(self, name: str) -> str | None:
        folder, slash, own = name.rpartition("/")
        return super().match(name) or super().match(folder + slash + UPLOADED.sub("", own))


def _is_minimal(task: Any) -> bool:
    """Return True for a task in the form JSON-MIN, whose regions are under the name of their control."""
    return isinstance(task, dict) and any(_regions_in(value) for value in task.values())


def _regions_in(value: Any) -> bool:
    """Return True for a list of regions in the form JSON-MIN."""
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and bool(_labels_of(value[0]))


def _regions_of(task: dict[str, Any], where: str, summary: Summary) -> list[Any] | None:
    """Return the regions of a task in the form of JSON. None if the task labels no image."""
    if not isinstance(task.get("data"), dict):
        lists = [value for value in task.values() if _regions_in(value)]
        size_keys = ("original_width", "original_height")
        return [
            {"type": _control(region), "value": region, **{key: region.get(key) for key in size_keys}}
            for regions in lists
            for region in regions
        ]
    annotations = [mapping_of(each, f"{where}: an annotation") for each in _list(task.get("annotations"))]
    kept = [each for each in annotations if not each.get("was_cancelled")]
    if len(kept) > 1:
        summary.remarks["task with several annotations, of which the ground truth or the latest is read"] += 1
    if kept:
        best = max(kept, key=lambda each: (bool(each.get("ground_truth")), str(each.get("updated_at", ""))))
        return list_of(best, "result", f"{where}: its annotation")
    predictions = _list(task.get("predictions"))
    if annotations or not predictions or not isinstance(predictions[-1], dict):
        summary.remarks["task skipped or without annotation, left out"] += 1
        return None
    summary.remarks["task without annotation, whose predictions are read"] += 1
    return list_of(predictions[-1], "result", f"{where}: its prediction")


def _list(value: Any) -> list[Any]:
    """Return `value` if it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def _image_of(task: dict[str, Any], where: str) -> str:
    """Return the name of a task's image, from an upload, a local file or an address."""
    data = task["data"] if isinstance(task.get("data"), dict) else task
    values = (data.get("image"), data.get("img"), *data.values(), task.get("file_upload"))
    texts = [value for value in values if isinstance(value, str)]
    for text in texts:
        parts = urlsplit(text)
        local = parse_qs(parts.query).get("d")
        file = local[0] if local else unquote(parts.path)
        if Path(file).suffix.lower() in IMAGE_SUFFIXES:
            return image_name(file.rpartition("/")[2] if "/data/upload/" in file else file)
    raise UserError(f"{where}: none of its data is the file of an image; export the task again")


def _joined(regions: Iterable[Any]) -> list[dict[str, Any]]:
    """Return the regions with the results of one region joined: its outline and its labels may be two."""
    joined: dict[Any, dict[str, Any]] = {}
    for position, item in enumerate(regions):
        region = item if isinstance(item, dict) else {}
        key = region.get("id") or position
        earlier = joined.get(key)
        value = region.get("value")
        if earlier is None:
            joined[key] = dict(region)
        elif isinstance(value, dict) and isinstance(earlier.get("value"), dict):
            earlier["value"] = earlier["value"] | value
    return list(joined.values())


def _areas_in(regions: list[Any], where: str) -> tuple[list[tuple[str, str, dict[str, Any]]], Counter[str]]:
    """Return kind, label and content of each area, and the number of other regions by kind."""
    areas, skipped = [], Counter[str]()
    for position, region in enumerate(_joined(regions), start=1):
        value = mapping_of(region.get("value"), f"{where}: `value` of region {position}")
        kind = str(region.get("type", "region")).removesuffix("labels")
        names = _labels_of(value)
        if len(names) > 1:
            raise Unreadable(f"{where}: region {position} has the labels {', '.join(names)}; keep one of them")
        if not any(key in value for key in AREAS) or "line" in kind or not names:
            skipped[kind if names else f"{kind} without a label"] += 1
        else:
            areas.append((kind, names[0], region))
    return areas, skipped


def _labels_of(value: dict[str, Any]) -> list[str]:
    """Return the labels of a region, whatever the control that gave them."""
    lists = [found for key, found in value.items() if key.endswith("labels") and isinstance(found, list)]
    return list(dict.fromkeys(str(name) for found in lists for name in found))


def _control(region: dict[str, Any]) -> str:
    """Return the type of a region in the form JSON-MIN."""
    return next((key for key in region if key.endswith("labels")), "region")


def _area(value: dict[str, Any], size: tuple[int, int], where: str) -> Rings | PlacedMask:
    """Return the area of one region."""
    height, width = size
    if "rle" in value:
        return PlacedMask(decode_brush(value["rle"], size, where), top=0, left=0)
    if "points" in value:
        return Rings((ring_of(value["points"], where) * [width / 100, height / 100],))
    turn = number_of(value.get("rotation") or 0, where)
    x, y = (number_of(value.get(key), f"{where}: `{key}`") for key in "xy")
    if "radiusX" in value:
        radii = [number_of(value.get(key), f"{where}: `{key}`") for key in ("radiusX", "radiusY")]
        ring = ellipse(
            x * width / 100, y * height / 100, radii[0] * width / 100, radii[1] * height / 100, rotation=turn
        )
        return Rings((ring,))
    wide, high = (number_of(value.get(key), f"{where}: `{key}`") for key in ("width", "height"))
    left, top = x * width / 100, y * height / 100
    corners = box(left, top, left + wide * width / 100, top + high * height / 100)
    if turn:  # about the corner, not the centre
        angle = np.deg2rad(turn)
        matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        corners = (corners - corners[0]) @ matrix + corners[0]
    return Rings((corners,))

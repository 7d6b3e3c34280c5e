"""Read COCO's panoptic labels: one JSON file, and a PNG per image whose colours are the ids of its segments.

The id of a pixel is R + 256 G + 65536 B. The PNGs are in a folder with the name of the JSON file, or beside it. Pixels
of no segment have no class, so they are ignored by default.

Letters: H, W size of an image.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from segvit.data.annotations.format import Content, Index, SharedLabels
from segvit.data.annotations.parse import list_of, mapping_of, read_json, text_of
from segvit.data.annotations.shapes import Drawing, PlacedMask, Shape
from segvit.data.annotations.summary import Summary
from segvit.data.annotations.tools.coco import declared, has_lists, is_panoptic, read_categories, read_images, whole
from segvit.data.images import Unreadable, open_picture
from segvit.errors import UserError


@dataclass(frozen=True, kw_only=True)
class CocoPanopticLabels(SharedLabels):
    """Panoptic JSON with its PNG files. Classes are found by the names of the categories."""

    name: ClassVar[str] = "coco_panoptic"
    title: ClassVar[str] = "COCO panoptic"
    suffixes: ClassVar[Sequence[str]] = (".json",)

    @classmethod
    def recognises(cls, content: Content) -> bool:
        """Return True for COCO's lists with `segments_info`."""
        return has_lists(content.value) and is_panoptic(content.value)

    def index(self, path: Path) -> Index:
        """Parse the whole file once.

        Raises:
            UserError: it is malformed (the text names entry and key).
        """
        content = mapping_of(read_json(path), str(path))
        images = read_images(list_of(content, "images", str(path)), path)
        categories = read_categories(list_of(content, "categories", str(path)), path)
        annotations = list_of(content, "annotations", str(path))
        summary = Summary(background=False, declared=declared(content["categories"], annotations))
        entries: dict[str, bytes] = {}
        for annotation in annotations:
            where = (
                f"annotation of image {annotation.get('image_id') if isinstance(annotation, dict) else annotation!r}"
            )
            identity = whole(annotation, "image_id", where, path)
            if identity not in images:
                if self.missing == "error":
                    raise UserError(f"{path}: {where}: the file does not describe this image")
                summary.remarks["annotation of images that the file does not list"] += 1
                continue
            names: dict[int, str] = {}
            for segment in list_of(annotation, "segments_info", f"{path}: {where}"):
                category = whole(segment, "category_id", f"{where}: a segment", path)
                if category not in categories:
                    raise UserError(f"{path}: {where}: category {category} is not listed")
                names[whole(segment, "id", f"{where}: a segment", path)] = categories[category]
            summary.kinds["segment"] += len(names)
            summary.names.update(names.values())
            image, file = images[identity], text_of(annotation, "file_name", f"{path}: {where}")
            entries[image["name"]] = json.dumps([image["height"], image["width"], file, list(names.items())]).encode()
        return Index(summary, entries)

    def draw(self, entry: bytes, path: Path, name: str) -> Drawing:
        """Return the segments of one image.

        Raises:
            UserError: its PNG is missing, has another size, or lacks a segment.
        """
        height, width, file, segments = json.loads(entry)
        picture = _find_picture(path, file)
        with open_picture(picture, "a panoptic label map") as opened:
            colors = np.asarray(opened.convert("RGB")).astype(np.int64)  # (H, W, 3)
        if colors.shape[:2] != (height, width):
            found = f"{colors.shape[1]} x {colors.shape[0]}"
            raise Unreadable(f"{picture}: is {found} pixels, but {path} has {width} x {height}; export both again")
        ids = colors @ np.array([1, 256, 65_536])  # (H, W)
        shapes = [_segment(ids == identity, label) for identity, label in segments if identity]
        skipped = Counter({"segment without pixels": sum(shape is None for shape in shapes)})
        kept = tuple(shape for shape in shapes if shape is not None)
        return Drawing(where=f"{path}: image {name!r}", size=(height, width), shapes=kept, skipped=+skipped)


def _segment(pixels: Any, label: str) -> Shape | None:
    """Return the shape of one segment (H, W), cut to its box. None if it has no pixel."""
    rows, columns = pixels.any(axis=1).nonzero()[0], pixels.any(axis=0).nonzero()[0]
    if not len(rows):
        return None
    top, left = int(rows[0]), int(columns[0])
    cut = pixels[top : rows[-1] + 1, left : columns[-1] + 1].copy()
    return Shape(name=label, kind="segment", area=PlacedMask(cut, top=top, left=left))


def _find_picture(path: Path, file: str) -> Path:
    """Return the PNG of one image."""
    folders = (path.with_suffix(""), path.parent, path.parent.parent / path.stem)
    name = Path(file.replace("\\", "/")).name
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    raise Unreadable(f"{path}: no picture {name} in {folders[0]}: put the PNG files of the panoptic labels there")

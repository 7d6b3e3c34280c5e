"""Write annotations in the formats of labelling tools, from which they can be corrected and trained on again.

    write_annotations("labelme", items, classes, folder)

Each polygon follows the sides of pixels, so an exact one gives its pixels back. Images are written one after another,
so any number of them fits the memory.

Letters: K classes.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO
from xml.sax.saxutils import quoteattr

import yaml

from segvit.prediction.annotations.annotated import Annotated, drawn_classes, score_of
from segvit.prediction.annotations.kinds import AnnotationFormat
from segvit.prediction.annotations.label_studio import polygon_results
from segvit.prediction.names import aside, explaining
from segvit.prediction.polygons import annotation_of, bridged


def write_annotations(kind: AnnotationFormat, items: Iterable[Annotated], classes: Sequence[str], folder: Path) -> Path:
    """Write the annotations of all images, and return the file or the folder that holds them.

    Args:
        kind: format.
        items: the images.
        classes: names (K,).
        folder: folder to write to.

    Raises:
        UserError: a file that cannot be written.
    """
    return WRITERS[kind](items, classes, folder)


def _write_coco(items: Iterable[Annotated], classes: Sequence[str], folder: Path) -> Path:
    """Write coco.json: every image, and one annotation per region with its score."""
    path = folder / "coco.json"
    categories = [{"id": number, "name": name} for number, name in drawn_classes(classes).items()]
    images: list[dict[str, Any]] = []
    with _open(path) as file:
        file.write(f'{{"categories": {_json(categories)},\n"annotations": [')
        count = 0
        for item in items:
            size = {"width": item.width, "height": item.height}
            images.append({"id": len(images) + 1, "file_name": f"{item.stem}{item.image.suffix}", **size})
            for index, region in enumerate(item.regions):
                annotation = annotation_of(region, number=count + 1, image=len(images))
                file.write(("," if count else "") + "\n" + _json(annotation | score_of(item, index)))
                count += 1
        file.write(f'],\n"images": {_json(images)}}}\n')
    return path


def _write_yolo(items: Iterable[Annotated], classes: Sequence[str], folder: Path) -> Path:
    """Write yolo/data.yaml, and yolo/labels with one text file per image."""
    names = drawn_classes(classes)
    numbers = {label: number for number, label in enumerate(names)}
    content = {"path": ".", "train": "images", "val": "images", "names": dict(enumerate(names.values()))}
    with _open(folder / "yolo" / "data.yaml") as file:
        file.write("# Copy or link the photos into the folder images beside the folder labels.\n")
        file.write(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    for item in items:
        size = (item.width, item.height)
        with _open(folder / "yolo" / "labels" / f"{item.stem}.txt") as file:
            for region in item.regions:
                shares = (bridged(region.rings) / size).ravel().tolist()
                file.write(f"{numbers[region.label]} {' '.join(f'{share:.9g}' for share in shares)}\n")
    return folder / "yolo"


def _write_labelme(items: Iterable[Annotated], classes: Sequence[str], folder: Path) -> Path:
    """Write labelme/NAME.json for each image, with the path from there to the photo."""
    for item in items:
        path = folder / "labelme" / f"{item.stem}.json"
        shapes = [
            {
                "label": classes[region.label],
                "points": bridged(region.rings).tolist(),
                "group_id": None,
                "description": "",
                "shape_type": "polygon",
                "flags": {},
                "mask": None,
            }
            for region in item.regions
        ]
        content: dict[str, Any] = {
            "version": "5.5.0",
            "flags": {},
            "shapes": shapes,
            "imagePath": _relative(item.image, path.parent),
            "imageData": None,
            "imageHeight": item.height,
            "imageWidth": item.width,
        }
        with _open(path) as file:
            file.write(_json(content) + "\n")
    return folder / "labelme"


def _write_cvat(items: Iterable[Annotated], classes: Sequence[str], folder: Path) -> Path:
    """Write cvat.xml, in the form "CVAT for images 1.1"."""
    path = folder / "cvat.xml"
    labels = "".join(
        f"<label><name>{_escaped(name)}</name><type>polygon</type><attributes></attributes></label>"
        for name in drawn_classes(classes).values()
    )
    with _open(path) as file:
        file.write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n')
        file.write(f"<meta><task><labels>{labels}</labels></task></meta>\n")
        for number, item in enumerate(items):
            name = quoteattr(f"{item.stem}{item.image.suffix}")
            file.write(f'<image id="{number}" name={name} width="{item.width}" height="{item.height}">\n')
            for order, region in enumerate(item.regions):
                points = ";".join(f"{x:.2f},{y:.2f}" for x, y in bridged(region.rings).tolist())
                label = quoteattr(classes[region.label])
                drawn = f'label={label} source="auto" occluded="0" points="{points}" z_order="{order}"'
                file.write(f"<polygon {drawn}></polygon>\n")
            file.write("</image>\n")
        file.write("</annotations>\n")
    return path


def _write_label_studio(items: Iterable[Annotated], classes: Sequence[str], folder: Path) -> Path:
    """Write label-studio.json: one task per image, with a prediction that can be accepted or corrected."""
    path = folder / "label-studio.json"
    with _open(path) as file:
        file.write("[")
        for number, item in enumerate(items):
            results = polygon_results(item, drawn_classes(classes), from_name="label", to_name="image")
            task = {
                "data": {"image": f"{item.stem}{item.image.suffix}"},
                "predictions": [{"model_version": "segvit", "result": results}],
            }
            file.write(("," if number else "") + "\n" + _json(task))
        file.write("]\n")
    return path


def _write_geojson(items: Iterable[Annotated], classes: Sequence[str], folder: Path) -> Path:
    """Write geojson/NAME.geojson for each image: polygons with holes, in pixels, y downwards."""
    for item in items:
        features = [
            {
                "type": "Feature",
                "properties": {
                    "class": classes[region.label],
                    "area": region.area,
                    **score_of(item, index),
                },
                "geometry": {
                    "type": "Polygon",
                    "coordinates": [[*ring.tolist(), ring[0].tolist()] for ring in region.rings],
                },
            }
            for index, region in enumerate(item.regions)
        ]
        about = {"image": item.image.name, "width": item.width, "height": item.height}
        content = {"type": "FeatureCollection", "properties": about, "features": features}
        with _open(folder / "geojson" / f"{item.stem}.geojson") as file:
            file.write(_json(content) + "\n")
    return folder / "geojson"


WRITERS: dict[AnnotationFormat, Callable[[Iterable[Annotated], Sequence[str], Path], Path]] = {
    "coco": _write_coco,
    "yolo": _write_yolo,
    "labelme": _write_labelme,
    "cvat": _write_cvat,
    "label-studio": _write_label_studio,
    "geojson": _write_geojson,
}


@contextmanager
def _open(path: Path) -> Iterator[TextIO]:
    """Open a text file that gets its name when it is whole. Missing folders are made."""
    with explaining(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside(path) as place, place.open("w", encoding="utf-8", newline="\n") as file:
            yield file


def _relative(image: Path, folder: Path) -> str:
    """Return the path of a photo from a folder, or its full path if they are on different drives."""
    try:
        return Path(os.path.relpath(image.absolute(), folder.absolute())).as_posix()
    except ValueError:
        return image.absolute().as_posix()


def _json(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False)


def _escaped(text: str) -> str:
    return quoteattr(text)[1:-1]

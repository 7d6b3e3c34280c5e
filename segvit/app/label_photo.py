"""Label one photo with some models, and write the files of the result. This runs in a worker.

The files of a model are in a folder named by its number: NAME.png (the index PNG of `segvit predict`),
NAME_overlay.png, NAME.json (polygons in COCO format), viewer.html and thumbnail.jpg. If the results of several models
are shown side by side, NAME ends with the name of the model.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from segvit.app.limits import Limits
from segvit.app.messages import About, Job, Labelled, Seen, Setup, file_safe
from segvit.app.photo import open_photo
from segvit.app.size_hint import size_hint
from segvit.config import PrecisionChoice
from segvit.data.bands.header import read_header
from segvit.data.bands.names import COLORS
from segvit.data.bands.reading import Pixels, Reading, read_pixels
from segvit.data.bands.remarks import remarks
from segvit.data.images import Unreadable
from segvit.data.labels.format import FOLDERS
from segvit.errors import UserError
from segvit.inference.network import Network, described, reading_of
from segvit.inference.precision import resolve_precision
from segvit.inference.runtimes import place_for
from segvit.pictures.paint import overlay, save_index_png
from segvit.prediction.photo import Prediction, label_photo
from segvit.prediction.polygons import coco
from segvit.reports.viewer import viewer_page
from segvit.utils.device import resolve_device
from segvit.utils.text import counted
from segvit.weights.load import load_network

VIEWER, THUMBNAIL = "viewer.html", "thumbnail.jpg"
THUMBNAIL_SIDE = 256
"""Longer side of a thumbnail in pixels: twice its size on the page, for sharp screens."""
USUAL_NAMES = {"best", "last", "model"}
"""Stems of model files that are too common: the folder's name is used instead."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """A loaded model."""

    about: About
    network: Network
    precision: PrecisionChoice | None

    def look(self, image: Pixels) -> tuple[Prediction, float]:
        """Return the prediction for an image as the model takes it, and the milliseconds it took."""
        begin = time.perf_counter()
        result = label_photo(self.network, image, precision=self.precision)
        return result, 1000 * (time.perf_counter() - begin)


def load_models(setup: Setup) -> list[Model]:
    """Load the models of the page and run each once, because the first run is slower than later ones.

    Raises:
        UserError: a model cannot be loaded, takes other bands than red, green, blue, or does not run on that device or
            in that precision.
    """
    models = []
    for path, name in zip(setup.models, short_names(setup.models), strict=True):
        network = load_network(path, device=resolve_device(place_for(path, setup.device)))
        if len(network.mean) != COLORS:
            raise UserError(
                f"{path} takes images of {counted(len(network.mean), 'band')}, and the page takes photos: type "
                f"`segvit predict {path} IMAGES`"
            )
        chosen = resolve_precision(network, setup.precision)
        metrics = network.extra.get("metrics") or {}
        side = network.image_size
        result = label_photo(network, torch.zeros(COLORS, side, side), precision=setup.precision)
        about = About(
            name=name,
            classes=result.classes,
            palette=result.palette,
            **described(network),
            dataset=network.spec.name if network.spec and network.spec.name != FOLDERS else None,
            miou=metrics.get("miou"),
            images=metrics.get("images"),
            licence=network.extra.get("licence"),
            place=f"{network.mean.device.type}, {chosen.name}",
        )
        models.append(Model(about=about, network=network, precision=setup.precision))
    return models


def short_names(models: Sequence[str]) -> list[str]:
    """Return unique names of models for the page: the file's stem, or its folder if the stem is too common."""
    names: list[str] = []
    for text in models:
        path = Path(text)
        name = text if not path.suffix else path.stem
        if path.suffix and path.stem in USUAL_NAMES and path.absolute().parent.name:
            name = path.absolute().parent.name
        if name in names and path.suffix:
            name = f"{path.absolute().parent.name}/{path.stem}"
        number = names.count(name) and 1 + sum(other == name or other.startswith(f"{name} (") for other in names)
        names.append(f"{name} ({number})" if number else name)
    return names


@torch.inference_mode()
def label(job: Job, models: Sequence[Model], limits: Limits) -> Labelled:
    """Label a photo with the models that a job names, and write the viewer and the downloads.

    Raises:
        UserError: the photo is refused or cannot be read.
    """
    photo = open_photo(job.photo, name=job.name, limits=limits)
    pixels = np.asarray(photo.image)
    height, width = pixels.shape[:2]
    seen: list[Seen] = []
    notes = list(photo.notes)
    first: Prediction | None = None
    for number, model in enumerate(models):
        if model.about.name not in job.models:
            continue
        hint = size_hint(model.network.protocol, model.network.image_size, height=height, width=width)
        if hint is not None:
            notes.append(hint if len(job.models) == 1 else f"{model.about.name}: {hint}")
        reading = reading_of(model.network)
        header = read_header(job.photo)
        deep = reading.floats or (header is not None and (header.is_deep or header.tiff))
        found = _read(job, reading) if deep else Pixels(pixels)
        notes += [f"{job.name}: {text}." for text in remarks(found, reading)]
        result, milliseconds = model.look(found)
        agreement = None
        if first is not None and first.classes == result.classes:
            agreement = float((first.labels == result.labels).mean())
        first = first or result
        folder = job.folder / str(number)
        folder.mkdir(parents=True)
        seen.append(_write(result, model.about, folder, job, milliseconds=milliseconds, agreement=agreement))
    return Labelled(name=job.name, width=width, height=height, notes=notes, seen=seen)


def _read(job: Job, reading: Reading) -> Pixels:
    """Read a photo at full depth. Errors have its name in place of the path, which visitors need not see."""
    try:
        return read_pixels(job.photo, reading)
    except UserError as error:
        raise Unreadable(str(error).replace(str(job.photo), job.name)) from error


def _write(
    result: Prediction, about: About, folder: Path, job: Job, *, milliseconds: float, agreement: float | None
) -> Seen:
    """Write the files of one model."""
    stem, title = Path(job.name).stem or "photo", job.name
    if job.model_in_names:
        title = f"{stem} · {about.name}"
        stem = f"{stem}_{file_safe(about.name)}"
    labels, picture, polygons = folder / f"{stem}.png", folder / f"{stem}_overlay.png", folder / f"{stem}.json"
    save_index_png(result.labels, result.palette, labels)
    result.overlay().save(picture, format="PNG", compress_level=1)  # 3 x as fast as the default, a quarter larger
    polygons.write_text(json.dumps(coco(result.labels, result.classes, file_name=job.name)), encoding="utf-8")
    viewer = None
    if job.viewer:
        viewer = folder / VIEWER
        page = viewer_page(
            Image.fromarray(result.image), labels.read_bytes(), result.classes, result.palette, title=title
        )
        viewer.write_text(page, encoding="utf-8")
    thumbnail = None
    if job.thumbnail:
        thumbnail = folder / THUMBNAIL
        thumbnail_of(result).save(thumbnail, format="JPEG", quality=85)
    return Seen(
        model=about.name,
        milliseconds=milliseconds,
        shares=result.shares(),
        labels=labels,
        overlay=picture,
        polygons=polygons,
        viewer=viewer,
        thumbnail=thumbnail,
        agreement=agreement,
    )


def thumbnail_of(result: Prediction) -> Image.Image:
    """Return a small overlay without a legend. The label map is reduced before it is painted, so this is fast."""
    height, width = result.labels.shape
    small = Image.fromarray(result.image)
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    rows = (2 * np.arange(small.height) + 1) * height // (2 * small.height)
    columns = (2 * np.arange(small.width) + 1) * width // (2 * small.width)
    return Image.fromarray(overlay(np.asarray(small), result.labels[np.ix_(rows, columns)], result.palette))

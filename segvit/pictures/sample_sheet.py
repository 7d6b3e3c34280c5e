"""Contact sheets of samples and of training crops with their labels drawn over them, to check them at a glance.

contact_sheet_of(survey.samples, survey.reports).save("sheet.png")
crop_sheet(images, labels, names, spec).save("train_batches.png")

Letters: B crops, H, W size of a crop.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from segvit.data.bands.reading import as_picture, read_pixels
from segvit.data.check.check import CheckReport
from segvit.data.check.report import SplitName
from segvit.data.dataset import Samples, SegmentationDataset
from segvit.data.palette import Color
from segvit.data.spec import IGNORE_INDEX, UNKNOWN, DatasetSpec
from segvit.errors import UserError
from segvit.pictures import contact_sheet, overlay, shares, with_legend
from segvit.utils.sizes import scaled

SAMPLES, COLUMNS = 12, 4
"""Number of samples on a sheet, and of columns."""
CELL = (400, 400)
"""Maximum width and height of a sample in pixels."""
UNKNOWN_COLOR: Color = (255, 0, 255)
"""Colour of mask values that are neither a class nor ignored."""

Place = tuple[SplitName, int]
"""Split, and index of a sample in it."""


def contact_sheet_of(samples: Mapping[SplitName, Samples], reports: Mapping[SplitName, CheckReport]) -> Image.Image:
    """Draw up to twelve samples of all splits with their labels over them, their names, and a legend.

    Args:
        samples: samples of each split.
        reports: check report of each split.

    Raises:
        UserError: no sample has an image and labels that can be read and match in size.
    """
    places = choose(reports)
    if not places:
        raise UserError("--sheet: no image has labels that can be drawn over it; fix the reported errors first")
    spec = next(iter(samples.values())).spec
    cells, names, parts = [], [], []
    for split, index in places:
        picture, index_map = _draw(samples[split], index)
        cells.append(picture)
        names.append(f"{split} {_name(samples[split], index)}")
        parts.append(np.bincount(index_map.ravel(), minlength=spec.num_classes + 2) / index_map.size)
    fractions = np.mean(parts, axis=0)[:-1]  # drop the last, ignored: it is the rest up to 1
    return with_legend(
        _arrange(cells, names),
        (*spec.classes, "(unknown value)"),
        (*spec.palette, UNKNOWN_COLOR),
        fractions,
    )


def crop_sheet(
    images: npt.NDArray[np.uint8], labels: npt.NDArray[np.integer], names: Sequence[str], spec: DatasetSpec
) -> Image.Image:
    """Draw training crops with their labels over them, their names, and a legend.

    Args:
        images: (B, H, W, 3).
        labels: (B, H, W), class indices and 255 for ignored pixels.
        names: of the B crops.
        spec: their classes.
    """
    cells = [overlay(image, of, spec.palette) for image, of in zip(images, labels, strict=True)]
    scale = min(1.0, CELL[0] / images.shape[2], CELL[1] / images.shape[1])
    size = (scaled(images.shape[2], scale), scaled(images.shape[1], scale))
    small = [np.asarray(Image.fromarray(cell).resize(size, Image.Resampling.LANCZOS)) for cell in cells]
    fractions = np.mean([shares(of, spec.num_classes) for of in labels], axis=0)
    return with_legend(_arrange(small, names), spec.classes, spec.palette, fractions)


def _arrange(cells: Sequence[npt.NDArray[np.uint8]], names: Sequence[str]) -> Image.Image:
    """Return a sheet of rows of cells with the names below each row."""
    rows = [cells[start : start + COLUMNS] for start in range(0, len(cells), COLUMNS)]
    captions = [" | ".join(names[start : start + COLUMNS]) for start in range(0, len(names), COLUMNS)]
    return contact_sheet(rows, captions=captions)


def choose(reports: Mapping[SplitName, CheckReport], count: int = SAMPLES) -> list[Place]:
    """Choose samples to show, in order: some that EXIF may have rotated, the rarest classes, evenly spaced ones."""
    pool = {
        (split, index): classes
        for split, report in reports.items()
        for index, classes in enumerate(report.classes)
        if classes is not None
    }
    images = Counter(k for classes in pool.values() for k in classes)
    chosen: dict[Place, None] = dict.fromkeys(
        [(split, index) for split, report in reports.items() for index in report.turned][: count // 4]
    )
    covered = {k for place in chosen for k in pool.get(place, b"")}
    for k in sorted(images, key=lambda k: (images[k], k)):
        if len(chosen) >= count * 2 // 3:
            break
        if k not in covered:
            best = max(
                (place for place, classes in pool.items() if k in classes), key=lambda p: _rarity(pool[p], images)
            )
            chosen[best] = None
            covered |= set(pool[best])
    rest = [place for place in pool if place not in chosen]
    wanted = min(count - len(chosen), len(rest))
    chosen |= dict.fromkeys(rest[(2 * i + 1) * len(rest) // (2 * wanted)] for i in range(wanted))
    order = {place: position for position, place in enumerate(pool)}
    return sorted(chosen, key=lambda place: order.get(place, -1))


def _rarity(classes: bytes, images: Counter[int]) -> float:
    """Score a sample: high if it contains many rare classes."""
    return sum(1 / images[k] for k in classes)


def _draw(samples: Samples, index: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.intp]]:
    """Return a sample's overlay in cell size, and its label map (H, W) with K for unknown and K + 1 for ignored."""
    spec = samples.spec
    if isinstance(samples, SegmentationDataset):
        photo = Image.fromarray(as_picture(read_pixels(samples.pairs[index].image, samples.reading).values))
        labels = _known(samples.read_raw(index), spec)
    else:
        sample = samples.read(index)
        photo = Image.fromarray(as_picture(sample.image.permute(1, 2, 0).numpy()))
        labels = sample.labels.numpy().astype(np.intp)
        labels[labels == IGNORE_INDEX] = spec.num_classes + 1
    scale = min(1.0, CELL[0] / photo.width, CELL[1] / photo.height)
    size = (scaled(photo.width, scale), scaled(photo.height, scale))
    small = np.asarray(Image.fromarray(labels.astype(np.uint16)).resize(size, Image.Resampling.NEAREST))
    shown = np.where(small == spec.num_classes + 1, -1, small.astype(np.intp))
    picture = overlay(np.asarray(photo.resize(size, Image.Resampling.LANCZOS)), shown, (*spec.palette, UNKNOWN_COLOR))
    return picture, labels


def _known(raw: npt.NDArray[np.integer], spec: DatasetSpec) -> npt.NDArray[np.intp]:
    """Convert raw mask values (H, W) to class indices, with K for unknown and K + 1 for ignored."""
    table = spec.lookup().astype(np.intp)
    inside = (raw >= 0) & (raw < len(table))
    labels = table[np.where(inside, raw, 0)]
    labels[labels == IGNORE_INDEX] = spec.num_classes + 1
    labels[(labels == UNKNOWN) | ~inside] = spec.num_classes
    return labels


def _name(samples: Samples, index: int) -> str:
    """Return the caption of a sample."""
    return samples.pairs[index].name if isinstance(samples, SegmentationDataset) else samples.describe(index)

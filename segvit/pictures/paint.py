"""Paint label maps: as an overlay, alone, as an error map, or as a PNG of class indices.

    labels = result.labels                                         # (H, W), 0..K-1, 255 = ignored
    picture = overlay(image, labels, spec.palette)                 # (H, W, 3)
    with_legend(picture, spec.classes, spec.palette, shares(labels, spec.num_classes)).save("overlay.png")

Letters: H W height and width in pixels, K classes. An image is uint8 (H, W, 3) in RGB. A palette holds K colours
(R, G, B) with values in 0..255. Ignored pixels are -1, or also 255 if K <= 255. They never get the colour of a class.
A colour of None in the palette of an overlay leaves the class unpainted. All functions are deterministic.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageFilter

from segvit.data.labels.background import is_background
from segvit.data.palette import Color
from segvit.data.spec import IGNORE_INDEX
from segvit.errors import UserError

Labels = npt.NDArray[np.integer[Any]]
Pixels = npt.NDArray[np.uint8]

Index = npt.NDArray[np.uint8] | npt.NDArray[np.int32]
"""Class indices in which K means ignored."""

STRIP_PIXELS = 2**22
"""Largest part of an image that is painted at a time, so that a photo of 100 megapixels takes no gigabytes."""
IGNORED = (235, 235, 235)
"""Colour of ignored pixels in legends, and in label maps that are not overlays."""
WRONG = (213, 94, 0)
"""Colour of wrong pixels in an error map: vermillion, visible on grey even with red-green colour blindness."""
LINE = (255, 255, 255)
"""Colour of the line between two classes."""
IGNORED_16_BIT = 65_535
"""Value of ignored pixels in a 16-bit index PNG."""


def shares(labels: Labels, num_classes: int) -> npt.NDArray[np.float64]:
    """Return the fraction of all pixels that each class covers, (K,); the rest up to 1 is ignored.

    Raises:
        UserError: a label is neither a class nor ignored.
    """
    index = _class_index(labels, num_classes)
    counts = np.zeros(num_classes + 1, dtype=np.int64)
    for rows in _strips(index.shape):
        counts += np.bincount(index[rows].ravel(), minlength=num_classes + 1)
    return counts[:num_classes] / index.size


def colorize(labels: Labels, palette: Sequence[Color], *, ignored: Color = (0, 0, 0)) -> Pixels:
    """Paint each pixel in the colour of its class, (H, W) -> (H, W, 3), and ignored pixels in the colour `ignored`.

    Raises:
        UserError: a label is neither a class nor ignored.
    """
    return np.array([*palette, ignored], dtype=np.uint8)[_class_index(labels, len(palette))]


def without_background(names: Sequence[str], palette: Sequence[Color | None]) -> tuple[Color | None, ...]:
    """Return a palette (K,) with None for the class that is called background.

    Raises:
        UserError: no class has such a name.
    """
    found = [is_background(name) for name in names]
    if not any(found):
        shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
        raise UserError(
            f"no class is called background, so none can be left unpainted; the classes are {shown}: leave out "
            "--no-background (background=False)"
        )
    return tuple(None if hidden else color for hidden, color in zip(found, palette, strict=True))


def overlay(
    image: Pixels, labels: Labels, palette: Sequence[Color | None], *, opacity: float = 0.6, contours: bool = True
) -> Pixels:
    """Blend the class colours into the photo, (H, W, 3); ignored and unpainted pixels keep the photo's colours.

    The fine detail of the photo is added back on top, so edges and textures stay readable at any opacity.

    Args:
        opacity: weight of the class colours, 0..1.
        contours: draw a thin white line with a dark edge between classes.

    Raises:
        UserError: the sizes differ, or a label is neither a class nor ignored.
    """
    _check_pair(image, labels)
    if not 0 <= opacity <= 1:
        raise UserError(f"opacity is {opacity}; give a number from 0 (the photo) to 1 (the colours)")
    index = _class_index(labels, len(palette))
    smooth = _smooth(image) if opacity > 0 else None
    colors = np.array([*(color or (0, 0, 0) for color in palette), (0, 0, 0)], dtype=np.uint8)
    painted = np.array([color is not None for color in palette] + [False])
    result = np.empty_like(image)
    for rows in _strips(index.shape):
        photo = Image.fromarray(image[rows])
        mixed = Image.blend(photo, Image.fromarray(colors[index[rows]]), opacity)
        if smooth is not None:
            grey, around = photo.convert("L"), smooth.crop((0, rows.start, smooth.width, rows.stop))
            detail = ImageChops.subtract(grey, around, scale=1 / (0.7 * opacity), offset=128)
            mixed = ImageChops.add(mixed, Image.merge("RGB", (detail, detail, detail)), offset=-128)
        mixed = Image.composite(mixed, photo, _mask(painted[index[rows]]))
        if contours:
            _draw_contours(mixed, index, len(palette), rows)
        result[rows] = np.asarray(mixed)
    return result


def error_map(image: Pixels, predicted: Labels, labels: Labels, *, num_classes: int) -> Pixels:
    """Paint wrong pixels orange, correct ones as a grey photo, and ignored ones dark and hatched: (H, W, 3).

    Raises:
        UserError: the sizes differ, or a label is neither a class nor ignored.
    """
    _check_pair(image, predicted)
    _check_pair(image, labels)
    truth = _class_index(labels, num_classes)
    wrong = truth != _class_index(predicted, num_classes)
    grey = Image.fromarray(image).convert("L")
    pale = grey.point(lambda value: round(90 + 0.6 * value)).convert("RGB")
    orange = Image.blend(pale, Image.new("RGB", pale.size, WRONG), 0.75)
    picture = Image.composite(orange, pale, _mask(wrong))
    rows, columns = np.ogrid[: labels.shape[0], : labels.shape[1]]
    period = max(4, round(max(labels.shape) / 80))
    stripe = (rows + columns) % period < max(1, period // 4)
    hatch = np.where(stripe[:, :, None], np.uint8(85), np.uint8(40)).repeat(3, axis=2)
    return np.array(Image.composite(Image.fromarray(hatch), picture, _mask(truth == num_classes)))


def save_index_png(labels: Labels, palette: Sequence[Color], path: Path) -> None:
    """Write class indices as a PNG: 8 bits with the palette for up to 255 classes, else 16-bit grey.

    Ignored pixels become 255 (black in the palette), or 65535 in 16 bits.

    Raises:
        UserError: a label is neither a class nor ignored.
    """
    index = _class_index(labels, len(palette))
    ignored = index == len(palette)
    if len(palette) > IGNORE_INDEX:
        Image.fromarray(np.where(ignored, IGNORED_16_BIT, index).astype(np.uint16)).save(path, format="PNG")
        return
    picture = Image.fromarray(np.where(ignored, IGNORE_INDEX, index).astype(np.uint8))
    colors = np.zeros((IGNORE_INDEX + 1 if ignored.any() else len(palette), 3), dtype=np.uint8)
    colors[: len(palette)] = palette
    picture.putpalette(colors.tobytes())  # converts the grey image to palette mode
    picture.save(path, format="PNG", bits=8)


def _class_index(labels: Labels, num_classes: int) -> Index:
    """Return the labels with ignored pixels set to K, (H, W)."""
    if labels.ndim != 2 or labels.size == 0:
        raise UserError(f"labels have the shape {labels.shape}; give one label map (H, W)")
    # A byte a pixel is an eighth of the memory of an index of NumPy.
    index: Index = labels.astype(np.uint8) if num_classes <= IGNORE_INDEX else labels.astype(np.int32)
    if labels.min() >= 0 and labels.max() < num_classes:
        return index
    ignored = (labels == -1) | ((labels == IGNORE_INDEX) & (num_classes <= IGNORE_INDEX))
    strange = ~ignored & ((labels < 0) | (labels >= num_classes))
    if strange.any():
        void = IGNORE_INDEX if num_classes <= IGNORE_INDEX else -1
        raise UserError(
            f"label {labels[strange][0]} among {num_classes} classes; give 0..{num_classes - 1}, or {void} for ignored"
        )
    index[ignored] = num_classes
    return index


def _strips(shape: tuple[int, ...]) -> Iterator[slice]:
    """Yield the rows of an image (H, W), a strip of at most `STRIP_PIXELS` at a time and at least one row."""
    height, width = shape
    step = max(STRIP_PIXELS // width, 1)
    return (slice(top, min(top + step, height)) for top in range(0, height, step))


def _smooth(image: Pixels) -> Image.Image:
    """Return the photo (H, W, 3) in grey, without its detail."""
    grey = Image.new("L", (image.shape[1], image.shape[0]))
    for rows in _strips(image.shape[:2]):
        grey.paste(Image.fromarray(image[rows]).convert("L"), (0, rows.start))
    return grey.filter(ImageFilter.GaussianBlur(max(image.shape[:2]) / 60))


def _check_pair(image: Pixels, labels: Labels) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise UserError(
            f"the image is {image.dtype} {image.shape}; give uint8 (H, W, 3), such as image.permute(1, 2, 0).numpy()"
        )
    if image.shape[:2] != labels.shape:
        raise UserError(f"the image is {image.shape[:2]} and the labels are {labels.shape}; give maps of the same size")


def _mask(chosen: npt.NDArray[np.bool_]) -> Image.Image:
    return Image.fromarray(chosen.astype(np.uint8) * 255)


def _draw_contours(picture: Image.Image, index: Index, num_classes: int, rows: slice) -> None:
    """Draw lines between classes into the picture of some rows, about 1/900 of the image's longer side wide.

    No line is thinner than one pixel. On smaller images the line is fainter instead, so thin objects stay visible.
    """
    width = max(index.shape) / 900
    reach = round(width) // 2 + 2  # rows beside the strip whose edges reach into it
    top = max(rows.start - reach, 0)
    near = index[top : rows.stop + reach]
    edge = np.zeros(near.shape, dtype=bool)
    labelled = near < num_classes
    edge[:, :-1] |= (near[:, :-1] != near[:, 1:]) & labelled[:, :-1] & labelled[:, 1:]
    edge[:-1] |= (near[:-1] != near[1:]) & labelled[:-1] & labelled[1:]
    strength = 0.85 * min(1.0, width)
    line = _thicken(edge, round(width) // 2)
    inside = slice(rows.start - top, rows.stop - top)
    core, halo = _mask(line[inside]), _mask(_thicken(line, 1)[inside])
    picture.paste((0, 0, 0), (0, 0), halo.point(lambda value: round(value * 0.4 * strength)))
    picture.paste(LINE, (0, 0), core.point(lambda value: round(value * strength)))


def _thicken(marked: npt.NDArray[np.bool_], by: int) -> npt.NDArray[np.bool_]:
    """Mark all pixels within `by` pixels of a marked one: (H, W). Pillow's MaxFilter is slow and may crash."""
    for axis in (0, 1):
        thick = marked.copy()
        here, there = thick.swapaxes(0, axis), marked.swapaxes(0, axis)
        for step in range(1, by + 1):
            here[step:] |= there[:-step]
            here[:-step] |= there[step:]
        marked = thick
    return marked

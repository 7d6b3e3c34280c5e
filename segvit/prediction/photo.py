"""Label photos with a model in memory, and show, save or trace the result.

    result = label_photo(model, "photo.jpg")
    result.labels                      # (H, W) int64, at the size as displayed
    result.save("seen.png")

Letters: K classes, H W image.
"""

import io
import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor

from segvit.config import EvalConfig, PrecisionChoice
from segvit.data.bands.reading import Pixels, Reading, as_picture
from segvit.data.bands.remarks import remarks
from segvit.data.bands.sources import to_pixels
from segvit.data.bands.tensors import to_tensor
from segvit.data.images import Source
from segvit.data.palette import Color
from segvit.errors import UserError
from segvit.inference.network import Network, classes_of, reading_of
from segvit.inference.precision import computing_in, resolve_precision
from segvit.inference.protocol import image_confidence, image_labels
from segvit.pictures import overlay, save_index_png, shares, with_legend
from segvit.pictures.paint import without_background
from segvit.prediction.polygons import Region, coco, outlines
from segvit.utils.files import expanded, writing
from segvit.utils.text import percentage

Photo = Source | Tensor
"""A photo as users give it: a file, a PIL image, an array, or a tensor (3, H, W), uint8 or float in 0..1. N bands
take the place of 3 for a model of N bands."""
P = TypeVar("P", bound=Photo)
Photos = list[P] | tuple[P, ...] | Iterator[P]
"""Several photos, such as `["a.jpg", "b.jpg"]` or `Path("photos").glob("*.jpg")`."""

SHOWN_SIDE = 1024
"""Longest side in pixels of the picture that a notebook shows."""
LISTED = 4
"""Number of classes that the text of a prediction names."""
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
"""Suffixes of the files that an overlay can be saved as."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Prediction:
    """Labels of one photo.

    Examples:
        >>> import segvit
        >>> result = segvit.predict("best.safetensors", "photo.jpg")
        >>> result.labels.shape  # (H, W), the class index of each pixel
        (48, 64)
        >>> picture = result.save("seen.png")  # the overlay with its legend
        >>> labels = result.save("labels.png", labels=True)  # the class indices, with the palette
        >>> polygons = result.save("regions.json")  # in COCO format
        >>> sum(region.area for region in result.polygons())
        3072
    """

    image: npt.NDArray[np.uint8]
    """The image uint8 (H, W, 3), RGB, upright. Of other bands, the first three, or the first as grey."""
    labels: npt.NDArray[np.int64]
    """(H, W) class indices, 0..K-1."""
    classes: tuple[str, ...]
    """Names (K,)."""
    palette: tuple[Color, ...]
    """Colours (K,)."""
    confidence: npt.NDArray[np.float32] | None
    """(H, W) share of the winning class in the scores of a pixel, 0..1; None unless asked for."""
    path: Path | None = None
    """File of the photo; None if it was given as an image, an array or a tensor."""

    def __repr__(self) -> str:
        height, width = self.labels.shape
        found = [f"{name} {percentage(share)}" for name, share in self.shares().items()]
        more = [f"{len(found) - LISTED} more"] if len(found) > LISTED else []
        photo = f"{self.path}, " if self.path else ""
        return f"Prediction({photo}{height} x {width}: {', '.join(found[:LISTED] + more)})"

    def _repr_png_(self) -> bytes:
        """Return the overlay as PNG, as a notebook shows it."""
        picture = self.overlay()
        picture.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
        content = io.BytesIO()
        picture.save(content, format="PNG")
        return content.getvalue()

    def shares(self) -> dict[str, float]:
        """Return the share of the pixels of each class that is present, by name, largest first."""
        fractions = shares(self.labels, len(self.classes))
        order = np.argsort(-fractions)
        return {self.classes[index]: float(fractions[index]) for index in order if fractions[index] > 0}

    def overlay(self, *, opacity: float = 0.6, legend: bool = True, background: bool = True) -> Image.Image:
        """Draw the classes in colour over the image, with a legend below.

        Args:
            opacity: opacity of the colours.
            legend: name the classes.
            background: paint the class that is called background.

        Raises:
            UserError: `background` is false, and no class is called background.
        """
        palette = self.palette if background else without_background(self.classes, self.palette)
        picture = Image.fromarray(overlay(self.image, self.labels, palette, opacity=opacity))
        if not legend:
            return picture
        return with_legend(picture, self.classes, palette, shares(self.labels, len(self.classes)))

    def show(self) -> None:
        """Open the overlay in the picture viewer of this computer; in a notebook, show it below the cell."""
        self.overlay().show()

    def polygons(self) -> list[Region]:
        """Return the outline of every connected region of a class.

        A region's `label` is its class, `area` its size in pixels. `rings` are its corners (N, 2) as x and y in pixels.
        The first ring is the outer one, the others are holes.
        """
        return outlines(self.labels)

    def save(self, path: str | Path, *, labels: bool = False) -> Path:
        """Write a file whose suffix decides its kind, and return its path. A missing folder is created.

        Args:
            path: a picture (.png, .jpg, .webp, ...) gets the overlay with its legend; .json gets polygons in COCO
                format.
            labels: write the class indices in place of the overlay, with the palette, to a .png.

        Raises:
            UserError: another suffix, the file of the photo itself, or a file that cannot be written.
        """
        path = Path(expanded(path))
        suffix = path.suffix.lower()
        allowed = (".png",) if labels else (*PICTURE_SUFFIXES, ".json")
        if suffix not in allowed:
            what = "class indices are" if labels else "a prediction is"
            raise UserError(f"{path}: {what} saved as {', '.join(allowed)}: give a name such as {path.stem}.png")
        if self.path is not None and path.resolve() == self.path.resolve():
            raise UserError(f"{path} is the photo itself and would be lost: give another file, such as seen.png")
        with writing(path, "give another file"):
            path.parent.mkdir(parents=True, exist_ok=True)
            if suffix == ".json":
                name = self.path.name if self.path else "photo.jpg"
                content = coco(self.labels, self.classes, file_name=name)
                path.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")
            elif labels:
                save_index_png(self.labels, self.palette, path)
            else:
                self.overlay().save(path)
        return path


def label_photo(
    model: Network,
    source: Photo | Pixels,
    *,
    config: EvalConfig | None = None,
    precision: PrecisionChoice | None = None,
    confidence: bool = False,
    warn: bool = True,
) -> Prediction:
    """Label one photo: see `segvit.predict`. It may also be one that was read for this model.

    Args:
        warn: issue a warning if the file was read in another way than expected.

    Raises:
        UserError: as `segvit.predict`.
    """
    reading = reading_of(model)
    pixels = source if isinstance(source, Pixels) else _to_pixels(source, reading)
    for text in remarks(pixels, reading) if warn else ():
        warnings.warn(f"{_name(source)}: {text}", UserWarning, stacklevel=4)
    tensor = to_tensor(pixels.values)
    certainty = None
    with computing_in(resolve_precision(model, precision), model.mean.device):
        if confidence:
            labels, share = image_confidence(model, tensor, config)
            certainty = share.cpu().numpy()
        else:
            labels = image_labels(model, tensor, config)
    classes, palette = classes_of(model)
    return Prediction(
        image=as_picture(pixels.values),
        labels=labels.cpu().numpy(),
        classes=classes,
        palette=palette,
        confidence=certainty,
        path=Path(expanded(source)) if isinstance(source, str | Path) else None,
    )


def label_photos(
    model: Network,
    source: Photo | Photos[P],
    *,
    config: EvalConfig | None = None,
    precision: PrecisionChoice | None = None,
    confidence: bool = False,
) -> Prediction | list[Prediction]:
    """Label a photo, or each of several: see `segvit.predict`.

    Raises:
        UserError: as there.
    """
    if not isinstance(source, list | tuple | Iterator):
        return label_photo(model, source, config=config, precision=precision, confidence=confidence)
    return [label_photo(model, each, config=config, precision=precision, confidence=confidence) for each in source]


def _name(source: object) -> str:
    """Return the name of a photo for a warning."""
    return str(source) if isinstance(source, str | Path) else "the image"


def _to_pixels(source: Photo, reading: Reading) -> Pixels:
    """Return any photo as the model takes it.

    Raises:
        UserError: as `to_pixels`, or a tensor that is not one photo (N, H, W).
    """
    if not isinstance(source, Tensor):
        return to_pixels(source, reading)
    shape = tuple(source.shape)
    if source.ndim == 4:
        raise UserError(
            f"a tensor {shape} is a batch: type model.predict(images) for its label maps (B, H, W), or "
            "segvit.predict(model, list(images)) for a result of each photo"
        )
    if source.ndim != 3 or source.shape[0] not in (1, reading.bands):
        raise UserError(f"a tensor {shape}: give ({reading.bands}, H, W), or an array (H, W, {reading.bands})")
    pixels = source.detach().cpu()
    planes: npt.NDArray[np.uint8] = (pixels.float() if pixels.is_floating_point() else pixels).numpy()
    return to_pixels(planes[0] if len(planes) == 1 else planes.transpose(1, 2, 0), reading)

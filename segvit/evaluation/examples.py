"""Pictures of some evaluated images: photo, labels, prediction, errors.

for shot in take_shots([0, 7], model=model, dataset=dataset, config=model.protocol): ...
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from segvit.config import EvalConfig
from segvit.data.bands.reading import as_picture
from segvit.data.dataset import Samples
from segvit.inference.network import Network
from segvit.inference.protocol import image_labels
from segvit.pictures import IGNORED, colorize, error_map, overlay, shares

SIDE = 480
"""Longer side in pixels of a picture."""
MAPS_SIDE = 1024
"""Longer side in pixels of the maps for the viewer."""
COLUMNS = ("photo", "labels", "prediction", "errors")


@dataclass(frozen=True, kw_only=True)
class Maps:
    """Photo and label maps of one size (h, w), no larger than MAPS_SIDE. Each pixel of a map is one of the original."""

    photo: Image.Image
    prediction: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    """255 = ignored."""


@dataclass(frozen=True, kw_only=True)
class Shot:
    """Pictures of one image and its prediction, no larger than SIDE."""

    index: int
    """Position in the dataset."""
    name: str
    photo: Image.Image
    labels: Image.Image
    """True classes in their colours."""
    prediction: Image.Image
    """Predicted classes in their colours."""
    errors: Image.Image
    overlay: Image.Image
    """Predicted classes over the photo."""
    shares: npt.NDArray[np.float64]
    """(K,) mean share of each class in labels and prediction."""
    maps: Maps

    @property
    def pictures(self) -> tuple[Image.Image, ...]:
        """Pictures in the order of COLUMNS."""
        return (self.photo, self.labels, self.prediction, self.errors)


def take_shots(
    indices: Sequence[int], *, model: Network, dataset: Samples, config: EvalConfig, side: int = SIDE
) -> Iterator[Shot]:
    """Predict some images of a dataset again under a protocol, and yield pictures of each."""
    spec = dataset.spec
    for index in indices:
        sample = dataset.read(index)
        image, truth = sample.image.as_subclass(torch.Tensor), sample.labels.numpy()
        labels = image_labels(model, image, config).cpu().numpy()
        photo = as_picture(image.permute(1, 2, 0).numpy())
        yield Shot(
            index=index,
            name=sample.name,
            photo=_shrink(photo, side),
            labels=_shrink(colorize(truth, spec.palette, ignored=IGNORED), side),
            prediction=_shrink(colorize(labels, spec.palette), side),
            errors=_shrink(error_map(photo, labels, truth, num_classes=spec.num_classes), side),
            overlay=_shrink(overlay(photo, labels, spec.palette), side),
            shares=(shares(truth, spec.num_classes) + shares(labels, spec.num_classes)) / 2,
            maps=_maps(photo, labels, truth),
        )


def _shrink(pixels: npt.NDArray[np.uint8], side: int) -> Image.Image:
    """Return a picture whose longer side is at most `side`."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((side, side), Image.Resampling.BOX)
    return picture


def _maps(photo: npt.NDArray[np.uint8], prediction: npt.NDArray[np.int64], labels: npt.NDArray[np.int64]) -> Maps:
    """Return photo and maps no larger than MAPS_SIDE. Maps are subsampled, since a mean of two classes is no class."""
    picture = _shrink(photo, MAPS_SIDE)
    rows, columns = (
        (2 * np.arange(kept) + 1) * whole // (2 * kept)
        for kept, whole in zip((picture.height, picture.width), labels.shape, strict=True)
    )
    return Maps(photo=picture, prediction=prediction[rows][:, columns], labels=labels[rows][:, columns])

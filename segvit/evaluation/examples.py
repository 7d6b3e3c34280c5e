"""Pictures of what a model makes of some images: photo, labels, prediction, errors.

for shot in take_shots([0, 7], model=model, dataset=dataset, config=model.protocol): ...
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from segvit.config import EvalConfig
from segvit.data.dataset import Samples
from segvit.inference.network import Network
from segvit.inference.protocol import image_labels
from segvit.pictures import IGNORED, colorize, error_map, overlay, shares

SIDE = 480
"""Longer side in pixels of a picture."""
MAPS_SIDE = 1024
"""Longer side in pixels of what is kept for the viewer."""
COLUMNS = ("photo", "labels", "prediction", "errors")


@dataclass(frozen=True, kw_only=True)
class Maps:
    """Photo and label maps in one size (h, w), no larger than MAPS_SIDE; a pixel of the maps is one of the original."""

    photo: Image.Image
    prediction: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    """255 = ignored."""


@dataclass(frozen=True, kw_only=True)
class Shot:
    """What a model made of one image, no larger than SIDE."""

    index: int
    """In the dataset."""
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
    """(K,) of the labels and of the prediction, in the mean."""
    maps: Maps

    @property
    def pictures(self) -> tuple[Image.Image, ...]:
        """In the order of COLUMNS."""
        return (self.photo, self.labels, self.prediction, self.errors)


def take_shots(
    indices: Sequence[int], *, model: Network, dataset: Samples, config: EvalConfig, side: int = SIDE
) -> Iterator[Shot]:
    """Label some images of a dataset anew, under a protocol, and draw what came out."""
    spec = dataset.spec
    for index in indices:
        sample = dataset.read(index)
        image, truth = sample.image.as_subclass(torch.Tensor), sample.labels.numpy()
        labels = image_labels(model, image, config).cpu().numpy()
        photo = image.permute(1, 2, 0).numpy()
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
    """A picture no larger than it is shown."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((side, side), Image.Resampling.BOX)
    return picture


def _maps(photo: npt.NDArray[np.uint8], prediction: npt.NDArray[np.int64], labels: npt.NDArray[np.int64]) -> Maps:
    """The three in a size to keep. Label maps are thinned out: a class between two others is none."""
    picture = _shrink(photo, MAPS_SIDE)
    rows, columns = (
        (2 * np.arange(kept) + 1) * whole // (2 * kept)
        for kept, whole in zip((picture.height, picture.width), labels.shape, strict=True)
    )
    return Maps(photo=picture, prediction=prediction[rows][:, columns], labels=labels[rows][:, columns])

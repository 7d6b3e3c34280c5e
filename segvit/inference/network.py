"""The interface of a model that can infer: a SegViT, or an exported graph (segvit/inference/exported.py)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from segvit.config import EvalConfig, ModelConfig
from segvit.data.bands.reading import Reading, read_pixels
from segvit.data.bands.tensors import to_tensor
from segvit.data.palette import Color, default_palette
from segvit.data.spec import DatasetSpec
from segvit.models.output import SegOutput


class Network(Protocol):
    """A model from images to class and mask logits, with the settings that its file carries."""

    config: ModelConfig | None
    num_classes: int
    image_size: int
    spec: DatasetSpec | None
    protocol: EvalConfig
    extra: dict[str, Any]
    training: bool

    @property
    def parts(self) -> Mapping[str, str]:
        """Class names of backbone, up-sampling and head, by attribute."""

    @property
    def mean(self) -> Tensor:
        """Mean (N,) of each band in 0..1, on the device of the model."""

    def __call__(self, images: Tensor, deep: bool = True, canvas: tuple[int, int] | None = None) -> SegOutput:
        """Compute the logits of images (B, N, H, W), uint8 or float in 0..1; the last output is the prediction."""

    def train(self, mode: bool = True) -> Any:
        """Switch to training mode, or to evaluation mode if `mode` is False."""


def reading_of(network: Network) -> Reading:
    """Return how image files are read for a model: its bands and the white of its data."""
    return Reading.of(network.spec, len(network.mean))


def image_for(network: Network, path: Path) -> Tensor:
    """Read an image file as (N, H, W), uint8 or float32 in 0..1, as a model takes it.

    Raises:
        UserError: the file cannot be read, or has other bands.
    """
    return to_tensor(read_pixels(path, reading_of(network)).values)


def described(network: Network) -> dict[str, str]:
    """Name backbone and structure of a model; if its parts are your own, by their classes."""
    if network.config is not None:
        return {"backbone": network.config.backbone, "structure": network.config.structure}
    others = [kind for name, kind in network.parts.items() if name != "backbone"]
    return {"backbone": network.parts["backbone"], "structure": ", ".join(others)}


def classes_of(network: Network) -> tuple[tuple[str, ...], tuple[Color, ...]]:
    """Return names and colours (K,) of a model's classes, numbered ones if the model carries no dataset spec."""
    if network.spec is not None:
        return network.spec.classes, network.spec.palette
    return tuple(f"class {index}" for index in range(network.num_classes)), default_palette(network.num_classes)

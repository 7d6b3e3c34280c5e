"""What inference asks of a model: a SegViT has it, and so has an exported graph (segvit/inference/onnx_model.py)."""

from typing import Any, Protocol

from torch import Tensor

from segvit.config import EvalConfig, ModelConfig
from segvit.data.palette import Color, default_palette
from segvit.data.spec import DatasetSpec
from segvit.models.output import SegOutput


class Network(Protocol):
    """Images to class and mask logits, and what travels with the weights."""

    config: ModelConfig
    num_classes: int
    spec: DatasetSpec | None
    protocol: EvalConfig
    extra: dict[str, Any]
    training: bool

    @property
    def mean(self) -> Tensor:
        """(3,) of R, G, B on the 0..1 scale, on the device where images go."""

    def __call__(self, images: Tensor, deep: bool = True, canvas: tuple[int, int] | None = None) -> SegOutput:
        """Logits of images uint8 (B, 3, H, W); the last supervised output is the prediction. See `SegViT.forward`."""

    def train(self, mode: bool = True) -> Any:
        """Switch to training, or back to evaluation."""


def classes_of(network: Network) -> tuple[tuple[str, ...], tuple[Color, ...]]:
    """Names and colours (K,) of a model's classes; made up where it knows no dataset."""
    if network.spec is not None:
        return network.spec.classes, network.spec.palette
    return tuple(f"class {index}" for index in range(network.num_classes)), default_palette(network.num_classes)

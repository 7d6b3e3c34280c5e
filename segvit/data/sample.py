"""What every dataset gives: a sample, and the protocol that training and evaluation lean on."""

from typing import NamedTuple, Protocol

from torchvision import tv_tensors

from segvit.data.spec import DatasetSpec


class Sample(NamedTuple):
    """One pair, whole and unaugmented."""

    image: tv_tensors.Image
    """uint8 (3, H, W), RGB."""
    labels: tv_tensors.Mask
    """int64 (H, W), 0..K-1 or `IGNORE_INDEX`."""
    name: str
    """Relative path without suffix."""


class Samples(Protocol):
    """What every dataset offers to training and evaluation."""

    @property
    def spec(self) -> DatasetSpec:
        """Classes and colours."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> Sample:
        """Sample number `index`, from 0."""

    def describe(self, index: int) -> str:
        """Where sample number `index` comes from, for messages."""

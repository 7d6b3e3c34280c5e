"""A sample, and the protocol of every dataset that training and evaluation use."""

from typing import NamedTuple, Protocol

from torchvision import tv_tensors

from segvit.data.spec import DatasetSpec


class Sample(NamedTuple):
    """One image and its labels, at full size and without augmentation."""

    image: tv_tensors.Image
    """uint8 (3, H, W), RGB; or float32 (N, H, W) in 0..1 for other bands and for images with a white value."""
    labels: tv_tensors.Mask
    """int64 (H, W), 0..K-1 or `IGNORE_INDEX`."""
    name: str
    """Relative path without suffix."""


class Samples(Protocol):
    """The protocol of a dataset for training and evaluation."""

    @property
    def spec(self) -> DatasetSpec:
        """Classes and colours."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> Sample:
        """Read sample number `index`, counted from 0."""

    def describe(self, index: int) -> str:
        """Return the files, or another origin, of sample number `index` for messages."""

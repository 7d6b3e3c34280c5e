"""Name the outputs of a traced program, for converters that read names from a dictionary."""

from torch import Tensor, nn


class NamedOutputs(nn.Module):
    """A module that returns its outputs by name.

    Args:
        module: from images to a tuple of outputs.
        names: one per output, in order.
    """

    def __init__(self, module: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.module, self.names = module, names

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the outputs for images (B, N, H, W)."""
        return dict(zip(self.names, self.module(images), strict=True))

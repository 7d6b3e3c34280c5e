"""The output of a SegViT, in training and in evaluation alike, the maps before it, and the attributes of a head.

Letters: S supervised outputs, B batch, K classes, Q queries, D width, H W image, h w token grid.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from torch import Tensor, nn


class SegOutput(NamedTuple):
    """Class and mask logits of every supervised output; the last one is the prediction."""

    class_logits: Tensor
    """(S, B, Q, K + 1): each query over the K classes and "no object". Or (S, B, K, 1): presence of class k, by query k
    (`is_presence`)."""
    mask_logits: Tensor
    """(S, B, Q, h, w): one mask per query on the token grid, before the sigmoid."""
    image_size: tuple[int, int]
    """(H, W) of the input images, in pixels."""
    padded_size: tuple[int, int]
    """(H, W) that the grid of the masks spans, in pixels: the images padded on the right and at the bottom."""
    edge_logits: Tensor | None = None
    """(B, h, w): logits that an edge crosses each patch, for the loss; None: the backbone has no edge head."""
    added_logits: tuple[Tensor, ...] = ()
    """(S, B, n, 1) of each group of classes that was added to the model: presence of its n classes. Its masks follow
    those of the groups before it in `mask_logits`."""
    weights: tuple[float, ...] = ()
    """Factor of the scores of the head and of each group; (): 1 each."""


def is_presence(class_logits: Tensor) -> bool:
    """True for logits (..., K, 1) of the presence of each class; False for (..., Q, K + 1) over all classes."""
    return class_logits.shape[-1] == 1


class Maps(list[Tensor]):
    """Maps (B, D, h, w) of the tapped blocks, shallow first, and what the loss needs besides.

    Attributes:
        edge_logits: `Kept.edge_logits` of the block that shrinks.
    """

    def __init__(self, maps: Iterable[Tensor], edge_logits: Tensor | None = None) -> None:
        super().__init__(maps)
        self.edge_logits = edge_logits


class Head(Protocol):
    """Attributes that the package needs of a head, an nn.Module (docs/extending.md)."""

    class_bound: Sequence[str]
    """Names of its parameters with a row per class. `with_classes` moves rows by class name in models of
    `create_model`; a further last row, such as that of "no object", is kept."""

    def __call__(self, features: Sequence[Tensor], deep: bool = True) -> tuple[Tensor, Tensor]:
        """Turn maps (B, D, h, w), shallow first, into the class logits and the mask logits of a `SegOutput`.

        The masks span the last map, at its resolution or another. With `deep` False, only the last output is needed.
        A head may give Q != K queries. It then needs its own criterion.
        """

    def output_names(self, taps: Sequence[int]) -> Sequence[str]:
        """Name the S supervised outputs of maps of the blocks `taps`."""

    def sharded_modules(self) -> Sequence[nn.Module]:
        """Return the parts that FSDP makes whole one at a time."""

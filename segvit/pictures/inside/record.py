"""What happens inside a model while it looks at a photo, as numbers; segvit/pictures/inside/look.py fills them in.

Letters: S supervised outputs, K classes, C classes looked at, H W photo, H' W' photo as the model looks at it,
h w grid of the masks, n m grid of the patches, A attention heads.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segvit.data.palette import Color
from segvit.pictures.paint import Pixels, shares

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """The token grids of a model on one photo (docs/method.md section 3)."""

    grid: tuple[int, int]
    """Patches (n, m) as they are embedded."""
    patch: int
    """Side of a patch in pixels."""
    num_prefix: int
    """Class and register tokens, which always go on."""
    depth: int
    """Blocks that run."""
    shrink_at: int | None
    """Block, from 0, behind which the kept tokens alone go on; None: all do."""
    kept: npt.NDArray[np.bool_]
    """(n, m): patches whose tokens leave the last block."""
    restored: bool
    """Whether QU restores the grid of all patches."""

    @property
    def shrunk(self) -> tuple[int, int]:
        """The grid of the kept tokens: rows and columns with one at least."""
        return int(self.kept.any(axis=1).sum()), int(self.kept.any(axis=0).sum())


@dataclass(frozen=True, kw_only=True)
class Gaze:
    """Where some learned tokens of QU look in one of its maps (docs/method.md section 3)."""

    block: int
    """The tapped block, from 0."""
    cell: int
    """Side in pixels of a cell of the map's grid: a patch, or two behind QD."""
    places: tuple[tuple[int, int], ...]
    """Row and column, in patches, of the learned tokens."""
    attention: Floats
    """(tokens, ., .) over the map's grid; each sums to 1. The mean over heads, in the last layer."""


@dataclass(frozen=True, kw_only=True)
class Inside:
    """What a model does with one photo, as numbers on the CPU."""

    photo: Pixels
    """uint8 (H, W, 3), RGB, as displayed."""
    size: tuple[int, int]
    """(H', W') in pixels at which the model looked at it."""
    padded_size: tuple[int, int]
    """(H, W) in pixels, at that scale, that the grid of the masks spans."""
    names: tuple[str, ...]
    """(K,)"""
    palette: tuple[Color, ...]
    """(K,)"""
    classes: tuple[int, ...]
    """(C,) class numbers that are looked at."""
    outputs: tuple[str, ...]
    """(S,) what each supervised output is called: stages, deepest block first, or layers."""
    summed: bool
    """Whether an output's masks are the sum over it and those before it: the cascade (docs/method.md section 2)."""
    heads: Floats
    """(S, A, C, h, w): Q_i K_i^T / sqrt(head width) of every attention head, before the softmax."""
    masks: Floats
    """(S, C, h, w): mask logits, as the model gives them."""
    labels: npt.NDArray[np.int64]
    """(S, y, x): the label map of each output at the photo's size, its longer side 1024 at most; the last is the
    model's."""
    tokens: Tokens
    gazes: tuple[Gaze, ...]
    """Of QU's maps, shallow first; none where there is no QU."""

    @property
    def similarity(self) -> Floats:
        """(S, C, h, w): the similarity of a class token with the map, in logits: the mean over heads."""
        return np.asarray(self.heads.mean(axis=1))

    @property
    def attention(self) -> Floats:
        """(S, A, C, h, w): the weights of every head's attention, 0..1, of sum 1 over the grid."""
        raised = np.exp(self.heads - self.heads.max(axis=(3, 4), keepdims=True))
        return np.asarray(raised / raised.sum(axis=(3, 4), keepdims=True))

    def shares(self) -> npt.NDArray[np.float64]:
        """(K,): fraction of the photo that each class covers in the model's label map."""
        return shares(self.labels[-1], len(self.names))

"""Recording of a model's masks, attention and tokens on one photo, filled by segvit/pictures/inside/look.py.

Letters: S supervised outputs, K classes, C recorded classes, H W photo, H' W' photo as the model sees it,
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
    """Token grids of a model on one photo (docs/method.md section 3)."""

    grid: tuple[int, int]
    """Grid of the embedded patches: (n, m)."""
    patch: int
    """Side of a patch in pixels."""
    num_prefix: int
    """Number of class and register tokens, which are never dropped."""
    depth: int
    """Number of blocks that run."""
    shrink_at: int | None
    """Block, counted from 0, whose output holds only the kept tokens; None if no tokens are dropped."""
    kept: npt.NDArray[np.bool_]
    """(n, m): True for patches whose tokens reach the last block."""
    restored: bool
    """True if an up-sampling restores the grid of all patches."""

    @property
    def shrunk(self) -> tuple[int, int]:
        """Grid of the kept tokens: number of rows and columns that hold at least one."""
        return int(self.kept.any(axis=1).sum()), int(self.kept.any(axis=0).sum())


@dataclass(frozen=True, kw_only=True)
class Gaze:
    """Attention of some learned tokens of QU over one of its maps (docs/method.md section 3)."""

    block: int
    """Tapped block, counted from 0."""
    cell: int
    """Side of a cell of the map in pixels: one patch, or two patches after QD."""
    places: tuple[tuple[int, int], ...]
    """Row and column of each learned token, in patches."""
    attention: Floats
    """(tokens, ., .) over the map's grid: weights of the last layer, averaged over heads. Each token's sum to 1."""


@dataclass(frozen=True, kw_only=True)
class Inside:
    """Arrays of a model's masks, attention and tokens on one photo."""

    photo: Pixels
    """Photo, uint8 (H, W, 3), RGB, upright."""
    size: tuple[int, int]
    """Size (H', W') in pixels at which the model saw the photo."""
    padded_size: tuple[int, int]
    """Height and width in pixels, at that scale, covered by the mask grid."""
    names: tuple[str, ...]
    """(K,) class names."""
    palette: tuple[Color | None, ...]
    """(K,) class colours; None for a class that label maps leave unpainted."""
    classes: tuple[int, ...]
    """(C,) numbers of the recorded classes."""
    outputs: tuple[str, ...]
    """(S,) names of the supervised outputs: stages, deepest block first, or layers."""
    summed: bool
    """True if an output's masks are summed with those of the outputs before it (docs/method.md section 2)."""
    heads: Floats
    """(S, A, C, h, w): Q_i K_i^T / sqrt(head width) of each attention head, before the softmax."""
    masks: Floats
    """(S, C, h, w): mask logits of the model."""
    labels: npt.NDArray[np.int64]
    """(S, y, x): label map of each output at the photo's size, but at most 1024 pixels on the longer side.

    The last one is the model's."""
    tokens: Tokens
    gazes: tuple[Gaze, ...]
    """Attention over each map of QU, shallowest first; empty if the model has no learned tokens for patches."""

    @property
    def similarity(self) -> Floats:
        """(S, C, h, w): similarity of each class token with the map, in logits, averaged over heads."""
        return np.asarray(self.heads.mean(axis=1))

    @property
    def attention(self) -> Floats:
        """(S, A, C, h, w): attention weights of each head, 0..1, which sum to 1 over the grid."""
        raised = np.exp(self.heads - self.heads.max(axis=(3, 4), keepdims=True))
        return np.asarray(raised / raised.sum(axis=(3, 4), keepdims=True))

    def shares(self) -> npt.NDArray[np.float64]:
        """Return the fraction of the photo that each class covers in the model's label map: (K,)."""
        return shares(self.labels[-1], len(self.names))

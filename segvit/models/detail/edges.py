"""Edge-aware QD (ours, after Shrunk++): keep every second row and column, and the patches on edges of objects.

A small head on the tokens that enter the block which shrinks predicts the edges. The lattice and a fixed share of the
rest, those of the largest logits, stay. So every image of a size has as many tokens, and batches, compiled graphs and
exports work. The choice has no gradient: the head learns by the term `edge` of the loss (segvit/edge_loss.py).

Letters: B batch, D width, h w token grid, N = h * w patches, m of them on the lattice, n kept ones.
"""

from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segvit.errors import UserError
from segvit.models.decoder import init_linears
from segvit.models.downsampling import Kept, lattice, shrunk_grid
from segvit.models.upsampling import interpolate

MOST = 0.5
"""Largest share of the patches that are kept for their edges. Off the lattice of any grid there are as many."""


class EdgeDownsampling(nn.Module):
    """Keep the lattice and the patches that are most likely on an edge.

    Args:
        dim: width D.
        share: number of edge patches, as a fraction of N; see `ModelConfig.edge_share`.
        init_std: deviation of the initial weights of Linear layers.

    Raises:
        UserError: the share is not above 0, or above 0.5.
    """

    method = "edge"

    def __init__(self, *, dim: int, share: float, init_std: float = 0.02) -> None:
        super().__init__()
        if not 0 < share <= MOST:
            raise UserError(f"model.edge_share {share}: give a share of the patches above 0, and {MOST} or less")
        self.share = share
        self.norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, dim // 4)
        self.fc2 = nn.Linear(dim // 4, 1)
        init_linears(self, init_std)

    def extra_repr(self) -> str:
        """Return the share, by which a printed network differs from that of another one."""
        return f"share={self.share}"

    def forward(self, patches: Tensor, grid: tuple[int, int]) -> Kept:
        """Choose among patches (B, N, D) on a grid (h, w)."""
        logits = self.fc2(F.gelu(self.fc1(self.norm(patches)))).squeeze(2).float()  # (B, N)
        regular = lattice(grid, patches.device)
        others = logits.detach().index_fill(1, regular, float("-inf"))
        edges = others.topk(num_edges(grid, self.share), dim=1).indices
        indices = torch.cat([regular.expand(edges.shape[0], -1), edges], dim=1)  # (B, n)
        return Kept(indices, (1, indices.shape[1]), edge_logits=logits.unflatten(1, grid))

    def restore(self, patches: Tensor, kept: Kept, grid: tuple[int, int]) -> Tensor:
        """Return kept patches (B, n, D) as a map (B, D, h, w) at the grid of all.

        Kept patches keep their values. The others are interpolated bilinearly from the lattice.
        """
        shrunk = shrunk_grid(grid)
        count = shrunk[0] * shrunk[1]
        patches = patches.transpose(1, 2)  # (B, D, n)
        maps = interpolate(patches[:, :, :count].unflatten(2, shrunk), grid).flatten(2)  # (B, D, N)
        places = kept.indices[:, None, count:].expand(-1, patches.shape[1], -1)
        restored: Tensor = maps.scatter(2, places, patches[:, :, count:]).unflatten(2, grid)
        return restored


def num_edges(grid: tuple[int, int], share: float) -> int:
    """Return the number of patches of a grid (h, w) that are kept for their edges: the share of N, rounded down.

    The arithmetic is of whole numbers, so that a graph for any size can hold it.
    """
    exact = Fraction(share).limit_denominator(1000)
    return grid[0] * grid[1] * exact.numerator // exact.denominator

"""Measure outlines: their area, how far they leave the image, and if they cross themselves.

Letters: N points of a ring, H, W size of an image.
"""

import numpy as np

from segvit.data.annotations.shapes import PlacedMask, Ring, Rings, RunLengths

MOST_POINTS = 1000
"""Number of points above which a ring is not searched for crossings, which takes N x N numbers."""


def area_of_ring(ring: Ring) -> float:
    """Return the area in square pixels inside a ring (N, 2) that does not cross itself."""
    x, y = (ring - ring.mean(axis=0)).T if len(ring) else ring.T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def is_tiny(area: Rings | PlacedMask | RunLengths) -> bool:
    """True if an area has less than one pixel. False for run lengths, which are not decoded."""
    if isinstance(area, RunLengths):
        return False
    if isinstance(area, PlacedMask):
        return not area.pixels.any()
    return sum(area_of_ring(ring) for ring in area.rings) < 1


def outside_by(area: Rings | PlacedMask | RunLengths, size: tuple[int, int]) -> float:
    """Return the number of pixels by which an area leaves an image of a size (H, W)."""
    height, width = size
    if isinstance(area, RunLengths):
        return 0.0
    if isinstance(area, PlacedMask):
        rows, columns = area.pixels.shape
        return float(max(-area.top, -area.left, area.top + rows - height, area.left + columns - width, 0))
    points = [ring for ring in area.rings if len(ring)]
    if not points:
        return 0.0
    low, high = np.concatenate(points).min(axis=0), np.concatenate(points).max(axis=0)
    return float(max(-low[0], -low[1], high[0] - width, high[1] - height, 0.0))


def crosses_itself(ring: Ring) -> bool:
    """True if two edges of a ring (N, 2) cross inside both. Edges that only touch do not."""
    count = len(ring)
    if not 4 <= count <= MOST_POINTS:
        return False
    ends = np.roll(ring, -1, axis=0)
    along = ends - ring  # (N, 2)
    sides = _cross(along[:, None], ring[None] - ring[:, None])  # (N, N) side of edge i on which point j is
    before, after = np.sign(sides), np.sign(np.roll(sides, -1, axis=1))
    split = before * after < 0  # (N, N) edge i passes between the ends of edge j
    return bool((split & split.T).any())


def _cross(a: Ring, b: Ring) -> Ring:
    """Return the cross products of vectors (..., 2)."""
    product: Ring = a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
    return product

"""Make colours for classes that have none of their own.

default_palette(3)                 # ((0, 114, 178), (230, 159, 0), (0, 158, 115))
"""

import functools
import itertools

import numpy as np
import numpy.typing as npt

Color = tuple[int, int, int]
"""Red, green, blue, 0..255."""


def default_palette(num_classes: int) -> tuple[Color, ...]:
    """Return distinct colours (K,), the first 255 of them also distinct under red-green colour blindness.

    A class has the same colour for every K.
    """
    colors = dict.fromkeys(_palette())
    codes = (step * 0x9E3779 % 2**24 for step in itertools.count(1))  # an odd factor reaches each of the 2**24 once
    while len(colors) < num_classes:
        code = next(codes)
        colors[code >> 16, code >> 8 & 255, code & 255] = None
    return tuple(colors)[:num_classes]


FIXED = 255
"""Number of colours that are chosen to be far apart. Later ones are merely distinct."""
OKABE_ITO = ((0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (213, 94, 0), (240, 228, 66))
"""The colour-blind-safe palette of Okabe and Ito (2008), without black."""
DEFICIENCY = np.array(
    [
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    ]
)
"""Protanopia and deuteranopia as maps of linear RGB (Machado et al. 2009)."""


@functools.cache
def _palette() -> tuple[Color, ...]:
    """Choose 255 colours: Okabe and Ito's, then those of a 9 x 9 x 9 grid.

    Each next colour is the one farthest from all chosen ones, from black and from white.
    """
    levels = np.linspace(0, 255, 9).round()
    taken = np.array([(0, 0, 0), (255, 255, 255), *OKABE_ITO], dtype=np.float64)
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    seen_grid, seen_taken = _perceived(grid), _perceived(taken)

    def distance(color: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        normal, *deficient = np.linalg.norm(seen_grid - color[:, None], axis=-1)  # (3 visions, 729)
        return np.asarray(normal + 2 * np.minimum(*deficient))  # > 0 for any other colour, so none is chosen twice

    nearest = np.min([distance(seen_taken[:, i]) for i in range(len(taken))], axis=0)
    colors: list[Color] = list(OKABE_ITO)
    while len(colors) < FIXED:
        best = int(nearest.argmax())
        red, green, blue = (int(part) for part in grid[best])
        colors.append((red, green, blue))
        nearest = np.minimum(nearest, distance(seen_grid[:, best]))
    return tuple(colors)


def _perceived(colors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return CIE Lab (3, N, 3) of sRGB colours (N, 3) as seen by normal, protanope and deuteranope eyes."""
    scaled = colors / 255
    linear = np.where(scaled <= 0.04045, scaled / 12.92, ((scaled + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.stack([linear, *(linear @ matrix.T for matrix in DEFICIENCY)]), 0, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = seen @ to_xyz.T / to_xyz.sum(axis=1)  # relative to white
    root = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = np.moveaxis(root, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)

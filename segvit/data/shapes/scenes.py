"""Make datasets of toy street scenes: drawn on the fly without files, or written to a folder.

image, labels = render_scene(seed=7, size=96)
write_shapes(Path("scenes"), train=500, val=100)     # segvit train --data.spec shapes --data.root scenes
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision import tv_tensors

from segvit.data.sample import Sample
from segvit.data.shapes.street import Street
from segvit.data.spec import load_spec
from segvit.errors import UserError

SCENES_PER_SEED = 1_000_000
"""Number of scenes per seed, so that datasets of different seeds share no scene."""
SMALLEST = 32
"""Smallest side of a scene in pixels. In smaller ones, cars and signs would be a pixel or two."""


def render_scene(seed: int, size: int = 96) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw scene number `seed` as image (size, size, 3) and labels (size, size), where 255 is ignored.

    Args:
        seed: a whole number from 0. The same number and size give the same bytes.
        size: side of the picture in pixels. Everything but the noise of the sensor grows with it.

    Raises:
        UserError: the seed is negative, or the size is under 32.
    """
    _check(seed, size)
    return Street(seed, size).draw()


class ShapesDataset:
    """Scenes that are drawn on the fly. Follows the protocol `segvit.data.sample.Samples`."""

    def __init__(self, length: int, size: int = 96, seed: int = 0) -> None:
        """Choose the scenes.

        Args:
            length: number of scenes.
            size: side of a scene in pixels.
            seed: datasets of different seeds share no scene.

        Raises:
            UserError: the length, size or seed is out of range.
        """
        if not 1 <= length <= SCENES_PER_SEED:
            raise UserError(f"length of a shapes dataset is {length}; give 1 to {SCENES_PER_SEED} scenes")
        _check(seed, size)
        self.spec = load_spec("shapes")
        self.length = length
        self.size = size
        self.seed = seed

    def __len__(self) -> int:
        return self.length

    def scene(self, index: int) -> int:
        """Return the seed of `render_scene` for the scene at `index`, counted from 0."""
        if not 0 <= index < self.length:
            raise IndexError(f"scene {index} of {self.length}")
        return self.seed * SCENES_PER_SEED + index

    def read(self, index: int) -> Sample:
        """Draw a scene: uint8 (3, size, size) and int64 (size, size)."""
        image, labels = render_scene(self.scene(index), self.size)
        pixels = torch.from_numpy(image).permute(2, 0, 1).contiguous()
        return Sample(tv_tensors.Image(pixels), tv_tensors.Mask(torch.from_numpy(labels).long()), f"scene_{index:06}")

    def describe(self, index: int) -> str:
        """Return the number and the seed of a sample's scene."""
        return f"shapes scene {index} (seed {self.scene(index)})"


def write_shapes(root: Path, train: int = 500, val: int = 100, size: int = 96, seed: int = 0) -> None:
    """Write scenes as PNG images and label maps under `root`, where the spec `shapes` looks for them.

    Args:
        root: target folder, which is created if it is missing.
        train: number of training scenes.
        val: number of validation scenes. None of them is a training scene.
        size: side of a scene in pixels.
        seed: calls with different seeds share no scene.

    Raises:
        UserError: a number is out of range, or the folders hold other files.
    """
    spec = load_spec("shapes")
    palette = bytes(part for colour in spec.palette for part in colour).ljust(3 * 256, b"\0")  # ignored is black
    for position, (split, length) in enumerate((("train", train), ("val", val))):
        samples = ShapesDataset(length, size=size, seed=2 * seed + position)
        images, labels = root / spec.splits[split].images, root / spec.splits[split].labels
        names = [f"scene_{index:06}.png" for index in range(length)]
        for folder in (images, labels):
            folder.mkdir(parents=True, exist_ok=True)
            if others := sorted({path.name for path in folder.iterdir()} - set(names)):
                raise UserError(
                    f"{folder} contains {others[0]}, which is not one of these scenes; give an empty folder"
                )
        for index, name in enumerate(names):
            pixels, values = render_scene(samples.scene(index), size)
            Image.fromarray(pixels).save(images / name)
            picture = Image.fromarray(values)
            picture.putpalette(palette)
            picture.save(labels / name)


def _check(seed: int, size: int) -> None:
    if seed < 0 or size < SMALLEST:
        raise UserError(
            f"size is {size} and seed is {seed}; give a size of at least {SMALLEST} and a seed of at least 0"
        )

"""Shapes: endless toy street scenes with labels, the dataset that needs no files.

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
"""Datasets of different seeds share no scene."""
SMALLEST = 32
"""Least side of a scene in pixels; below it cars and signs are a pixel or two."""


def render_scene(seed: int, size: int = 96) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw scene number `seed` as image (size, size, 3) and labels (size, size), where 255 is ignored.

    Args:
        seed: a whole number from 0; the same number and size give the same bytes.
        size: side of the picture in pixels; everything but the noise of the sensor grows with it.

    Raises:
        UserError: a negative seed, or a size under 32.
    """
    _check(seed, size)
    return Street(seed, size).draw()


class ShapesDataset:
    """Scenes drawn on the fly; satisfies `segvit.data.dataset.Samples`."""

    def __init__(self, length: int, size: int = 96, seed: int = 0) -> None:
        """Choose the scenes.

        Args:
            length: number of scenes.
            size: side of a scene in pixels.
            seed: datasets of different seeds share no scene.

        Raises:
            UserError: a length, size or seed out of range.
        """
        if not 1 <= length <= SCENES_PER_SEED:
            raise UserError(f"a shapes dataset of {length} scenes: give a length of 1 to {SCENES_PER_SEED}")
        _check(seed, size)
        self.spec = load_spec("shapes")
        self.length = length
        self.size = size
        self.seed = seed

    def __len__(self) -> int:
        return self.length

    def scene(self, index: int) -> int:
        """Number of the scene at `index`, from 0, as `render_scene` takes it."""
        if not 0 <= index < self.length:
            raise IndexError(f"scene {index} of {self.length}")
        return self.seed * SCENES_PER_SEED + index

    def read(self, index: int) -> Sample:
        """Draw a scene: uint8 (3, size, size) and int64 (size, size)."""
        image, labels = render_scene(self.scene(index), self.size)
        pixels = torch.from_numpy(image).permute(2, 0, 1).contiguous()
        return Sample(tv_tensors.Image(pixels), tv_tensors.Mask(torch.from_numpy(labels).long()), f"scene_{index:06}")

    def describe(self, index: int) -> str:
        """Which scene a sample is."""
        return f"shapes scene {index} (seed {self.scene(index)})"


def write_shapes(root: Path, train: int = 500, val: int = 100, size: int = 96, seed: int = 0) -> None:
    """Write scenes as PNG images and label maps under `root`, where the spec `shapes` looks for them.

    Args:
        root: folder; made where missing.
        train: number of training scenes.
        val: number of validation scenes; none of them is a training scene.
        size: side of a scene in pixels.
        seed: calls of different seeds share no scene.

    Raises:
        UserError: a number out of range, or other files lie where the scenes belong.
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
                raise UserError(f"{folder} holds {others[0]}, which is not to be written: give an empty folder")
        for index, name in enumerate(names):
            pixels, values = render_scene(samples.scene(index), size)
            Image.fromarray(pixels).save(images / name)
            picture = Image.fromarray(values)
            picture.putpalette(palette)
            picture.save(labels / name)


def _check(seed: int, size: int) -> None:
    if seed < 0 or size < SMALLEST:
        raise UserError(f"shapes of size {size} and seed {seed}: give a size of at least {SMALLEST} and a seed from 0")

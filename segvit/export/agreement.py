"""Compare the labels of an exported graph with PyTorch's on noise, on drawn scenes and on a user's own images.

Letters: B batch, H W image.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from segvit.data.bands.names import COLORS
from segvit.data.shapes.scenes import render_scene
from segvit.export.graph import LabelGraph
from segvit.inference.network import image_for, reading_of
from segvit.models.downsampling import STRIDE
from segvit.models.segvit import SegViT
from segvit.utils.resize import resize
from segvit.utils.text import percentage

NUM_SCENES = 2
"""Drawn scenes at each size."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Result of comparing a graph's labels with PyTorch's."""

    sizes: tuple[tuple[int, int], ...]
    """(H, W) in pixels of the images compared."""
    images: int
    """Number of images compared, over all sizes."""
    differing: float
    """Share of pixels with another label, 0..1, in the image with the most of them."""

    def __str__(self) -> str:
        sizes = ", ".join(f"{height} x {width}" for height, width in self.sizes)
        return (
            f"labels compared with PyTorch's on {self.images} images at {sizes}: at most "
            f"{percentage(self.differing, '.3f')} of the pixels differ"
        )


def check_sizes(graph: LabelGraph, fixed: tuple[int, int] | None) -> tuple[tuple[int, int], ...]:
    """Return the sizes (H, W) to compare at: the training crop, a wide one and a small odd one, or the fixed one."""
    if fixed:
        return (fixed,)
    side, least = graph.model.image_size, STRIDE * graph.model.backbone.patch_size
    odd = (max(side * 2 // 3, least) | 1, max(side * 7 // 8, least) | 1)
    return ((side, side), (side, max(side * 5 // 4, least) // 2 * 2), odd)


def compare(
    graph: LabelGraph,
    run: Callable[[Tensor], Tensor],
    *,
    sizes: Sequence[tuple[int, int]],
    images: Sequence[Path] = (),
) -> Agreement:
    """Compare labels at every size.

    Args:
        graph: the model in PyTorch.
        run: the exported graph, from images (B, N, H, W) to labels (B, H, W).
        sizes: (H, W) in pixels.
        images: files of a user's own images, resized to each size.

    Raises:
        UserError: an image cannot be read.
    """
    worst, count = 0.0, 0
    for size in sizes:
        for batch in _batches(graph.model, size, images):
            with torch.no_grad():
                expected = graph(batch)[0]
            differing = (run(batch) != expected).double().mean(dim=(1, 2))
            worst, count = max(worst, float(differing.max())), count + len(batch)
    return Agreement(sizes=tuple(sizes), images=count, differing=worst)


def _batches(model: SegViT, size: tuple[int, int], images: Sequence[Path]) -> Iterator[Tensor]:
    """Yield noise, the scenes as one batch, then a user's images one by one: (B, N, H, W) as the graph takes them.

    The colours of the scenes are repeated for models of more bands.
    """
    floats, bands = reading_of(model).floats, model.bands

    def taken(image: Tensor) -> Tensor:
        return image.float() / 255 if floats and image.dtype == torch.uint8 else image

    generator = torch.Generator().manual_seed(size[0] * 10_000 + size[1])
    yield taken(torch.randint(0, 256, (1, bands, *size), dtype=torch.uint8, generator=generator))
    scenes = [torch.from_numpy(render_scene(seed)[0]).permute(2, 0, 1) for seed in range(NUM_SCENES)]
    colors = [index % COLORS for index in range(bands)]
    yield torch.stack([taken(resize(scene[colors], size)) for scene in scenes])
    for path in images:
        yield resize(image_for(model, path), size)[None]

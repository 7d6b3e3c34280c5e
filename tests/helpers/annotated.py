"""Small photos with the files of labelling tools, and what is read from them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from segvit.config import DataConfig
from segvit.data.dataset import SegmentationDataset, open_dataset

Labels = npt.NDArray[np.int64]
SQUARE = [[1.0, 1.0], [4.0, 1.0], [4.0, 4.0], [1.0, 4.0]]
"""Corners of the pixels 1..3 of rows and columns."""


def photo(path: Path, size: tuple[int, int] = (6, 8)) -> Path:
    """A noisy photo of (height, width)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(len(str(path.name))).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def write(path: Path, content: Any) -> Path:
    """A file of JSON, or of the text given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def opened(images: Path, labels: Path, *classes: str, **more: Any) -> SegmentationDataset:
    """All pairs of labels that are recognised without a spec."""
    data = DataConfig(images=images, labels=labels, classes=classes, val_fraction=0.0, **more)
    samples = open_dataset(data, "train")
    assert isinstance(samples, SegmentationDataset)
    return samples


def labels_of(samples: SegmentationDataset, index: int = 0) -> Labels:
    """The label map (H, W) of one sample."""
    found: Labels = samples.read(index).labels.numpy()
    return found

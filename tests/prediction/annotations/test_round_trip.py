"""Annotations that `segvit predict --write` writes, read again without a spec: exact ones give every pixel back."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import segvit
from segvit.prediction.annotations.annotated import trace
from segvit.prediction.annotations.kinds import AnnotationFormat
from segvit.prediction.annotations.writers import WRITERS, write_annotations

CLASSES = ("background", "sky & sea", 'the "road"', "tree")
NAMES = ("one", "day/two")


def label_map(seed: int, size: tuple[int, int]) -> npt.NDArray[np.int64]:
    """Draw a map with round regions, holes, islands and some single pixels."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, len(CLASSES), 9, 11, generator=random)
    labels = F.interpolate(coarse, size=size, mode="bicubic")[0].argmax(0).numpy()
    speckled = np.random.default_rng(seed).random(size) < 0.01
    labels[speckled] = (labels[speckled] + 1) % len(CLASSES)
    return labels


@pytest.mark.parametrize("tolerance", [0, 0.5], ids=["exact", "simplified"])
@pytest.mark.parametrize("kind", WRITERS)
def test_reading_gives_the_labels_back(kind: AnnotationFormat, tolerance: float, tmp_path: Path) -> None:
    maps = {name: label_map(seed, (90 + 7 * seed, 121)) for seed, name in enumerate(NAMES)}
    items = []
    for name, labels in maps.items():
        photo = tmp_path / "photos" / f"{name}.png"
        photo.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((*labels.shape, 3), np.uint8)).save(photo)
        items.append(trace(labels, CLASSES, image=photo, stem=name, tolerance=tolerance))
    written = write_annotations(kind, items, CLASSES, tmp_path / "annotations")
    labels_of = written / "labels" if kind == "yolo" else written
    data = segvit.DataConfig(images=tmp_path / "photos", labels=labels_of, val_fraction=0.0)
    samples = segvit.open_dataset(data, "train")
    assert len(samples) == len(NAMES)
    order = np.array([CLASSES.index(name) for name in samples.spec.classes])
    for index in range(len(samples)):
        sample = samples.read(index)
        found, wanted = order[sample.labels.numpy()], maps[sample.name]
        if tolerance == 0:
            np.testing.assert_array_equal(found, wanted)
        else:
            shares = [((found == k) & (wanted == k)).sum() / ((found == k) | (wanted == k)).sum() for k in range(4)]
            assert np.mean(shares) >= 0.98

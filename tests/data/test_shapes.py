"""The procedural scenes: deterministic, at any size, and neither given away by colour nor without it."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision import tv_tensors

from segvit.config import DataConfig
from segvit.data.dataset import IGNORE_INDEX, open_dataset
from segvit.data.shapes import scenes as shapes, street
from segvit.data.shapes.scenes import ShapesDataset, render_scene, write_shapes
from segvit.data.spec import load_spec
from segvit.errors import UserError

NUM_CLASSES = load_spec("shapes").num_classes
Scenes = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""Images (N, S, S, 3) and labels (N, S, S)."""


def render(seeds: range, size: int = 96) -> Scenes:
    images, labels = zip(*(render_scene(seed, size) for seed in seeds), strict=True)
    return np.stack(images), np.stack(labels)


@pytest.fixture(scope="module")
def seen() -> Scenes:
    return render(range(500))


@pytest.fixture(scope="module")
def unseen() -> Scenes:
    return render(range(1_000_000, 1_000_200))


def test_constants_are_the_positions_of_the_classes_in_the_spec() -> None:
    names = ("sky", "water", "grass", "road", "building", "tree", "car", "sign")
    spec = load_spec("shapes")
    assert spec.classes == names
    assert [getattr(street, name.upper()) for name in names] == list(range(NUM_CLASSES))
    assert spec.raw_ids == tuple(range(NUM_CLASSES))  # scenes are written as they are drawn


def test_same_seed_same_bytes_and_other_seeds_other_scenes() -> None:
    first, again, other = render_scene(7), render_scene(7), render_scene(8)
    for a, b, c in zip(first, again, other, strict=True):
        assert a.tobytes() == b.tobytes()
        assert a.tobytes() != c.tobytes()
    image, labels = render_scene(7, 200)
    assert render_scene(7)[0].tobytes() == first[0].tobytes()  # no state is left behind
    assert (image.shape, labels.shape) == ((200, 200, 3), (200, 200))


@pytest.mark.parametrize("size", [32, 64, 96, 200])
def test_a_scene_is_the_same_at_any_size(size: int) -> None:
    for seed in range(5):
        image, labels = render_scene(seed, size)
        assert image.shape == (size, size, 3) and image.dtype == np.uint8
        assert labels.shape == (size, size) and labels.dtype == np.uint8
        assert set(np.unique(labels)) <= {*range(NUM_CLASSES), IGNORE_INDEX}
        small = Image.fromarray(labels).resize((48, 48), Image.Resampling.NEAREST)
        reference = Image.fromarray(render_scene(seed, 96)[1]).resize((48, 48), Image.Resampling.NEAREST)
        assert np.mean(np.asarray(small) == np.asarray(reference)) > 0.8  # the rest are edges


def test_every_class_occurs(seen: Scenes) -> None:
    labels = seen[1]
    present = np.array([[np.any(scene == k) for k in range(NUM_CLASSES)] for scene in labels[:100]])
    assert present.mean(axis=0).min() > 0.5
    shares = np.bincount(labels.ravel(), minlength=256)[:NUM_CLASSES] / labels.size
    assert shares.min() > 0.02


@pytest.mark.parametrize("size", [64, 96, 200])
def test_the_ignored_border_is_there_and_thin(size: int) -> None:
    _, labels = render(range(30), size)
    assert all((scene == IGNORE_INDEX).any() for scene in labels)
    assert 0.01 < np.mean(labels == IGNORE_INDEX) < 0.05


def test_the_ignored_border_lies_between_classes(seen: Scenes) -> None:
    between = [
        len(set(labels[y - 2 : y + 3, x - 2 : x + 3].flat) - {IGNORE_INDEX}) > 1
        for labels in seen[1][:20]
        for y, x in np.argwhere(labels == IGNORE_INDEX)
        if min(y, x) >= 2 and max(y, x) < 94
    ]
    assert np.mean(between) > 0.95  # the rest lies between two objects of one class


def test_colour_alone_does_not_tell_the_class(seen: Scenes, unseen: Scenes) -> None:
    """A histogram of 32^3 colours, fitted on 500 scenes, is well above chance and stays under 0.60 mIoU."""
    counts = np.zeros((32**3, NUM_CLASSES), dtype=np.int64)
    bins, labels = colour_bins(*seen)
    np.add.at(counts, (bins, labels), 1)
    best = np.where(counts.any(axis=1), counts.argmax(axis=1), counts.sum(axis=0).argmax())
    bins, labels = colour_bins(*unseen)
    confusion = np.bincount(labels * NUM_CLASSES + best[bins], minlength=NUM_CLASSES**2).reshape(NUM_CLASSES, -1)
    intersection = np.diag(confusion)
    iou = intersection / (confusion.sum(axis=0) + confusion.sum(axis=1) - intersection)
    assert 0.35 < iou.mean() < 0.60, iou.round(3)


def colour_bins(images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number of the 32^3 bin and class of every pixel that is not ignored, both (M,)."""
    red, green, blue = (images[..., channel].astype(np.int64) >> 3 for channel in range(3))
    valid = labels != IGNORE_INDEX
    return (red * 1024 + green * 32 + blue)[valid], labels[valid].astype(np.int64)


def test_the_same_class_has_many_colours_and_the_same_colour_many_classes(seen: Scenes) -> None:
    """Light and families vary: the mean colour of each class moves by more than the noise from scene to scene."""
    images, labels = (part[:100] for part in seen)
    for k in range(NUM_CLASSES):
        means = [
            image[scene == k].mean(axis=0) for image, scene in zip(images, labels, strict=True) if (scene == k).any()
        ]
        assert np.std(means, axis=0).max() > 12, load_spec("shapes").classes[k]


def test_dataset_reads_what_is_drawn() -> None:
    samples = ShapesDataset(length=3, size=64, seed=5)
    image, labels, name = samples.read(2)
    pixels, values = render_scene(samples.scene(2), 64)
    assert len(samples) == 3 and samples.spec.name == "shapes" and name == "scene_000002"
    assert isinstance(image, tv_tensors.Image) and image.dtype == torch.uint8
    assert isinstance(labels, tv_tensors.Mask) and labels.dtype == torch.int64
    assert np.array_equal(image.permute(1, 2, 0).numpy(), pixels)
    assert np.array_equal(labels.numpy(), values)
    assert samples.describe(2) == "shapes scene 2 (seed 5000002)"
    assert torch.equal(pickle.loads(pickle.dumps(samples)).read(2).image, image)  # as a worker gets it
    with pytest.raises(IndexError):
        samples.read(3)


def test_datasets_of_different_seeds_share_no_scene() -> None:
    longest = ShapesDataset(length=shapes.SCENES_PER_SEED, seed=0)
    assert longest.scene(len(longest) - 1) < ShapesDataset(length=1, seed=1).scene(0)


def test_training_and_validation_scenes_are_disjoint() -> None:
    train, val = (open_dataset(DataConfig(spec="shapes"), split) for split in ("train", "val"))
    assert isinstance(train, ShapesDataset) and isinstance(val, ShapesDataset)
    scenes = [{samples.scene(index) for index in range(len(samples))} for samples in (train, val)]
    assert scenes[0].isdisjoint(scenes[1])


def test_written_folder_reads_back_equal(tmp_path: Path) -> None:
    write_shapes(tmp_path, train=3, val=2, size=64, seed=1)
    write_shapes(tmp_path, train=3, val=2, size=64, seed=1)  # writing the same again is no error
    config = DataConfig(spec="shapes", root=tmp_path)
    contents = set()
    for split, seed, length in (("train", 2, 3), ("val", 3, 2)):
        written, drawn = open_dataset(config, split), ShapesDataset(length=length, size=64, seed=seed)
        assert len(written) == len(drawn)
        for index in range(length):
            found, expected = written.read(index), drawn.read(index)
            assert torch.equal(found.image, expected.image) and torch.equal(found.labels, expected.labels)
            assert found.name == expected.name
            contents.add(found.image.numpy().tobytes())
    assert len(contents) == 5


def test_written_labels_are_indices_with_the_palette_of_the_spec(tmp_path: Path) -> None:
    write_shapes(tmp_path, train=1, val=1)
    with Image.open(tmp_path / "labels/train/scene_000000.png") as picture:
        assert picture.mode == "P"
        colours = np.array(picture.getpalette()).reshape(-1, 3)[:NUM_CLASSES]
    assert [tuple(colour) for colour in colours.tolist()] == list(load_spec("shapes").palette)


def test_writing_does_not_mix_with_other_files(tmp_path: Path) -> None:
    write_shapes(tmp_path, train=2, val=1)
    with pytest.raises(UserError, match=r"images.train contains scene_000001\.png"):
        write_shapes(tmp_path, train=1, val=1)


@pytest.mark.parametrize("arguments", [{"length": 0}, {"length": 1, "size": 8}, {"length": 1, "seed": -1}])
def test_numbers_out_of_range_are_named(arguments: dict[str, int]) -> None:
    with pytest.raises(UserError, match=str(list(arguments.values())[-1])):
        ShapesDataset(**arguments)

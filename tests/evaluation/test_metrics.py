"""Scores against slow references and torchmetrics: random and structured label maps, ignored pixels, absent classes."""

import math
from dataclasses import astuple
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy import ndimage
from torch import Tensor
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_f1_score, multiclass_jaccard_index

from segvit.evaluation.boundary import band, band_width, boundary_counts
from segvit.evaluation.metrics import ConfusionMatrix, Metrics

Map = npt.NDArray[np.int64]
Pair = tuple[Map, Map]
"""Predicted, labels."""


def random_pair(seed: int, num_classes: int, size: tuple[int, int]) -> Pair:
    """Noise; the last class is absent, the one before is predicted only."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, num_classes - 2, size)
    predicted = np.where(random.random(size) < 0.5, labels, random.integers(0, num_classes - 1, size))
    labels[random.random(size) < 0.15] = 255
    return predicted, labels


def structured_pair(seed: int, num_classes: int, size: tuple[int, int]) -> Pair:
    """Blobs that touch the borders, ignored strips between some of them, and a prediction moved by three pixels."""
    random = np.random.default_rng(seed)
    fields = ndimage.gaussian_filter(random.normal(size=(num_classes - 2, *size)), (0, 6, 6))
    labels = fields.argmax(axis=0)
    predicted = np.roll(labels, (1, 3), axis=(0, 1))
    predicted[:9, :9] = num_classes - 2
    labels[ndimage.gaussian_filter(random.normal(size=size), 5) > 0.05] = 255
    labels[:, size[1] // 3 : size[1] // 3 + 2] = 255
    return predicted, labels


PAIRS: dict[str, list[Pair]] = {
    "noise": [random_pair(seed, 7, size) for seed, size in enumerate([(40, 61), (33, 17), (90, 120)])],
    "blobs": [structured_pair(seed, 6, size) for seed, size in enumerate([(90, 120), (75, 64), (128, 30)])],
    "many classes": [random_pair(seed, 171, (60, 80)) for seed in range(3)],
    "one row": [random_pair(0, 5, (1, 300))],
    "one pixel": [random_pair(0, 4, (1, 1)), random_pair(1, 4, (1, 1))],
    "all ignored": [(np.zeros((9, 9), np.int64), np.full((9, 9), 255))],
    "some ignored wholly": [(np.zeros((9, 9), np.int64), np.full((9, 9), 255)), structured_pair(3, 5, (50, 40))],
}
CLASSES = {"noise": 7, "blobs": 6, "many classes": 171, "one row": 5, "one pixel": 4}


def measure(pairs: list[Pair], num_classes: int) -> Metrics:
    matrix = ConfusionMatrix(num_classes)
    for predicted, labels in pairs:
        matrix.update(torch.from_numpy(predicted), torch.from_numpy(labels))
    return matrix.compute()


# References -----------------------------------------------------------------------------------------------------------


def slow_band(classes: Map, kept: npt.NDArray[np.bool_], distance: int) -> npt.NDArray[np.bool_]:
    """The definition, pixel by pixel: another class, or the outside, within the square around."""
    height, width = classes.shape
    found = np.zeros(classes.shape, dtype=bool)
    for y, x in np.argwhere(kept):
        top, left, bottom, right = y - distance, x - distance, y + distance + 1, x + distance + 1
        square = (slice(max(top, 0), bottom), slice(max(left, 0), right))
        outside = top < 0 or left < 0 or bottom > height or right > width
        found[y, x] = outside or bool((classes[square][kept[square]] != classes[y, x]).any())
    return found


def ratio(above: float, below: float) -> float | None:
    return above / below if below else None


def mean(values: list[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None


def slow_metrics(pairs: list[Pair], num_classes: int) -> Metrics:
    """Every score from sets of pixels, class by class."""
    sums = np.zeros((num_classes, 6), dtype=np.int64)
    for predicted, labels in pairs:
        kept = labels != 255
        distance = max(1, round(0.02 * math.sqrt(labels.shape[0] ** 2 + labels.shape[1] ** 2)))
        edges = slow_band(predicted, kept, distance), slow_band(labels, kept, distance)
        for k in range(num_classes):
            found, true = (predicted == k) & kept, labels == k
            near = found & edges[0], true & edges[1]
            sets = (found & true, found | true, true, found, near[0] & near[1], near[0] | near[1])
            sums[k] += [chosen.sum() for chosen in sets]
    both, either, true, found, near_both, near_either = sums.T.tolist()
    iou, accuracy = list(map(ratio, both, either)), list(map(ratio, both, true))
    dice = [ratio(2 * b, t + f) for b, t, f in zip(both, true, found, strict=True)]
    boundary = list(map(ratio, near_both, near_either))
    total = sum(true)
    return Metrics(
        miou=mean(iou),
        mean_accuracy=mean(accuracy),
        overall_accuracy=ratio(sum(both), total),
        mean_dice=mean(dice),
        mean_boundary_iou=mean(boundary),
        iou=tuple(iou),
        accuracy=tuple(accuracy),
        dice=tuple(dice),
        boundary_iou=tuple(boundary),
        labelled=tuple(count / max(total, 1) for count in true),
    )


def flat(metrics: Metrics) -> list[Any]:
    return [value for part in astuple(metrics) for value in (part if isinstance(part, tuple) else (part,))]


@pytest.mark.parametrize("name", PAIRS)
def test_scores_equal_the_slow_reference(name: str) -> None:
    num_classes = CLASSES.get(name, 5)
    ours, reference = flat(measure(PAIRS[name], num_classes)), flat(slow_metrics(PAIRS[name], num_classes))
    assert [value is None for value in ours] == [value is None for value in reference]
    assert [v for v in ours if v is not None] == pytest.approx([v for v in reference if v is not None], abs=1e-12)


@pytest.mark.parametrize("name", ["noise", "blobs", "many classes", "one row"])
def test_scores_equal_torchmetrics(name: str) -> None:
    num_classes = CLASSES[name]
    ours = measure(PAIRS[name], num_classes)
    predicted, labels = (torch.from_numpy(np.concatenate([p[i].ravel() for p in PAIRS[name]])) for i in (0, 1))
    setting: dict[str, Any] = {"num_classes": num_classes, "ignore_index": 255}
    theirs = multiclass_jaccard_index(predicted, labels, average="none", **setting)
    assert [value or 0.0 for value in ours.iou] == pytest.approx(theirs.tolist(), abs=1e-6)
    assert ours.miou == pytest.approx(float(multiclass_jaccard_index(predicted, labels, **setting)), abs=1e-6)
    theirs = multiclass_f1_score(predicted, labels, average="none", **setting)
    assert [value or 0.0 for value in ours.dice] == pytest.approx(theirs.tolist(), abs=1e-6)
    theirs = multiclass_accuracy(predicted, labels, average="none", **setting)
    assert [value or 0.0 for value in ours.accuracy] == pytest.approx(theirs.tolist(), abs=1e-6)
    assert num_classes - 1 in ours.absent and ours.iou[num_classes - 2] == 0 and ours.accuracy[num_classes - 2] is None


def test_counts_are_exact_integers_by_true_and_predicted() -> None:
    labels = torch.tensor([[0, 0, 1], [2, 255, 255]])
    predicted = torch.tensor([[0, 1, 1], [0, 2, 1]])
    matrix = ConfusionMatrix(4)
    for _ in range(3):
        matrix.update(predicted, labels)
    assert matrix.counts.dtype == matrix.boundary.dtype == torch.int64
    assert matrix.counts.tolist() == [[3, 3, 0, 0], [0, 3, 0, 0], [3, 0, 0, 0], [0, 0, 0, 0]]
    assert matrix.boundary.tolist() == [[3, 3, 0, 0], [6, 3, 3, 0], [6, 6, 0, 0]]
    assert matrix.compute().absent == (3,)


def test_parts_add_up_to_the_whole() -> None:
    whole, parts = ConfusionMatrix(7), [ConfusionMatrix(7) for _ in PAIRS["noise"]]
    for part, pair in zip(parts, PAIRS["noise"], strict=True):
        for matrix in (whole, part):
            matrix.update(torch.from_numpy(pair[0]), torch.from_numpy(pair[1]))
    total = ConfusionMatrix(7)
    for part in parts:
        total.add(part)
    total.all_reduce()  # alone: nothing
    assert torch.equal(total.counts, whole.counts) and torch.equal(total.boundary, whole.boundary)


def test_a_batch_is_its_maps() -> None:
    pairs = [structured_pair(seed, 6, (60, 45)) for seed in range(3)]
    batch = ConfusionMatrix(6)
    batch.update(*(torch.stack([torch.from_numpy(pair[i]) for pair in pairs]) for i in (0, 1)))
    assert batch.compute() == measure(pairs, 6)


# Boundary IoU ---------------------------------------------------------------------------------------------------------


def test_the_band_is_two_per_cent_of_the_diagonal() -> None:
    assert band_width(360, 480) == 12
    assert band_width(1024, 2048) == round(0.02 * math.sqrt(1024**2 + 2048**2)) == 46
    assert band_width(1, 1) == band_width(40, 60) == 1


@pytest.mark.parametrize("distance", [1, 2, 3, 5, 8, 13, 40])
@pytest.mark.parametrize("size", [(37, 53), (20, 90)])
def test_the_band_is_what_repeated_erosion_takes(size: tuple[int, int], distance: int) -> None:
    """Without ignored pixels: mask less its erosion, the outside of the image counting as outside of the mask."""
    fields = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(4, *size)), (0, 5, 5))
    classes = fields.argmax(axis=0)
    found = band(torch.from_numpy(classes) + 1, 4, distance=distance).numpy()
    for k in range(4):
        mask = classes == k
        eroded = ndimage.binary_erosion(mask, np.ones((3, 3)), iterations=distance, border_value=0)
        assert (found & mask == mask & ~eroded).all()


@pytest.mark.parametrize("num_classes", [2, 127, 128, 253, 254, 255])
def test_any_number_of_classes(num_classes: int) -> None:
    """The highest and the lowest class side by side, where small integers would overflow."""
    labels = np.zeros((30, 40), dtype=np.int64)
    labels[:, 20:] = num_classes - 1
    labels[10:14] = 255
    predicted = np.roll(labels, 1, axis=1)
    predicted[labels == 255] = 0
    counts = boundary_counts(torch.from_numpy(predicted), torch.from_numpy(labels), num_classes)
    kept = labels != 255
    near = [slow_band(classes, kept, 1) for classes in (labels, predicted)]
    for k in (0, num_classes - 1):
        expected = [(labels == k) & near[0], (predicted == k) & kept & near[1]]
        assert counts[:, k].tolist() == [(expected[0] & expected[1]).sum(), expected[0].sum(), expected[1].sum()]
    assert counts.sum(dim=1).tolist() == [(near[0] & near[1] & (labels == predicted)).sum(), *(n.sum() for n in near)]


def test_what_is_predicted_on_ignored_pixels_is_nothing() -> None:
    predicted, labels = structured_pair(1, 6, (90, 120))
    right = np.where(labels == 255, np.random.default_rng(0).integers(0, 6, labels.shape), labels)
    perfect = measure([(right, labels)], 6)
    assert all(value in (1.0, None) for value in perfect.boundary_iou) and perfect.mean_boundary_iou == 1
    other = np.where(labels == 255, (predicted + 1) % 6, predicted)
    assert measure([(predicted, labels)], 6) == measure([(other, labels)], 6)


def test_ignored_pixels_are_no_edge_and_hide_none() -> None:
    """A hole of ignored pixels in one class is no boundary; two classes a thin strip apart still have theirs."""
    kept = torch.ones(60, 60, dtype=torch.bool)
    kept[25:35, 25:35] = False
    assert not band(kept.long(), 2, distance=3)[3:-3, 3:-3].any()
    classes = torch.ones(60, 60, dtype=torch.int64)
    classes[:, 30:32], classes[:, 32:] = 0, 2
    found = band(classes, 2, distance=5)[5:-5, 5:-5].any(dim=0).nonzero().flatten() + 5
    assert found.tolist() == [27, 28, 29, 32, 33, 34]


def test_coarse_edges_cost_more_boundary_iou_than_iou() -> None:
    labels = np.zeros((200, 200), dtype=np.int64)
    labels[50:150, 50:150] = 1
    coarse = np.zeros_like(labels)
    coarse[48:144, 48:144] = 1  # the nearest cells of 16 pixels
    seen = measure([(coarse, labels)], 2)
    assert seen.iou[1] is not None and seen.boundary_iou[1] is not None
    assert seen.boundary_iou[1] < 0.35 < 0.8 < seen.iou[1]


def test_the_input_is_left_alone() -> None:
    maps: list[Tensor] = [torch.from_numpy(part.copy()) for part in structured_pair(2, 6, (40, 40))]
    before = [part.clone() for part in maps]
    ConfusionMatrix(6).update(*maps)
    assert all(torch.equal(part, kept) for part, kept in zip(maps, before, strict=True))

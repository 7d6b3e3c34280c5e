"""The label map without the scores: its bounds hold, and its answer is that of the whole volume, in every corner."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import segvit.inference.bounds as bounds_module
import segvit.inference.label_map as labels_module
from segvit.inference.bounds import interpolation_error, sample
from segvit.inference.label_map import best_class, compose_labels
from segvit.inference.tiles import Composition, View, window_matrices
from segvit.inference.windows import window_weights
from segvit.utils.resize import bilinear_matrix


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def trained(num_classes: int, present: int, grid: tuple[int, int], seed: int = 0) -> tuple[Tensor, Tensor]:
    """P and mask logits shaped like a trained model's: a few queries sure of their class, the rest of "no object"."""
    random = generator(seed)
    logits = torch.randn(num_classes, num_classes + 1, generator=random)
    found = torch.randperm(num_classes, generator=random)[:present]
    logits[:, -1] += 8
    logits[found, -1] -= 8
    logits[found, found] += 10
    return logits.softmax(dim=1)[:, :-1].contiguous(), torch.randn(num_classes, *grid, generator=random) * 3


def untrained(num_classes: int, grid: tuple[int, int], seed: int = 0) -> tuple[Tensor, Tensor]:
    """Much the same probability for all, and smooth masks."""
    random = generator(seed)
    logits = 0.3 * torch.randn(num_classes, num_classes + 1, generator=random)
    coarse = torch.randn(num_classes, 1, 3, 3, generator=random)
    masks = F.interpolate(coarse, size=grid, mode="bilinear")[:, 0]
    return logits.softmax(dim=1)[:, :-1].contiguous(), masks


def near_equal(num_classes: int, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Every class scores the same to about 1e-4."""
    probabilities, logits = trained(num_classes, num_classes // 4, grid)
    same = probabilities.mean(dim=1, keepdim=True).expand(-1, num_classes)
    return same + 1e-4 * torch.rand(num_classes, num_classes, generator=generator(1)), logits


def extreme(num_classes: int, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Masks that jump from one token to the next between certain and impossible."""
    probabilities, logits = trained(num_classes, 6, grid)
    return probabilities, logits.sign() * 60


def independent(num_classes: int, present: int, grid: tuple[int, int], seed: int = 0) -> tuple[Tensor, Tensor]:
    """The diagonal of P of a presence head, and masks."""
    probabilities, logits = trained(num_classes, present, grid, seed)
    return probabilities.diagonal().contiguous(), logits


CASES: dict[str, tuple[Tensor, Tensor]] = {
    "few of many present": trained(60, 5, (9, 11)),
    "all present": trained(40, 40, (6, 7)),
    "none present": trained(40, 0, (6, 7)),
    "untrained": untrained(50, (8, 9)),
    "near-equal": near_equal(40, (5, 6)),
    "extreme": extreme(40, (6, 6)),
    "constant masks": (trained(30, 3, (4, 4))[0], torch.full((30, 4, 4), -2.0)),
    "more queries than classes": (trained(60, 30, (5, 7))[0][:, :12].contiguous(), trained(60, 5, (5, 7))[1]),
    "fewer queries than classes": (trained(60, 30, (5, 7))[0][:12].contiguous(), trained(60, 5, (5, 7))[1][:12]),
    "one class": trained(1, 1, (5, 5)),
    "two classes": trained(2, 1, (5, 5)),
    "one token": trained(30, 3, (1, 1)),
    "one row of tokens": trained(30, 3, (1, 9)),
    "one column of tokens": trained(30, 3, (9, 1)),
    "independent, few of many present": independent(60, 5, (9, 11)),
    "independent, all present": independent(70, 70, (6, 7)),
    "independent, none present": independent(40, 0, (6, 7)),
    "independent, untrained": (untrained(50, (8, 9))[0].diagonal().contiguous(), untrained(50, (8, 9))[1]),
    "independent, near-equal": (
        0.5 + 1e-4 * torch.rand(60, generator=generator(1)),
        2 + 1e-3 * torch.randn(60, 5, 6, generator=generator(2)),
    ),
    "independent, extreme": (independent(40, 6, (6, 6))[0], independent(40, 6, (6, 6))[1].sign() * 60),
    "independent, one class": independent(1, 1, (5, 5)),
    "independent, one token": independent(30, 3, (1, 1)),
    "independent, one row of tokens": independent(30, 30, (1, 9)),
}


INDEPENDENT = [name for name in CASES if name.startswith("independent")]


def volume(view: View) -> Tensor:
    """Scores (K, H, W) of a view in float64, every window whole, weighted, summed and divided."""
    total = torch.zeros(view.probabilities.shape[-1], *view.size, dtype=torch.float64)
    count = torch.zeros(view.size, dtype=torch.float64)
    rows, columns = view.rows.double(), view.columns.double()
    down, right = (torch.ones(len(rows)), torch.ones(len(columns))) if view.weights is None else view.weights
    weights = down.double()[:, None] * right.double()
    for (top, left), probabilities, logits in zip(view.corners, view.probabilities, view.logits, strict=True):
        masks = (rows @ logits.double() @ columns.T).sigmoid()
        y, x = slice(top, top + len(rows)), slice(left, left + len(columns))
        probabilities = torch.diag(probabilities) if probabilities.ndim == 1 else probabilities
        total[:, y, x] += torch.einsum("qc,qyx->cyx", probabilities.double(), masks) * weights
        count[y, x] += weights
    return total / count


def assert_best(labels: Tensor, scores: Tensor) -> None:
    """Every label's score is the best of its pixel, but for ties to 1e-6, of which there are few."""
    best = scores.amax(dim=0)
    behind = best - scores.gather(0, labels[None])[0]
    assert behind.max() <= 1e-6
    assert (labels != scores.argmax(dim=0)).float().mean() <= 0.01


@pytest.fixture
def full_tiles(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The rectangles that were worked out in full."""
    seen: list[Any] = []
    real = labels_module._in_full

    def spy(*arguments: Any) -> None:
        seen.append(arguments[2:])
        real(*arguments)

    monkeypatch.setattr(labels_module, "_in_full", spy)
    return seen


@pytest.fixture(params=[2**16, 500], ids=["one tile", "many tiles"])
def tiles(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels_module, "TILE_PIXELS", request.param)
    monkeypatch.setattr(labels_module, "INDEPENDENT_TILE_PIXELS", min(request.param, 2**14))
    monkeypatch.setattr(labels_module, "MANY_CLASSES", 1)  # the bounds, however few the classes


@pytest.mark.parametrize(
    "cell", [16, 14, 3, *(pytest.param(cell, marks=pytest.mark.slow) for cell in (8, 32))], ids="{} px".format
)
@pytest.mark.parametrize("name", CASES)
def test_labels_are_those_of_the_volume(name: str, cell: int, tiles: None) -> None:
    probabilities, logits = CASES[name]
    padded = (logits.shape[1] * cell, logits.shape[2] * cell)
    view = View.of_image(probabilities[None], logits[None], (max(padded[0] - 5, 1), padded[1]), padded)
    assert_best(compose_labels([view], view.size), volume(view))


@pytest.mark.parametrize("name", ["few of many present", "untrained", "extreme", "one row of tokens", *INDEPENDENT])
@pytest.mark.parametrize("size", [(37, 301), (200, 90), (1, 1)], ids=str)
def test_labels_at_another_size_are_those_of_the_resized_volume(name: str, size: tuple[int, int], tiles: None) -> None:
    probabilities, logits = CASES[name]
    padded = (logits.shape[1] * 16, logits.shape[2] * 16)
    view = View.of_image(probabilities[None], logits[None], padded, padded)
    resized = F.interpolate(volume(view)[None], size=size, mode="bilinear", align_corners=False)[0]
    assert_best(compose_labels([view], size), resized)


WEIGHTS: dict[str, tuple[Tensor, Tensor] | None] = {
    "mean": None,
    "gaussian": window_weights((64, 64), torch.empty(0)),
    "skewed": (torch.logspace(-6, 0, 64), torch.logspace(0, -5, 64)),
    "random": (torch.rand(64, generator=generator(8)) + 1e-4, torch.rand(64, generator=generator(9)) ** 8 + 1e-6),
}
"""Weights of the rows and columns of a window. Those of the last two are worse than any that the product uses."""


def overlapping(kind: str, weights: tuple[Tensor, Tensor] | None, *, flipped: bool = False) -> View:
    """Windows at odd places, each with classes of its own."""
    corners = ((0, 0), (0, 36), (0, 76), (36, 0), (36, 36), (36, 76))
    make: dict[str, Callable[[int], tuple[Tensor, Tensor]]] = {
        "trained": lambda seed: trained(40, 4, (4, 4), seed),
        "untrained": lambda seed: untrained(40, (4, 4), seed),
        "extreme": lambda seed: (trained(40, 5, (4, 4), seed)[0], trained(40, 5, (4, 4), seed)[1].sign() * 60),
        "rivals": lambda seed: rivals(seed),
        "independent": lambda seed: independent(40, 20, (4, 4), seed),
    }
    probabilities, logits = (torch.stack(parts) for parts in zip(*map(make[kind], range(6)), strict=True))
    rows, columns = window_matrices(logits, (64, 64), (64, 64))
    return View(
        size=(100, 140), corners=corners, probabilities=probabilities, logits=logits, rows=rows, columns=columns,
        padded_size=(64, 64), weights=weights, flipped=flipped,
    )  # fmt: skip


def rivals(seed: int) -> tuple[Tensor, Tensor]:
    """Two neighbouring windows are sure of two different classes, so the weights alone decide where one gives way."""
    probabilities = torch.full((40, 40), 1e-4)
    probabilities[seed % 2, seed % 2] = 0.9
    probabilities[2, 3] = 0.447  # third in all windows, nearly as high as the mean of the two
    return probabilities, 6 + 0.3 * torch.randn(40, 4, 4, generator=generator(seed))


@pytest.mark.parametrize("size", [(100, 140), (70, 300)], ids=str)
@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("kind", ["trained", "untrained", "independent"])
def test_labels_of_overlapping_windows(size: tuple[int, int], flipped: bool, kind: str, tiles: None) -> None:
    check_overlapping(overlapping(kind, None, flipped=flipped), size)


@pytest.mark.parametrize("kind", ["trained", "independent"])
def test_labels_of_weighted_windows_mirrored_and_resized(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels_module, "TILE_PIXELS", 5000)
    monkeypatch.setattr(labels_module, "INDEPENDENT_TILE_PIXELS", 5000)
    monkeypatch.setattr(labels_module, "MANY_CLASSES", 1)
    check_overlapping(overlapping(kind, WEIGHTS["gaussian"], flipped=True), (70, 300))


def check_overlapping(view: View, size: tuple[int, int]) -> None:
    """Compare the labels of a view at a size with its volume."""
    scores = volume(view)
    if view.flipped:
        scores = scores.flip(2)
    if size != view.size:
        scores = F.interpolate(scores[None], size=size, mode="bilinear", align_corners=False)[0]
    assert_best(compose_labels([view], size), scores)


@pytest.mark.parametrize("kind", ["extreme", "rivals", "trained", "independent"])
@pytest.mark.parametrize("weights", ["gaussian", "skewed", "random"])
def test_labels_of_windows_with_hostile_weights(kind: str, weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels_module, "TILE_PIXELS", 5000)
    monkeypatch.setattr(labels_module, "INDEPENDENT_TILE_PIXELS", 5000)
    monkeypatch.setattr(labels_module, "MANY_CLASSES", 1)
    view = overlapping(kind, WEIGHTS[weights])
    assert_best(compose_labels([view], view.size), volume(view))
    tile = Composition([view], view.size)
    for rows, columns, scores in tile.tiles():
        assert (scores - volume(view)[:, rows, columns]).abs().max() < 1e-5
    if view.independent:
        return
    y, x = torch.tensor([0, 40, 50, 99]), torch.tensor([0, 70, 80, 139])
    assert (tile.at(y, x, torch.arange(40)) - volume(view)[:, y, x].T).abs().max() < 1e-5


@pytest.mark.parametrize("kind", ["trained", "rivals"])
@pytest.mark.parametrize("weights", WEIGHTS)
def test_bounds_hold_under_weights(kind: str, weights: str) -> None:
    view = overlapping(kind, WEIGHTS[weights])
    everywhere = slice(0, 100), slice(0, 140)
    sampled = view.sampled(*everywhere)
    near = torch.stack([samples.near_the_best() for samples in sampled.values()]).any(dim=0)
    (classes,) = near.nonzero(as_tuple=True)
    bounded, truth = view.bounded(sampled, classes, *everywhere), volume(view)
    scores, apart, limit = bounded[:-2], bounded[-2], bounded[-1]
    off = scores - truth[classes]
    assert (off.amax(dim=0) - off.amin(dim=0) <= apart).all()
    others = truth[~near].amax(dim=0)
    for truly, seeming in zip(truth[classes], scores, strict=True):
        assert (truly > others)[seeming > limit].all()
    assert (scores.amax(dim=0) > limit).any()


def test_without_the_weights_the_answer_would_be_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """That the tests above can fail: the labels of the mean are not those of other weights."""
    monkeypatch.setattr(labels_module, "MANY_CLASSES", 1)
    view = overlapping("rivals", WEIGHTS["skewed"])
    real = View._piece
    monkeypatch.setattr(View, "_piece", lambda *arguments: real(*arguments)._replace(weights=None))
    with pytest.raises(AssertionError):
        assert_best(compose_labels([view], view.size), volume(view))


def test_gaussian_weights_by_the_formula() -> None:
    for size in ((64, 48), (7, 1), (1, 2)):
        for weights, side in zip(window_weights(size, torch.empty(0)), size, strict=True):
            expected = [math.exp(-0.5 * ((place - (side - 1) / 2) / (side / 8)) ** 2) for place in range(side)]
            torch.testing.assert_close(weights, torch.tensor(expected), atol=1e-6, rtol=1e-5)
            assert weights.min() >= math.exp(-8) and torch.equal(weights, weights.flip(0))


def test_few_of_many_classes_are_decided_by_the_bounds(full_tiles: list[Any]) -> None:
    for probabilities, logits in (trained(150, 12, (16, 16)), untrained(150, (16, 16))):
        view = View.of_image(probabilities[None], logits[None], (256, 256), (256, 256))
        compose_labels([view], view.size)
    assert not full_tiles


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of independent classes that were scored together."""
    seen: list[int] = []
    real = Composition.scores_of

    def spy(self: Composition, classes: Tensor, rows: slice, columns: slice) -> Tensor:
        seen.append(len(classes))
        return real(self, classes, rows, columns)

    monkeypatch.setattr(Composition, "scores_of", spy)
    return seen


def test_few_of_many_independent_classes_are_scored(scored: list[int]) -> None:
    probabilities, logits = independent(150, 12, (16, 16))
    compose_labels([View.of_image(probabilities[None], logits[None], (256, 256), (256, 256))], (256, 256))
    assert scored == [16] * 4  # 4 tiles


def test_a_bound_that_is_too_low_would_be_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """That the tests above can fail: the largest logit of a tile bounds its scores, not the mean one."""
    probabilities, logits = independent(60, 60, (9, 11))
    view = View.of_image(probabilities[None], logits[None], (144, 176), (144, 176))
    monkeypatch.setattr(View, "highest", lambda self, *_: probabilities * logits.mean(dim=(1, 2)).sigmoid())
    with pytest.raises(AssertionError):
        assert_best(compose_labels([view], view.size), volume(view))


def test_where_the_bounds_do_not_pay_the_tile_is_worked_out_in_full(full_tiles: list[Any]) -> None:
    probabilities, logits = trained(40, 40, (6, 6))
    compose_labels([View.of_image(probabilities[None], logits[None], (96, 96), (96, 96))], (96, 96))
    assert full_tiles


def test_few_classes_are_worked_out_in_full(full_tiles: list[Any]) -> None:
    probabilities, logits = trained(20, 3, (6, 6))
    view = View.of_image(probabilities[None], logits[None], (96, 96), (96, 96))
    assert_best(compose_labels([view], view.size), volume(view))
    assert full_tiles


def test_without_its_bounds_the_answer_would_be_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """That the tests above can fail: samples alone do not give the labels."""
    probabilities, logits = trained(60, 12, (9, 11))
    view = View.of_image(probabilities[None], logits[None], (144, 176), (144, 176))
    monkeypatch.setattr(bounds_module, "interpolation_error", lambda logits: torch.zeros_like(logits[:, 1:, 1:]))
    monkeypatch.setattr(bounds_module, "SHARP", 2.0)
    with pytest.raises(AssertionError):
        assert_best(compose_labels([view], view.size), volume(view))


@pytest.mark.parametrize("scale", [0.3, 3, 30])
@pytest.mark.parametrize("steps", [1, 4])
def test_a_mask_strays_from_its_samples_by_no_more_than_the_bound(scale: float, steps: int) -> None:
    logits = (torch.randn(20, 5, 6, generator=generator()) * scale).double()
    error = interpolation_error(logits) / steps**2
    fine = 24  # places per token at which to look

    def at(count: int, values: Tensor) -> Tensor:
        size = [(side - 1) * count + 1 for side in values.shape[1:]]
        return F.interpolate(values[None], size=size, mode="bilinear", align_corners=True)[0]

    strays = (at(fine, logits).sigmoid() - at(fine // steps, at(steps, logits).sigmoid())).abs()
    worst = F.max_pool2d(strays, fine + 1, stride=fine)
    assert worst.shape == error.shape
    assert (worst <= error + 1e-12).all()
    if scale < 10:
        assert (worst / error).max() > 0.4  # nor is it idle


def test_bounds_hold_at_every_pixel() -> None:
    probabilities, logits = trained(30, 4, (5, 6))
    matrices = bilinear_matrix(5, 80, logits.device), bilinear_matrix(6, 96, logits.device)
    sampled = sample(probabilities, logits, 16)
    (classes,) = sampled.near_the_best().nonzero(as_tuple=True)
    assert len(classes) < 15
    bounded = sampled.bounded(classes, *matrices)
    scores, apart, limit = bounded[:-2], bounded[-2], bounded[-1]
    truth = volume(View.of_image(probabilities[None], logits[None], (80, 96), (80, 96)))
    off = scores - truth[classes]
    assert (off.amax(dim=0) - off.amin(dim=0) <= apart).all()
    assert off.abs().max() > 1e-5  # they are no copies
    others = torch.ones(30, dtype=torch.bool)
    others[classes] = False
    for truly, seeming in zip(truth[classes], scores, strict=True):
        assert (truly > truth[others].amax(dim=0))[seeming > limit].all()


def test_the_first_of_equal_classes_wins() -> None:
    scores = torch.tensor([[0.2, 0.0], [0.5, 0.0], [0.5, 0.0]])[:, None]
    assert best_class(scores).tolist() == [[1, 0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_autocast_changes_nothing(dtype: torch.dtype) -> None:
    probabilities, logits = CASES["few of many present"]
    view = View.of_image(probabilities[None], logits[None], (144, 176), (144, 176))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        assert_best(compose_labels([view], view.size), volume(view))
        for rows, columns, tile in Composition([view], view.size).tiles():
            assert (tile - volume(view)[:, rows, columns]).abs().max() < 1e-5

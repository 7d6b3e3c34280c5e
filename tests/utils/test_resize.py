"""Resizing against slow references: sizes, images, label maps, and lines of a map by matrices and by taps."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from segvit.utils.resize import (
    Window,
    bilinear_matrix,
    bilinear_taps,
    interpolation_matrix,
    places_on_old,
    resize,
    resize_labels,
    source_of,
    taps_of,
)
from segvit.utils.sizes import fit_size

SIZES = [((40, 60), (80, 120)), ((40, 60), (20, 30)), ((37, 53), (48, 19)), ((5, 7), (61, 3)), ((1, 1), (3, 4))]
"""Height and width before and after: up, down, both at once, and hardly anything."""


def random_image(height: int, width: int) -> Tensor:
    return torch.randint(256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def random_labels(height: int, width: int) -> Tensor:
    labels = torch.randint(6, (height, width), generator=torch.Generator().manual_seed(0))
    return torch.where(labels == 5, 255, labels)


@pytest.mark.parametrize(
    "size, long, short, ratio, expected",
    [
        ((512, 683), 2048, 512, 1.0, (512, 683)),  # ADE20K: the short side is the crop
        ((683, 512), 2048, 512, 0.5, (342, 256)),
        ((512, 683), 2048, 512, 2.0, (1024, 1366)),
        ((512, 683), 2048, 512, 1.5, (768, 1025)),  # halves go up: Python's own rounding gives 1024
        ((5, 9), None, None, 0.5, (3, 5)),
        ((500, 4000), 2048, 512, 1.0, (256, 2048)),  # the long side binds
        ((500, 4000), 2048, 512, 0.5, (128, 1024)),
        ((375, 500), 520, 520, 1.0, (390, 520)),  # PASCAL-Context: the long side binds
        ((360, 480), None, 256, 1.0, (256, 341)),
        ((360, 480), 240, None, 1.0, (180, 240)),
        ((360, 480), None, None, 1.0, (360, 480)),
        ((360, 480), None, None, 0.75, (270, 360)),
        ((1, 3000), 100, 100, 1.0, (1, 100)),  # never without a pixel
    ],
)
def test_fit_size(
    size: tuple[int, int], long: int | None, short: int | None, ratio: float, expected: tuple[int, int]
) -> None:
    assert fit_size(*size, long=long, short=short, ratio=ratio) == expected


@pytest.mark.parametrize("old, new", SIZES)
def test_resize_is_bilinear_without_antialias(old: tuple[int, int], new: tuple[int, int]) -> None:
    image = random_image(*old)
    exact = F.interpolate(image[None].double(), size=new, mode="bilinear", align_corners=False, antialias=False)[0]
    result = resize(image, new)
    assert result.dtype == torch.uint8 and result.shape == (3, *new)
    assert (result - exact).abs().max() <= 0.5 + 1e-3  # rounded, not cut


@pytest.mark.parametrize("old, new", SIZES)
def test_labels_take_the_pixel_under_their_centre(old: tuple[int, int], new: tuple[int, int]) -> None:
    labels = random_labels(*old)
    result = resize_labels(labels, new)
    for y in range(new[0]):
        for x in range(new[1]):
            row, column = (2 * y + 1) * old[0] // (2 * new[0]), (2 * x + 1) * old[1] // (2 * new[1])
            assert result[y, x] == labels[row, column]
    assert set(result.flatten().tolist()) <= set(labels.flatten().tolist())  # nothing in between is invented


@pytest.mark.parametrize("old, new", SIZES[:3])
def test_a_window_is_the_part_of_the_whole(old: tuple[int, int], new: tuple[int, int]) -> None:
    image, labels = random_image(*old), random_labels(*old)
    whole, whole_labels = resize(image, new), resize_labels(labels, new)
    for window in (Window(0, 0, 7, 9), Window(new[0] - 11, new[1] - 13, 11, 13), Window(3, 2, new[0] - 3, 8)):
        rows = slice(window.top, window.top + window.height)
        columns = slice(window.left, window.left + window.width)
        assert torch.equal(resize(image, new, window), whole[:, rows, columns])
        assert torch.equal(resize_labels(labels, new, window), whole_labels[rows, columns])


@pytest.mark.parametrize("old, new", [(1, 1), (1, 5), (5, 1), (4, 64), (7, 30), (30, 7), (9, 9), (32, 33)])
def test_bilinear_matrix_is_interpolate(old: int, new: int) -> None:
    line = torch.randn(1, 1, old, 3)
    expected = F.interpolate(line, size=(new, 3), mode="bilinear", align_corners=False)
    matrix = bilinear_matrix(old, new, line.device)
    assert matrix.shape == (new, old) and matrix.dtype == torch.float32
    assert float((matrix @ line[0, 0] - expected[0, 0]).abs().max()) < 1e-6


@pytest.mark.parametrize("old, new", [(1, 1), (1, 5), (5, 1), (4, 64), (64, 30), (9, 9), (2943, 1050), (1050, 2943)])
def test_taps_are_interpolate(old: int, new: int) -> None:
    line = torch.randn(1, 1, old)
    expected = F.interpolate(line, size=new, mode="linear", align_corners=False)[0, 0]
    taps = bilinear_taps(old, new, line.device)
    for wanted in (slice(0, new), slice(new // 3, new // 3 + 1), slice(new // 2, new)):
        source = taps.source(wanted)
        part = taps.resize(line[0, 0, source], wanted, 0)
        assert torch.allclose(part, expected[wanted], atol=1e-6)


@pytest.mark.parametrize("old, new", [(2, 2), (4, 64), (7, 30), (30, 7)])
def test_taps_and_places_of_a_matrix(old: int, new: int) -> None:
    line = torch.randn(old)
    matrix = bilinear_matrix(old, new, line.device)
    expected = matrix @ line
    assert torch.allclose(
        (interpolation_matrix(places_on_old(matrix), old) @ line.double()).float(), expected, atol=1e-6
    )
    wanted = torch.randint(new, (5,))
    taps = taps_of(matrix, wanted)
    assert torch.allclose(torch.lerp(line[taps.low], line[taps.high], taps.share), expected[wanted], atol=1e-6)
    for part in (slice(0, new), slice(new // 3, new // 3 + 1), slice(new // 2, new)):
        source = source_of(part, old, new)
        assert torch.allclose(matrix[part, source] @ line[source], expected[part], atol=1e-6)

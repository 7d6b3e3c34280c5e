"""The up-sampling from the tap before QD, by loops; and what an older file or run meant by shrunk."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from segvit.config import Structure, TrainConfig, Upsampling
from segvit.errors import UserError
from segvit.models.create import create_model
from segvit.models.downsampling import shrunk_grid
from segvit.models.upsampling import TapUpsampling, interpolate
from segvit.profiling.info import describe
from segvit.training.settings import check_same_run
from segvit.weights.finetune import network_of
from segvit.weights.load import load_model
from segvit.weights.model_file import HEADER_KEY, read_header
from tests.helpers.tiny import random_images, stir, tiny_config

GRIDS = [(4, 6), (5, 7), (4, 7), (5, 6), (1, 6), (1, 5), (6, 1), (2, 2), (2, 1), (1, 1)]


def kept_near(place: int, count: int) -> list[int]:
    """The kept rows (or columns), by their number among `count` kept ones, that a row of the patches is between."""
    if place % 2 == 0:
        return [place // 2]
    return [place // 2, min(place // 2 + 1, count - 1)]  # the border repeats


def slow_interpolation(kept: Tensor, grid: tuple[int, int]) -> Tensor:
    """A kept token's value (d,) at its own patch; at any other, the mean of the kept neighbours: (d, h, w)."""
    fine = torch.zeros(len(kept), *grid)
    for y in range(grid[0]):
        for x in range(grid[1]):
            rows, columns = kept_near(y, kept.shape[1]), kept_near(x, kept.shape[2])
            values = [kept[:, row, column] for row in rows for column in columns]
            fine[:, y, x] = sum(values) / len(values)
    return fine


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_dropped_patches_are_the_mean_of_their_kept_neighbours(grid: tuple[int, int]) -> None:
    torch.manual_seed(0)
    kept = torch.randn(2, 3, *shrunk_grid(grid))
    fine = interpolate(kept, grid)
    assert fine.shape == (2, 3, *grid)
    assert torch.equal(fine[:, :, ::2, ::2], kept)
    for ours, one in zip(fine, kept, strict=True):
        torch.testing.assert_close(ours, slow_interpolation(one, grid), rtol=0, atol=1e-6)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_a_centred_token_lies_between_its_patches(grid: tuple[int, int]) -> None:
    """Each patch is a quarter of a cell from the middle of its own: weights 3/4 and 1/4 in each direction."""
    kept = torch.randn(1, 2, *shrunk_grid(grid))
    fine = interpolate(kept, grid, centred=True)
    assert fine.shape == (1, 2, *grid)
    last = [side - 1 for side in kept.shape[2:]]
    for y in range(grid[0]):
        for x in range(grid[1]):
            rows = [y // 2, min(max(y // 2 + (1 if y % 2 else -1), 0), last[0])]
            columns = [x // 2, min(max(x // 2 + (1 if x % 2 else -1), 0), last[1])]
            weights = {(i, j): (0.75, 0.25)[i] * (0.75, 0.25)[j] for i in (0, 1) for j in (0, 1)}
            expected = sum(weight * kept[0, :, rows[i], columns[j]] for (i, j), weight in weights.items())
            torch.testing.assert_close(fine[0, :, y, x], expected, rtol=0, atol=1e-5)


def slow_tap(upsampling: Any, features: list[Tensor], grid: tuple[int, int]) -> list[Tensor]:
    """The maps (d, h, w) of one image's features (D, ., .): a Linear and a LayerNorm on each token, then sums."""
    projected = []
    for linear, norm, feature in zip(upsampling.projections, upsampling.norms, features, strict=True):
        tokens = torch.zeros(len(linear.bias), *feature.shape[1:])
        for y in range(feature.shape[1]):
            for x in range(feature.shape[2]):
                token = linear.weight @ feature[:, y, x] + linear.bias
                deviation = (token.var(correction=0) + 1e-5).sqrt()
                tokens[:, y, x] = (token - token.mean()) / deviation * norm.weight + norm.bias
        projected.append(tokens if feature.shape[1:] == grid else slow_interpolation(tokens, grid))
    return [sum(projected[index:], torch.zeros(1)) for index in range(len(projected))]


@torch.no_grad()
@pytest.mark.parametrize("grid", [(4, 6), (5, 7), (1, 4)], ids=str)
@pytest.mark.parametrize("before, behind", [(1, 1), (2, 1), (1, 2), (0, 1)])
def test_each_map_is_the_sum_of_its_tap_and_all_deeper_ones(before: int, behind: int, grid: tuple[int, int]) -> None:
    torch.manual_seed(0)
    upsampling = TapUpsampling(in_dim=6, num_stages=before + behind, dim=4)
    stir(upsampling)
    features = [torch.randn(2, 6, *grid) for _ in range(before)]
    features += [torch.randn(2, 6, *shrunk_grid(grid)) for _ in range(behind)]
    maps = upsampling(features, grid)
    assert isinstance(maps, list) and [tuple(one.shape) for one in maps] == [(2, 4, *grid)] * (before + behind)
    for image in range(2):
        expected = slow_tap(upsampling, [feature[image] for feature in features], grid)
        for ours, slow in zip(maps, expected, strict=True):
            torch.testing.assert_close(ours[image], slow, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 6), (3, 2), (2, 4), (8, 12)], ids=str)
def test_a_map_of_another_grid_is_refused(size: tuple[int, int]) -> None:
    upsampling = TapUpsampling(in_dim=6, num_stages=2, dim=4)
    message = rf"needs maps at 4 x 6 or .*every second row and column.*got {size[0]} x {size[1]}: .*upsampling to paper"
    with pytest.raises(UserError, match=message):
        upsampling([torch.zeros(1, 6, 4, 6), torch.zeros(1, 6, *size)], (4, 6))


# Files and runs from before the setting ------------------------------------------------------------------------------


def without_the_setting(path: Path) -> None:
    """Rewrite a model's file as an older version wrote it."""
    header = read_header(path)
    del header["model"]["upsampling"]
    save_file(load_file(path), path, metadata={HEADER_KEY: json.dumps(header)})


@pytest.mark.parametrize(
    "structure, upsampling",
    [
        ("shrunk", "paper"),
        pytest.param("plain", "tap", marks=pytest.mark.slow),
        pytest.param("naive_shrunk", "tap", marks=pytest.mark.slow),
    ],
)
def test_an_older_file_of_shrunk_has_the_papers_upsampling(
    structure: Structure, upsampling: Upsampling, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    config = tiny_config("vit", structure, upsampling)
    model, path = create_model(config=config, num_classes=3).eval(), tmp_path / "model.safetensors"
    model.save(path)
    assert load_model(path).config == config
    without_the_setting(path)
    loaded = load_model(path)
    assert loaded.config == network_of(str(path)) == config
    assert torch.equal(loaded.predict(random_images(1, (50, 70))), model.predict(random_images(1, (50, 70))))
    assert describe(str(path)).to_dict()["upsampling"] == ("paper" if structure == "shrunk" else None)


def test_an_older_run_resumes_with_what_it_had() -> None:
    for structure, upsampling in (("plain", "tap"), ("naive_shrunk", "tap"), ("shrunk", "paper")):
        model = tiny_config("vit", structure, upsampling)  # type: ignore[arg-type]
        config = replace(TrainConfig(), model=model)
        saved = config.to_dict()
        del saved["model"]["upsampling"]
        check_same_run(config, saved)
    with pytest.raises(UserError, match=r"model\.upsampling: 'paper' in the run, 'tap' now"):
        check_same_run(replace(config, model=replace(model, upsampling="tap")), saved)

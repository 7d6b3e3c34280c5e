"""Edge-aware QD: labels, choice, loss and the restored grid, by loops; and its settings."""

import copy
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import segvit
import segvit.data.dataset as dataset_module
from segvit.config import LossConfig, ModelConfig, OptimConfig, TrainConfig
from segvit.data.spec import DatasetSpec
from segvit.edge_loss import edge_labels, edge_loss
from segvit.errors import UserError
from segvit.losses import CRITERIA, Losses, criterion
from segvit.models.create import create_model
from segvit.models.detail.edges import MOST, EdgeDownsampling, num_edges
from segvit.models.downsampling import Kept, lattice
from segvit.models.segvit import SegViT
from segvit.profiling.info import describe
from segvit.profiling.multiply_adds import profile
from segvit.training.settings import check_settings
from segvit.training.train import train
from segvit.weights.finetune import with_classes
from tests.helpers.tiny import random_images, run_records, stir, tiny_config, tiny_run
from tests.models.test_upsampling import slow_interpolation

GRIDS = [(4, 4), (5, 7), (2, 3), (6, 2), (2, 2), (3, 3)]
each_grid = pytest.mark.parametrize("grid", GRIDS, ids=str)


def edge_config(variant: str = "vit", **settings: Any) -> ModelConfig:
    return replace(tiny_config(variant, "shrunk", downsampling="edge"), **settings)


def edge_model(variant: str = "vit", num_classes: int = 5, **settings: Any) -> SegViT:
    torch.manual_seed(0)
    model = create_model(config=edge_config(variant, **settings), num_classes=num_classes)
    stir(model)
    return model


# Labels and loss ------------------------------------------------------------------------------------------------------


def slow_edge_labels(labels: Tensor, grid: tuple[int, int], patch: int) -> tuple[Tensor, Tensor]:
    """(B, H, W) -> two (B, h, w) bool, by the set of classes of each patch."""
    edges, known = torch.zeros(2, len(labels), *grid, dtype=torch.bool)
    for image, y, x in product(range(len(labels)), range(grid[0]), range(grid[1])):
        cell = labels[image, y * patch : (y + 1) * patch, x * patch : (x + 1) * patch]
        classes = set(cell.flatten().tolist()) - {255}
        edges[image, y, x], known[image, y, x] = len(classes) > 1, len(classes) > 0
    return edges, known


def patchy_labels(batch: int, size: tuple[int, int]) -> Tensor:
    """Blobs of classes and of ignored pixels, so that every kind of patch occurs."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 4, (batch, 1, 6, 6), generator=generator).float()
    labels = F.interpolate(coarse, size=size, mode="nearest")[:, 0].long()
    ignored = torch.rand(batch, 1, 4, 4, generator=generator) < 0.4
    return labels.masked_fill(F.interpolate(ignored.float(), size=size, mode="nearest")[:, 0] > 0, 255)


@pytest.mark.parametrize("size", [(24, 32), (21, 30), (1, 1), (17, 8)], ids=str)
def test_labels_are_the_patches_with_more_than_one_class(size: tuple[int, int]) -> None:
    patch, labels = 8, patchy_labels(3, size)
    grid = (-(-size[0] // patch), -(-size[1] // patch))
    ours = edge_labels(labels, grid, (grid[0] * patch, grid[1] * patch))
    expected = slow_edge_labels(labels, grid, patch)
    assert torch.equal(ours[0], expected[0]) and torch.equal(ours[1], expected[1])
    if size == (24, 32):
        assert all(0 < kind.sum() < kind.numel() for kind in ours)


def test_ignored_pixels_are_no_class() -> None:
    labels = torch.full((1, 2, 4), 3)
    labels[0, 0, 0] = 255
    labels[0, :, 2:] = 255
    edges, known = edge_labels(labels, (1, 2), (2, 4))
    assert edges.tolist() == [[[False, False]]] and known.tolist() == [[[True, False]]]


def slow_edge_loss(logits: Tensor, labels: Tensor, patch: int) -> Tensor:
    edges, known = slow_edge_labels(labels, (logits.shape[1], logits.shape[2]), patch)
    means = []
    for image in range(len(logits)):
        positives = int(edges[image].sum())
        negatives = max(int(known[image].sum()) - positives, 1)
        total = torch.zeros(())
        for y, x in known[image].nonzero().tolist():
            p = torch.sigmoid(logits[image, y, x])
            total = total - (negatives / max(positives, 1) * p.log() if edges[image, y, x] else (1 - p).log())
        means.append(total / max(int(known[image].sum()), 1))
    return torch.stack(means).mean()


def test_the_loss_by_loops_and_however_a_batch_is_divided() -> None:
    labels = patchy_labels(4, (24, 32))
    labels[3] = 255  # nothing to learn
    logits = torch.randn(4, 3, 4, generator=torch.Generator().manual_seed(1))
    whole = edge_loss(logits, labels, (24, 32))
    torch.testing.assert_close(whole, slow_edge_loss(logits, labels, 8))
    parts = [edge_loss(logits[part], labels[part], (24, 32)) for part in (slice(0, 2), slice(2, 4))]
    torch.testing.assert_close(whole, torch.stack(parts).mean())
    assert edge_loss(logits[3:], labels[3:], (24, 32)) == 0


@pytest.mark.parametrize("head", ["atm", "linear"])
def test_the_term_has_its_coefficient_and_only_with_an_edge_head(head: Any) -> None:
    images, labels = random_images(2, (50, 61)), patchy_labels(2, (50, 61))
    settings: dict[str, Any] = {} if head == "atm" else {"head": "linear", "head_num_layers": 3}
    model = edge_model(**settings)
    output = model(images)
    assert output.edge_logits is not None and output.edge_logits.shape == (2, 4, 4)
    losses = CRITERIA[head](output, labels, config=LossConfig(edge_coefficient=0.7))  # type: ignore[call-arg]
    torch.testing.assert_close(losses["edge"], 0.7 * edge_loss(output.edge_logits, labels, (64, 64)))
    assert "edge" not in criterion(output._replace(edge_logits=None), labels)


def test_the_edge_head_learns_by_its_term_alone() -> None:
    model = edge_model()
    losses = criterion(model(random_images(2, (64, 64))), patchy_labels(2, (64, 64)))
    losses.pop("edge").backward(retain_graph=True)
    edge_head = dict(model.backbone.downsampling.named_parameters())
    assert len(edge_head) == 6
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in edge_head.values())
    model.zero_grad()
    losses.total.backward()
    assert all(parameter.grad is None for parameter in edge_head.values())


# What is kept, and the grid behind ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "grid, share, count",
    [((4, 4), 0.25, 4), ((5, 7), 0.25, 8), ((3, 3), 0.5, 4), ((2, 2), 0.25, 1), ((2, 2), 0.1, 0), ((40, 41), 0.3, 492)],
)
def test_the_share_is_rounded_down(grid: tuple[int, int], share: float, count: int) -> None:
    assert num_edges(grid, share) == count


def test_every_grid_has_as_many_patches_off_the_lattice() -> None:
    for grid in product(range(2, 14), range(2, 14)):
        assert num_edges(grid, MOST) <= grid[0] * grid[1] - len(lattice(grid)), grid


@torch.no_grad()
@each_grid
@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_the_lattice_and_the_largest_logits_are_kept(grid: tuple[int, int], share: float) -> None:
    torch.manual_seed(0)
    part = EdgeDownsampling(dim=16, share=share)
    stir(part)
    patches = torch.randn(3, grid[0] * grid[1], 16)
    kept = part(patches, grid)
    assert kept.edge_logits.shape == (3, *grid) and kept.grid == (1, kept.indices.shape[1])
    for image in range(3):
        hidden = F.gelu(part.fc1(F.layer_norm(patches[image], (16,), part.norm.weight, part.norm.bias)))
        logits = (hidden @ part.fc2.weight[0] + part.fc2.bias).tolist()
        regular = [y * grid[1] + x for y in range(0, grid[0], 2) for x in range(0, grid[1], 2)]
        others = sorted(set(range(grid[0] * grid[1])) - set(regular), key=lambda index: -logits[index])
        chosen = others[: int(share * grid[0] * grid[1])]
        assert kept.indices[image].tolist()[: len(regular)] == regular
        assert sorted(kept.indices[image].tolist()) == sorted(regular + chosen)
        torch.testing.assert_close(kept.edge_logits[image].flatten(), torch.tensor(logits), rtol=1e-4, atol=1e-5)


@each_grid
def test_the_grid_is_restored(grid: tuple[int, int]) -> None:
    torch.manual_seed(0)
    part = EdgeDownsampling(dim=8, share=0.25)
    kept = part(torch.randn(2, grid[0] * grid[1], 8), grid)
    tokens = torch.randn(2, kept.indices.shape[1], 3)
    maps = part.restore(tokens, kept, grid)
    assert maps.shape == (2, 3, *grid)
    rows, columns = -(-grid[0] // 2), -(-grid[1] // 2)
    for image in range(2):
        regular = torch.zeros(3, rows, columns)
        for place, token in zip(kept.indices[image].tolist()[: rows * columns], tokens[image], strict=False):
            regular[:, place // grid[1] // 2, place % grid[1] // 2] = token
        expected = slow_interpolation(regular, grid)
        for place, token in zip(kept.indices[image].tolist(), tokens[image], strict=True):
            expected[:, place // grid[1], place % grid[1]] = token
        torch.testing.assert_close(maps[image], expected, rtol=0, atol=1e-6)


class Given(nn.Module):
    """Keeps given patches, each image its own, as a list without a grid."""

    def __init__(self, indices: Tensor) -> None:
        super().__init__()
        self.indices = indices

    def forward(self, patches: Tensor, grid: tuple[int, int]) -> Kept:
        return Kept(self.indices, (1, self.indices.shape[1]))


@torch.no_grad()
@pytest.mark.parametrize("variant", ["vit", "dinov2, registers", "beitv2", "eva02", "dinov3 without class token"])
def test_maps_of_a_backbone_are_the_restored_kept_tokens(variant: str) -> None:
    """Blocks on any kept tokens are compared with a slow reference in test_downsampling.py."""
    backbone = edge_model(variant).eval().backbone
    images = torch.randn(2, 3, 5 * backbone.patch_size, 7 * backbone.patch_size)
    seen: list[Kept] = []
    hook = backbone.downsampling.register_forward_hook(lambda _, __, kept: seen.append(kept))
    maps = backbone(images)
    hook.remove()
    assert [tuple(one.shape[2:]) for one in maps] == [(5, 7)] * 3 and backbone.map_cell == backbone.patch_size
    assert not torch.equal(seen[0].indices[0], seen[0].indices[1])  # each image has its own edges
    same = copy.deepcopy(backbone)
    same.downsampling = Given(seen[0].indices)
    lists = same(images)
    assert torch.equal(maps[0], lists[0])
    for ours, tokens in zip(maps[1:], lists[1:], strict=True):
        restored = backbone.downsampling.restore(tokens.flatten(2).transpose(1, 2), seen[0], (5, 7))
        assert torch.equal(ours, restored)


# Settings, costs, runs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, -0.1, 0.51, 1.0])
def test_a_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(UserError, match=rf"model\.edge_share {share}: give a share .* above 0, and 0\.5 or less"):
        create_model(config=edge_config(edge_share=share), num_classes=2)


def test_settings_of_edges_without_edges_are_refused() -> None:
    with pytest.raises(UserError, match=r"edge_share 0\.3 with model\.downsampling nearest_q.*set model\.downsampling"):
        create_model(config=replace(tiny_config("vit", "shrunk"), edge_share=0.3), num_classes=2)
    config = TrainConfig(loss=LossConfig(edge_coefficient=1.0))
    with pytest.raises(UserError, match=r"loss\.edge_coefficient 1\.0 with model\.downsampling nearest_q.*no edge"):
        check_settings(config)
    check_settings(replace(config, model=replace(edge_config(), head="linear", head_num_layers=3)))


@torch.no_grad()
def test_multiply_adds_by_hand() -> None:
    """Linear layers and attention of the blocks behind on the kept tokens, and the edge head on all patches."""
    grid, width, ratio = (5, 7), 64, 4
    model = edge_model("vit without class token", shrink_at=1)
    cost = profile(model, (grid[0] * 16, grid[1] * 16))
    behind = next(part for part in cost.parts if part.name == "backbone from QD on")
    count, kept = 35, 12 + 8
    edges = count * (width * width // 4 + width // 4)
    mlp = 2 * ratio * width * width
    first = 2 * width * width * (count + kept) + 2 * count * kept * width + kept * mlp
    later = kept * (4 * width * width + mlp) + 2 * kept * kept * width
    assert behind.multiply_adds == edges + first + 2 * later
    assert behind.parameters >= sum(parameter.numel() for parameter in model.backbone.downsampling.parameters())


def test_a_file_keeps_the_share(tmp_path: Path) -> None:
    model, path = edge_model(edge_share=0.4).eval(), tmp_path / "model.safetensors"
    model.save(path)
    facts = describe(str(path)).to_dict()
    assert (facts["downsampling"], facts["edge_share"]) == ("edge", 0.4)
    loaded = segvit.load_model(path)
    images = random_images(2, (70, 50))
    assert torch.equal(loaded.predict(images), model.predict(images))


def test_fine_tuning_keeps_the_edge_head() -> None:
    model = edge_model(num_classes=3)
    colors = ((1, 2, 3), (4, 5, 6), (7, 8, 9))
    model.spec = DatasetSpec(name="three", classes=("a", "b", "c"), palette=colors, raw_ids=(0, 1, 2))
    spec = DatasetSpec(name="two", classes=("c", "d"), palette=colors[:2], raw_ids=(0, 1))
    new = with_classes(model, spec)
    for ours, old in zip(new.backbone.parameters(), model.backbone.parameters(), strict=True):
        assert torch.equal(ours, old)
    assert model.config is not None
    with pytest.raises(UserError, match=r"model\.edge_share: 0\.25 in .*, 0\.4 in the settings"):
        with_classes(model, spec, config=replace(model.config, edge_share=0.4))


def edge_run(output: Path, **settings: Any) -> TrainConfig:
    run = tiny_run(output)
    model = replace(run.model, depth=3, structure="shrunk", shrink_at=1, downsampling="edge")
    return replace(run, model=model, **settings)


@pytest.fixture
def few_scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset_module, "SHAPES_LENGTH", {"train": 4, "val": 1})


@pytest.mark.usefixtures("few_scenes")
def test_a_run_logs_the_term_and_resumes_to_the_bit(tmp_path: Path) -> None:
    whole, stopped = edge_run(tmp_path / "whole"), edge_run(tmp_path / "stopped")
    finished = train(whole)

    def stop(done: int, _: Losses) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(stopped, on_step=stop)
    resumed = train(stopped, resume=True)
    assert resumed.result == finished.result
    records = run_records(whole.output)
    assert run_records(stopped.output) == records
    assert all(record["edge"] > 0 for record in records if "loss" in record)


@pytest.mark.usefixtures("few_scenes")
def test_features_of_blocks_before_it_can_be_cached(tmp_path: Path) -> None:
    run = edge_run(tmp_path / "images", optim=OptimConfig(lr=1e-3, warmup_steps=2, freeze=3), accumulate=2)
    run = replace(run, augment=replace(run.augment, views=1), model=replace(run.model, drop_path=0.0))
    train(run)
    data = replace(run.data, cache_features=tmp_path / "cache")
    train(replace(run, data=data, output=tmp_path / "cached"))
    first, second = (run_records(tmp_path / name)[0] for name in ("images", "cached"))
    assert first["edge"] == pytest.approx(second["edge"], rel=1e-3)

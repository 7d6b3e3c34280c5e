"""Token merging against a slow and obvious reference, and what a model with merging keeps, in every family."""

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from segvit.config import ModelConfig
from segvit.errors import UserError
from segvit.losses import criterion
from segvit.models.backbone import BackboneState
from segvit.models.create import create_model
from segvit.models.merging.merge import pair_similarities, size_mask, spread, unmerged, window_similarities
from segvit.models.merging.settings import default_merge_at
from segvit.models.merging.token_merging import TokenMerging
from segvit.models.segvit import SegViT
from segvit.weights.load import load_model
from tests.helpers.tiny import VARIANTS, random_images, relative_difference, stir, tiny_config

NUM_CLASSES = 5
SIZE = (130, 150)
"""Pixels that make odd and even grids of patches of 14 and 16, and more patches than a few merges use up."""
MODES: dict[str, dict[str, Any]] = {"threshold": {"merge_threshold": 0.5}, "shares": {"merge_shares": (0.4, 0.5)}}
"""Settings of merging by a threshold, which `half_merging` fits to the random weights, and by shares."""
Groups = list[list[int]]
"""Patches of each token, in the order of the tokens."""


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a.double() @ b.double() / (a.double().norm() * b.double().norm()))


def by_hand_windows(patches: Tensor, grid: tuple[int, int], threshold: float) -> Groups:
    """Merge the windows of one image (N, D), one after the other."""
    height, width = grid
    merged: Groups = []
    for y in range(0, height - 1, 2):
        for x in range(0, width - 1, 2):
            four = [y * width + x, y * width + x + 1, (y + 1) * width + x, (y + 1) * width + x + 1]
            pairs = [cosine(patches[a], patches[b]) for i, a in enumerate(four) for b in four[i + 1 :]]
            if sum(pairs) / len(pairs) > threshold:
                merged.append(four)
    taken = {patch for four in merged for patch in four}
    return sorted(merged + [[patch] for patch in range(height * width) if patch not in taken])


def by_hand_pairs(tokens: Tensor, groups: Groups, threshold: float) -> tuple[Groups, list[int]]:
    """Merge even tokens of one image (n, D) into odd ones, one after the other. Return the first token of each too."""
    target = list(range(len(groups)))
    for source in range(0, len(groups), 2):
        similarity = {other: cosine(tokens[source], tokens[other]) for other in range(1, len(groups), 2)}
        best = max(similarity, key=lambda other: similarity[other], default=source)
        if similarity.get(best, -1) > threshold:
            target[source] = best
    stays = [token for token in range(len(groups)) if target[token] == token]
    members = [[token for token in range(len(groups)) if target[token] == stay] for stay in stays]
    return [[patch for token in several for patch in groups[token]] for several in members], stays


def assert_merged(tokens: Tensor, merged: Any, image: int, groups: Groups, means: list[Tensor]) -> None:
    """Compare one image's tokens and state with groups of patches and their means."""
    count = int((merged.sizes[image] > 0).sum())
    assert count == len(groups)
    assert merged.sizes[image, :count].tolist() == [len(group) for group in groups]
    found = [sorted((merged.token_of[image] == token).nonzero().flatten().tolist()) for token in range(count)]
    assert found == [sorted(group) for group in groups]
    torch.testing.assert_close(tokens[image, :count], torch.stack(means), rtol=1e-5, atol=1e-6)


def alike(batch: int, grid: tuple[int, int], dim: int = 6) -> Tensor:
    """Draw patches (B, N, D) of which some are alike."""
    generator = torch.Generator().manual_seed(grid[0] * 100 + grid[1])
    kinds = torch.randn(4, dim, generator=generator)
    which = torch.randint(0, 4, (batch, grid[0] * grid[1]), generator=generator)
    which = which.unflatten(1, grid).repeat_interleave(2, 1).repeat_interleave(2, 2)[:, : grid[0], : grid[1]].flatten(1)
    return kinds[which] + 0.3 * torch.randn(batch, grid[0] * grid[1], dim, generator=generator)


@pytest.mark.parametrize("grid", [(6, 8), (5, 7), (2, 2), (1, 6), (3, 1), (1, 1)], ids=str)
def test_both_merges_are_those_by_hand(grid: tuple[int, int]) -> None:
    patches, prefix = alike(3, grid), torch.randn(3, 2, 6)
    merging = TokenMerging(at=(0, 1), threshold=0.85)
    tokens = torch.cat([prefix, patches], dim=1)
    tokens, merged = merging(tokens, None, grid, block=0, num_prefix_tokens=2)
    groups, means = [], []
    for image in range(3):
        groups.append(by_hand_windows(patches[image], grid, 0.85))
        means.append([patches[image, group].mean(dim=0) for group in groups[-1]])
        assert_merged(tokens[:, 2:], merged, image, groups[-1], means[-1])
        assert merged.indices[image, : len(groups[-1])].tolist() == [group[0] for group in groups[-1]]
    if grid == (6, 8):
        assert (merged.sizes == 0).any() and len({len(each) for each in groups}) > 1
    again, merged = merging(tokens, merged, grid, block=1, num_prefix_tokens=2)
    assert torch.equal(again[:, :2], prefix)
    for image in range(3):
        if grid == (1, 1):
            assert torch.equal(again, tokens)
            continue
        joined, stays = by_hand_pairs(torch.stack(means[image]), groups[image], 0.85)
        expected = [patches[image, group].mean(dim=0) for group in joined]
        assert_merged(again[:, 2:], merged, image, joined, expected)
        assert merged.indices[image, : len(joined)].tolist() == [groups[image][stay][0] for stay in stays]
    if grid == (6, 8):
        assert again.shape[1] < tokens.shape[1] < 2 + 48


def test_shares_merge_the_most_similar() -> None:
    grid, patches = (5, 8), alike(2, (5, 8))
    tokens, merged = TokenMerging(at=(0, 1), shares=(0.5, 0.0))(patches, None, grid, block=0, num_prefix_tokens=0)
    assert tokens.shape[1] == 40 - 3 * 4
    similarities = window_similarities(patches, grid).flatten(1)
    least = similarities.sort(dim=1, descending=True).values[:, 3]
    by_threshold = TokenMerging(at=(0, 1), threshold=float(least[0]) - 1e-6)
    expected, _ = by_threshold(patches[:1], None, grid, block=0, num_prefix_tokens=0)
    assert torch.equal(tokens[:1], expected)
    pairs = TokenMerging(at=(0, 1), shares=(0.5, 0.25))
    fewer, _ = pairs(tokens, merged, grid, block=1, num_prefix_tokens=0)
    assert fewer.shape[1] == 28 - 3  # a quarter of 14 even tokens, rounded down


def test_similarities_are_means_over_pairs_and_best_of_the_odd() -> None:
    patches = torch.randn(1, 9, 4)
    assert float(window_similarities(patches, (3, 3))) == pytest.approx(
        sum(cosine(patches[0, a], patches[0, b]) for a, b in ((0, 1), (0, 3), (0, 4), (1, 3), (1, 4), (3, 4))) / 6,
        abs=1e-6,
    )
    best, places = pair_similarities(patches, torch.ones(1, 9))
    for even in range(5):
        similarity = {odd: cosine(patches[0, 2 * even], patches[0, odd]) for odd in (1, 3, 5, 7)}
        assert int(places[0, even]) == max(similarity, key=lambda odd: similarity[odd])
        assert float(best[0, even]) == pytest.approx(max(similarity.values()), abs=1e-6)


def test_means_are_those_of_float32_in_half_precision() -> None:
    patches = alike(2, (6, 8)).bfloat16()
    merging = TokenMerging(at=(0, 1), shares=(1.0, 0.0))
    tokens, _ = merging(patches, None, (6, 8), block=0, num_prefix_tokens=0)
    assert tokens.dtype == torch.bfloat16
    exact, _ = merging(patches.float(), None, (6, 8), block=0, num_prefix_tokens=0)
    assert torch.equal(tokens, exact.bfloat16())


# --- every family ----------------------------------------------------------------------------------------------------


@pytest.fixture(params=VARIANTS, scope="module")
def plain(request: pytest.FixtureRequest) -> SegViT:
    """A tiny model without merging; tests leave it as it is."""
    torch.manual_seed(0)
    model = create_model(config=tiny_config(request.param), num_classes=NUM_CLASSES)
    stir(model)
    return model.eval()


def merging_like(plain: SegViT, **settings: Any) -> SegViT:
    """Return a model of these weights that merges."""
    assert plain.config is not None
    model = create_model(config=replace(plain.config, **settings), num_classes=NUM_CLASSES)
    model.load_state_dict(plain.state_dict())
    return model.eval()


@torch.no_grad()
def half_merging(plain: SegViT, mode: str, images: Tensor) -> SegViT:
    """Return a model of these weights that merges by a threshold, which about half of the windows exceed."""
    settings = dict(MODES[mode])
    if mode == "threshold":
        seen: list[Tensor] = []
        watched = merging_like(plain, merge_threshold=1.0)
        grid = state_of(watched, images[:1]).grid
        watched.backbone.blocks[0].register_forward_hook(lambda _, __, out: seen.append(out))
        state_of(watched, images)
        patches = seen[0][:, plain.backbone.num_prefix_tokens :]
        settings["merge_threshold"] = float(window_similarities(patches, grid).median())
    return merging_like(plain, **settings)


def state_of(model: SegViT, images: Tensor) -> BackboneState:
    backbone = model.backbone
    state: BackboneState = backbone.advance(backbone.start(model.pad(model.normalise(images))), 0, backbone.num_layers)
    return state


@torch.no_grad()
def test_a_threshold_of_one_merges_nothing(plain: SegViT) -> None:
    images = random_images(2, SIZE)
    expected = plain(images)
    for threshold in (1.0, 1.5):
        output = merging_like(plain, merge_threshold=threshold)(images)
        assert torch.equal(output.mask_logits, expected.mask_logits)
        assert torch.equal(output.class_logits, expected.class_logits)
    shares = merging_like(plain, merge_shares=(0.0, 0.0))(images)
    assert relative_difference(shares.mask_logits, expected.mask_logits) < 1e-5


@torch.no_grad()
@pytest.mark.parametrize("mode", MODES)
def test_a_batch_is_its_single_images(plain: SegViT, mode: str) -> None:
    images = random_images(3, SIZE)
    images[1, :, :, 60:] = 100  # much of which merges
    model = half_merging(plain, mode, images)
    together, state = model(images), state_of(model, images)
    assert state.merged is not None and (state.merged.sizes == 0).any() == (mode == "threshold")
    assert state.merged.sizes.shape[1] < state.grid[0] * state.grid[1]
    for index in range(3):
        alone = model(images[index : index + 1])
        for a, b in zip(alone[:2], together[:2], strict=True):
            assert relative_difference(a[:, 0], b[:, index]) < 1e-5


@torch.no_grad()
def test_tokens_keep_their_positions(plain: SegViT) -> None:
    """Four equal tokens are one of them, with four times its weight as a key: by hand, on all patches.

    Every window holds four equal tokens, so that their mean is each of them. The block runs on all patches with only
    the first of each window as a key, of weight 4, which gives that patch the value of the merged token.
    """
    backbone = merging_like(plain, merge_shares=(1.0, 0.0)).backbone
    grid, num_prefix = (4, 6), backbone.num_prefix_tokens
    width, index = backbone.embed_dim, 1
    cells = torch.randn(2, 2, 3, width).repeat_interleave(2, 1).repeat_interleave(2, 2).flatten(1, 2)
    tokens = torch.cat([torch.randn(2, num_prefix, width), cells], dim=1)
    few, merged = backbone.merging(tokens, None, grid, block=0, num_prefix_tokens=num_prefix)
    shared = backbone.shared_positions(grid)
    own = backbone.kept_positions(shared, grid, merged.indices)
    ours = backbone.run_block(index, few, grid, merged.indices, own, size_mask(merged, num_prefix, few.dtype))
    first = torch.zeros(24, dtype=torch.bool)
    first[merged.indices[0]] = True
    mask = torch.zeros(2, 1, 1, num_prefix + 24)
    mask[..., num_prefix:] = torch.where(first, math.log(4), float("-inf"))
    full = backbone.run_block(index, tokens, grid, None, shared, mask)
    assert relative_difference(ours[:, num_prefix:], full[:, num_prefix:][:, merged.indices[0]]) < 1e-5
    assert torch.equal(spread(few, merged, num_prefix), tokens)


@pytest.mark.parametrize("mode", MODES)
def test_gradients_pass_through_the_means(plain: SegViT, mode: str) -> None:
    images = random_images(2, SIZE)
    model = half_merging(plain, mode, images).train()
    labels = torch.arange(2 * SIZE[0] * SIZE[1]).reshape(2, *SIZE) // 97 % (NUM_CLASSES - 1)
    criterion(model(images), labels).total.backward()
    for name, parameter in model.named_parameters():
        if parameter.numel() and "attn.k.bias" not in name:
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
            assert float(parameter.grad.abs().max()) > 1e-9, name


def test_recomputed_blocks_give_the_same_gradients(plain: SegViT) -> None:
    images, grads = random_images(2, SIZE), []
    for checkpointing in (False, True):
        model = half_merging(plain, "threshold", images)
        model.backbone.grad_checkpointing = checkpointing
        model(images).mask_logits.square().mean().backward()
        grads.append([parameter.grad for parameter in model.backbone.parameters() if parameter.grad is not None])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("mode", MODES)
def test_settings_are_saved_and_weights_are_unchanged(mode: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    base = create_model(config=tiny_config("vit"), num_classes=NUM_CLASSES)
    model = merging_like(base, **MODES[mode], merge_at=(0, 2))
    model.save(tmp_path / "model.safetensors")
    loaded = load_model(tmp_path / "model.safetensors")
    assert loaded.config == model.config and str(loaded) == str(model)
    assert loaded.backbone.merging.at == (0, 2)
    assert loaded.state_dict().keys() == base.state_dict().keys()
    images = random_images(1, SIZE)
    assert torch.equal(loaded.scores(images), model.scores(images))


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("variant", ["vit", "beitv2"])
def test_compiles(variant: str) -> None:
    """Shares make one graph; the count of a threshold breaks it, and other counts run too."""
    torch.manual_seed(0)
    base = create_model(config=replace(tiny_config(variant), head_num_layers=1), num_classes=NUM_CLASSES)
    stir(base)
    for mode, settings in MODES.items():
        model = merging_like(base, **settings)
        torch.compiler.reset()
        compiled = torch.compile(copy.deepcopy(model), fullgraph=mode == "shares", backend="eager")
        for images in (random_images(1, SIZE), random_images(1, SIZE) // 8, random_images(2, SIZE)):
            assert relative_difference(compiled(images).mask_logits, model(images).mask_logits) < 1e-5


@pytest.mark.parametrize("depth, blocks", [(12, (1, 5)), (24, (2, 10)), (4, (0, 1)), (3, (0, 1)), (32, (2, 13))])
def test_default_blocks(depth: int, blocks: tuple[int, int]) -> None:
    assert default_merge_at(depth) == blocks


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"merge_at": (0, 1)}, r"model\.merge_at 0 1 without a threshold.*model\.merge_threshold to 0\.88"),
        ({"merge_threshold": 0.9, "merge_shares": (0.1, 0.2)}, r"0\.9 and model\.merge_shares 0\.1 0\.2.*leave one"),
        ({"merge_threshold": 88.0}, r"model\.merge_threshold 88: give a cosine similarity between 0 and 1"),
        ({"merge_threshold": 0.0}, r"model\.merge_threshold 0: give"),
        ({"merge_shares": (0.5, 1.5)}, r"model\.merge_shares 0\.5 1\.5: give two shares between 0 and 1"),
        ({"merge_threshold": 0.9, "merge_at": (1, 1)}, r"model\.merge_at 1 1: give two ascending blocks.*block 3"),
        ({"merge_threshold": 0.9, "merge_at": (1, 3)}, r"model\.merge_at 1 3: give two ascending blocks.*block 3"),
        ({"merge_threshold": 0.9, "taps": (0, 1)}, r"before the last tap, and this is block 1: leave"),
        ({"merge_threshold": 0.9, "structure": "shrunk"}, r"model\.structure shrunk.*model\.structure to plain"),
        ({"merge_shares": (0.1, 0.1), "structure": "naive_shrunk"}, r"naive_shrunk.*model\.structure to plain"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_meant(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        create_model(config=replace(tiny_config("vit"), **settings), num_classes=2)


def test_patches_start_as_their_own_tokens() -> None:
    merged = unmerged(torch.zeros(2, 6, 3))
    assert torch.equal(spread(torch.arange(12.0).view(2, 6, 1), merged, 0), torch.arange(12.0).view(2, 6, 1))
    assert ModelConfig().merge_threshold is None and ModelConfig().merge_shares is None

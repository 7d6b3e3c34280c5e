"""Query-based down-sampling in the blocks of every family, against a slow and obvious reference."""

import copy
import functools
import math
from collections.abc import Callable
from itertools import product
from typing import Any, get_args

import pytest
import timm
import torch
from timm.layers import Attention as TimmAttention, DropPath, apply_rot_embed_cat
from timm.models.beit import Beit
from timm.models.eva import EvaBlockPostNorm
from timm.models.vision_transformer import ResPostBlock
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from segvit.config import Downsampling
from segvit.models.backbone import PlainViT
from segvit.models.downsampling import Kept, QueryDownsampling, keep, lattice, shrunk_grid
from segvit.models.families import adapt
from segvit.models.positions import relative_bias
from tests.helpers.tiny import TINY, relative_difference, stir

TOLERANCE = 1e-5
ROTARY = {"dynamic_img_size": True}


def attention_of(**settings: Any) -> Callable[[nn.Module], None]:
    """Give every block timm's attention of those settings."""

    def change(vit: Any) -> None:
        for block in vit.blocks:
            block.attn = TimmAttention(64, num_heads=2, norm_layer=nn.LayerNorm, **settings)

    return change


FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    # timm's standard block
    "vit": ("vit_tiny_patch16_224", {}),
    "vit without class token": ("vit_tiny_patch16_224", {"class_token": False, "global_pool": "avg"}),
    "vit without biases": ("vit_tiny_patch16_224", {"qkv_bias": False, "proj_bias": False}),
    "vit with norms inside": (
        "vit_tiny_patch16_224",
        {"qk_norm": True, "scale_attn_norm": True, "scale_mlp_norm": True},
    ),
    "deit, distilled": ("deit_tiny_distilled_patch16_224", {}),
    "deit3": ("deit3_small_patch16_224", {}),
    "dinov2, registers": ("vit_small_patch14_reg4_dinov2", {}),
    "clip": ("vit_base_patch16_clip_224", {}),
    "siglip": ("vit_base_patch16_siglip_224", {}),
    "aimv2": ("aimv2_large_patch14_224", {}),
    # the same block with another attention
    "gated attention": ("vit_tiny_patch16_224", {}),
    "narrow heads": ("vit_tiny_patch16_224", {}),
    "differential attention": ("vit_dwee_patch16_reg1_gap_256", {}),
    # timm's other blocks
    "post-norm": ("vit_base_patch16_rpn_224", {}),
    "parallel things": ("vit_small_patch16_18x2_224", {}),
    "parallel": ("vit_pwee_patch16_reg1_gap_256", {}),
    "differential, parallel": ("vit_dpwee_patch16_reg1_gap_256", {}),
    # relative position bias
    "beitv2": ("beitv2_base_patch16_224", {}),
    "beit, one bias for all": (
        "beit_base_patch16_224",
        {"use_rel_pos_bias": False, "use_shared_rel_pos_bias": True, "init_values": None},
    ),
    # Eva, most with rotary angles
    "eva": ("eva_large_patch14_196", ROTARY),
    "eva02": ("eva02_tiny_patch14_224", ROTARY),
    "eva02, norm inside": ("eva02_base_patch16_clip_224", ROTARY),
    "eva, post-norm": ("eva02_enormous_patch14_clip_224", {**ROTARY, "use_rot_pos_emb": True}),
    "rope": ("vit_small_patch16_rope_224", ROTARY),
    "rope mixed": ("vit_small_patch16_rope_mixed_224", ROTARY),
    "rope mixed, and absolute": ("vit_small_patch16_rope_mixed_ape_224", ROTARY),
    "dinov3": ("vit_small_patch16_dinov3", ROTARY),
    "dinov3 without class token": (
        "vit_small_patch16_dinov3",
        {**ROTARY, "class_token": False, "global_pool": "avg"},
    ),
    "sapiens2, grouped queries": ("vit_base_patch16_sapiens2", {**ROTARY, "num_kv_heads": (2, 1, 1, 2)}),
}
CHANGES = {
    "gated attention": attention_of(qkv_bias=True, gated=True),
    "narrow heads": attention_of(qkv_bias=True, attn_head_dim=24),
}
STANDARD = tuple(FAMILIES)[: tuple(FAMILIES).index("gated attention")] + ("narrow heads",)
"""Families whose block `attend` knows."""
NOT_SPELT_OUT = ("differential attention", "parallel things", "parallel", "differential, parallel")
"""Families whose attention the slow reference below does not spell out."""
GRIDS = [(4, 4), (5, 7), (2, 3), (6, 2)]
"""Rows and columns of patches; 4 x 4 is the native grid."""
METHODS: tuple[Downsampling, ...] = tuple(method for method in get_args(Downsampling) if method != "edge")
"""Those that keep a lattice; test_edges.py is about the other one."""
SHRINK_AT = 1

each_family = pytest.mark.parametrize("family", FAMILIES)
each_by_hand = pytest.mark.parametrize(  # for the rest, test_a_convolution_that_copies_is_nearest_q must do
    "family, method",
    [(f, m) for f, m in product(FAMILIES, METHODS) if m.startswith("nearest") or f not in NOT_SPELT_OUT],
)
each_grid = pytest.mark.parametrize(
    "grid",
    [*GRIDS[:2], *(pytest.param(grid, marks=pytest.mark.slow) for grid in GRIDS[2:])],
    ids=lambda grid: f"{grid[0]} x {grid[1]}",
)


@functools.cache
def tiny_vit(family: str) -> Any:
    """timm's model with random weights that matter."""
    name, settings = FAMILIES[family]
    patch = int(timm.create_model(name, num_classes=0, **TINY, **settings).patch_embed.patch_size[0])
    torch.manual_seed(0)
    vit = timm.create_model(name, num_classes=0, img_size=4 * patch, drop_path_rate=0.2, **TINY, **settings)
    CHANGES.get(family, lambda _: None)(vit)
    stir(vit)
    return vit.eval()


def shrunk_backbone(family: str, method: Downsampling = "nearest_q", shrink_at: int = SHRINK_AT) -> PlainViT:
    """The family's backbone with every block tapped."""
    torch.manual_seed(1)
    vit = copy.deepcopy(tiny_vit(family))
    downsampling = QueryDownsampling(dim=64, method=method)
    return adapt(vit, taps=range(4), shrink_at=shrink_at, downsampling=downsampling).eval()


def images_of(backbone: PlainViT, grid: tuple[int, int], batch: int = 2) -> Tensor:
    torch.manual_seed(2)
    return torch.randn(batch, 3, grid[0] * backbone.patch_size, grid[1] * backbone.patch_size)


def kept(grid: tuple[int, int], num_prefix_tokens: int) -> list[int]:
    """Indices of the tokens that go on: the prefix, and the patches of every second row and column."""
    patches = [y * grid[1] + x for y in range(0, grid[0], 2) for x in range(0, grid[1], 2)]
    return [*range(num_prefix_tokens), *(num_prefix_tokens + patch for patch in patches)]


def inputs_of_all(backbone: PlainViT, grid: tuple[int, int], index: int) -> dict[str, Tensor]:
    """What block `index` takes where every token is there: timm's angles, or the bias of the whole grid."""
    if getattr(backbone, "rope", None) is not None:
        angles = backbone.rope.get_embed(shape=list(grid))
        return {"rope": angles[index] if angles.ndim == 4 else angles}
    if getattr(backbone, "relative_bias_tables", None) is not None:
        tables = backbone.relative_bias_tables
        table = tables[0] if len(tables) == 1 else tables[index]
        return {"shared_rel_pos_bias": relative_bias(table, backbone.native_grid, grid)}
    return {}


def inputs_of_kept(inputs: dict[str, Tensor], indices: list[int], num_prefix_tokens: int) -> dict[str, Tensor]:
    """Of those, the kept tokens' own."""
    if "rope" in inputs:
        return {"rope": inputs["rope"][..., [i - num_prefix_tokens for i in indices[num_prefix_tokens:]], :]}
    if "shared_rel_pos_bias" in inputs:
        return {"shared_rel_pos_bias": inputs["shared_rel_pos_bias"][:, :, indices][..., indices]}
    return {}


def slow_convolution(conv: nn.Conv2d, patches: Tensor, grid: tuple[int, int]) -> Tensor:
    """3 x 3 around every second row and column, zero outside: (N, D) -> (n, D)."""
    rows = []
    for y, x in product(range(0, grid[0], 2), range(0, grid[1], 2)):
        total = conv.bias.clone()
        for dy, dx in product((-1, 0, 1), (-1, 0, 1)):
            if 0 <= y + dy < grid[0] and 0 <= x + dx < grid[1]:
                total += conv.weight[:, :, dy + 1, dx + 1] @ patches[(y + dy) * grid[1] + x + dx]
        rows.append(total)
    return torch.stack(rows)


def project(attention: Any, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values (heads, n, head_dim) of rows (n, D), for each of timm's attentions."""
    if getattr(attention, "q_proj", None) is not None:
        parts = [attention.q_proj(rows), attention.k_proj(rows), attention.v_proj(rows)]
    else:
        parts = list((rows @ attention.qkv.weight.T).chunk(3, dim=1))
        if attention.qkv.bias is not None:
            parts = [part + bias for part, bias in zip(parts, attention.qkv.bias.chunk(3), strict=True)]
        elif getattr(attention, "q_bias", None) is not None:
            parts = [parts[0] + attention.q_bias, parts[1], parts[2] + attention.v_bias]
    head_dim = parts[0].shape[1] // attention.num_heads
    q, k, v = (part.unflatten(1, (-1, head_dim)).transpose(0, 1) for part in parts)
    if hasattr(attention, "q_norm"):
        q, k = attention.q_norm(q), attention.k_norm(k)
    groups = attention.num_heads // len(k)
    return q, k.repeat_interleave(groups, dim=0), v.repeat_interleave(groups, dim=0)


def slow_attention(
    attention: Any, queries: Tensor, tokens: Tensor, inputs: dict[str, Tensor], indices: list[int], num_prefix: int
) -> Tensor:
    """One image, query by query and head by head, with an explicit softmax: (n, D) over (P + N, D) -> (n, D)."""
    q, k, v = project(attention, queries)[0], *project(attention, tokens)[1:]
    if "rope" in inputs:
        own = inputs_of_kept(inputs, indices, num_prefix)["rope"]
        half = getattr(attention, "rotate_half", False)
        q = torch.cat([q[:, :num_prefix], apply_rot_embed_cat(q[:, num_prefix:], own, half=half)], dim=1)
        k = torch.cat([k[:, :num_prefix], apply_rot_embed_cat(k[:, num_prefix:], inputs["rope"], half=half)], dim=1)
    rows = []
    for i, index in enumerate(indices):
        heads = []
        for h in range(len(q)):
            products = k[h] @ q[h, i] / math.sqrt(q.shape[2])
            if "shared_rel_pos_bias" in inputs:
                products = products + inputs["shared_rel_pos_bias"][0, h, index]
            weights = products.exp() / products.exp().sum()
            heads.append((weights[:, None] * v[h]).sum(dim=0))
        rows.append(torch.cat(heads))
    attended = torch.stack(rows)
    if hasattr(attention, "norm"):
        attended = attention.norm(attended)
    if getattr(attention, "gate", None) is not None:
        attended = attended * attention.gate(queries).sigmoid()
    out: Tensor = attention.proj(attended)
    return out


def scaled(block: Any, branch: int, rows: Tensor) -> Tensor:
    """A branch after its layer scale, if the block has one."""
    if hasattr(block, f"ls{branch}"):
        out: Tensor = getattr(block, f"ls{branch}")(rows)
        return out
    gamma = getattr(block, f"gamma_{branch}")
    return rows if gamma is None else gamma * rows


def slow_block_of_queries(
    block: Any, queries: Tensor, tokens: Tensor, inputs: dict[str, Tensor], indices: list[int], num_prefix: int
) -> Tensor:
    """One image: a block whose queries and residual are `queries` (n, D), keys and values of `tokens` (P + N, D)."""
    if isinstance(block, (ResPostBlock, EvaBlockPostNorm)):
        attended = slow_attention(block.attn, queries, tokens, inputs, indices, num_prefix)
        queries = queries + block.norm1(attended)
        return queries + block.norm2(block.mlp(queries))
    attended = slow_attention(block.attn, block.norm1(queries), block.norm1(tokens), inputs, indices, num_prefix)
    queries = queries + scaled(block, 1, attended)
    return queries + scaled(block, 2, block.mlp(block.norm2(queries)))


def slow_means(patches: Tensor, grid: tuple[int, int]) -> Tensor:
    """(N, D) -> (n, D): the mean of each cell of 2 x 2, or of what an odd grid has of it."""
    rows = []
    for top in range(0, grid[0], 2):
        for left in range(0, grid[1], 2):
            cell = [(y, x) for y in (top, top + 1) for x in (left, left + 1) if y < grid[0] and x < grid[1]]
            rows.append(sum(patches[y * grid[1] + x] for y, x in cell) / len(cell))
    return torch.stack(rows)


def slow_shrunk_block(backbone: PlainViT, block: Any, tokens: Tensor, grid: tuple[int, int], method: str) -> Tensor:
    """(B, P + N, D) -> (B, n, D)"""
    num_prefix = backbone.num_prefix_tokens
    indices = kept(grid, num_prefix)
    inputs = inputs_of_all(backbone, grid, SHRINK_AT)
    if method == "nearest_q":
        out: Tensor = block(tokens, **inputs)[:, indices]
        return out
    if method == "nearest_qkv":
        out = block(tokens[:, indices], **inputs_of_kept(inputs, indices, num_prefix))
        return out
    assert backbone.downsampling is not None
    images = []
    for image in tokens:
        if method == "mean_q":
            sampled = slow_means(image[num_prefix:], grid)
        else:
            assert backbone.downsampling.conv is not None
            sampled = slow_convolution(backbone.downsampling.conv, image[num_prefix:], grid)
        queries = torch.cat([image[:num_prefix], sampled])
        images.append(slow_block_of_queries(block, queries, image, inputs, indices, num_prefix))
    return torch.stack(images)


def slow_backbone(backbone: PlainViT, images: Tensor, method: Downsampling) -> list[Tensor]:
    """The output of every block, tokens (B, ., D)."""
    tokens, grid = backbone.embed(images)
    indices = kept(grid, backbone.num_prefix_tokens)
    outputs: list[Tensor] = []
    for index, block in enumerate(backbone.blocks):
        inputs = inputs_of_all(backbone, grid, index)
        if index == SHRINK_AT:
            tokens = slow_shrunk_block(backbone, block, tokens, grid, method)
        elif index > SHRINK_AT:
            tokens = block(tokens, **inputs_of_kept(inputs, indices, backbone.num_prefix_tokens))
        else:
            tokens = block(tokens, **inputs)
        outputs.append(tokens)
    return outputs


# The tokens that go on ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "grid, shrunk",
    [((4, 4), (2, 2)), ((5, 7), (3, 4)), ((2, 3), (1, 2)), ((6, 2), (3, 1)), ((2, 2), (1, 1)), ((40, 41), (20, 21))],
)
@pytest.mark.parametrize("num_prefix_tokens", [0, 1, 5])
def test_every_second_row_and_column_is_kept(
    grid: tuple[int, int], shrunk: tuple[int, int], num_prefix_tokens: int
) -> None:
    numbers = torch.arange(num_prefix_tokens + grid[0] * grid[1])
    ours = keep(numbers[None, :, None], lattice(grid), num_prefix_tokens)
    assert ours.flatten().tolist() == kept(grid, num_prefix_tokens)
    assert shrunk_grid(grid) == shrunk
    assert ours.shape == (1, num_prefix_tokens + shrunk[0] * shrunk[1], 1)


def test_an_odd_grid_keeps_its_last_row_and_column() -> None:
    assert kept((3, 5), 0) == [0, 2, 4, 10, 12, 14]
    assert lattice((3, 5)).tolist() == [0, 2, 4, 10, 12, 14]


# Every family against the slow reference ------------------------------------------------------------------------------


@torch.no_grad()
@each_grid
@each_by_hand
def test_every_block_by_hand(family: str, method: Downsampling, grid: tuple[int, int]) -> None:
    backbone = shrunk_backbone(family, method)
    images = images_of(backbone, grid)
    features = backbone(images)
    expected = slow_backbone(backbone, images, method)
    assert len(features) == len(expected) == 4
    small = (math.ceil(grid[0] / 2), math.ceil(grid[1] / 2))
    for index, (ours, tokens) in enumerate(zip(features, expected, strict=True)):
        assert ours.shape == (2, 64, *(grid if index < SHRINK_AT else small))
        patches = tokens[:, backbone.num_prefix_tokens :]
        assert relative_difference(ours.flatten(2).transpose(1, 2), patches) < TOLERANCE


@torch.no_grad()
@each_by_hand
def test_prefix_tokens_leave_the_block_too(family: str, method: Downsampling) -> None:
    backbone = shrunk_backbone(family, method)
    tokens, grid = backbone.embed(images_of(backbone, (5, 7)))
    block = backbone.blocks[SHRINK_AT]
    ours, _ = backbone.shrink(tokens, grid, backbone.shared_positions(grid))
    expected = slow_shrunk_block(backbone, block, tokens, grid, method)
    assert ours.shape == (2, backbone.num_prefix_tokens + 12, 64)
    assert relative_difference(ours, expected) < TOLERANCE


@torch.no_grad()
@each_family
@each_grid
def test_a_convolution_that_copies_is_nearest_q(family: str, grid: tuple[int, int]) -> None:
    nearest, convolved = shrunk_backbone(family), shrunk_backbone(family, "conv")
    assert convolved.downsampling is not None and convolved.downsampling.conv is not None
    conv = convolved.downsampling.conv
    conv.weight.zero_()
    conv.weight[:, :, 1, 1] = torch.eye(64)
    conv.bias.zero_()
    images = images_of(nearest, grid)
    for ours, expected in zip(convolved(images), nearest(images), strict=True):
        assert relative_difference(ours, expected) < TOLERANCE


@torch.no_grad()
@each_family
def test_convolved_queries_do_not_see_each_other(family: str) -> None:
    backbone = shrunk_backbone(family, "conv")
    grid, place = (5, 7), (1, 2)  # of the shrunk grid, 3 x 4
    tokens, _ = backbone.embed(images_of(backbone, grid))
    assert backbone.downsampling is not None
    maps = torch.randn(2, 64, 3, 4)
    outputs = []
    for step in (0.0, 10.0):
        changed = maps.clone()
        changed[:, :, place[0], place[1]] += step
        backbone.downsampling.conv = Given(changed)
        outputs.append(backbone.shrink(tokens, grid, backbone.shared_positions(grid))[0])
    moved = (outputs[1] - outputs[0]).abs().amax(dim=(0, 2))
    own = backbone.num_prefix_tokens + place[0] * 4 + place[1]
    assert moved[own] > 0.1
    moved[own] = 0
    assert moved.max() < 1e-5


class Given(nn.Module):
    """A convolution with a known answer."""

    def __init__(self, maps: Tensor) -> None:
        super().__init__()
        self.maps = maps

    def forward(self, _: Tensor) -> Tensor:
        return self.maps


@torch.no_grad()
@each_family
@pytest.mark.parametrize("method", METHODS)
def test_both_branches_pass_stochastic_depth(family: str, method: Downsampling) -> None:
    """A block whose branches are always dropped hands its queries on."""
    backbone = shrunk_backbone(family, method).train()
    paths = [module for module in backbone.blocks[SHRINK_AT].modules() if isinstance(module, DropPath)]
    assert paths
    for path in paths:
        path.drop_prob = 1.0
    tokens, grid = backbone.embed(images_of(backbone, (3, 4)))
    ours, given = backbone.shrink(tokens, grid, backbone.shared_positions(grid))
    queries = keep(tokens, given.indices, backbone.num_prefix_tokens)
    if given.queries is not None:
        queries = torch.cat([queries[:, : backbone.num_prefix_tokens], given.queries], dim=1)
    assert torch.equal(ours, queries)


@torch.no_grad()
@pytest.mark.parametrize("shrink_at", [0, 2])
@pytest.mark.parametrize("family", ["vit", "beitv2", "rope mixed", "dinov3"])
def test_blocks_before_are_those_of_a_plain_backbone(family: str, shrink_at: int) -> None:
    shrunk = shrunk_backbone(family, shrink_at=shrink_at)
    plain = adapt(copy.deepcopy(tiny_vit(family)), taps=range(4)).eval()
    images = images_of(plain, (5, 7))
    features, expected = shrunk(images), plain(images)
    for index in range(shrink_at):
        assert torch.equal(features[index], expected[index])
    assert relative_difference(features[shrink_at], expected[shrink_at][..., ::2, ::2]) < TOLERANCE
    assert [tuple(feature.shape[2:]) for feature in features] == [(5, 7)] * shrink_at + [(3, 4)] * (4 - shrink_at)


# What it saves --------------------------------------------------------------------------------------------------------


def multiply_adds(run: Callable[[], Tensor]) -> int:
    """Of the matrix products; the fused attention of a CPU would not be counted."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        run()
    return int(counter.get_total_flops()) // 2


@pytest.mark.parametrize("family", STANDARD)
def test_a_standard_block_projects_what_it_needs(family: str) -> None:
    backbone = shrunk_backbone(family)
    with torch.no_grad():
        tokens, grid = backbone.embed(images_of(backbone, (8, 8), batch=1))
    block: Any = backbone.blocks[SHRINK_AT]
    num_tokens, num_kept = tokens.shape[1], backbone.num_prefix_tokens + 16
    width = block.attn.num_heads * block.attn.head_dim
    projections = width * 64 * (2 * num_kept + 2 * num_tokens)  # q and out of the kept tokens, k and v of all
    products = 2 * width * num_kept * num_tokens
    mlp = num_kept * sum(part.weight.numel() for part in block.mlp.modules() if isinstance(part, nn.Linear))
    assert multiply_adds(lambda: backbone.shrink(tokens, grid, None)[0]) == projections + products + mlp


@pytest.mark.parametrize("family", ["beitv2", "eva02", "dinov3"])
def test_another_block_runs_its_mlp_on_kept_tokens_alone(family: str) -> None:
    backbone = shrunk_backbone(family)
    with torch.no_grad():
        tokens, grid = backbone.embed(images_of(backbone, (8, 8), batch=1))
    shared = backbone.shared_positions(grid)
    block, inputs = backbone.blocks[SHRINK_AT], backbone.block_inputs(SHRINK_AT, grid, None, shared)
    saved = (tokens.shape[1] - backbone.num_prefix_tokens - 16) * sum(
        part.weight.numel() for part in block.mlp.modules() if isinstance(part, nn.Linear)
    )
    whole = multiply_adds(lambda: block(tokens, **inputs))
    assert multiply_adds(lambda: backbone.shrink(tokens, grid, shared)[0]) == whole - saved


def test_the_families_are_what_their_names_say() -> None:
    assert isinstance(tiny_vit("beitv2"), Beit) and tiny_vit("beit, one bias for all").rel_pos_bias is not None
    assert isinstance(tiny_vit("post-norm").blocks[0], ResPostBlock)
    assert isinstance(tiny_vit("eva, post-norm").blocks[0], EvaBlockPostNorm)
    assert tiny_vit("rope mixed").rope_mixed and tiny_vit("rope mixed, and absolute").pos_embed is not None
    assert tiny_vit("sapiens2, grouped queries").blocks[1].attn.num_kv_heads == 1
    assert tiny_vit("gated attention").blocks[0].attn.gate is not None


# Any set of kept tokens -----------------------------------------------------------------------------------------------


class Chosen(nn.Module):
    """A down-sampling that keeps given patches, which need not be a lattice."""

    def __init__(self, indices: Tensor, queries: Tensor | None = None) -> None:
        super().__init__()
        self.indices = indices
        self.queries = queries

    def forward(self, patches: Tensor, grid: tuple[int, int]) -> Kept:
        return Kept(self.indices, (1, self.indices.shape[-1]), self.queries)


def backbone_that_keeps(family: str, indices: Tensor, *, keys_from_kept: bool) -> PlainViT:
    torch.manual_seed(1)
    chosen = Chosen(indices)
    chosen.keys_from_kept = keys_from_kept
    return adapt(copy.deepcopy(tiny_vit(family)), taps=range(4), shrink_at=SHRINK_AT, downsampling=chosen).eval()


@torch.no_grad()
@each_family
@pytest.mark.parametrize("keys_from_kept", [False, True])
def test_any_set_of_kept_tokens_by_hand(family: str, keys_from_kept: bool) -> None:
    """A random set, the same for all images, and each image's own."""
    grid = (5, 7)
    own = torch.stack([torch.randperm(35, generator=torch.Generator().manual_seed(seed))[:11] for seed in (3, 4)])
    backbone = backbone_that_keeps(family, own, keys_from_kept=keys_from_kept)
    images, num_prefix = images_of(backbone, grid), backbone.num_prefix_tokens
    features = backbone(images)
    assert [tuple(feature.shape) for feature in features] == [(2, 64, 5, 7)] + 3 * [(2, 64, 1, 11)]
    for image, chosen in enumerate(own):
        indices = [*range(num_prefix), *(num_prefix + patch for patch in chosen.tolist())]
        tokens, _ = backbone.embed(images[image : image + 1])
        for index, block in enumerate(backbone.blocks):
            inputs = inputs_of_all(backbone, grid, index)
            kept_inputs = inputs_of_kept(inputs, indices, num_prefix)
            if index < SHRINK_AT:
                tokens = block(tokens, **inputs)
            elif index == SHRINK_AT and not keys_from_kept:
                tokens = block(tokens, **inputs)[:, indices]
            else:
                tokens = block(tokens[:, indices] if index == SHRINK_AT else tokens, **kept_inputs)
            patches = features[index][image].flatten(1).T
            assert relative_difference(patches, tokens[0, num_prefix:]) < TOLERANCE
        backbone.downsampling = Chosen(chosen)
        backbone.downsampling.keys_from_kept = keys_from_kept
        for alone, together in zip(backbone(images), features, strict=True):
            assert relative_difference(alone[image], together[image]) < TOLERANCE
        backbone.downsampling = Chosen(own)
        backbone.downsampling.keys_from_kept = keys_from_kept


@torch.no_grad()
@each_family
def test_queries_of_any_places_are_those_of_their_tokens(family: str) -> None:
    """Queries that are no tokens, but equal them, give what the tokens give."""
    own = torch.stack([torch.randperm(35, generator=torch.Generator().manual_seed(seed))[:11] for seed in (3, 4)])
    backbone = backbone_that_keeps(family, own, keys_from_kept=False)
    tokens, grid = backbone.embed(images_of(backbone, (5, 7)))
    shared = backbone.shared_positions(grid)
    expected, _ = backbone.shrink(tokens, grid, shared)
    for image in (None, 0):
        indices = own if image is None else own[image]
        given = keep(tokens, indices, backbone.num_prefix_tokens)[:, backbone.num_prefix_tokens :]
        backbone.downsampling = Chosen(indices, given)
        ours, _ = backbone.shrink(tokens, grid, shared)
        chosen = slice(None) if image is None else slice(image, image + 1)
        assert relative_difference(ours[chosen], expected[chosen]) < TOLERANCE

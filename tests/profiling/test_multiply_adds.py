"""What a model costs: the paper's figures, formulas by hand, and nothing left out in silence.

Letters: D width of the backbone, d of the head, K classes, N patches, P prefix tokens, n = P + N tokens.
"""

import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import segvit
from segvit.config import ModelConfig, Structure, Upsampling
from segvit.errors import UserError
from segvit.models.create import create_model
from segvit.models.segvit import SegViT
from segvit.profiling.multiply_adds import Profile, profile

BASE, LARGE = "vit_base_patch16_384", "vit_large_patch16_384"
QU = {"structure": "shrunk", "upsampling": "paper"}
PAPER: dict[str, tuple[dict[str, Any], int, float, int | None]] = {
    "Base 512": ({"backbone": BASE, "image_size": 512}, 150, 120.9, 108_734_743),
    "Base 512, one stage": ({"backbone": BASE, "image_size": 512, "taps": (11,)}, 150, 115.8, None),
    "Base 512, one stage, presence head": (
        {"backbone": BASE, "image_size": 512, "taps": (11,), "head_classes": "presence"},
        150,
        109.9,  # of SegViTv2: the 115.8 of the row above without the K x K product
        None,
    ),
    "Base 512, naive shrunk": ({"backbone": BASE, "image_size": 512, "structure": "naive_shrunk"}, 150, 74.1, None),
    "Base 512, shrunk": ({"backbone": BASE, "image_size": 512, **QU}, 150, 97.1, None),
    "Large 640": ({"backbone": LARGE, "image_size": 640}, 150, 637.9, 344_303_255),
    "Large 640, shrunk": ({"backbone": LARGE, "image_size": 640, **QU}, 150, 373.5, 344_596_631),
    "Large 512": ({"backbone": LARGE, "image_size": 512}, 171, 383.9, 343_734_956),
    "Large 512, shrunk": ({"backbone": LARGE, "image_size": 512, **QU}, 171, 224.8, 343_733_420),
    "Large 480": ({"backbone": LARGE, "image_size": 480}, 60, 321.6, 343_494_205),
    "Large 480, shrunk": ({"backbone": LARGE, "image_size": 480, **QU}, 60, 186.9, 343_429_181),
}
"""Settings, K, the paper's multiply-adds in 10^9, and the exact number of parameters where it is known."""
FAMILIES = {
    "vit": "vit_tiny_patch16_224",
    "dinov2, registers": "vit_small_patch14_reg4_dinov2",
    "eva02": "eva02_tiny_patch14_224",
    "dinov3": "vit_small_patch16_dinov3",
    "beitv2": "beitv2_base_patch16_224",
}
each_family = pytest.mark.parametrize(
    "family",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in ("eva02", "dinov2, registers"))) for name in FAMILIES],
)
CASES: list[tuple[Structure, Upsampling]] = [
    ("plain", "tap"),
    ("shrunk", "tap"),
    ("shrunk", "paper"),
    ("naive_shrunk", "tap"),
]
NUM_CLASSES = 5
SIZE = (75, 131)
"""No multiple of a patch, not square; odd grids for patches of 14 and 16."""


def weightless(num_classes: int = NUM_CLASSES, **settings: Any) -> SegViT:
    with torch.device("meta"):
        return create_model(config=ModelConfig(**settings), num_classes=num_classes)


def tiny(family: str, structure: Structure = "plain", **settings: Any) -> dict[str, Any]:
    """Settings of a tiny model; block 2 of 4 shrinks, so that one runs behind it."""
    shrink = {"taps": (1, 3)} if structure == "plain" else {"shrink_at": 2}
    overrides = {"depth": 4, "embed_dim": 64, "num_heads": 2, "image_size": 64}
    decoder = {"head_num_layers": 2} | ({"upsampling_num_layers": 1} if settings.get("upsampling") == "paper" else {})
    return {"backbone": FAMILIES[family], "structure": structure} | overrides | decoder | shrink | settings


@functools.cache
def profile_of(
    family: str, structure: Structure = "plain", size: tuple[int, int] = SIZE, upsampling: Upsampling = "tap"
) -> Profile:
    """What a tiny model costs."""
    return profile(weightless(**tiny(family, structure, upsampling=upsampling)), size)


def cost(seen: Profile, *names: str) -> int:
    """Multiply-adds of some parts together; their names start like these."""
    return sum(part.multiply_adds for part in seen.parts if part.name.startswith(names))


def grid_of(model: SegViT, size: tuple[int, int]) -> tuple[int, int]:
    patch = model.backbone.patch_size
    return (-(-size[0] // patch), -(-size[1] // patch))


def linears(module: nn.Module) -> int:
    """Multiply-adds that the Linear layers of a module spend per token."""
    return sum(part.weight.numel() for part in module.modules() if isinstance(part, nn.Linear))


# --- the paper -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "row",
    [pytest.param(row, marks=[] if row == "Base 512, shrunk" else [pytest.mark.slow]) for row in PAPER],
)
def test_the_papers_figures(row: str) -> None:
    settings, num_classes, paper, parameters = PAPER[row]
    model = weightless(num_classes, class_token=False, **settings)
    seen = profile(model, (settings["image_size"],) * 2)
    print(f"{row}: {seen.multiply_adds / 1e9:.2f} G, {seen.parameters:,} parameters; the paper says {paper} G")
    assert seen.multiply_adds / 1e9 == pytest.approx(paper, rel=0.005)
    assert parameters is None or seen.parameters == parameters
    weights = 1 if settings.get("head_classes") == "presence" else num_classes
    scores = num_classes * (weights + 4) * settings["image_size"] ** 2
    assert seen.parts[-1].name == "scores" and seen.parts[-1].multiply_adds == scores


def total(backbone: str, side: int, structure: Structure, shrink_at: int | None = None) -> float:
    """Multiply-adds in 10^9 of a model of today's defaults, for an image of its crop's size."""
    model = weightless(
        150, backbone=backbone, image_size=side, structure=structure, shrink_at=shrink_at, class_token=False
    )
    return profile(model, side).multiply_adds / 1e9


@pytest.mark.slow
@pytest.mark.parametrize("backbone, side, share", [(BASE, 512, 0.75), (LARGE, 640, 0.55)])
def test_the_default_shrunk_costs_a_share_of_plain(backbone: str, side: int, share: float) -> None:
    assert total(backbone, side, "shrunk") <= share * total(backbone, side, "plain")


@pytest.mark.slow
@pytest.mark.parametrize("block", [6, 7])
def test_the_default_upsampling_costs_little_more_than_none(block: int) -> None:
    """QD at the paper's block, and at today's."""
    naive = total(BASE, 512, "naive_shrunk", shrink_at=block)
    assert total(BASE, 512, "shrunk", shrink_at=block) <= 1.05 * naive + 5


# --- formulas by hand ------------------------------------------------------------------------------------------------


def tokens_of(model: SegViT, grid: tuple[int, int]) -> tuple[int, int]:
    """Tokens of a block before and behind the one that shrinks."""
    prefix = model.backbone.num_prefix_tokens
    return prefix + grid[0] * grid[1], prefix + -(-grid[0] // 2) * -(-grid[1] // 2)


def block_cost(block: nn.Module, tokens: int, width: int) -> int:
    """Every Linear on every token, and queries times keys and weights times values."""
    return tokens * linears(block) + 2 * tokens * tokens * width


@each_family
def test_plain_backbone_of_every_family(family: str) -> None:
    model = weightless(**tiny(family))
    backbone, grid = model.backbone, grid_of(model, SIZE)
    full, _ = tokens_of(model, grid)
    embedding = grid[0] * grid[1] * 3 * backbone.patch_size**2 * 64
    by_hand = embedding + sum(block_cost(block, full, 64) for block in backbone.blocks)
    assert cost(profile_of(family), "backbone") == by_hand


@each_family
def test_shrunk_backbone_of_every_family(family: str) -> None:
    model = weightless(**tiny(family, "shrunk"))
    backbone, grid = model.backbone, grid_of(model, SIZE)
    full, kept = tokens_of(model, grid)
    block = backbone.blocks[2]
    if family in ("vit", "dinov2, registers"):  # queries of the kept tokens alone
        attention = 64 * 64 * (2 * kept + 2 * full) + 2 * kept * full * 64
    else:  # attention on all tokens, then the kept ones
        attention = block_cost(block.attn, full, 64)
    embedding = grid[0] * grid[1] * 3 * backbone.patch_size**2 * 64
    seen = profile_of(family, "shrunk")
    assert cost(seen, "backbone before QD") == embedding + sum(block_cost(b, full, 64) for b in backbone.blocks[:2])
    shrinking = attention + kept * linears(block.mlp)
    assert cost(seen, "backbone from QD on") == shrinking + block_cost(backbone.blocks[3], kept, 64)


@each_family
def test_shrinking_saves_in_every_family(family: str) -> None:
    assert cost(profile_of(family, "shrunk"), "backbone") < 0.9 * cost(profile_of(family), "backbone")
    assert profile_of("vit", "naive_shrunk").parts[:2] == profile_of("vit", "shrunk").parts[:2]


@pytest.mark.parametrize("downsampling, dearer", [("nearest_qkv", -1), ("conv", 1)])
def test_ways_to_shrink(downsampling: str, dearer: int) -> None:
    seen = profile(weightless(**tiny("vit", "shrunk", downsampling=downsampling)), SIZE)
    base = profile_of("vit", "shrunk")
    assert cost(seen, "backbone before QD") == cost(base, "backbone before QD")
    assert (cost(seen, "backbone from QD on") - cost(base, "backbone from QD on")) * dearer > 0
    convolution = 64 * 64 * 9 + 64 if downsampling == "conv" else 0
    assert seen.parts[1].parameters - base.parts[1].parameters == convolution
    assert seen.parts[0].parameters == base.parts[0].parameters


def decoder_cost(queries: int, tokens: int, width: int, *, layers: int) -> int:
    """Decoder layers: self-attention of the queries, cross-attention over the tokens, FFN."""
    own = 4 * width**2 * queries + 2 * queries**2 * width
    cross = 2 * width**2 * (queries + tokens) + 2 * queries * tokens * width
    return layers * (own + cross + 8 * width**2 * queries)


@pytest.mark.parametrize(
    "size, num_classes",
    [
        pytest.param(SIZE, NUM_CLASSES, id="odd", marks=pytest.mark.slow),
        pytest.param(SIZE, 1, id="one class", marks=pytest.mark.slow),
        pytest.param((130, 33), 37, id="tall, more classes"),
        pytest.param((1, 1), NUM_CLASSES, id="one pixel", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("structure, upsampling", CASES)
def test_head_scores_and_prediction(
    structure: Structure, upsampling: Upsampling, size: tuple[int, int], num_classes: int
) -> None:
    model = weightless(num_classes, **tiny("vit", structure, upsampling=upsampling))
    if structure != "plain":
        size = (max(size[0], 17), max(size[1], 17))  # two patches
    (height, width), grid, dim = size, grid_of(model, size), 32
    half = (-(-grid[0] // 2), -(-grid[1] // 2))
    patches, quarter = grid[0] * grid[1], half[0] * half[1]
    rows, columns = half if structure == "naive_shrunk" else grid  # of the mask logits
    keys = rows * columns
    masks, classes = num_classes * keys * dim, num_classes * dim * (num_classes + 1)
    stage = decoder_cost(num_classes, keys, dim, layers=2)
    stages = 1 if structure == "naive_shrunk" else 2
    up, head, unused = 0, stages * (64 * dim * keys + stage + masks + classes), (stages - 1) * classes
    if upsampling == "paper":  # each of the one stage's two layers has its masks
        up = sum(64 * dim * tokens + decoder_cost(patches, tokens, dim, layers=1) for tokens in (patches, quarter))
        head, unused = stage + 2 * (masks + classes), masks + classes
    elif structure == "shrunk":  # each map is projected at its own grid, and none in the head
        up, head = 64 * dim * (patches + quarter), stages * (stage + masks + classes)
    seen = profile(model, size)
    assert cost(seen, "up-sampling") == up
    assert cost(seen, "ATM") == head
    assert cost(seen, "scores") == num_classes * height * width * (num_classes + 4)
    resized = num_classes * height * columns * (rows + width)
    product = num_classes**2 * height * width
    forward = cost(seen, "backbone", "up-sampling", "ATM") - unused  # supervised outputs but the last one are left out
    assert seen.predict_multiply_adds == forward + resized + product


# --- parts and totals ------------------------------------------------------------------------------------------------


def names(seen: Profile) -> list[str]:
    return [part.name for part in seen.parts]


@pytest.mark.parametrize(
    "family, structure, upsampling",
    [
        ("vit", "shrunk", "tap"),
        ("dinov3", "shrunk", "tap"),
        *(
            pytest.param(family, "shrunk", "tap", marks=pytest.mark.slow)
            for family in ("dinov2, registers", "eva02", "beitv2")
        ),
        *(("vit", *case) for case in CASES if case != ("shrunk", "tap")),
    ],
)
def test_parts_sum_to_what_a_real_forward_spends(family: str, structure: Structure, upsampling: Upsampling) -> None:
    torch.manual_seed(0)
    model = (
        create_model(config=ModelConfig(**tiny(family, structure, upsampling=upsampling)), num_classes=NUM_CLASSES)
        .requires_grad_(False)
        .eval()
    )
    seen = profile_of(family, structure, upsampling=upsampling)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, *SIZE, dtype=torch.uint8))
    assert counter.get_total_flops() == seen.flops - 2 * cost(seen, "scores")
    own = {"plain": ["backbone"]}.get(structure, ["backbone before QD", "backbone from QD on"])
    assert names(seen) == [*own, *(["up-sampling"] if structure == "shrunk" else []), "ATM", "scores"]
    assert seen.multiply_adds == sum(part.multiply_adds for part in seen.parts)
    assert seen.flops == sum(part.flops for part in seen.parts) == 2 * seen.multiply_adds
    assert seen.parameters == sum(part.parameters for part in seen.parts) == sum(p.numel() for p in model.parameters())


@each_family
def test_parameters_from_the_shrinking_block_on(family: str) -> None:
    model = weightless(**tiny(family, "shrunk"))
    behind = ("backbone.blocks.2", "backbone.blocks.3", "backbone.downsampling")
    behind += ("backbone.relative_bias_tables.2", "backbone.relative_bias_tables.3")
    expected = sum(p.numel() for name, p in model.named_parameters() if name.startswith(behind))
    assert [part.parameters for part in profile_of(family, "shrunk").parts[1:2]] == [expected]


@pytest.mark.slow
@pytest.mark.parametrize("structure", ["plain", "shrunk"])
def test_a_larger_image_costs_more(structure: Structure) -> None:
    small, large, wide = (profile_of("vit", structure, size) for size in [(64, 64), (96, 64), (64, 96)])
    for ours, theirs in zip(small.parts, large.parts, strict=True):
        assert ours.multiply_adds < theirs.multiply_adds and ours.parameters == theirs.parameters
    assert small.predict_multiply_adds < large.predict_multiply_adds
    assert large.parts == wide.parts  # each turned by a quarter
    assert large.size == (96, 64)


def test_plain_values() -> None:
    seen = segvit.profile(weightless(**tiny("vit", "shrunk")), SIZE)
    told = seen.to_dict()
    assert told["size"] == [75, 131] and [part["name"] for part in told["parts"]] == names(seen)
    for kind in ("parameters", "multiply_adds", "flops"):
        assert told[kind] == sum(part[kind] for part in told["parts"]) == getattr(seen, kind) > 0
    assert told["predict_flops"] == 2 * told["predict_multiply_adds"] == 2 * seen.predict_multiply_adds


class Extended(SegViT):
    """A model of one's own: something more between backbone and head."""

    def __init__(self, *parts: nn.Module, **settings: Any) -> None:
        super().__init__(*parts, **settings)
        self.mixer = nn.Conv2d(3, 3, 1, bias=False)

    def pad(self, images: Tensor, canvas: tuple[int, int] | None = None) -> Tensor:
        return self.mixer(super().pad(images, canvas))


def test_a_model_of_ones_own_is_counted_whole() -> None:
    with torch.device("meta"):
        base = create_model(config=ModelConfig(**tiny("vit", "shrunk")), num_classes=NUM_CLASSES)
        parts = (base.backbone, base.head, base.upsampling)
        model = Extended(*parts, mean=base.mean, std=base.std, num_classes=NUM_CLASSES)
    seen, plain = profile(model, (64, 64)), profile_of("vit", "shrunk", (64, 64))
    assert names(seen) == ["backbone before QD", "backbone from QD on", "up-sampling", "ATM", "rest", "scores"]
    assert cost(seen, "rest") == seen.multiply_adds - plain.multiply_adds == 9 * 64 * 64
    assert seen.parameters - plain.parameters == 9


class ManyQueries(nn.Module):
    """A head with another number of queries than classes, from tokens that learn nothing."""

    num_queries = 12

    def forward(self, features: list[Tensor], deep: bool = True) -> tuple[Tensor, Tensor]:
        masks = features[-1][:, : self.num_queries][None]
        return masks.new_zeros(1, len(features[-1]), self.num_queries, NUM_CLASSES + 1), masks


def test_scores_of_more_queries_than_classes() -> None:
    with torch.device("meta"):
        base = create_model(config=ModelConfig(**tiny("vit")), num_classes=NUM_CLASSES)
        model = SegViT(base.backbone, ManyQueries(), mean=base.mean, std=base.std, num_classes=NUM_CLASSES)
    height, width = SIZE
    assert cost(profile(model, SIZE), "scores") == (NUM_CLASSES + 4) * ManyQueries.num_queries * height * width


# --- the model that is given -----------------------------------------------------------------------------------------


def test_the_model_is_left_as_it_is() -> None:
    torch.manual_seed(0)
    model = create_model(config=ModelConfig(**tiny("eva02", "shrunk")), num_classes=NUM_CLASSES).train()
    model.backbone.requires_grad_(False)
    before = {name: (id(p), p.data_ptr(), p.requires_grad, p.clone()) for name, p in model.named_parameters()}
    buffers = {name: (id(b), b.data_ptr()) for name, b in model.named_buffers()}
    assert profile(model, SIZE) == profile_of("eva02", "shrunk")  # that one is on the meta device
    assert all(module.training for module in model.modules())
    for name, parameter in model.named_parameters():
        identity, pointer, grad, value = before[name]
        assert (id(parameter), parameter.data_ptr(), parameter.requires_grad) == (identity, pointer, grad)
        assert torch.equal(parameter, value) and parameter.grad is None
    assert {name: (id(b), b.data_ptr()) for name, b in model.named_buffers()} == buffers
    assert model.predict(torch.zeros(1, 3, *SIZE, dtype=torch.uint8)).shape == (1, *SIZE)
    assert profile(model.bfloat16(), SIZE) == profile_of("eva02", "shrunk")


def test_a_number_is_the_side_of_a_square() -> None:
    model = weightless(**tiny("vit", "shrunk"))
    assert profile(model, 64) == profile_of("vit", "shrunk", (64, 64))
    with pytest.raises(UserError, match=r"size 0 x 0: give height and width"):
        profile(model, 0)


@pytest.mark.parametrize("size", [(0, 64), (64, -1), (64,), (64, 64, 3)], ids=str)
def test_bad_sizes(size: Any) -> None:
    with pytest.raises(UserError, match=r"size -?\d+.*give height and width.*640 640"):
        profile(weightless(**tiny("vit")), size)


@pytest.mark.parametrize("size", [(16, 64), pytest.param((64, 16), marks=pytest.mark.slow)], ids=str)
def test_too_small_to_shrink(size: tuple[int, int]) -> None:
    with pytest.raises(UserError, match="cannot be shrunk"):
        profile(weightless(**tiny("vit", "shrunk")), size)
    assert profile(weightless(**tiny("vit")), size).multiply_adds > 0

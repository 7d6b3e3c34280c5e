"""What every model keeps, whatever its structure and its backbone, and what ties the backbone to timm."""

import copy
import functools
import io
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import timm
import torch
from torch import Tensor, nn

from segvit.config import Downsampling, EvalConfig, ModelConfig, Structure, Upsampling
from segvit.data.spec import DatasetSpec
from segvit.errors import UserError
from segvit.losses import criterion
from segvit.models import create as create_module
from segvit.models.backbone import PlainViT
from segvit.models.create import create_backbone, create_model, create_vit
from segvit.models.families import adapt
from segvit.models.positions import relative_bias, resize_tokens
from segvit.models.segvit import SegViT
from segvit.weights.load import load_model
from segvit.weights.model_file import read_header
from tests.helpers.tiny import (
    PRESENCE,
    TINY,
    VARIANTS,
    random_images,
    relative_difference,
    stir,
    timm_file,
    tiny_config,
)

NUM_CLASSES = 5
PREFIX_TOKENS = {"vit": 1, PRESENCE: 1, "vit without class token": 0, "dinov2, registers": 5, "deit3": 1, "siglip": 0}
PREFIX_TOKENS |= {
    "clip, norm before the blocks": 1,
    "deit, distilled": 2,
    "beitv2": 1,
    "eva02": 1,
    "dinov3": 5,
    "dinov3 without class token": 4,
}
SIZES = {
    "native": (64, 64),
    "a pixel short": (63, 63),
    "a pixel over": (65, 57),
    "tall": (130, 17),
    "wide": (16, 150),
    "odd grid": (48, 80),
    "smaller than a patch": (5, 9),
    "one pixel": (1, 1),
}
Case = tuple[Structure, Upsampling, Downsampling, str]
PAPERS = ("dinov2, registers", "beitv2", "dinov3 without class token")
"""Variants that have the paper's up-sampling as well: it reads any map alike."""
CASES: list[Case] = [(structure, "tap", "nearest_q", name) for name in VARIANTS for structure in get_args(Structure)]
CASES += [("shrunk", "paper", "nearest_q", name) for name in PAPERS]
CASES += [("shrunk", "tap", "edge", name) for name in ("vit", "beitv2", "dinov3")]
CASES += [("shrunk", "paper", "edge", "vit"), ("naive_shrunk", "tap", "edge", "eva02")]
CASES += [("plain", "tap", "nearest_q", PRESENCE), ("naive_shrunk", "tap", "nearest_q", PRESENCE)]
CASES += [("shrunk", "paper", "nearest_q", PRESENCE)]
COMPILED: list[Case] = [("plain", "tap", "nearest_q", name) for name in (*VARIANTS, PRESENCE)]
COMPILED += [("shrunk", "tap", "nearest_q", name) for name in ("vit", "beitv2", "eva02", "dinov3 without class token")]
COMPILED += [("shrunk", "paper", "nearest_q", name) for name in ("vit", "beitv2")]
COMPILED += [("naive_shrunk", "tap", "nearest_q", name) for name in ("vit without class token", "beitv2")]
COMPILED += [("shrunk", "tap", "edge", name) for name in ("vit", "beitv2", "dinov3")]
"""Models to compile: each shrunk structure with each way to shrink (compiling takes its time)."""
SPEC = DatasetSpec(
    name="things",
    classes=("sky", "road", "tree", "car", "é: a, b"),
    palette=((1, 2, 3), (4, 5, 6), (7, 8, 9), (10, 11, 12), (255, 0, 0)),
    raw_ids=(3, 1, 2, 7, 9),
    ignore=(0, 255),
)
PROTOCOL = EvalConfig(mode="whole", window=48, stride=32, resize_short=56, batch_size=3)


@pytest.fixture(params=VARIANTS, scope="module")
def variant(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(params=CASES, scope="module", ids=", ".join)
def case(request: pytest.FixtureRequest) -> Case:
    """Structure, up-sampling, down-sampling and variant."""
    names: Case = request.param
    return names


@pytest.fixture(scope="module")
def model(case: Case) -> SegViT:
    """A tiny model of the case in evaluation mode; tests leave it as it is."""
    structure, upsampling, downsampling, variant = case
    torch.manual_seed(0)
    config = tiny_config(variant, structure, upsampling, downsampling)
    model = create_model(config=config, num_classes=NUM_CLASSES, spec=SPEC, protocol=PROTOCOL)
    stir(model)
    return model.eval()


def patches_of(model: SegViT, size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of patches that an image of that size in pixels is padded to."""
    patch = model.backbone.patch_size
    return (math.ceil(size[0] / patch), math.ceil(size[1] / patch))


def fits(model: SegViT, size: tuple[int, int]) -> bool:
    """Whether a model takes images of that size in pixels: the shrunk ones need 2 x 2 patches."""
    return model.config.structure == "plain" or min(patches_of(model, size)) >= 2


class TestContract:
    """One contract over all variants, structures and up-samplings."""

    @torch.no_grad()
    @pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
    def test_any_image_size(self, model: SegViT, size: tuple[int, int]) -> None:
        (height, width), structure = size, model.config.structure
        grid, side = patches_of(model, size), model.backbone.patch_size  # a cell of the masks is side x side pixels
        if not fits(model, size):
            least = rf"at least 2 x 2 patches \({2 * side} x {2 * side} px\).*or take a plain model"
            for run in (model, model.scores, model.predict):
                with pytest.raises(UserError, match=f"an image of {grid[0]} x {grid[1]} patches of {side} px.*{least}"):
                    run(random_images(2, size))
            return
        if structure == "naive_shrunk" and not model.backbone.restores:
            grid, side = (math.ceil(grid[0] / 2), math.ceil(grid[1] / 2)), 2 * side
        output = model(random_images(2, size))
        num_outputs = {"plain": 3, "shrunk": 3, "naive_shrunk": 1}[structure]
        if model.config.upsampling == "paper":
            num_outputs = 2  # layers of its one stage
        num_logits = 1 if model.config.head_classes == "presence" else NUM_CLASSES + 1
        assert output.class_logits.shape == (num_outputs, 2, NUM_CLASSES, num_logits)
        assert output.mask_logits.shape == (num_outputs, 2, NUM_CLASSES, *grid)
        assert output.image_size == size
        assert output.padded_size == (grid[0] * side, grid[1] * side)
        assert output.class_logits.dtype == output.mask_logits.dtype == torch.float32
        scores, labels = model.scores(random_images(2, size)), model.predict(random_images(2, size))
        assert scores.shape == (2, NUM_CLASSES, height, width)
        assert torch.isfinite(scores).all() and scores.min() >= 0 and scores.max() <= NUM_CLASSES
        assert labels.shape == (2, height, width) and labels.dtype == torch.int64
        assert labels.min() >= 0 and labels.max() < NUM_CLASSES

    @torch.no_grad()
    def test_padding_is_the_mean_colour_on_the_right_and_at_the_bottom(self, model: SegViT) -> None:
        patch = model.backbone.patch_size
        images = random_images(1, (2 * patch - 3, 3 * patch - 5)).float() / 255
        padded = model.mean[:, None, None].expand(1, 3, 2 * patch, 3 * patch).clone()
        padded[..., : images.shape[2], : images.shape[3]] = images
        ours, by_hand = model(images), model(padded)
        assert relative_difference(ours.mask_logits, by_hand.mask_logits) < 1e-5
        assert ours.padded_size == by_hand.padded_size
        if model.config.structure != "naive_shrunk":
            assert ours.padded_size == by_hand.image_size

    def test_every_parameter_gets_a_gradient(self, model: SegViT) -> None:
        model = copy.deepcopy(model).train()
        side = model.config.image_size
        labels = torch.arange(2 * side * side).reshape(2, side, side) // 97 % (NUM_CLASSES - 1)
        criterion(model(random_images(2, (side, side))), labels).total.backward()
        masking = masking_layers(model)
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
            largest = float(parameter.grad.abs().max())
            # A softmax does not see what its row has in common, so a key bias has no gradient,
            # but for a cross-attention whose products are a mask.
            cancelled = name.endswith("attn.k.bias") and name.removesuffix(".cross_attn.k.bias") not in masking
            assert (largest < 1e-7) if cancelled else (largest > 1e-7), f"{name}: {largest:.1e}"

    @torch.no_grad()
    def test_a_batch_of_two_is_two_of_one(self, model: SegViT) -> None:
        images = random_images(2, (65, 57))
        together = model(images)
        for index in range(2):
            alone = model(images[index : index + 1])
            for a, b in zip(alone[:2], together[:2], strict=True):
                assert relative_difference(a[:, 0], b[:, index]) < 1e-5

    @torch.no_grad()
    def test_evaluation_is_deterministic(self, model: SegViT) -> None:
        images = random_images(2, (40, 70))
        first, second = model(images), model(images)
        assert torch.equal(first.class_logits, second.class_logits)
        assert torch.equal(first.mask_logits, second.mask_logits)

    def test_training_mode_drops_out_and_survives_a_prediction(self, model: SegViT) -> None:
        model = copy.deepcopy(model).train()
        images = random_images(1, (40, 40))
        labels = model.predict(images)
        assert model.training and model.head.training
        with torch.no_grad():
            assert not torch.equal(model(images).mask_logits, model(images).mask_logits)
        assert torch.equal(labels, model.eval().predict(images))

    @torch.no_grad()
    def test_prediction_is_the_last_supervised_output(self, model: SegViT) -> None:
        images = random_images(2, (40, 70))
        deep, last = model(images), model(images, deep=False)
        assert last.class_logits.shape[0] == last.mask_logits.shape[0] == 1
        assert torch.equal(last.class_logits, deep.class_logits[-1:])
        assert torch.equal(last.mask_logits, deep.mask_logits[-1:])

    @torch.no_grad()
    def test_uint8_is_float_over_255(self, model: SegViT) -> None:
        images = random_images(1, (33, 47))
        assert torch.equal(model(images).mask_logits, model(images.float() / 255).mask_logits)

    def test_saved_and_loaded_to_the_bit(self, model: SegViT, tmp_path: Path) -> None:
        path = tmp_path / "deeper" / "model.safetensors"
        model.save(path)
        loaded = load_model(path)
        state, expected = loaded.state_dict(), model.state_dict()
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[name], expected[name]) for name in expected)
        assert not loaded.training
        assert (loaded.config, loaded.spec, loaded.protocol) == (model.config, SPEC, PROTOCOL)
        for size in filter(functools.partial(fits, model), SIZES.values()):
            assert torch.equal(loaded.predict(random_images(1, size)), model.predict(random_images(1, size)))
        header = read_header(path)
        assert [row["name"] for row in header["spec"]["classes"]] == list(SPEC.classes)
        assert [tuple(row["color"]) for row in header["spec"]["classes"]] == list(SPEC.palette)
        assert [file.name for file in path.parent.iterdir()] == [path.name]  # nothing half-written stays

    @pytest.mark.slow
    @torch.no_grad()
    @pytest.mark.parametrize("structure, upsampling, downsampling, variant", COMPILED, ids=str)
    def test_compiles_to_one_graph(
        self, structure: Structure, upsampling: Upsampling, downsampling: Downsampling, variant: str
    ) -> None:
        config = tiny_config(variant, structure, upsampling, downsampling)
        config = replace(config, depth=2 if structure == "plain" else 3, head_num_layers=1)
        model = create_model(config=config, num_classes=NUM_CLASSES).eval()
        torch.compiler.reset()
        compiled = torch.compile(model, fullgraph=True, backend="eager")
        images = random_images(1, (50, 77))
        ours, eager = compiled(images), model(images)
        assert torch.equal(ours.class_logits, eager.class_logits)
        assert torch.equal(ours.mask_logits, eager.mask_logits)
        assert ours[2:4] == eager[2:4]

    def test_weighs_nothing_on_meta(self, model: SegViT) -> None:
        with torch.device("meta"):
            hollow = create_model(config=model.config, num_classes=NUM_CLASSES)
        assert all(parameter.is_meta for parameter in hollow.parameters())
        assert {n: p.shape for n, p in hollow.named_parameters()} == {n: p.shape for n, p in model.named_parameters()}

    def test_prefix_tokens(self, model: SegViT, case: Case) -> None:
        assert model.backbone.num_prefix_tokens == PREFIX_TOKENS[case[-1]]

    def test_another_shape_is_told(self, model: SegViT) -> None:
        for shape in ((3, 32, 32), (1, 1, 32, 32), (1, 32, 32, 3)):
            with pytest.raises(UserError, match=r"expected \(B, 3, H, W\)"):
                model(torch.zeros(shape))


def masking_layers(model: SegViT) -> set[str]:
    """Names of the decoder layers whose products are masks: the last of each stage, or behind QU all of the one."""
    layers = range(model.config.head_num_layers)
    if model.head.every_layer:
        return {f"head.stages.0.layers.{layer}" for layer in layers}
    return {f"head.stages.{stage}.layers.{layers[-1]}" for stage in range(len(model.backbone.taps))}


def timm_pair(variant: str, **more: Any) -> tuple[PlainViT, nn.Module]:
    """Our backbone with every block tapped, and timm's model of the same weights (`more` are its own arguments)."""
    config = tiny_config(variant)
    torch.manual_seed(0)
    vit = create_vit(config).eval()
    stir(vit)
    if more:
        class_token = {} if config.class_token is None else {"class_token": config.class_token, "global_pool": "avg"}
        reference = timm.create_model(config.backbone, num_classes=0, **TINY, **class_token, **more)
        reference.load_state_dict(vit.state_dict())
    else:
        reference = copy.deepcopy(vit)
    return adapt(vit, taps=range(4)).eval(), reference.eval()


@torch.no_grad()
def assert_taps_equal_timm(backbone: PlainViT, reference: nn.Module, images: Tensor) -> None:
    features = backbone(images)
    expected = reference.forward_intermediates(images, indices=[0, 1, 2, 3], norm=False, intermediates_only=True)
    assert len(features) == 4
    for ours, theirs in zip(features, expected, strict=True):
        assert relative_difference(ours, theirs) < 1e-5


def test_taps_are_timms_block_outputs(variant: str) -> None:
    backbone, reference = timm_pair(variant)
    side = tiny_config(variant).image_size
    assert_taps_equal_timm(backbone, reference, torch.randn(2, 3, side, side))


def test_taps_are_timms_on_other_grids(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for antialias, which timm resizes positions with even where the grid grows, and we do at load time only."""
    if variant == "beitv2":
        pytest.skip("timm's Beit knows one grid; test_relative_bias_of_another_grid_is_timms stands for it")
    side = tiny_config(variant).image_size
    backbone, reference = timm_pair(variant, img_size=side, dynamic_img_size=True)
    resample = functools.partial(timm.layers.resample_abs_pos_embed, antialias=False)
    for module in (timm.models.vision_transformer, timm.models.deit, timm.models.eva):
        monkeypatch.setattr(module, "resample_abs_pos_embed", resample)
    patch = backbone.patch_size
    for height, width in ((5, 7), (2, 3), (4, 1)):  # in patches; the native grid is 4 x 4
        assert_taps_equal_timm(backbone, reference, torch.randn(1, 3, height * patch, width * patch))


@pytest.mark.parametrize("grid", [(5, 7), (2, 3)])
def test_relative_bias_of_another_grid_is_timms(grid: tuple[int, int]) -> None:
    """BEiT with tables of 4 x 4 patches, against a timm model of the other size with tables resized as ours are."""
    config = tiny_config("beitv2")
    torch.manual_seed(0)
    vit = create_vit(config).eval()
    stir(vit)
    size = (grid[0] * 16, grid[1] * 16)
    reference = timm.create_model(config.backbone, num_classes=0, img_size=size, **TINY).eval()
    state = vit.state_dict()
    for name, table in state.items():
        if name.endswith("relative_position_bias_table"):
            offsets = resize_tokens(table[None, :-3], (7, 7), (2 * grid[0] - 1, 2 * grid[1] - 1))[0]
            state[name] = torch.cat([offsets, table[-3:]])
    reference.load_state_dict(state)
    assert_taps_equal_timm(adapt(vit, taps=range(4)).eval(), reference, torch.randn(1, 3, *size))


def test_relative_bias_by_loops_on_a_grid_that_is_not_square() -> None:
    old, (height, width) = (3, 4), (2, 5)
    table = torch.randn((2 * 3 - 1) * (2 * 4 - 1) + 3, 2)
    bias = relative_bias(table, old, (height, width))
    offsets = resize_tokens(table[None, :-3], (5, 7), (2 * height - 1, 2 * width - 1))[0]
    offsets = offsets.unflatten(0, (2 * height - 1, 2 * width - 1))
    for i in range(height * width):
        for j in range(height * width):
            dy, dx = i // width - j // width, i % width - j % width
            assert torch.equal(bias[0, :, 1 + i, 1 + j], offsets[dy + height - 1, dx + width - 1])
    assert torch.equal(bias[0, :, 0, 1:], table[-3][:, None].expand(-1, height * width))  # class token to patches
    assert torch.equal(bias[0, :, 1:, 0], table[-2][:, None].expand(-1, height * width))  # patches to class token
    assert torch.equal(bias[0, :, 0, 0], table[-1])


def test_blocks_after_the_last_tap_are_left_out() -> None:
    backbone, _ = create_backbone(ModelConfig(backbone="vit_tiny_patch16_224", image_size=32, **TINY, taps=(0, 2)))
    assert len(backbone.blocks) == 3
    assert [tuple(feature.shape) for feature in backbone(torch.zeros(1, 3, 32, 48))] == [(1, 64, 2, 3)] * 2


@pytest.mark.parametrize(
    "backbone, structure, image_size, num_classes, in_backbone, total",
    [
        ("vit_base_patch16_384", "plain", 512, 150, 86_431_488, 108_734_743),
        ("vit_large_patch16_384", "plain", 640, 150, 304_735_232, 344_303_255),
        ("vit_large_patch16_384", "plain", 512, 171, None, 343_734_956),
        ("vit_large_patch16_384", "plain", 480, 60, None, 343_494_205),
        ("vit_large_patch16_384", "shrunk", 640, 150, 304_735_232, 344_596_631),
        ("vit_large_patch16_384", "shrunk", 512, 171, None, 343_733_420),
        ("vit_large_patch16_384", "shrunk", 480, 60, None, 343_429_181),
    ],
)
def test_parameter_counts_of_the_paper(
    backbone: str, structure: Structure, image_size: int, num_classes: int, in_backbone: int | None, total: int
) -> None:
    with torch.device("meta"):
        model = create_model(
            backbone,
            num_classes=num_classes,
            structure=structure,
            image_size=image_size,
            config=ModelConfig(class_token=False, upsampling="paper" if structure == "shrunk" else "tap"),
        )
    assert sum(parameter.numel() for parameter in model.parameters()) == total
    if in_backbone:
        assert sum(parameter.numel() for parameter in model.backbone.parameters()) == in_backbone


def test_mean_and_std_are_the_backbones_own_or_the_configs() -> None:
    own = create_model(config=tiny_config("vit"), num_classes=2)
    assert own.mean.tolist() == own.std.tolist() == [0.5, 0.5, 0.5]
    imagenet = create_model(config=tiny_config("dinov2, registers"), num_classes=2)
    assert imagenet.mean.tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert imagenet.std.tolist() == pytest.approx([0.229, 0.224, 0.225])
    config = ModelConfig(**TINY, **VARIANTS["vit"], mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 4.0))
    normalised = create_model(config=config, num_classes=2).normalise(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8))
    assert normalised.flatten().tolist() == pytest.approx([0.9, 0.4, 0.175])


@pytest.mark.filterwarnings("ignore::UserWarning:timm")  # its resizing of BEiT's tables
def test_pretrained_weights_arrive_as_timm_resizes_them(
    variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = timm_file(tmp_path, variant, monkeypatch)
    config = ModelConfig(**TINY, **VARIANTS[variant], pretrained=True, position_grid="crop")
    backbone, _ = create_backbone(config)
    donor = torch.load(path)
    assert torch.equal(backbone.blocks[3].norm2.weight, donor["blocks.3.norm2.weight"])
    if config.class_token is False:  # timm cannot drop it: compared by hand
        assert backbone.cls_token is None
        if backbone.pos_embed is not None:
            grid = list(backbone.native_grid)
            expected = timm.layers.resample_abs_pos_embed(donor["pos_embed"], grid, num_prefix_tokens=1)[:, 1:]
            assert torch.equal(backbone.pos_embed, expected)
        return
    reference = timm.create_model(config.backbone, pretrained=True, num_classes=0, img_size=config.image_size)
    if backbone.pos_embed is not None:
        assert donor["pos_embed"].shape != backbone.pos_embed.shape
        assert torch.equal(backbone.pos_embed, reference.pos_embed)
    backbone = backbone.eval()
    backbone.taps = (0, 1, 2, 3)
    images = torch.randn(1, 3, config.image_size, config.image_size)
    assert_taps_equal_timm(backbone, reference.eval(), images)


@pytest.mark.filterwarnings("ignore::UserWarning:timm")  # its resizing of BEiT's tables
@pytest.mark.parametrize("downsampling", [pytest.param("nearest_q", marks=pytest.mark.slow), "conv"])
def test_pretrained_weights_of_a_shrunk_backbone_are_the_plain_ones(
    variant: str, downsampling: Downsampling, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what timm lacks starts as it does without them: the convolution, the up-sampling, the head."""
    timm_file(tmp_path, variant, monkeypatch)
    config = replace(tiny_config(variant), pretrained=True, position_grid="crop")
    assert config.image_size != 224
    plain, _ = create_backbone(replace(config, taps=(0, 3)))
    config = replace(config, structure="shrunk", upsampling="paper", downsampling=downsampling)
    states = []
    for settings in (config, replace(config, pretrained=False)):
        torch.manual_seed(3)
        model = create_model(config=settings, num_classes=2)
        if settings.pretrained:
            assert model(torch.zeros(1, 3, 64, 64)).mask_logits.isfinite().all()
        states.append(model.state_dict())
    loaded, random = states
    expected = plain.state_dict()
    ours = {name.removeprefix("backbone."): value for name, value in loaded.items() if name.startswith("backbone.")}
    conv = {name for name in ours if name.startswith("downsampling.")}
    assert conv == ({"downsampling.conv.weight", "downsampling.conv.bias"} if downsampling == "conv" else set())
    assert ours.keys() - conv == expected.keys()
    for name, value in expected.items():
        assert torch.equal(ours[name], value), name
    assert not torch.equal(loaded["backbone.blocks.1.norm1.weight"], random["backbone.blocks.1.norm1.weight"])
    for name in conv:
        assert torch.equal(ours[name], random[f"backbone.{name}"]), name
    upsampling = {name for name in loaded if name.startswith("upsampling.")}
    assert "upsampling.tokens" in upsampling and len(upsampling) > 50
    for name in upsampling:
        assert loaded[name].shape == random[name].shape
    assert 0.9 < float(loaded["upsampling.tokens"].std()) < 1.1


def test_pretrained_weights_that_do_not_fit_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timm_file(tmp_path, "vit", monkeypatch)
    config = ModelConfig(**{**TINY, "embed_dim": 32}, **VARIANTS["vit"], pretrained=True)
    with pytest.raises(UserError, match=r"vit_tiny_patch16_224.*do not fit the model\.\* overrides"):
        create_backbone(config)


def test_without_a_network_pretrained_weights_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model

    def create_offline(name: str, *, pretrained: bool = False, **arguments: Any) -> nn.Module:
        if pretrained:
            raise OSError("cannot reach the hub")
        made: nn.Module = create(name, **arguments)
        return made

    monkeypatch.setattr(timm, "create_model", create_offline)
    with pytest.raises(UserError, match=r"(?s)vit_tiny_patch16_224.*cannot reach the hub.*--model\.no-pretrained"):
        create_backbone(ModelConfig(**TINY, **VARIANTS["vit"], pretrained=True))


def test_a_saved_model_is_loaded_without_its_pretrained_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        timm_file(tmp_path, "vit", patch)
        model = create_model(config=ModelConfig(**TINY, **VARIANTS["vit"], pretrained=True), num_classes=2)
    model.save(tmp_path / "model.safetensors")
    monkeypatch.setattr(create_module, "_load_pretrained", lambda *_: pytest.fail("asked the hub"))
    loaded = load_model(tmp_path / "model.safetensors")
    assert torch.equal(loaded.backbone.pos_embed, model.backbone.pos_embed)


def refusals() -> Iterator[Any]:
    """A setting that cannot be meant, and what its error says."""
    vit = {"backbone": "vit_tiny_patch16_224", "image_size": 32}
    yield pytest.param(
        {"backbone": "vit_tiny_patch16_22"}, "unknown backbone.*did you mean.*vit_tiny_patch16_224", id="typo"
    )
    yield pytest.param({"backbone": "qqq"}, r"unknown backbone 'qqq'.*list_models", id="unlike any")
    yield pytest.param(
        {"backbone": "resnet18"}, "'resnet18' is not a plain ViT.*vit_base_patch16_384", id="convolution"
    )
    yield pytest.param(
        {"backbone": "swin_tiny_patch4_window7_224"}, "is not a plain ViT.*vit_base_patch16_384", id="hierarchical"
    )
    yield pytest.param(
        {"backbone": "vit_base_r50_s16_384"},
        r"'vit_base_r50_s16_384' is a hybrid.*patch embedding \(HybridEmbed\) is a network.*vit_base_patch16_384",
        id="hybrid",
    )
    yield pytest.param(
        {"backbone": "beitv2_base_patch16_224", "image_size": 32, "class_token": False},
        "beitv2_base_patch16_224.*does not take.*class_token",
        id="override",
    )
    for structure in ("shrunk", "naive_shrunk"):
        yield pytest.param(
            {"backbone": "swin_tiny_patch4_window7_224", "structure": structure},
            "is not a plain ViT.*vit_base_patch16_384",
            id=f"hierarchical, {structure}",
        )
        yield pytest.param(
            {**vit, "depth": 4, "image_size": 16, "structure": structure},
            rf"model\.image_size 16.*model\.structure {structure}.*2 x 2 patches.*32 or more.*plain",
            id=f"native size of one patch, {structure}",
        )
    yield pytest.param({**vit, "depth": 2, "structure": "shrunk"}, "shrunk needs a backbone of 3 blocks", id="2 blocks")
    yield pytest.param(
        {**vit, "structure": "shrunken"}, r"model\.structure 'shrunken'.*plain, shrunk or naive_shrunk", id="structure"
    )
    yield pytest.param(
        {**vit, "structure": "shrunk", "downsampling": "nearest"},
        r"model\.downsampling 'nearest'.*nearest_q, nearest_qkv, conv, mean_q or edge",
        id="downsampling",
    )
    yield pytest.param(
        {**vit, "structure": "shrunk", "upsampling": "bilinear"},
        r"model\.upsampling 'bilinear'.*give tap or paper",
        id="upsampling",
    )
    yield pytest.param(
        {**vit, "upsampling": "paper"},
        r"model\.upsampling paper with model\.structure plain: set model\.structure to shrunk, or leave upsampling out",
        id="plain, up-sampled",
    )
    yield pytest.param(
        {**vit, "structure": "shrunk", "upsampling_num_layers": 2},
        r"model\.upsampling_num_layers 2 with model\.upsampling tap.*set model\.upsampling to paper, or leave",
        id="tap, layers",
    )
    for name in ("head_num_layers", "upsampling_num_layers"):
        settings = {**vit, "depth": 4, "structure": "shrunk", "upsampling": "paper", name: 0}
        yield pytest.param(settings, rf"model\.{name} 0.*1 or more", id=name)
    yield pytest.param({**vit, "depth": 4, "taps": (1, 4)}, r"model\.taps \(1, 4\).*from 0 to 3", id="tap too deep")
    yield pytest.param({**vit, "depth": 4, "taps": (2, 1)}, r"model\.taps \(2, 1\).*ascending", id="taps descend")
    yield pytest.param({**vit, "embed_dim": 50, "num_heads": 7}, "vit_tiny_patch16_224.*embed_dim", id="backbone heads")
    yield pytest.param(
        {**vit, "head_dim": 64, "head_num_heads": 3}, r"head width 64.*model\.head_num_heads", id="heads"
    )


@pytest.mark.parametrize("settings, message", refusals())
def test_settings_that_cannot_be_meant_are_told(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"(?s){message}"):
        create_model(config=ModelConfig(**settings), num_classes=2)


def test_classes_and_spec_must_agree() -> None:
    for count in (0, NUM_CLASSES + 1):
        with pytest.raises(UserError, match=f"num_classes {count}"):
            create_model(config=tiny_config("vit"), num_classes=count, spec=SPEC)


def test_state_dict_survives_torch_save() -> None:
    """The model can also go through torch's own files, as checkpoints do."""
    model = create_model(config=tiny_config("beitv2"), num_classes=2)
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    other = create_model(config=tiny_config("beitv2"), num_classes=2)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    assert torch.equal(
        other.eval().predict(random_images(1, (40, 40))), model.eval().predict(random_images(1, (40, 40)))
    )

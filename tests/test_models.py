"""What every model keeps, whatever backbone it stands on, and what ties the backbone to timm."""

import copy
import functools
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from segvit.config import EvalConfig, ModelConfig
from segvit.data.spec import DatasetSpec
from segvit.errors import UserError
from segvit.losses import criterion
from segvit.models import backbone as backbone_module
from segvit.models.backbone import Backbone, _create_vit, create_backbone, relative_bias
from segvit.models.segvit import SegViT, create_model, load_model
from segvit.models.taps import default_taps
from segvit.models.tokens import resize_tokens
from segvit.models.weights import read_header

NUM_CLASSES = 5
TINY = {"depth": 4, "embed_dim": 64, "num_heads": 2}
"""Overrides that shrink any family."""
VARIANTS: dict[str, dict[str, Any]] = {
    "vit": {"backbone": "vit_tiny_patch16_224", "image_size": 64},
    "vit without class token": {"backbone": "vit_tiny_patch16_224", "image_size": 64, "class_token": False},
    "dinov2, registers": {"backbone": "vit_small_patch14_reg4_dinov2", "image_size": 56},
    "clip, norm before the blocks": {"backbone": "vit_base_patch16_clip_224", "image_size": 64},
    "deit, distilled": {"backbone": "deit_tiny_distilled_patch16_224", "image_size": 64},
    "deit3": {"backbone": "deit3_small_patch16_224", "image_size": 64},
    "siglip": {"backbone": "vit_base_patch16_siglip_224", "image_size": 64},
    "beitv2": {"backbone": "beitv2_base_patch16_224", "image_size": 64},
    "eva02": {"backbone": "eva02_tiny_patch14_224", "image_size": 56},
    "dinov3": {"backbone": "vit_small_patch16_dinov3", "image_size": 64},
    "dinov3 without class token": {
        "backbone": "vit_small_patch16_dinov3",
        "image_size": 64,
        "class_token": False,
    },
}
PREFIX_TOKENS = {"vit": 1, "vit without class token": 0, "dinov2, registers": 5, "deit3": 1, "siglip": 0}
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
SPEC = DatasetSpec(
    name="things",
    classes=("sky", "road", "tree", "car", "é: a, b"),
    palette=((1, 2, 3), (4, 5, 6), (7, 8, 9), (10, 11, 12), (255, 0, 0)),
    raw_ids=(3, 1, 2, 7, 9),
    ignore=(0, 255),
)
PROTOCOL = EvalConfig(mode="whole", window=48, stride=32, resize_short=56, batch_size=3)


def tiny_config(variant: str) -> ModelConfig:
    return ModelConfig(**TINY, head_num_layers=2, **VARIANTS[variant])


def relative_difference(ours: Tensor, reference: Tensor) -> float:
    assert ours.shape == reference.shape
    return float((ours - reference).abs().max() / reference.abs().max())


def random_images(batch: int, size: tuple[int, int]) -> Tensor:
    generator = torch.Generator().manual_seed(size[0] * 1000 + size[1])
    return torch.randint(0, 256, (batch, 3, *size), dtype=torch.uint8, generator=generator)


def stir(module: nn.Module) -> None:
    """Move what starts at 0, 1 or next to nothing (biases, norms, layer scales, bias tables), so that it matters."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "gamma" in name:
                parameter.fill_(0.5)
            elif parameter.ndim == 1 or "relative_position_bias_table" in name or "relative_bias_tables" in name:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))


@pytest.fixture(params=VARIANTS, scope="module")
def variant(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def model(variant: str) -> SegViT:
    """A tiny model of the variant in evaluation mode; tests leave it as it is."""
    torch.manual_seed(0)
    model = SegViT(tiny_config(variant), num_classes=NUM_CLASSES, spec=SPEC, protocol=PROTOCOL)
    stir(model)
    return model.eval()


class TestContract:
    """One contract over all variants."""

    @torch.no_grad()
    @pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
    def test_any_image_size(self, model: SegViT, size: tuple[int, int]) -> None:
        height, width = size
        patch = model.backbone.patch_size
        grid = (-(-height // patch), -(-width // patch))
        output = model(random_images(2, size))
        assert output.class_logits.shape == (3, 2, NUM_CLASSES, NUM_CLASSES + 1)
        assert output.mask_logits.shape == (3, 2, NUM_CLASSES, *grid)
        assert output.image_size == size
        assert output.padded_size == (grid[0] * patch, grid[1] * patch)
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
        assert ours.padded_size == by_hand.image_size

    def test_every_parameter_gets_a_gradient(self, model: SegViT) -> None:
        model = copy.deepcopy(model).train()
        side = model.config.image_size
        labels = torch.arange(2 * side * side).reshape(2, side, side) // 97 % (NUM_CLASSES - 1)
        criterion(model(random_images(2, (side, side))), labels).total.backward()
        last_layers = {f"{stage}.layers.{model.config.head_num_layers - 1}" for stage in stage_names(model)}
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
            largest = float(parameter.grad.abs().max())
            # A softmax does not see what its row has in common, so a key bias has no gradient,
            # but for the cross-attention whose products are the mask.
            cancelled = name.endswith("attn.k.bias") and name.removesuffix(".cross_attn.k.bias") not in last_layers
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
        for size in SIZES.values():
            assert torch.equal(loaded.predict(random_images(1, size)), model.predict(random_images(1, size)))
        header = read_header(path)
        assert [row["name"] for row in header["spec"]["classes"]] == list(SPEC.classes)
        assert [tuple(row["color"]) for row in header["spec"]["classes"]] == list(SPEC.palette)
        assert [file.name for file in path.parent.iterdir()] == [path.name]  # nothing half-written stays

    @torch.no_grad()
    def test_compiles_to_one_graph(self, variant: str) -> None:
        config = replace(tiny_config(variant), depth=2, head_num_layers=1)
        model = SegViT(config, num_classes=NUM_CLASSES).eval()
        torch.compiler.reset()
        compiled = torch.compile(model, fullgraph=True, backend="eager")
        images = random_images(1, (50, 77))
        ours, eager = compiled(images), model(images)
        assert torch.equal(ours.class_logits, eager.class_logits)
        assert torch.equal(ours.mask_logits, eager.mask_logits)
        assert ours[2:] == eager[2:]

    def test_weighs_nothing_on_meta(self, model: SegViT) -> None:
        with torch.device("meta"):
            hollow = SegViT(model.config, num_classes=NUM_CLASSES)
        assert all(parameter.is_meta for parameter in hollow.parameters())
        assert {n: p.shape for n, p in hollow.named_parameters()} == {n: p.shape for n, p in model.named_parameters()}

    def test_prefix_tokens(self, model: SegViT, variant: str) -> None:
        assert model.backbone.num_prefix_tokens == PREFIX_TOKENS[variant]

    def test_another_shape_is_told(self, model: SegViT) -> None:
        for shape in ((3, 32, 32), (1, 1, 32, 32), (1, 32, 32, 3)):
            with pytest.raises(UserError, match=r"expected \(B, 3, H, W\)"):
                model(torch.zeros(shape))


def stage_names(model: SegViT) -> list[str]:
    return [f"head.stages.{index}" for index in range(len(model.head.stages))]


def timm_pair(variant: str, **more: Any) -> tuple[Backbone, nn.Module]:
    """Our backbone with every block tapped, and timm's model of the same weights (`more` are its own arguments)."""
    config = tiny_config(variant)
    torch.manual_seed(0)
    vit = _create_vit(config).eval()
    stir(vit)
    if more:
        class_token = {} if config.class_token is None else {"class_token": config.class_token, "global_pool": "avg"}
        reference = timm.create_model(config.backbone, num_classes=0, **TINY, **class_token, **more)
        reference.load_state_dict(vit.state_dict())
    else:
        reference = copy.deepcopy(vit)
    return Backbone(vit, taps=range(4)).eval(), reference.eval()


@torch.no_grad()
def assert_taps_equal_timm(backbone: Backbone, reference: nn.Module, images: Tensor) -> None:
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
    vit = _create_vit(config).eval()
    stir(vit)
    size = (grid[0] * 16, grid[1] * 16)
    reference = timm.create_model(config.backbone, num_classes=0, img_size=size, **TINY).eval()
    state = vit.state_dict()
    for name, table in state.items():
        if name.endswith("relative_position_bias_table"):
            offsets = resize_tokens(table[None, :-3], (7, 7), (2 * grid[0] - 1, 2 * grid[1] - 1))[0]
            state[name] = torch.cat([offsets, table[-3:]])
    reference.load_state_dict(state)
    assert_taps_equal_timm(Backbone(vit, taps=range(4)).eval(), reference, torch.randn(1, 3, *size))


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


def test_default_taps() -> None:
    assert default_taps(12) == (5, 7, 11)
    assert default_taps(24) == (7, 15, 23)
    assert default_taps(6) == (1, 3, 5)
    assert default_taps(4) == (1, 2, 3)
    assert default_taps(2) == (0, 1)
    assert default_taps(1) == (0,)


def test_blocks_after_the_last_tap_are_left_out() -> None:
    backbone, _ = create_backbone(ModelConfig(backbone="vit_tiny_patch16_224", image_size=32, **TINY, taps=(0, 2)))
    assert len(backbone.blocks) == 3
    assert [tuple(feature.shape) for feature in backbone(torch.zeros(1, 3, 32, 48))] == [(1, 64, 2, 3)] * 2


@pytest.mark.parametrize(
    "backbone, image_size, num_classes, in_backbone, total",
    [
        ("vit_base_patch16_384", 512, 150, 86_431_488, 108_734_743),
        ("vit_large_patch16_384", 640, 150, 304_735_232, 344_303_255),
        ("vit_large_patch16_384", 512, 171, None, 343_734_956),
        ("vit_large_patch16_384", 480, 60, None, 343_494_205),
    ],
)
def test_parameter_counts_of_the_paper(
    backbone: str, image_size: int, num_classes: int, in_backbone: int | None, total: int
) -> None:
    with torch.device("meta"):
        config = ModelConfig(class_token=False)
        model = create_model(backbone, num_classes=num_classes, image_size=image_size, config=config)
    assert sum(parameter.numel() for parameter in model.parameters()) == total
    if in_backbone:
        assert sum(parameter.numel() for parameter in model.backbone.parameters()) == in_backbone


def test_mean_and_std_are_the_backbones_own_or_the_configs() -> None:
    own = SegViT(tiny_config("vit"), num_classes=2)
    assert own.mean.tolist() == own.std.tolist() == [0.5, 0.5, 0.5]
    imagenet = SegViT(tiny_config("dinov2, registers"), num_classes=2)
    assert imagenet.mean.tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert imagenet.std.tolist() == pytest.approx([0.229, 0.224, 0.225])
    config = ModelConfig(**TINY, **VARIANTS["vit"], mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 4.0))
    normalised = SegViT(config, num_classes=2).normalise(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8))
    assert normalised.flatten().tolist() == pytest.approx([0.9, 0.4, 0.175])


def timm_file(tmp_path: Path, variant: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Random weights of the variant at timm's own image size as a file, which `pretrained=True` then reads."""
    config = tiny_config(variant)
    torch.manual_seed(5)
    donor = timm.create_model(config.backbone, num_classes=0, **TINY)
    stir(donor)
    path = tmp_path / "weights.pth"
    torch.save(donor.state_dict(), path)
    create = timm.create_model

    def create_from_file(name: str, *, pretrained: bool = False, **arguments: Any) -> nn.Module:
        if pretrained:
            arguments["pretrained_cfg_overlay"] = {"file": str(path), "custom_load": False, "num_classes": 0}
        made: nn.Module = create(name, pretrained=pretrained, **{**TINY, **arguments})
        return made

    monkeypatch.setattr(timm, "create_model", create_from_file)
    return path


@pytest.mark.filterwarnings("ignore::UserWarning:timm")  # its resizing of BEiT's tables
def test_pretrained_weights_arrive_as_timm_resizes_them(
    variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = timm_file(tmp_path, variant, monkeypatch)
    config = ModelConfig(**TINY, **VARIANTS[variant], pretrained=True)
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
        model = SegViT(ModelConfig(**TINY, **VARIANTS["vit"], pretrained=True), num_classes=2)
    model.save(tmp_path / "model.safetensors")
    monkeypatch.setattr(backbone_module, "_load_pretrained", lambda *_: pytest.fail("asked the hub"))
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
        {"backbone": "beitv2_base_patch16_224", "image_size": 32, "class_token": False},
        "beitv2_base_patch16_224.*does not take.*class_token",
        id="override",
    )
    yield pytest.param({**vit, "depth": 4, "taps": (1, 4)}, r"model\.taps \(1, 4\).*from 0 to 3", id="tap too deep")
    yield pytest.param({**vit, "depth": 4, "taps": (2, 1)}, r"model\.taps \(2, 1\).*ascending", id="taps descend")
    yield pytest.param({**vit, "embed_dim": 50, "num_heads": 7}, "vit_tiny_patch16_224.*embed_dim", id="backbone heads")
    yield pytest.param(
        {**vit, "head_dim": 64, "head_num_heads": 3}, r"head width 64.*model\.head_num_heads", id="heads"
    )


@pytest.mark.parametrize("settings, message", refusals())
def test_settings_that_cannot_be_meant_are_told(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"(?s){message}"):
        SegViT(ModelConfig(**settings), num_classes=2)


def test_classes_and_spec_must_agree() -> None:
    for count in (0, NUM_CLASSES + 1):
        with pytest.raises(UserError, match=f"num_classes {count}"):
            SegViT(tiny_config("vit"), num_classes=count, spec=SPEC)


def test_state_dict_survives_torch_save() -> None:
    """The model can also go through torch's own files, as checkpoints do."""
    model = SegViT(tiny_config("beitv2"), num_classes=2)
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    other = SegViT(tiny_config("beitv2"), num_classes=2)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    assert torch.equal(
        other.eval().predict(random_images(1, (40, 40))), model.eval().predict(random_images(1, (40, 40)))
    )

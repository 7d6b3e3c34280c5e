"""The shrunk structures as whole models: what the contract of every model leaves open."""

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from PIL import Image

import segvit
import segvit.data.dataset as dataset_module
from segvit.config import DataConfig, Downsampling, EvalConfig, ModelConfig, OptimConfig, Structure, TrainConfig
from segvit.errors import UserError
from segvit.losses import criterion
from segvit.models.create import create_model
from segvit.models.decoder import DecoderStage
from segvit.prediction.predict_files import predict_files
from segvit.training.train import train
from segvit.weights.load import load_model
from tests.helpers.tiny import random_images, relative_difference, stir, tiny_config

SOME = ("vit", "dinov2, registers", "beitv2", "eva02", "dinov3 without class token")
"""A variant of each way to shrink."""


def shrunk_config(variant: str, method: Downsampling, structure: Structure = "shrunk", **settings: Any) -> ModelConfig:
    return replace(tiny_config(variant, structure), downsampling=method, **settings)


def test_settings_reach_their_parts() -> None:
    """Numbers that the tests elsewhere take alike."""
    config = replace(
        tiny_config("vit", "shrunk", "paper"),
        shrink_at=2,
        taps=(0, 1, 3),
        head_dim=48,
        head_num_heads=3,
        head_num_layers=4,
        upsampling_num_layers=1,
        head_dropout=0.25,
        init_std=0.2,
    )
    model = create_model(config=config, num_classes=5)
    assert model.backbone.shrink_at == 2 and model.backbone.taps == (0, 1, 3)
    assert model.upsampling is not None and model.upsampling.tokens.shape == (16, 48)
    assert [len(stage.layers) for stage in model.upsampling.stages] == [1, 1, 1]
    assert [len(stage.layers) for stage in model.head.stages] == [4]
    for part in (model.upsampling, model.head):
        assert isinstance(part.stages[0], DecoderStage)
        layer = part.stages[0].layers[0]
        assert layer.cross_attn.num_heads == layer.self_attn.num_heads == 3
        assert layer.dropout.p == layer.cross_attn.dropout == 0.25
        assert 0.15 < layer.fc1.weight.std().item() < 0.25
    assert model(random_images(1, (64, 64))).class_logits.shape[0] == 4


@pytest.mark.parametrize("variant", SOME)
@pytest.mark.parametrize("method", ["nearest_qkv", "conv"])
def test_every_parameter_gets_a_gradient(variant: str, method: Downsampling) -> None:
    torch.manual_seed(0)
    model = create_model(config=shrunk_config(variant, method), num_classes=5)
    stir(model)
    side = model.config.image_size
    labels = torch.arange(2 * side * side).reshape(2, side, side) // 97 % 4
    criterion(model(random_images(2, (side, side))), labels).total.backward()
    masking = tuple(f"head.stages.{stage}.layers.1.cross_attn" for stage in range(2))
    conv = [name for name, _ in model.named_parameters() if "downsampling" in name]
    assert len(conv) == (2 if method == "conv" else 0)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        cancelled = name.endswith("attn.k.bias") and not name.startswith(masking)
        assert cancelled or float(parameter.grad.abs().max()) > 1e-7, name


@torch.no_grad()
@pytest.mark.parametrize(
    "variant", ["vit", *(pytest.param(name, marks=pytest.mark.slow) for name in ("beitv2", "dinov3"))]
)
def test_a_convolution_compiles_to_one_graph(variant: str) -> None:
    config = shrunk_config(variant, "conv", "naive_shrunk", depth=2, head_num_layers=1)
    model = create_model(config=config, num_classes=5).eval()
    torch.compiler.reset()
    images = random_images(1, (50, 77))
    ours, eager = torch.compile(model, fullgraph=True, backend="eager")(images), model(images)
    torch.testing.assert_close(ours.mask_logits, eager.mask_logits, rtol=1e-5, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("method", get_args(Downsampling))
@pytest.mark.parametrize("variant", SOME)
def test_mixed_precision_stays_near(variant: str, method: Downsampling) -> None:
    torch.manual_seed(0)
    model = create_model(config=shrunk_config(variant, method), num_classes=5).eval()
    images = random_images(2, (70, 100))
    exact = model(images)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(images)
    assert rough.class_logits.dtype == rough.mask_logits.dtype == torch.float32
    assert relative_difference(rough.class_logits, exact.class_logits) < 0.05
    differences = (rough.mask_logits - exact.mask_logits).abs() / exact.mask_logits.abs().max()
    # Rounded logits of edges may choose another patch, whose cell then differs.
    assert float(differences.quantile(0.95) if method == "edge" else differences.max()) < 0.05


@pytest.mark.parametrize("structure", ["shrunk", "naive_shrunk"])
def test_save_and_load_with_a_convolution(structure: Structure, tmp_path: Path) -> None:
    model = create_model(config=shrunk_config("vit", "conv", structure, shrink_at=2), num_classes=5)
    model.save(tmp_path / "model.safetensors")
    loaded = load_model(tmp_path / "model.safetensors")
    assert loaded.config == model.config and loaded.backbone.shrink_at == 2
    images = random_images(1, (50, 77))
    assert torch.equal(loaded.scores(images), model.scores(images))
    assert torch.equal(
        loaded.state_dict()["backbone.downsampling.conv.weight"], model.backbone.downsampling.conv.weight
    )


@pytest.mark.parametrize("structure", ["shrunk", "naive_shrunk"])
def test_small_images_are_told_or_padded_to_a_window(structure: Structure, tmp_path: Path) -> None:
    model = create_model(config=tiny_config("vit", structure), num_classes=3)
    image = Image.new("RGB", (100, 9))
    image.save(tmp_path / "thin.png")
    message = r"an image of 1 x 7 patches of 16 px.*at least 2 x 2 patches \(32 x 32 px\)"
    with pytest.raises(UserError, match=message):
        segvit.predict(model, image, config=EvalConfig(mode="whole"))
    with pytest.raises(UserError, match=message):
        model.predict(torch.zeros(1, 3, 9, 100))
    assert model.training  # the mode is as it was
    done = predict_files(model, [tmp_path / "thin.png"], tmp_path / "out", config=EvalConfig(mode="whole"))
    assert not done.written and [failure.path.name for failure in done.failures] == ["thin.png"]
    assert "2 x 2 patches" in done.failures[0].reason
    assert segvit.predict(model, image, config=EvalConfig(mode="slide")).labels.shape == (9, 100)


@pytest.mark.parametrize("structure, outputs", [("shrunk", 2), ("naive_shrunk", 1)])
def test_training_runs(structure: Structure, outputs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset_module, "SHAPES_LENGTH", {"train": 4, "val": 2})
    model = ModelConfig(
        backbone="vit_tiny_patch16_224",
        structure=structure,
        downsampling="conv",
        image_size=40,
        patch_size=8,
        embed_dim=32,
        depth=3,
        num_heads=2,
        head_num_layers=2,
        drop_path=0.1,
    )
    config = TrainConfig(
        model=model,
        data=DataConfig(spec="shapes", workers=0),
        optim=OptimConfig(lr=1e-3, warmup_steps=0),
        steps=2,
        batch_size=2,
        eval_every=2,
        device="cpu",
        output=tmp_path / "run",
    )
    run = train(config)
    trained = load_model(run.path)
    assert trained.config.structure == structure and 0 <= run.miou <= 1
    assert trained(torch.zeros(1, 3, 40, 56)).class_logits.shape[0] == outputs
    torch.manual_seed(0)
    start = create_model(config=model, num_classes=trained.num_classes).state_dict()
    assert not torch.equal(
        trained.state_dict()["backbone.downsampling.conv.weight"], start["backbone.downsampling.conv.weight"]
    )

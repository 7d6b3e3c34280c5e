"""The linear head: the logits of a softmax in the output of every other model, and the loss of each pixel."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import segvit
import segvit.data.dataset as dataset_module
from segvit import pictures
from segvit.config import LossConfig, ModelConfig, Structure, Upsampling
from segvit.data.spec import load_spec
from segvit.errors import UserError
from segvit.losses import pixel_criterion
from segvit.models.create import create_model
from segvit.models.linear_head import LinearHead
from segvit.models.segvit import SegViT
from segvit.profiling.info import describe
from segvit.profiling.plan import plan
from segvit.training.settings import check_settings
from segvit.training.train import train
from segvit.weights.hub import model_card
from segvit.weights.model_file import read_header
from tests.helpers.tiny import random_images, stir, tiny_config, tiny_run

SPEC = load_spec("shapes")


def linear(config: ModelConfig, **changes: Any) -> ModelConfig:
    return replace(config, head="linear", **{"head_num_layers": ModelConfig.head_num_layers, **changes})


def tiny(structure: Structure = "plain", variant: str = "vit") -> SegViT:
    torch.manual_seed(0)
    model = create_model(config=linear(tiny_config(variant, structure)), num_classes=8, spec=SPEC)
    stir(model)
    model.eval()
    with torch.no_grad(), classified(model) as seen:
        model(random_images(1, (70, 50)))
        model.head.classifier.bias.sub_(seen[0].mean(dim=(0, 2, 3)))  # else one class is the best everywhere
    return model


@contextmanager
def classified(model: SegViT) -> Iterator[list[Tensor]]:
    """Collect what the linear layer gives, (B, K, h, w)."""
    seen: list[Tensor] = []
    hook = model.head.classifier.register_forward_hook(lambda _, __, out: seen.append(out.movedim(3, 1)))
    yield seen
    hook.remove()


@pytest.mark.parametrize("structure", ["plain", "shrunk", "naive_shrunk"])
def test_it_predicts_the_best_of_the_logits_that_it_is_trained_on(structure: Structure) -> None:
    model, images = tiny(structure), random_images(2, (200, 150))
    with classified(model) as seen:
        labels = model.predict(images)
    large = F.interpolate(seen[0], size=model(images).padded_size, mode="bilinear", align_corners=False)
    best = large[..., :200, :150].topk(2, dim=1)
    tied = best.values[:, 0] - best.values[:, 1] < 1e-4
    assert len(labels.unique()) > 1 and tied.float().mean() < 0.01
    assert ((labels == best.indices[:, 0]) | tied).all()


@torch.no_grad()
def test_masks_are_the_logarithm_of_the_softmax() -> None:
    torch.manual_seed(0)
    head = LinearHead(in_dim=6, num_maps=2, num_classes=5).eval()
    stir(head)
    maps = [torch.randn(2, 6, 8, 4), torch.randn(2, 6, 4, 2)]
    classes, masks = head(maps)
    assert classes.shape == (1, 2, 5, 6) and masks.shape == (1, 2, 5, 4, 2)
    normed = [F.layer_norm(each.movedim(1, 3), (6,), norm.weight, norm.bias) for norm, each in zip(head.norms, maps)]
    shallow = normed[0].unflatten(2, (2, 2)).unflatten(1, (4, 2)).mean(dim=(2, 4))  # bilinear by half is a mean
    probabilities = head.classifier(torch.cat([shallow, normed[1]], dim=3)).softmax(dim=3).movedim(3, 1)
    torch.testing.assert_close(masks[0].exp(), probabilities, rtol=1e-4, atol=1e-6)
    certain = classes[0].softmax(dim=2)[..., :-1]
    torch.testing.assert_close(certain, torch.eye(5).expand(2, -1, -1), rtol=0, atol=1e-7)


def test_the_loss_is_the_cross_entropy_of_up_sampled_logits() -> None:
    torch.manual_seed(0)
    model = tiny().train()
    images, labels = random_images(2, (50, 64)), torch.randint(0, 8, (2, 50, 64))
    labels[0, :20] = 255
    model.head.dropout.p = 0.0
    with classified(model) as seen:
        output = model(images)
    large = F.interpolate(seen[0], size=output.padded_size, mode="bilinear", align_corners=False)[..., :50, :64]
    weights = torch.rand(8)
    for given in (None, weights):
        expected = [
            F.cross_entropy(large[i : i + 1], labels[i : i + 1], weight=given, ignore_index=255) for i in range(2)
        ]
        losses = pixel_criterion(output, labels, class_weights=given)
        torch.testing.assert_close(losses.total, torch.stack(expected).mean(), rtol=1e-4, atol=1e-5)
    pixel_criterion(output, labels).total.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    with pytest.raises(UserError, match="labels of shape"):
        pixel_criterion(output, labels[:, :40])
    with pytest.raises(UserError, match="labels hold"):
        pixel_criterion(output, labels.masked_fill(labels == 255, 9))
    ignored = pixel_criterion(output, torch.full_like(labels, 255))
    assert float(ignored.total.detach()) == 0.0


@pytest.mark.parametrize("structure", ["plain", "shrunk", "naive_shrunk"])
def test_everything_downstream_takes_it(structure: Structure, tmp_path: Path) -> None:
    model, images = tiny(structure), random_images(1, (70, 50))
    scores, labels = model.scores(images), model.predict(images)
    assert torch.equal(scores.argmax(dim=1), labels) and float(scores.max()) <= 1 and len(labels.unique()) > 1
    model.save(tmp_path / "linear.safetensors")
    loaded = segvit.load_model(tmp_path / "linear.safetensors")
    assert isinstance(loaded.head, LinearHead) and torch.equal(loaded.predict(images), labels)
    outline = {"shrunk": "shrunk, up-sampling tap, linear head"}.get(structure, f"{structure}, linear head")
    card = model_card(read_header(tmp_path / "linear.safetensors"), repo="me/linear")
    assert f"structure `{outline}`, on `vit_tiny" in card and f"| structure | {outline} |" in card
    assert describe(str(tmp_path / "linear.safetensors")).to_dict()["head"] == "linear"
    with pytest.raises(UserError, match="is a model of segvit; start from it with --init"):
        create_model(config=replace(model.config, pretrained_file=tmp_path / "linear.safetensors"), num_classes=8)
    names = ("person", *SPEC.classes[1:4])
    fewer = segvit.with_classes(loaded, replace(SPEC, classes=names, palette=SPEC.palette[:4], raw_ids=(0, 1, 2, 3)))
    assert torch.equal(fewer.head.classifier.weight[1:], loaded.head.classifier.weight[1:4])
    assert "linear head" in [part.name for part in segvit.profile(model, (64, 64)).parts]
    with pytest.raises(UserError, match="the head LinearHead cannot be recorded"):
        pictures.look(model, torch.zeros(48, 64, 3, dtype=torch.uint8).numpy())


@pytest.mark.slow
@pytest.mark.parametrize("structure", ["plain", "shrunk"])
def test_it_is_exported(structure: Structure, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra export")
    pytest.importorskip("onnxscript", reason="needs the extra export")
    model = tiny(structure)
    segvit.export_onnx(model, tmp_path / "linear.onnx")
    images = random_images(1, (80, 48))
    labels = segvit.load_onnx(tmp_path / "linear.onnx").predict(images)
    assert (labels == model.predict(images)).float().mean() > 0.999


def test_it_trains_by_its_own_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dataset_module, "SHAPES_LENGTH", {"train": 4, "val": 1})
    config = tiny_run(tmp_path / "run", steps=2, eval_every=2)
    config = replace(config, model=linear(config.model))
    seen: list[list[str]] = []
    train(config, on_step=lambda _, losses: seen.append(list(losses)))
    assert seen == [["cross_entropy"]] * 2
    assert "vit_tiny_patch16_224 (plain, linear head) starts from" in capsys.readouterr().out
    assert plan(config, num_classes=8, gpus=1).multiply_adds > 0
    created = create_model(config=config.model, num_classes=8, spec=SPEC)
    parts = SegViT(created.backbone, created.head, mean=created.mean, std=created.std, num_classes=8, image_size=32)
    again = replace(config, model=ModelConfig(), steps=1, output=tmp_path / "parts")
    train(again, model=parts, on_step=lambda _, losses: seen.append(list(losses)))
    assert seen[2:] == [["cross_entropy"]]
    with pytest.raises(UserError, match=r"settings of other terms: leave all but loss\.class_weights out"):
        check_settings(replace(config, loss=LossConfig(dice_coefficient=2.0)))


@pytest.mark.parametrize(
    "structure, upsampling, changes",
    [
        ("plain", "tap", {"head_num_layers": 7}),
        ("plain", "tap", {"head_dim": 32}),
        ("plain", "tap", {"head_num_heads": 2}),
        ("naive_shrunk", "tap", {"head_dim": 32}),
        ("shrunk", "tap", {"head_num_heads": 3}),
        ("shrunk", "paper", {"head_num_layers": 7}),
    ],
)
def test_settings_without_effect_are_refused(
    structure: Structure, upsampling: Upsampling, changes: dict[str, int]
) -> None:
    config = linear(tiny_config("vit", structure, upsampling), **changes)
    ((name, value),) = changes.items()
    with pytest.raises(UserError, match=rf"model\.{name} {value} with model\.head linear.*leave {name} out"):
        create_model(config=config, num_classes=2)


@pytest.mark.parametrize("upsampling", ["tap", "paper"])
def test_settings_of_the_upsampling_before_it_are_taken(upsampling: Upsampling) -> None:
    heads = {"head_num_heads": 5} if upsampling == "paper" else {}
    config = linear(tiny_config("vit", "shrunk", upsampling), head_dim=100, **heads)
    model = create_model(config=config, num_classes=8, spec=SPEC)
    assert model.head.classifier.in_features == 100 * (len(model.backbone.taps) if upsampling == "tap" else 1)
    for name, value, own in (("head_dim", 50, "100"), ("head_num_heads", 2, "5")):
        if name == "head_num_heads" and upsampling == "tap":
            continue
        with pytest.raises(UserError, match=rf"model\.{name}: {own} in .*, {value} in the settings"):
            segvit.with_classes(model, SPEC, config=replace(config, **{name: value}))


def test_an_unknown_head_is_refused() -> None:
    with pytest.raises(UserError, match=r"model\.head 'liner': give atm or linear"):
        create_model(config=replace(tiny_config("vit"), head="liner"), num_classes=2)  # type: ignore[arg-type]


def test_maps_at_one_grid_are_not_resized(monkeypatch: pytest.MonkeyPatch) -> None:
    head = LinearHead(in_dim=6, num_maps=2, num_classes=5)
    monkeypatch.setattr(F, "interpolate", None)
    assert head([torch.zeros(1, 6, 4, 3), torch.zeros(1, 6, 4, 3)])[1].shape == (1, 1, 5, 4, 3)

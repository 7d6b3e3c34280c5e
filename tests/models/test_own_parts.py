"""Models of parts that are handed in: used, saved, loaded and trained as any other, and clear where that cannot be."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import segvit
import segvit.data.dataset as dataset_module
from segvit import pictures
from segvit.cli import main as cli
from segvit.config import DataConfig, EvalConfig, OptimConfig, TrainConfig, Upsampling
from segvit.data.spec import load_spec
from segvit.errors import UserError
from segvit.inference.network import described
from segvit.models.atm import ATMHead
from segvit.models.decoder import similarity
from segvit.models.downsampling import Kept
from segvit.models.modes import set_grad_checkpointing
from segvit.models.segvit import SegViT
from segvit.training.optim import freeze, parameter_groups
from segvit.training.parallel import sharded_modules
from segvit.weights.hub import model_card
from segvit.weights.model_file import read_header
from tests.helpers.tiny import random_images, tiny_config

CLASSES = 8


class Convolutions(nn.Module):
    """A convolutional backbone of two maps, which knows nothing of timm."""

    patch_size = 16
    map_cell = 8

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 8, stride=8)
        self.next = nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = self.stem(images).relu()
        return [maps, self.next(maps)]


class FineHead(nn.Module):
    """A linear head, whose masks are four times as fine as the last map."""

    class_bound = ("classifier.weight", "classifier.bias")

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Conv2d(16, CLASSES, 1)

    def forward(self, features: list[Tensor], deep: bool = True) -> tuple[Tensor, Tensor]:
        masks = self.classifier(nn.functional.interpolate(features[-1], scale_factor=4))
        certain = 20 * torch.eye(CLASSES, CLASSES + 1).expand(1, len(masks), -1, -1)
        return certain, masks[None]

    def output_names(self, taps: Any) -> tuple[str, ...]:
        return ("linear",)

    def sharded_modules(self) -> list[nn.Module]:
        return [self.classifier]


def build(head: nn.Module | None = None, **settings: Any) -> SegViT:
    torch.manual_seed(0)
    head = head or ATMHead(in_dim=16, num_stages=2, num_classes=CLASSES, dim=16, num_heads=2, num_layers=1)
    settings = {"protocol": EvalConfig(mode="whole"), "image_size": 48, "spec": load_spec("shapes"), **settings}
    return SegViT(Convolutions(), head, mean=(0.1, 0.2, 0.3), std=(0.5, 0.5, 0.5), num_classes=CLASSES, **settings)


@pytest.mark.parametrize("head", [ATMHead, FineHead])
def test_any_image_size(head: type[nn.Module]) -> None:
    model = build(None if head is ATMHead else FineHead()).eval()
    for height, width in ((48, 64), (33, 17), (1, 1)):
        output = model(random_images(2, (height, width)))
        assert output.padded_size == (-(-height // 16) * 16, -(-width // 16) * 16)
        assert model.predict(random_images(2, (height, width))).shape == (2, height, width)
        assert model.scores(random_images(2, (height, width))).shape == (2, CLASSES, height, width)
    assert segvit.profile(model, (48, 64)).parts[0].name == "backbone"


def test_masks_of_another_similarity_are_those_of_its_formula() -> None:
    def doubled(q: Tensor, k: Tensor, *, num_heads: int) -> Tensor:
        return 2 * similarity(q, k, num_heads=num_heads)

    settings: dict[str, Any] = {"in_dim": 16, "num_stages": 2, "num_classes": CLASSES, "dim": 16, "num_heads": 2}
    torch.manual_seed(0)
    plain = ATMHead(**settings).eval()
    other = ATMHead(**settings, similarity=doubled).eval()
    other.load_state_dict(plain.state_dict())
    maps = [torch.randn(1, 16, 6, 8) for _ in range(2)]
    assert [name for name, _ in plain.named_parameters()] == [name for name, _ in other.named_parameters()]
    for ours, theirs, factor in zip(other(maps), plain(maps), (1, 2), strict=True):
        torch.testing.assert_close(ours, factor * theirs)


def test_saved_and_loaded_into_the_same_parts(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, path = build().eval(), tmp_path / "own.safetensors"
    model.extra = {"note": "mine"}
    model.save(path)
    told = r"own\.safetensors: .*backbone Convolutions, head ATMHead.*segvit\.load_model\(.*, into=model\)"
    with pytest.raises(UserError, match=told):
        segvit.load_model(path)
    empty = build(spec=None, protocol=None, image_size=512)
    with torch.no_grad():
        empty.mean.zero_()
        empty.head.class_tokens.zero_()
    loaded = segvit.load_model(path, into=empty)
    assert loaded is empty and not loaded.training and loaded.extra == model.extra
    assert (loaded.spec, loaded.protocol, loaded.image_size) == (model.spec, model.protocol, 48)
    images = random_images(1, (48, 64))
    assert torch.equal(loaded.predict(images), model.predict(images)) and torch.equal(loaded.mean, model.mean)
    with pytest.raises(UserError, match=r"unexpected  head\.class_tokens"):
        segvit.load_model(path, into=build(FineHead()))
    assert described(model) == {"backbone": "Convolutions", "structure": "ATMHead"}
    card = model_card(read_header(path), repo="me/own")
    assert 'segvit.load_model("me/own", into=model)' in card and "segvit predict" not in card
    assert "backbone `Convolutions`" in card and "| training crop | 48 px |" in card
    monkeypatch.setattr("sys.argv", ["segvit", "info", str(path)])
    with pytest.raises(SystemExit) as leave:
        cli.main()
    assert leave.value.code and "this model has custom parts" in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.slow
def test_a_model_with_parts_of_its_own_is_exported(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra export")
    pytest.importorskip("onnxscript", reason="needs the extra export")
    model = build().eval()
    segvit.export_onnx(model, tmp_path / "own.onnx")
    exported = segvit.load_onnx(tmp_path / "own.onnx")
    assert exported.image_size == 48 and described(exported) == described(model)
    images = random_images(1, (48, 64))
    assert (exported(images).mask_logits - model(images, deep=False).mask_logits).abs().max() < 1e-4


def test_it_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset_module, "SHAPES_LENGTH", {"train": 4, "val": 2})
    data = DataConfig(spec="shapes", workers=0)
    config = TrainConfig(data=data, steps=2, batch_size=2, eval_every=2, device="cpu", output=tmp_path / "run")
    model = build(FineHead())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    run = segvit.train(config, model=model)
    for part in ("backbone", "head"):
        changed = [not torch.equal(before[name], value) for name, value in model.state_dict().items() if part in name]
        assert any(changed), part
    assert segvit.load_model(run.path, into=build(FineHead())).predict(random_images(1, (20, 30))).shape == (1, 20, 30)


def test_a_backbone_that_names_no_layers_is_one() -> None:
    model = build()
    groups = parameter_groups(model, OptimConfig(lr=1.0, head_lr_factor=10.0, layer_decay=0.5))
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    assert {rates[id(parameter)] for parameter in model.backbone.parameters()} == {0.5}
    assert {rates[id(parameter)] for parameter in model.head.parameters()} == {10.0}
    with pytest.raises(UserError, match=r"optim\.freeze 3.*from 0.*to 0"):
        freeze(model, 3)
    freeze(model, "backbone")
    assert not any(parameter.requires_grad for parameter in model.backbone.parameters())
    assert all(parameter.requires_grad for parameter in model.head.parameters())
    assert sharded_modules(model) == list(model.head.stages)


def test_what_it_cannot_do_is_refused() -> None:
    model = build()
    set_grad_checkpointing(model.backbone, False)
    with pytest.raises(UserError, match="grad_checkpointing: the backbone Convolutions has no attribute of that name"):
        set_grad_checkpointing(model.backbone, True)
    with pytest.raises(UserError, match="the backbone Convolutions cannot be recorded: it has no taps"):
        pictures.look(model, torch.zeros(48, 64, 3, dtype=torch.uint8).numpy())
    with pytest.raises(UserError, match=r"with_classes: .*custom parts"):
        segvit.with_classes(model, load_spec("shapes"))
    created = segvit.create_model(config=tiny_config("vit"), num_classes=CLASSES)
    linear = SegViT(created.backbone, FineHead(), mean=created.mean, std=created.std, num_classes=CLASSES)
    with pytest.raises(UserError, match="the head FineHead cannot be recorded: it has no shown_layers"):
        pictures.look(linear, torch.zeros(48, 64, 3, dtype=torch.uint8).numpy())


class Added(nn.Module):
    """An up-sampling that adds two maps up."""

    def forward(self, features: list[Tensor], grid: tuple[int, int]) -> list[Tensor]:
        return [features[0] + features[1]]


class AddedTensor(nn.Module):
    """Added that forgets the list: the tensor would be taken for as many maps as it has images."""

    def forward(self, features: list[Tensor], grid: tuple[int, int]) -> Tensor:
        return features[0] + features[1]


def with_upsampling(upsampling: nn.Module) -> SegViT:
    head = ATMHead(in_dim=16, num_stages=1, num_classes=CLASSES, dim=16, num_heads=2, num_layers=1)
    return SegViT(Convolutions(), head, upsampling, mean=(0, 0, 0), std=(1, 1, 1), num_classes=CLASSES).eval()


def test_an_upsampling_returns_maps() -> None:
    assert with_upsampling(Added()).predict(random_images(1, (48, 64))).shape == (1, 48, 64)


def test_an_upsampling_that_returns_one_tensor_is_refused() -> None:
    told = r"the up-sampling AddedTensor returned one tensor: return a list of maps.*\[map\]"
    with pytest.raises(UserError, match=told):
        with_upsampling(AddedTensor()).predict(random_images(1, (48, 64)))


def test_the_upsampling_tap_takes_the_lattice_of_the_package_alone() -> None:
    """One that keeps the other rows and columns has maps of the same shape, a patch off."""

    class OddPlaces(nn.Module):
        def forward(self, patches: Tensor, grid: tuple[int, int]) -> Kept:
            indices = torch.arange(grid[0] * grid[1]).unflatten(0, grid)[1::2, 1::2]
            return Kept(indices.flatten(), (indices.shape[0], indices.shape[1]))

    def build(upsampling: Upsampling) -> SegViT:
        start = segvit.create_model(config=tiny_config("vit", "shrunk", upsampling), num_classes=CLASSES)
        start.backbone.downsampling = OddPlaces()
        parts = (start.backbone, start.head, start.upsampling)
        return SegViT(*parts, mean=start.mean, std=start.std, num_classes=CLASSES)

    with pytest.raises(UserError, match=r"the down-sampling OddPlaces is your own: set model\.upsampling to paper"):
        build("tap")
    assert build("paper").predict(random_images(1, (64, 64))).shape == (1, 64, 64)


def test_the_inside_of_a_set_that_is_no_lattice_is_shown() -> None:
    class Largest(nn.Module):
        def forward(self, patches: Tensor, grid: tuple[int, int]) -> Kept:
            count = patches.shape[1] // 4
            return Kept(patches.norm(dim=2).topk(count).indices.sort().values, (1, count))

    created = segvit.create_model(config=tiny_config("vit", "shrunk"), num_classes=CLASSES)
    created.backbone.downsampling = Largest()
    with pytest.raises(UserError, match=r"needs maps at 4 x 6 or .*got 1 x 6: .*set model\.upsampling to paper"):
        created.predict(random_images(1, (64, 96)))
    created = segvit.create_model(config=tiny_config("vit", "shrunk", "paper"), num_classes=CLASSES)
    created.backbone.downsampling = Largest()
    inside = pictures.look(created.eval(), torch.randint(0, 256, (64, 96, 3), dtype=torch.uint8).numpy())
    assert inside.tokens.kept.sum() == 6 and inside.tokens.kept.shape == (4, 6)
    behind = inside.gazes[-1].attention
    assert behind.shape[1:] == (4, 6) and behind.sum(axis=(1, 2)) == pytest.approx(1.0)
    assert (behind[:, ~inside.tokens.kept] == 0).all()

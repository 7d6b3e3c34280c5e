"""docs/segvit_in_one_file.py gives what the package gives, from the same weights, and stays as short as it promises."""

import ast
import re
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import segvit
from segvit.config import LossConfig, ModelConfig, Structure, Upsampling
from tests.helpers.one_file import PATH, as_one_file, as_table, one_file
from tests.helpers.tiny import random_images, relative_difference, stir, tiny_config

TOLERANCE = 1e-5
NUM_CLASSES = 5
SIZES = {
    "native": (64, 64),
    "a patch more": (80, 64),
    "odd grid": (48, 112),
    "padded": (50, 77),
    "a pixel over": (65, 33),
    "as few patches as shrink": (17, 32),
}
each_structure = pytest.mark.parametrize("structure", ["plain", "shrunk", "naive_shrunk"])
each_size = pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)


def model_of(structure: Structure, **settings: Any) -> segvit.SegViT:
    """A tiny model whose weights matter, in evaluation mode."""
    torch.manual_seed(0)
    upsampling: Upsampling = "paper" if structure == "shrunk" else "tap"
    config = replace(tiny_config("vit without class token", structure, upsampling), head_num_heads=2, **settings)
    config = replace(config, head_num_layers=3, upsampling_num_layers=3)
    model = segvit.create_model(config.backbone, num_classes=NUM_CLASSES, config=config)
    stir(model)
    return model.eval()


@torch.no_grad()
@each_structure
@each_size
def test_outputs_are_the_packages(structure: Structure, size: tuple[int, int]) -> None:
    model = model_of(structure)
    reference, images = as_one_file(model), random_images(2, size)
    ours, slow = model(images), reference(images / 255)
    assert relative_difference(ours.class_logits, slow.class_logits) < TOLERANCE
    assert relative_difference(ours.mask_logits, slow.mask_logits) < TOLERANCE
    assert ours.image_size == slow.image_size and ours.padded_size == slow.padded_size
    assert relative_difference(model.scores(images), one_file.scores(slow)) < TOLERANCE


@torch.no_grad()
@each_structure
def test_features_are_the_packages(structure: Structure) -> None:
    model, images = model_of(structure), torch.randn(2, 3, 48, 112)
    for ours, slow in zip(model.backbone(images), as_one_file(model).backbone(images), strict=True):
        assert relative_difference(ours, slow) < TOLERANCE


@each_structure
@pytest.mark.parametrize("ignore_as_negative", [False, True], ids=["ignored left out", "ignored as negatives"])
@pytest.mark.parametrize("size", [(64, 64), (50, 77)], ids=["native", "padded"])
def test_losses_and_gradients_are_the_packages(
    structure: Structure, ignore_as_negative: bool, size: tuple[int, int]
) -> None:
    model, images = model_of(structure).double(), random_images(2, size)
    reference = as_one_file(model)
    labels = torch.arange(2 * size[0] * size[1]).reshape(2, *size) // 97 % (NUM_CLASSES - 1)
    labels[:, 5:20, 7:30] = 255
    losses = segvit.criterion(model(images), labels, config=LossConfig(ignore_as_negative=ignore_as_negative))
    slow = one_file.criterion(reference(images.double() / 255), labels, ignore_as_negative=ignore_as_negative)
    assert relative_difference(losses.total.detach(), slow.sum().detach()) < TOLERANCE
    for ours, expected in zip(as_table(losses).detach().T, slow.detach().T, strict=True):
        assert relative_difference(ours, expected) < TOLERANCE
    losses.total.backward()
    slow.sum().backward()
    gradients = {name: parameter.grad for name, parameter in reference.named_parameters()}
    for name, parameter in model.named_parameters():
        if not name.endswith("attn.k.bias"):  # most cancel in a softmax, and what is left is rounding
            assert relative_difference(parameter.grad, gradients[name]) < TOLERANCE, name


class Weigh(nn.Module):
    """Takes the place of dropout without its chance: weighs each channel of a branch and drops all attention."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.linspace(0.5, 1.5, x.shape[2]) if x.ndim == 3 else torch.zeros_like(x)


@torch.no_grad()
@each_structure
def test_dropout_is_where_the_package_has_it(structure: Structure) -> None:
    model = model_of(structure)
    reference, images = as_one_file(model), random_images(1, (64, 64))
    rates = {part.p for part in reference.modules() if isinstance(part, nn.Dropout)}
    assert rates == {ModelConfig().head_dropout}
    still = reference(images / 255)
    reference.train()
    assert relative_difference(reference(images / 255).mask_logits, still.mask_logits) > 0.01
    for part in [*model.modules(), *reference.modules()]:
        if isinstance(getattr(part, "dropout", None), nn.Dropout):
            part.dropout = Weigh()
        elif hasattr(part, "dropout"):
            part.dropout = 1.0  # a rate: the package drops attention weights in a function
    for decoder in (model.head, model.upsampling):
        if decoder is not None:
            decoder.train()
    ours, slow = model(images), reference(images / 255)
    assert relative_difference(ours.class_logits, slow.class_logits) < TOLERANCE
    assert relative_difference(ours.mask_logits, slow.mask_logits) < TOLERANCE


def test_its_examples_are_the_papers_models() -> None:
    """The models in the docstring have the package's taps, shrinking blocks, heads and parameters."""
    made = []
    with torch.device("meta"):
        for line in re.findall(r"^    model = (.*?)  +#", one_file.__doc__ or "", re.MULTILINE):
            made.append(eval(line, vars(one_file)))
        structures: tuple[Structure, ...] = ("plain", "shrunk", "naive_shrunk")
        base = ModelConfig(backbone="vit_base_patch16_384", class_token=False)
        configs = [replace(base, structure=structure) for structure in structures]
        configs[1] = replace(configs[1], upsampling="paper")
        models = [segvit.create_model(config=config, num_classes=150) for config in configs]
    for ours, model in zip(made, models, strict=True):
        assert (ours.backbone.taps, ours.backbone.shrink_at) == (model.backbone.taps, model.backbone.shrink_at)
        shapes = {name: value.shape for name, value in ours.state_dict().items()}
        assert shapes == {name: value.shape for name, value in model.state_dict().items()}
        for stage, expected in zip(ours.head.stages, model.head.stages, strict=True):
            assert stage.layers[0].num_heads == expected.layers[0].cross_attn.num_heads == 12


def test_the_rest_of_its_example_runs() -> None:
    lines = re.findall(r"^    (?!model = )(\S.*?)  +#", one_file.__doc__ or "", re.MULTILINE)
    assert [line.split("(")[0] for line in lines] == ["output = model", "criterion", "label_map = scores"]
    model = one_file.SegViT(3, taps=(0, 1), crop=32, patch=8, dim=32, num_heads=1)
    world = vars(one_file) | {"model": model, "images": torch.rand(2, 3, 40, 25)}
    world["labels"] = torch.randint(0, 3, (2, 40, 25))
    exec("\n".join(lines), world)
    assert world["label_map"].shape == (2, 40, 25)
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_it_is_short_and_needs_torch_alone() -> None:
    text = PATH.read_text(encoding="utf-8")
    assert 150 <= len(text.splitlines()) < 200
    imported = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            imported |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(str(node.module).split(".")[0])
    assert imported - sys.stdlib_module_names == {"torch"}

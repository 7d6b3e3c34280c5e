"""Blocks that run again in the backward pass: the same losses and gradients, less memory."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import segvit.data.dataset as dataset_module
from segvit.config import Structure, Upsampling
from segvit.losses import criterion
from segvit.models.create import create_model
from segvit.models.segvit import SegViT
from segvit.training.train import train
from tests.helpers.tiny import random_images, run_records, stir, tiny_config, tiny_run

FAMILIES = ("vit", "deit, distilled", "deit3", "beitv2", "eva02", "dinov3")


def trained(model: SegViT, *, grad_checkpointing: bool) -> tuple[list[Tensor], dict[str, Tensor]]:
    """The loss's terms and the gradients of one pass in training mode, with dropout and drop path."""
    model.backbone.grad_checkpointing = grad_checkpointing
    model.train().zero_grad()
    images = random_images(2, (48, 80))
    labels = torch.randint(0, 3, (2, 48, 80), generator=torch.Generator().manual_seed(0))
    torch.manual_seed(3)
    losses = criterion(model(images), labels)
    losses.total.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return list(losses.values()), gradients


@pytest.mark.parametrize(
    "variant, structure, upsampling",
    [(variant, structure, "tap") for variant in FAMILIES for structure in ("plain", "shrunk")]
    + [("vit", "shrunk", "paper")],
)
def test_losses_and_gradients_are_the_same_to_the_bit(
    variant: str, structure: Structure, upsampling: Upsampling
) -> None:
    config = replace(tiny_config(variant, structure, upsampling), drop_path=0.4)
    torch.manual_seed(0)
    model = create_model(config=config, num_classes=3)
    stir(model)
    terms, gradients = trained(model, grad_checkpointing=False)
    again, others = trained(model, grad_checkpointing=True)
    assert all(torch.equal(one, other) for one, other in zip(terms, again, strict=True))
    assert gradients.keys() == others.keys() == dict(model.named_parameters()).keys()
    assert not [name for name in gradients if not torch.equal(gradients[name], others[name])]
    torch.manual_seed(4)  # drop path does draw something: the comparison would else be easier than it looks
    once, twice = (model(random_images(2, (48, 80))).class_logits for _ in range(2))
    assert not torch.equal(once, twice)


@pytest.mark.parametrize(
    "structure, changes",
    [
        ("shrunk", {"downsampling": "nearest_qkv"}),
        ("shrunk", {"downsampling": "conv"}),
        ("shrunk", {"downsampling": "edge"}),
        ("shrunk", {"downsampling": "edge", "upscaler": "conv", "head_classes": "presence"}),
        ("plain", {"merge_threshold": 0.5}),
        ("plain", {"merge_shares": (0.4, 0.5), "upscaler": "conv"}),
    ],
    ids=str,
)
def test_each_way_to_drop_tokens_and_each_other_part(structure: Structure, changes: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = create_model(config=replace(tiny_config("vit", structure), drop_path=0.4, **changes), num_classes=3)
    terms, gradients = trained(model, grad_checkpointing=False)
    again, others = trained(model, grad_checkpointing=True)
    assert all(torch.equal(one, other) for one, other in zip(terms, again, strict=True))
    assert gradients.keys() == others.keys() == dict(model.named_parameters()).keys()
    assert not [name for name in gradients if not torch.equal(gradients[name], others[name])]


@pytest.mark.parametrize("variant", ["vit", "beitv2"])
def test_little_is_kept_of_each_block(variant: str) -> None:
    model = create_model(config=tiny_config(variant), num_classes=3).train()
    held = {}
    for grad_checkpointing in (False, True):
        model.backbone.grad_checkpointing = grad_checkpointing
        kept: dict[int, int] = {}

        def pack(tensor: Tensor, kept: dict[int, int] = kept) -> Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            images = torch.rand(2, 3, 128, 128)
            features = model.backbone(images)
        held[grad_checkpointing] = sum(kept.values()) - images.nbytes
        assert features[-1].requires_grad
    weights = sum(p.nbytes for p in model.backbone.parameters())
    assert held[True] < 0.2 * (held[False] - weights)


def test_evaluation_keeps_nothing_and_runs_no_block_twice() -> None:
    model = create_model(config=tiny_config("vit"), num_classes=3).eval()
    model.backbone.grad_checkpointing = True
    calls: list[Any] = []
    model.backbone.blocks[0].register_forward_pre_hook(lambda *_: calls.append(1))
    model.predict(random_images(1, (32, 32)))
    assert len(calls) == 1
    model.train()
    model.backbone(torch.rand(1, 3, 32, 32))[-1].sum().backward()
    assert len(calls) == 3


def test_a_run_is_the_same_and_may_go_on_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset_module, "SHAPES_LENGTH", {"train": 10, "val": 1})
    plain = tiny_run(tmp_path / "plain", steps=4)
    train(plain)
    config = replace(plain, output=tmp_path / "run")

    def stop(step: int, _: object) -> None:
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, on_step=stop)
    train(replace(config, grad_checkpointing=True), resume=True)
    assert run_records(config.output) == run_records(plain.output)

"""Small models to export, with labels that vary over an image."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from segvit.config import EvalConfig, ModelConfig, Structure
from segvit.data.spec import DatasetSpec, load_spec
from segvit.models.create import create_model
from segvit.models.segvit import SegViT
from segvit.weights.extend import new_group, with_group
from tests.helpers.tiny import stir, tell_apart

TINY = ModelConfig(backbone="vit_tiny_patch16_224", image_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2)
TINY = replace(TINY, head_num_layers=1)
PROTOCOL = EvalConfig(window=32, stride=24, scales=(1.0, 0.75), flip=True, batch_size=3)


def tiny(structure: Structure = "plain", **changes: Any) -> SegViT:
    """A model of the shapes' classes whose labels vary over an image."""
    torch.manual_seed(3)
    config = replace(TINY, structure=structure, depth=3 if structure == "shrunk" else 2, **changes)
    model = create_model(config=config, num_classes=8, spec=load_spec("shapes"), protocol=PROTOCOL).eval()
    stir(model)
    tell_apart(model)
    model.extra = {"metrics": {"miou": 0.5}}
    return model


GROUPS = (("cone", "dog"), ("bin",))
"""Classes that are added, one group after the other."""


def with_added_classes(model: SegViT) -> SegViT:
    """The model with two groups of classes that were added to it, each of which wins somewhere."""
    whole = model
    for number, classes in enumerate(GROUPS, start=1):
        colors = tuple((index, 2, number) for index in range(len(classes)))
        raw_ids = tuple(range(len(classes)))
        spec = DatasetSpec(name="more", classes=classes, palette=colors, raw_ids=raw_ids, ignore=())
        torch.manual_seed(number)
        group = new_group(whole, spec).eval()
        stir(group.head)
        tell_apart(group)
        with torch.no_grad():
            group.head.classifier.bias.zero_()  # its scores count twice, and others shall win too
        whole = with_group(whole, group)
    whole.extra = model.extra
    return whole


def differing(ours: Any, reference: Tensor) -> float:
    """Share of the labels that differ; they vary over the images."""
    assert len(reference.unique()) > 2
    assert ours.shape == tuple(reference.shape)
    return float((torch.as_tensor(ours) != reference).double().mean())

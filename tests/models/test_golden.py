"""Parity of the package and of the one file with tensors that the paper's authors' implementation computed once."""

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from segvit.config import LossConfig, ModelConfig
from segvit.losses import criterion
from segvit.models.create import create_model
from segvit.weights.authors import own_state
from segvit.weights.torch_file import read_state_dict
from tests.helpers.one_file import as_one_file, as_table, one_file

TOLERANCE = 1e-5
"""Largest difference over the largest value of a tensor; correct code stays under 2e-6."""


def assert_close(ours: Tensor, golden: Tensor, name: str) -> None:
    assert ours.shape == golden.shape, name
    difference = (ours - golden).abs().max() / golden.abs().max()
    assert difference <= TOLERANCE, f"{name}: {difference:.2e}"


class Golden:
    """One reference run: a model with its weights, and the tensors it should give."""

    model: Any

    def __init__(self, folder: Path, implementation: str) -> None:
        self.info = json.loads((folder / "info.json").read_text())
        self.tensors = load_file(folder / "tensors.safetensors")
        info = self.info
        config = ModelConfig(
            backbone="vit_base_patch16_384",
            structure="shrunk" if info["kind"] == "shrunk" else "plain",
            upsampling="paper" if info["kind"] == "shrunk" else "tap",
            shrink_at=info.get("shrink"),
            image_size=info["img"],
            class_token=False,
            embed_dim=info["dim"],
            depth=info["depth"],
            num_heads=info["heads"],
            taps=tuple(info["outs"]),
            head_dim=info["hdim"],
            head_num_heads=info["hheads"],
            head_num_layers=info["nlayers"],
            head_dropout=0.0,
            mean=(0.0, 0.0, 0.0),
            std=(1.0, 1.0, 1.0),
        )
        self.model = create_model(config=config, num_classes=info["ncls"])
        self.shrunk = info["kind"] == "shrunk"
        state = own_state(read_state_dict(folder / "checkpoint.pth"), self.model.state_dict(), shrunk=self.shrunk)
        missing, unexpected = self.model.load_state_dict(state, strict=False)
        assert set(missing) == {"mean", "std"} and not unexpected
        self.in_one_file = implementation == "one file"
        if self.in_one_file:
            self.model = as_one_file(self.model)
        self.output = self.model(self.tensors["image"])

    def scores(self) -> Tensor:
        """Scores (B, K, H, W)."""
        scores: Tensor = one_file.scores(self.output) if self.in_one_file else self.model.scores(self.tensors["image"])
        return scores

    def losses(self) -> Tensor:
        """Class, focal and dice terms (S, 3), with ignored pixels as negatives."""
        labels = self.tensors["label"]
        if self.in_one_file:
            losses: Tensor = one_file.criterion(self.output, labels, ignore_as_negative=True)
            return losses
        return as_table(criterion(self.output, labels, config=LossConfig(ignore_as_negative=True)))


@pytest.fixture(
    params=product(["atm", "atm_sparse", "shrunk"], ["package", "one file"]), ids=lambda pair: ", ".join(pair)
)
def golden(request: pytest.FixtureRequest, shared_golden: Path) -> Golden:
    name, implementation = request.param
    return Golden(shared_golden / name, implementation)


def test_features(golden: Golden) -> None:
    features = golden.model.backbone(golden.tensors["image"])
    assert len(features) == len(golden.info["outs"])
    for index, feature in enumerate(features):
        expected = golden.tensors[f"feature_{index}"]
        ours = feature if expected.ndim == 4 else feature.flatten(2).transpose(1, 2)
        assert_close(ours, expected, f"feature {index}")


def test_logits_of_every_stage(golden: Golden) -> None:
    for stage, name in enumerate(["aux0", "aux1", "pred"]):
        assert_close(golden.output.class_logits[stage], golden.tensors[f"{name}_logits"], f"{name} class logits")
        masks = golden.output.mask_logits[stage]
        if name == "pred":
            size = golden.output.image_size
            masks = torch.nn.functional.interpolate(masks, size=size, mode="bilinear", align_corners=False)
        assert_close(masks, golden.tensors[f"{name}_masks"], f"{name} mask logits")


def test_scores(golden: Golden) -> None:
    assert_close(golden.scores(), golden.tensors["semseg"], "scores")


def test_losses(golden: Golden) -> None:
    losses = golden.losses()
    for term, name in enumerate(["ce", "mask", "dice"]):
        for stage, suffix in enumerate(["_0", "_1", ""]):
            expected = torch.tensor(golden.info["losses"][f"loss_{name}{suffix}"])
            assert_close(losses[stage, term], expected, f"{name} {stage}")
    assert_close(losses.sum(), torch.tensor(golden.info["total_loss"]), "total")


def test_gradients(golden: Golden) -> None:
    golden.losses().sum().backward()
    gradients = {name: parameter.grad for name, parameter in golden.model.named_parameters()}
    expected = {key.removeprefix("grad."): value for key, value in golden.tensors.items() if key.startswith("grad.")}
    assert len(expected) == (5 if golden.info["kind"] == "shrunk" else 4)
    own = own_state(expected, gradients, shrunk=golden.shrunk)
    assert len(own) >= len(expected)
    for name, value in own.items():
        gradient = gradients[name]
        assert gradient is not None
        assert_close(gradient, value, f"gradient of {name}")

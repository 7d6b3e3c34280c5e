"""The method of docs/segvit_in_one_file.py as a slow and obvious reference for the package's."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from segvit.config import LossConfig
from segvit.losses import Losses
from segvit.models.output import SegOutput, is_presence
from segvit.models.segvit import SegViT

PATH = Path(__file__).resolve().parents[2] / "docs" / "segvit_in_one_file.py"


def load() -> ModuleType:
    """Import the file by its path; it is in no package."""
    spec = importlib.util.spec_from_file_location(PATH.stem, PATH)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


one_file = load()


def decoder_stages(number: int, *, in_dim: int | None, dim: int, num_heads: int, num_layers: int) -> list[Any]:
    """Return stages of the one file with another number of layers than the paper's three."""
    stages = [one_file.DecoderStage(in_dim, dim, num_heads) for _ in range(number)]
    for stage in stages:
        assert 1 <= num_layers <= len(stage.layers)
        del stage.layers[num_layers:]
    return stages


def as_one_file(model: SegViT) -> Any:
    """Return the one file's model with the weights of the package's, in evaluation mode.

    The backbone must be a ViT without prefix tokens, with as many heads as the decoder.
    """
    backbone = model.backbone
    made = one_file.SegViT(
        model.num_classes,
        taps=backbone.taps,
        shrink_at=backbone.shrink_at,
        upsample=model.upsampling is not None,
        crop=backbone.native_grid[0] * backbone.patch_size,
        patch=backbone.patch_size,
        dim=backbone.embed_dim,
        num_heads=model.head.num_heads,
    )
    made.to(model.mean.dtype).load_state_dict(model.state_dict())
    return made.eval()


def as_papers(output: SegOutput) -> SegOutput:
    """Return an output with logits over all classes; a query of a presence head can only be its own class, or none."""
    present = output.class_logits
    if not is_presence(present):
        return output
    own = torch.eye(present.shape[2], dtype=torch.bool, device=present.device)
    classes = torch.where(own, present, -torch.inf)
    return output._replace(class_logits=torch.cat([classes, torch.zeros_like(present)], dim=3))


def slow_scores(output: SegOutput, index: int = -1) -> Tensor:
    """Return the scores (B, K, H, W) of a supervised output, in float64."""
    output = as_papers(output)
    class_logits, mask_logits = (logits[index][None].double() for logits in output[:2])
    scores: Tensor = one_file.scores(one_file.SegOutput(class_logits, mask_logits, *output[2:4]))
    return scores


def slow_losses(output: SegOutput, labels: Tensor, config: LossConfig) -> Tensor:
    """Return the class, focal and dice terms (S, 3) in float64, which autograd can follow."""
    output = as_papers(output)
    class_logits, mask_logits = (logits.double() for logits in output[:2])
    losses: Tensor = one_file.criterion(
        one_file.SegOutput(class_logits, mask_logits, *output[2:4]),
        labels,
        ignore_as_negative=config.ignore_as_negative,
        no_object_weight=config.no_object_weight,
        coefficients=(config.class_coefficient, config.focal_coefficient, config.dice_coefficient),
    )
    return losses


def as_table(losses: Losses) -> Tensor:
    """Return the package's terms as the one file gives them: class, focal and dice, (S, 3)."""
    return torch.stack([losses["class"], losses["focal"], losses["dice"]], dim=1)

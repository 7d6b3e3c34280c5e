"""The search for a threshold of token merging: the goal is kept, and the counts are those by hand."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import tv_tensors

from segvit.cli.models import merge_find
from segvit.config import EvalConfig
from segvit.data.sample import Sample
from segvit.data.spec import DatasetSpec
from segvit.errors import UserError
from segvit.export.graph import LabelGraph
from segvit.models.create import create_model
from segvit.models.segvit import SegViT
from segvit.profiling import merging
from segvit.profiling.info import describe
from segvit.profiling.merging import find_merging, with_merging
from segvit.profiling.multiply_adds import profile
from segvit.weights.load import load_model
from tests.helpers.tiny import random_images, stir, tell_apart, tiny_config

SIZE = (128, 144)
SPEC = DatasetSpec(
    name="five", classes=tuple("abcde"), palette=tuple((k, k, k) for k in range(5)), raw_ids=tuple(range(5))
)


class Scenes:
    """Two images of noise and flat areas, with the labels of a model."""

    spec = SPEC

    def __init__(self, model: SegViT) -> None:
        images = random_images(2, SIZE)
        for index in range(2):
            images[index, :, 20 * index :, 50:] = 60 * index
        self.images, self.labels = images, model.predict(images)

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int) -> Sample:
        return Sample(tv_tensors.Image(self.images[index]), tv_tensors.Mask(self.labels[index]), f"scene {index}")

    def describe(self, index: int) -> str:
        return f"scene {index}"


@pytest.fixture(scope="module")
def model() -> SegViT:
    """A tiny model; tests leave it as it is."""
    torch.manual_seed(0)
    made = create_model(config=tiny_config("vit"), num_classes=5, spec=SPEC, protocol=EvalConfig(mode="whole"))
    stir(made)
    tell_apart(made)
    return made.eval()


def backbone_by_hand(model: SegViT, counts: tuple[int, int, int], at: tuple[int, int]) -> int:
    """Multiply-adds of the backbone on one image whose blocks run on these numbers of patches."""
    backbone = model.backbone
    total, prefix, width = counts[0] * 3 * backbone.patch_size**2 * 64, backbone.num_prefix_tokens, 64
    for index, block in enumerate(backbone.blocks):
        tokens = prefix + counts[(index > at[0]) + (index > at[1])]
        linears = sum(part.weight.numel() for part in block.modules() if isinstance(part, nn.Linear))
        total += tokens * linears + 2 * tokens * tokens * width
    return int(total + (counts[1] + 1) // 2 * (counts[1] // 2) * width)  # similarities of the pairs


@torch.no_grad()
@pytest.mark.parametrize("settings", [{}, {"threshold": 0.8}, {"shares": (0.5, 0.25)}], ids=str)
def test_what_runs_is_counted(model: SegViT, settings: dict[str, Any]) -> None:
    candidate = with_merging(model, **settings)
    images = candidate.normalise(Scenes(model).images[1:2])
    counts: list[int] = []
    if settings:
        candidate.backbone.merging.register_forward_hook(lambda _, __, made: counts.append(made[1].sizes.shape[1]))
    with merging.counting(candidate) as seen:
        candidate.backbone(images)
    if not settings:
        assert seen.flops / 2 == profile(model, SIZE).parts[0].multiply_adds
        return
    assert 72 > counts[0] > counts[1]
    assert seen.flops / 2 == backbone_by_hand(model, (72, counts[0], counts[1]), candidate.backbone.merging.at)
    assert seen.shares[0] == (72 - counts[0]) / 3 / 16  # 4 x 4 windows on 8 x 9 patches
    assert seen.shares[1] == (counts[0] - counts[1]) / ((counts[0] + 1) // 2)
    costs = profile(candidate, SIZE).parts[0].multiply_adds
    assert costs == (seen.flops / 2 if "shares" in settings else profile(model, SIZE).parts[0].multiply_adds)


def test_the_highest_threshold_within_a_budget(model: SegViT) -> None:
    found = find_merging(model, Scenes(model), budget=0.75)
    base, rows = found.rows[0], found.rows[1:]
    assert base.threshold is None and base.miou == 1.0 and base.shares == (0, 0)
    thresholds = [row.threshold for row in rows]
    assert thresholds == sorted(thresholds, key=lambda threshold: -(threshold or 0))
    assert found.share <= 0.75
    dearer = [row for row in rows if (row.threshold or 0) > (found.chosen.threshold or 0)]
    assert dearer and all(row.multiply_adds > 0.75 * base.multiply_adds for row in dearer)
    assert (dearer[-1].threshold or 0) - (found.chosen.threshold or 0) == pytest.approx(0.01)
    assert model.backbone.merging is None and model.config is not None and model.config.merge_threshold is None


def test_the_lowest_threshold_with_a_loss(model: SegViT, tmp_path: Path) -> None:
    found = find_merging(model, Scenes(model), max_loss=0.2, fixed=True)
    assert found.chosen is found.rows[-1] and found.chosen.threshold is None  # the fixed one, measured too
    by_threshold = found.rows[1:-1]
    kept = [row for row in by_threshold if found.rows[0].miou - row.miou <= 0.2]
    assert min(kept, key=lambda row: row.threshold or 0).shares == pytest.approx(found.chosen.shares, abs=0.05)
    found.save(tmp_path / "fast.safetensors")
    loaded = load_model(tmp_path / "fast.safetensors")
    assert loaded.config == found.model.config and loaded.backbone.merging.threshold is None
    assert all(
        torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), model.state_dict().values(), strict=True)
    )
    seen = describe(str(tmp_path / "fast.safetensors"))
    assert seen.header["merge_find"]["share"] == found.share and "shares=" in seen.to_dict()["merging"]
    assert seen.profile.multiply_adds < profile(model, 64).multiply_adds


def test_photos_without_masks_are_compared_with_the_model_itself(
    model: SegViT, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index, image in enumerate(Scenes(model).images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / f"{index}.png")
    model.save(tmp_path / "model.safetensors")
    merge_find(tmp_path / "model.safetensors", tmp_path / "fast.safetensors", images=(tmp_path,), budget=0.95)
    said = capsys.readouterr().out
    assert "fewer multiply-adds, mIoU 1.0000 -> " in said and "token merging on 2 images" in said
    loaded = load_model(tmp_path / "fast.safetensors")
    assert loaded.config is not None and 0.5 <= (loaded.config.merge_threshold or 0) < 1
    assert describe(str(tmp_path / "fast.safetensors")).profile == profile(model, 64)  # at most
    with pytest.raises(UserError, match=r"merge-find MODEL fixed\.safetensors --fixed"):
        LabelGraph(loaded, with_scores=False)


def test_goals_that_cannot_be_meant(model: SegViT) -> None:
    scenes = Scenes(model)
    with pytest.raises(UserError, match=r"--budget 0\.5 and --max-loss 0\.1: leave one"):
        find_merging(model, scenes, budget=0.5, max_loss=0.1)
    with pytest.raises(UserError, match=r"--budget 75: give a share"):
        find_merging(model, scenes, budget=75)
    with pytest.raises(UserError, match=r"--max-loss 5: give a difference"):
        find_merging(model, scenes, max_loss=5)
    with pytest.raises(UserError, match=r"--budget 0\.01: even at threshold 0\.5.*larger budget"):
        find_merging(model, scenes, budget=0.01)


@pytest.mark.slow
@torch.no_grad()
def test_fixed_shares_export_at_any_size(model: SegViT, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from segvit.export.export import export_model

    fixed = with_merging(model, shares=(0.4, 0.3))
    for name in ("model.onnx", "model.pt2"):
        exported = export_model(fixed, tmp_path / name)
        assert exported.size is None and exported.agreement is not None  # labels agree at several sizes

"""`segvit.train` with a model, datasets and a criterion of one's own."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision import tv_tensors

import segvit
from segvit.config import DataConfig, ModelConfig, TrainConfig
from segvit.data.sample import Sample
from segvit.data.spec import DatasetSpec, load_spec
from segvit.errors import UserError
from segvit.losses import Losses
from segvit.models.output import SegOutput
from segvit.training.replay import replay
from segvit.training.train import NotFinite, train
from tests.helpers.tiny import run_records, tiny_run

STEPS = 3
SPEC = load_spec("shapes")


class Squares:
    """Samples that lie in no file: a square of one class on another."""

    def __init__(self, length: int, spec: DatasetSpec = SPEC) -> None:
        self.spec, self.length = spec, length

    def __len__(self) -> int:
        return self.length

    def describe(self, index: int) -> str:
        return f"square {index}"

    def read(self, index: int) -> Sample:
        image, labels = torch.full((3, 40, 48), 30, dtype=torch.uint8), torch.zeros(40, 48, dtype=torch.int64)
        image[:, 8 : 24 + index, 8:24], labels[8 : 24 + index, 8:24] = 200, 1
        return Sample(tv_tensors.Image(image), tv_tensors.Mask(labels), str(index))


def datasets() -> dict[str, Squares]:
    return {"train": Squares(6), "val": Squares(2)}


def spread(output: SegOutput, labels: Tensor, **settings: Any) -> Losses:
    """The package's terms and two of our own, a scalar and one for each supervised output."""
    losses = segvit.criterion(output, labels, **settings)
    losses["spread"] = 0.1 * output.class_logits.float().var()
    losses["size"] = 0.01 * output.mask_logits.float().square().mean(dim=(1, 2, 3, 4))
    return losses


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    return tiny_run(tmp_path / "run", steps=STEPS, eval_every=STEPS, save_every=1, data=DataConfig(workers=0))


def own_model(config: TrainConfig, **changes: Any) -> segvit.SegViT:
    torch.manual_seed(1)
    settings = replace(config.model, **changes)
    return segvit.create_model(settings.backbone, num_classes=SPEC.num_classes, config=settings)


def steps(config: TrainConfig) -> list[dict[str, Any]]:
    return [record for record in run_records(config.output) if "loss" in record]


def test_a_model_is_trained_in_place_under_its_own_settings(config: TrainConfig) -> None:
    model = own_model(config, head_num_layers=2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    settings, config = model.config, replace(config, model=ModelConfig())
    run = train(config, model, datasets())
    assert any(not torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert len(steps(config)) == STEPS
    saved = segvit.load_model(run.path)
    assert saved.spec == model.spec == SPEC and len(saved.head.stages[0].layers) == 2
    assert TrainConfig.load(config.output / "config.yaml").model == settings


def test_a_model_that_the_config_contradicts_is_refused(config: TrainConfig) -> None:
    model = own_model(config)
    with pytest.raises(UserError, match=r"model\.head_num_layers: 2 in the config, \d in the model\nLeave these"):
        train(replace(config, model=replace(config.model, head_num_layers=2)), model, datasets())
    with pytest.raises(UserError, match=r"start\.safetensors and your own model"):
        train(replace(config, init="start.safetensors"), model, datasets())
    with pytest.raises(UserError, match=r"3 classes, and the dataset 'shapes' has \d+: .*num_classes=\d"):
        train(config, segvit.create_model(config.model.backbone, num_classes=3, config=config.model), datasets())


def test_datasets_are_trained_and_validated_on(config: TrainConfig) -> None:
    config = replace(config, data=DataConfig(workers=2))
    run = train(config, datasets=datasets())
    assert run.result.images == 2 and len(steps(config)) == STEPS
    with pytest.raises(UserError, match=r"data\.spec \(shapes\), but you also pass datasets: leave one of them out"):
        train(replace(config, data=DataConfig(spec="shapes")), datasets=datasets())
    with pytest.raises(UserError, match="datasets holds train: give a dataset for each of train and val"):
        train(config, datasets={"train": Squares(2)})


@pytest.mark.parametrize("accumulate", [1, 2])
def test_terms_of_a_criterion_are_logged_by_name(config: TrainConfig, accumulate: int, tmp_path: Path) -> None:
    config = replace(config, accumulate=accumulate)
    seen: list[Losses] = []
    train(config, datasets=datasets(), criterion=spread, on_step=lambda step, losses: seen.append(losses))
    record = steps(config)[0]
    terms = {key: value for key, value in record.items() if key not in ("step", "loss", "lr", "gradient_norm")}
    outputs = [key for key in terms if key.startswith("class_")]
    assert record["spread"] > 0 and [key.replace("class", "size") in terms for key in outputs] == [True] * len(outputs)
    assert record["loss"] == pytest.approx(sum(terms.values()), rel=1e-5)
    assert seen[0].named() == {key: pytest.approx(value) for key, value in terms.items()}
    plain = replace(config, output=tmp_path / "plain")
    train(plain, datasets=datasets())
    assert {key: record[key] for key in steps(plain)[0] if key in terms} == {
        key: value for key, value in steps(plain)[0].items() if key in terms
    }
    assert "spread" in (config.output / "report.html").read_text(encoding="utf-8")


def test_terms_that_cannot_be_logged_are_refused(config: TrainConfig) -> None:
    def refuse(criterion: Any, told: str) -> None:
        with pytest.raises(UserError, match=told):
            train(replace(config, output=config.output / told[:5]), datasets=datasets(), criterion=criterion)

    def named(name: str, value: Tensor) -> Any:
        def give(output: SegOutput, labels: Tensor, **settings: Any) -> Losses:
            losses = segvit.criterion(output, labels, **settings)
            losses[name] = value
            return losses

        return give

    refuse(lambda output, labels, **settings: {"a": output.class_logits.mean()}, r"gave dict: return segvit\.Losses")
    refuse(named("lr", torch.zeros(())), "loss term 'lr' has a name that")
    refuse(named("map", torch.zeros(2, 2)), r"loss term 'map' has shape \(2, 2\): give a scalar")
    refuse(named("number", 0.1), "loss term 'number' is float: give a tensor")
    refuse(named("dice_1", torch.zeros(())), "loss term 'dice_1' ends like a supervised output")


def test_a_run_with_parts_of_its_own_is_resumed_with_them_to_the_bit(config: TrainConfig, tmp_path: Path) -> None:
    config = replace(config, data=DataConfig(workers=0))
    whole = replace(config, output=tmp_path / "whole")
    parts: dict[str, Any] = {"datasets": datasets(), "criterion": spread}
    train(whole, own_model(config), **parts)

    def stop(step: int, _: Losses) -> None:
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, own_model(config), **parts, on_step=stop)
    with pytest.raises(UserError, match="started with model and datasets and criterion and would be resumed with"):
        train(config, own_model(config), datasets=parts["datasets"], resume=True)
    train(config, own_model(config), **parts, resume=True)
    assert run_records(config.output) == run_records(whole.output)


def test_a_step_of_a_criterion_that_goes_wrong_is_named_and_replayed(config: TrainConfig) -> None:
    def broken(output: SegOutput, labels: Tensor, **settings: Any) -> Losses:
        losses = segvit.criterion(output, labels, **settings)
        losses["broken"] = output.class_logits.mean() / 0
        return losses

    with pytest.raises(NotFinite, match=r"the broken term of the loss.*") as caught:
        train(config, datasets=datasets(), criterion=broken)
    path = config.output / "not-finite-step0.pt"
    assert f'`segvit.training.replay.replay(Path("{path}"), criterion=criterion)`' in str(caught.value)
    with pytest.raises(UserError, match=r"the run used your own criterion: pass the same again; in Python, run"):
        replay(path)
    assert replay(path, criterion=broken).finding
    assert replay(path, criterion=segvit.criterion).finding is None

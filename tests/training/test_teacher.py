"""Runs whose ignored pixels a teacher labels: what it writes, where, and what it cannot."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import segvit.data.dataset as dataset_module
from segvit.config import DataConfig, TrainConfig
from segvit.data.dataset import open_dataset
from segvit.data.sample import Samples
from segvit.data.spec import IGNORE_INDEX, load_spec
from segvit.errors import UserError
from segvit.inference.protocol import image_labels
from segvit.losses import Losses
from segvit.models.create import create_model
from segvit.training.continual.extension import Relabelled
from segvit.training.continual.teacher import teach
from segvit.training.train import train
from segvit.weights.extend import without_classes
from segvit.weights.load import load_model
from tests.helpers.tiny import stir, tiny_run

SHAPES = load_spec("shapes")
NEW = 5
"""The class that the images label; the teacher knows all others."""
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset_module, "SHAPES_LENGTH", {"train": 6, "val": 2})


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    """A run that starts from the teacher."""
    config = tiny_run(tmp_path / "run", steps=4, eval_every=4, init=str(tmp_path / "old.safetensors"))
    torch.manual_seed(0)
    spec = without_classes(SHAPES, (NEW,))
    old = create_model(config=config.model, num_classes=spec.num_classes, spec=spec, protocol=config.eval)
    stir(old)
    old.save(tmp_path / "old.safetensors")
    return replace(config, teacher=config.init)


def new_alone(split: str) -> Samples:
    """The shapes, of which one class alone is labelled."""
    return Relabelled(open_dataset(DataConfig(spec="shapes"), split, size=48), SHAPES, {NEW: NEW})


def test_ignored_pixels_get_the_label_of_the_teacher(config: TrainConfig) -> None:
    samples, teacher = new_alone("train"), load_model(str(config.teacher))
    taught = teach(str(config.teacher), samples, device=CPU)
    assert len(taught) == len(samples) and taught.spec == SHAPES and taught.describe(0) == samples.describe(0)
    for index in range(len(samples)):
        before, after = samples.read(index), taught.read(index)
        assert torch.equal(before.image, after.image) and before.name == after.name
        predicted = image_labels(teacher, before.image.as_subclass(torch.Tensor))
        names = [teacher.classes[number] for number in predicted.flatten()]
        expected = torch.tensor([SHAPES.classes.index(name) for name in names]).view(predicted.shape)
        known = before.labels != IGNORE_INDEX
        assert torch.equal(after.labels.as_subclass(torch.Tensor), expected.where(~known, before.labels))
        assert after.labels.dtype == before.labels.dtype


def test_classes_that_the_data_lack_stay_ignored(config: TrainConfig) -> None:
    teacher = load_model(str(config.teacher))
    image = new_alone("train").read(0).image.as_subclass(torch.Tensor)
    predicted = image_labels(teacher, image)
    name = teacher.classes[int(predicted.flatten().mode().values)]  # the class that it sees most
    lacking = SHAPES.classes.index(name)
    spec = without_classes(SHAPES, (lacking,))
    samples = Relabelled(new_alone("train"), spec, {NEW: spec.classes.index(SHAPES.classes[NEW])})
    after = teach(str(config.teacher), samples, device=CPU).read(0).labels.as_subclass(torch.Tensor)
    unknown = (predicted == teacher.classes.index(name)) & (samples.read(0).labels == IGNORE_INDEX)
    assert unknown.any() and (after[unknown] == IGNORE_INDEX).all() and (after[~unknown] != IGNORE_INDEX).all()


def test_a_run_with_a_teacher_learns_other_weights_and_resumes_to_the_bit(config: TrainConfig, tmp_path: Path) -> None:
    sets = {split: new_alone(split) for split in ("train", "val")}
    config = replace(config, data=replace(config.data, spec=None), save_every=2)

    def learned(run: TrainConfig) -> torch.Tensor:
        return load_model(run.output / "last.safetensors").head.class_tokens

    train(config, datasets=sets)
    alone = replace(config, teacher=None, output=tmp_path / "alone")
    train(alone, datasets=sets)
    assert not torch.equal(learned(alone), learned(config))

    def stop(step: int, _: Losses) -> None:
        if step == 3:
            raise KeyboardInterrupt

    broken = replace(config, output=tmp_path / "broken")
    with pytest.raises(KeyboardInterrupt):
        train(broken, datasets=sets, on_step=stop)
    train(broken, datasets=sets, resume=True)
    assert torch.equal(learned(broken), learned(config))


def test_what_cannot_be(config: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"extend with teacher .*: the old classes are frozen"):
        train(replace(config, init=None, extend=config.init))
    with pytest.raises(UserError, match=r"no model file none\.safetensors"):
        train(replace(config, teacher="none.safetensors"))
    names = [f"other {number}" for number in range(SHAPES.num_classes)]
    samples = Relabelled(new_alone("train"), replace(SHAPES, classes=tuple(names)), {NEW: NEW})
    with pytest.raises(UserError, match=r"teacher .*: none of its classes .* is one of the data \(other 0"):
        teach(str(config.teacher), samples, device=CPU)

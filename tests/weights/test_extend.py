"""Groups of classes: added to a model and dropped again, and the scores of the others stay as they are to the bit."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import segvit
from segvit import pictures
from segvit.config import EvalConfig, ModelConfig
from segvit.data.palette import default_palette
from segvit.data.spec import DatasetSpec
from segvit.errors import UserError
from segvit.models.create import create_model
from segvit.models.scores import class_probabilities, joint_class_logits
from segvit.models.segvit import SegViT
from segvit.profiling.info import describe
from segvit.weights.extend import drop_group, groups, joint_spec, new_group, with_group
from segvit.weights.load import load_model
from tests.helpers.tiny import random_images, stir, tell_apart, tiny_config

SIZE = (70, 50)


def spec_of(*classes: str, ignore: tuple[int, ...] = (255,)) -> DatasetSpec:
    count = len(classes)
    return DatasetSpec(
        name="things", classes=classes, palette=default_palette(count), raw_ids=tuple(range(count)), ignore=ignore
    )


OLD, FIRST, SECOND = spec_of("sky", "road", "tree", "car", "sign"), spec_of("cone", "dog"), spec_of("bin")
MODELS: dict[str, dict[str, Any]] = {
    "plain, softmax": {},
    "plain, presence": {"head_classes": "presence"},
    "shrunk, softmax": {"structure": "shrunk"},
    "shrunk, presence": {"structure": "shrunk", "head_classes": "presence"},
    "paper's shrunk": {"structure": "shrunk", "upsampling": "paper"},
    "naive shrunk": {"structure": "naive_shrunk"},
    "upscaled": {"upscaler": "conv"},
    "edges, upscaled": {"structure": "shrunk", "downsampling": "edge", "upscaler": "conv"},
    "linear": {"head": "linear", "head_num_layers": ModelConfig.head_num_layers},
}


def old_model(kind: str) -> SegViT:
    changes = MODELS[kind]
    torch.manual_seed(0)
    config = tiny_config("vit", changes.get("structure", "plain"), changes.get("upsampling", "tap"))
    model = create_model(config=replace(config, **changes), num_classes=5, spec=OLD, protocol=EvalConfig(mode="whole"))
    stir(model)
    upscale(model)
    return model.eval()


def upscale(model: SegViT) -> None:
    """Let the upscaler change the masks, if there is one."""
    if model.upscaler is not None:
        torch.nn.init.normal_(model.upscaler.coefficients)


def extended(model: SegViT, spec: DatasetSpec) -> SegViT:
    """The model with a group of random weights, whose classes win somewhere."""
    torch.manual_seed(spec.num_classes)
    group = new_group(model, spec).eval()
    stir(group.head)
    tell_apart(group)
    upscale(group)
    return with_group(model, group)


@pytest.mark.parametrize("kind", MODELS)
def test_a_group_starts_from_the_stages_that_are_there(kind: str) -> None:
    model = old_model(kind)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    group = new_group(model, FIRST)
    own, old = group.head.state_dict(), model.head.state_dict()
    copied = [name for name in own if name.startswith("stages.") or ("presence" in kind and "classifier" in name)]
    for name in () if kind == "linear" else copied:
        assert torch.equal(own[name], old[name])
    with torch.no_grad():
        for parameter in group.head.parameters():
            parameter.add_(1)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.fixture(scope="module", params=MODELS)
def models(request: pytest.FixtureRequest) -> tuple[SegViT, SegViT, SegViT]:
    """A model, the same with a group of two classes, and with another group of one."""
    model = old_model(request.param)
    once = extended(model, FIRST)
    return model, once, extended(once, SECOND)


def scores_of(model: SegViT) -> Tensor:
    return model.scores(random_images(2, SIZE))


def test_old_classes_keep_their_scores_to_the_bit(models: tuple[SegViT, SegViT, SegViT]) -> None:
    old, once, twice = models
    assert [model.num_classes for model in models] == [5, 7, 8]
    assert groups(twice) == (OLD.classes, FIRST.classes, SECOND.classes)
    assert torch.equal(scores_of(once)[:, :5], scores_of(old))
    assert torch.equal(scores_of(twice)[:, :7], scores_of(once))
    with torch.no_grad():
        before, after = old(random_images(2, SIZE), deep=False), twice(random_images(2, SIZE))
    assert torch.equal(after.mask_logits[:, :, :5], before.mask_logits)
    assert torch.equal(after.class_logits, before.class_logits)


def test_the_scores_of_an_added_class_count_twice(models: tuple[SegViT, SegViT, SegViT]) -> None:
    _, once, twice = models
    with torch.no_grad():
        output = twice(random_images(2, SIZE))
    masks = torch.nn.functional.interpolate(output.mask_logits[-1], size=output.padded_size, mode="bilinear")
    masks = masks[..., : SIZE[0], : SIZE[1]].sigmoid()
    for group, start in zip(output.added_logits, (5, 7), strict=True):
        for number in range(group.shape[2]):
            presence = group[-1, :, number, 0].sigmoid()
            expected = 2 * presence[:, None, None] * masks[:, start + number]
            torch.testing.assert_close(scores_of(twice)[:, start + number], expected, rtol=1e-5, atol=1e-6)
    alone = drop_group(once, 0)
    assert alone.config is not None and alone.config.added_head


def test_any_group_is_dropped_to_the_bit(models: tuple[SegViT, SegViT, SegViT]) -> None:
    old, _, twice = models
    scores = scores_of(twice)
    for group, kept in ((0, (5, 6, 7)), (1, (0, 1, 2, 3, 4, 7)), (2, range(7))):
        dropped = drop_group(twice, group)
        assert dropped.classes == tuple(twice.classes[index] for index in kept)
        assert torch.equal(scores_of(dropped), scores[:, list(kept)])
    assert drop_group(drop_group(twice, 1), 1).state_dict().keys() == old.state_dict().keys()


def test_labels_are_the_best_of_all_scores(models: tuple[SegViT, SegViT, SegViT]) -> None:
    _, _, twice = models
    images = random_images(2, SIZE)
    scores, labels = twice.scores(images), twice.predict(images)
    assert (scores.amax(dim=1) - scores.gather(1, labels[:, None])[:, 0]).max() <= 1e-6
    with torch.no_grad():
        output = twice(images)
    joint = output._replace(class_logits=joint_class_logits(output), added_logits=(), weights=())  # as in a graph
    torch.testing.assert_close(2 * class_probabilities(joint), class_probabilities(output), rtol=1e-5, atol=1e-7)


def test_saved_and_loaded_to_the_bit(models: tuple[SegViT, SegViT, SegViT], tmp_path: Path) -> None:
    _, _, twice = models
    twice.save(tmp_path / "twice.safetensors")
    loaded = load_model(tmp_path / "twice.safetensors")
    assert (loaded.config, loaded.spec, groups(loaded)) == (twice.config, twice.spec, groups(twice))
    assert torch.equal(scores_of(loaded), scores_of(twice))
    dropped = drop_group(loaded, 0)
    dropped.save(tmp_path / "dropped.safetensors")
    assert torch.equal(scores_of(load_model(tmp_path / "dropped.safetensors")), scores_of(twice)[:, 5:])
    assert describe(str(tmp_path / "twice.safetensors")).to_dict()["groups"][1:] == [["cone", "dog"], ["bin"]]


def test_costs_of_the_groups(models: tuple[SegViT, SegViT, SegViT]) -> None:
    old, once, _ = models
    before, after = segvit.profile(old, (64, 64)), segvit.profile(once, (64, 64))
    (added,) = (part for part in after.parts if part.name == "added classes")
    rows = 0 if once.upscaler is None else once.upscaler.added[0].numel()
    assert added.multiply_adds > 0 and after.parameters - before.parameters == added.parameters + rows
    assert after.parts[-1].multiply_adds - before.parts[-1].multiply_adds == 2 * (1 + 4) * 64 * 64
    assert "rest" not in [part.name for part in after.parts]


def test_new_classes_get_free_values_and_colours() -> None:
    spec = joint_spec(OLD, FIRST)
    assert spec.classes == (*OLD.classes, *FIRST.classes) and spec.raw_ids == (0, 1, 2, 3, 4, 5, 6)
    assert len(set(spec.palette)) == 7 and spec.palette[:5] == OLD.palette
    own = replace(FIRST, raw_ids=(255, 9), palette=((1, 2, 3), (4, 5, 6)), ignore=())
    spec = joint_spec(OLD, own)
    assert spec.raw_ids[5:] == (255, 9) and spec.palette[5:] == own.palette and spec.ignore == ()


def test_one_group_is_looked_at() -> None:
    old = old_model("plain, softmax")
    twice, photo = extended(extended(old, FIRST), SECOND), random_images(1, SIZE)[0].permute(1, 2, 0).numpy()
    first, second = pictures.look(twice, photo), pictures.look(twice, photo, classes=["dog"], group=1)
    expected = pictures.look(old, photo)
    assert (first.names, second.names) == (OLD.classes, FIRST.classes)
    assert first.masks.shape[0] == 3 and (first.masks == expected.masks).all() and (first.heads == expected.heads).all()
    with torch.no_grad():
        masks = twice(random_images(1, SIZE)).mask_logits
    assert (second.masks[-1] == masks[0, 0, 6:7].numpy()).all()


def test_what_cannot_be() -> None:
    old = old_model("plain, softmax")
    with pytest.raises(UserError, match="class 'road' is in the model already"):
        with_group(old, new_group(old, spec_of("cone", "road")))
    with pytest.raises(UserError, match=r"group 0 is the only one .*\(sky, road"):
        drop_group(old, 0)
    with pytest.raises(UserError, match=r"group 2: the model has the groups 0 to 1: 0 \(sky, .*; 1 \(cone, dog\)"):
        drop_group(extended(old, FIRST), 2)
    with pytest.raises(UserError, match=r"group 2: the model has the groups 0 to 1: 0 \(sky, .*; 1 \(cone, dog\)"):
        pictures.look(extended(old, FIRST), torch.zeros(48, 64, 3, dtype=torch.uint8).numpy(), group=2)
    with pytest.raises(UserError, match="with_classes: classes were added to this model"):
        segvit.with_classes(extended(old, FIRST), OLD)
    old.spec = None
    with pytest.raises(UserError, match="the classes of the model have no names"):
        with_group(old, new_group(old, FIRST))
    for sizes in ((5,), (0,), (2, 3)):
        with pytest.raises(UserError, match=r"model\.added_classes .* with 5 classes in all"):
            create_model(config=replace(tiny_config("vit"), added_classes=sizes), num_classes=5)


def test_an_upscaler_is_not_added_with_classes() -> None:
    """All groups share it, and the old classes would change."""
    old = old_model("plain, softmax")
    assert old.config is not None
    with pytest.raises(UserError, match=r"model\.upscaler conv with a model whose upscaler is none.*leave model\.ups"):
        new_group(old, FIRST, config=replace(old.config, upscaler="conv"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["shrunk, softmax", "plain, presence"])
@torch.no_grad()
def test_compiles_to_one_graph(kind: str) -> None:
    model = extended(extended(old_model(kind), FIRST), SECOND)
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    for size in (SIZE, (40, 90)):
        assert torch.equal(compiled(random_images(2, size)).mask_logits, model(random_images(2, size)).mask_logits)

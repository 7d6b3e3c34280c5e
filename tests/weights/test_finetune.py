"""Fine-tuning: classes kept by name, other crops, what is refused, and that it is worth it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import segvit
import segvit.data.dataset as dataset_module
import segvit.models.create as create_module
from segvit.cli import main as cli
from segvit.config import (
    AugmentConfig,
    DataConfig,
    EvalConfig,
    ModelConfig,
    OptimConfig,
    Structure,
    TrainConfig,
    Upsampling,
)
from segvit.data.palette import default_palette
from segvit.data.spec import DatasetSpec
from segvit.errors import UserError
from segvit.models.create import create_model
from segvit.models.segvit import SegViT
from segvit.training.train import train
from segvit.weights.finetune import match_classes, with_classes
from segvit.weights.load import load_model
from segvit.weights.model_file import read_header
from tests.helpers.tiny import PRESENCE, VARIANTS, random_images, stir, tiny_config

NETWORK = ModelConfig(
    backbone="vit_tiny_patch16_224",
    image_size=32,
    patch_size=8,
    embed_dim=32,
    depth=3,
    class_token=False,
    head_num_layers=2,
    init_std=0.05,
    mean=(0.4, 0.5, 0.6),
)


def spec_of(*classes: str) -> DatasetSpec:
    count = len(classes)
    return DatasetSpec(
        name="things", classes=classes, palette=default_palette(count), raw_ids=tuple(range(count)), ignore=(255,)
    )


OLD = spec_of("background", "Traffic Light", "road", "sea")
NEW = spec_of("road", "mountain", "traffic_light")


@pytest.fixture(scope="module")
def old() -> SegViT:
    torch.manual_seed(0)
    model = create_model(config=NETWORK, num_classes=4, spec=OLD, protocol=EvalConfig(mode="whole"))
    stir(model)
    return model.eval()


@pytest.fixture(scope="module")
def old_file(old: SegViT, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "old.safetensors"
    old.save(path)
    return path


# Classes by name ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "old, new, kept",
    [
        (("sky", "road"), ("road", "car", "sky"), {0: 1, 2: 0}),
        (("Traffic  Light", "A-B"), ("traffic_light", "a b"), {0: 0, 1: 1}),
        (("sky",), ("skyline",), {}),
        (("tree", "Tree"), ("Tree", "tree"), {0: 1, 1: 0}),  # alike but for their case: the exact name counts
        (("tree", "Tree"), ("TREE",), {}),
        (("tree",), ("TREE", "Tree"), {}),
    ],
    ids=["order", "case and spaces", "part of a name", "alike", "alike before", "alike now"],
)
def test_classes_are_paired_by_name(old: tuple[str, ...], new: tuple[str, ...], kept: dict[int, int]) -> None:
    match = match_classes(old, new)
    assert match.kept == kept
    assert [old[index] for index in range(len(old)) if index not in kept.values()] == list(match.dropped)
    assert [new[index] for index in range(len(new)) if index not in kept] == list(match.new)


def test_shared_classes_keep_their_rows_and_new_ones_start_fresh(old: SegViT) -> None:
    torch.manual_seed(7)
    fresh = create_model(config=NETWORK, num_classes=3).state_dict()
    torch.manual_seed(7)
    new = with_classes(old, NEW)
    state, before = new.state_dict(), old.state_dict()
    for name in ("head.class_tokens", "head.classifier.weight", "head.classifier.bias"):
        rows = state.pop(name)
        assert torch.equal(rows[0], before[name][2]), name  # road
        assert torch.equal(rows[1], fresh[name][1]), name  # mountain
        assert torch.equal(rows[2], before[name][1]), name  # traffic light
        if "classifier" in name:
            assert torch.equal(rows[3], before[name][4]), name  # no object
        assert not torch.equal(rows[0], fresh[name][0]), name
    assert all(torch.equal(value, before[name]) for name, value in state.items())
    assert (new.spec, new.num_classes, new.protocol) == (NEW, 3, old.protocol)
    said = new.extra["starts_from"]
    assert "2 of 3 classes (road, traffic_light); new: mountain; dropped: background, sea" in said


def test_of_a_presence_head_only_the_class_tokens_belong_to_classes() -> None:
    config = replace(NETWORK, head_classes="presence")
    torch.manual_seed(0)
    old = create_model(config=config, num_classes=4, spec=OLD)
    stir(old)
    state, before = with_classes(old, NEW).state_dict(), old.state_dict()
    tokens = state.pop("head.class_tokens")
    assert torch.equal(tokens[[0, 2]], before["head.class_tokens"][[2, 1]])  # road, traffic light
    assert not torch.isin(tokens[1], before["head.class_tokens"]).any()  # mountain
    assert all(torch.equal(value, before[name]) for name, value in state.items())
    with pytest.raises(UserError, match=r"model\.head_classes: presence in .*, softmax in the settings"):
        with_classes(old, NEW, config=NETWORK)


def test_no_shared_class_keeps_the_rest_and_is_said(old: SegViT) -> None:
    new = with_classes(old, spec_of("boat", "harbour"), name="old.safetensors")
    state, before = new.state_dict(), old.state_dict()
    assert all(torch.equal(state[name], before[name]) for name in state if not name.startswith("head.cl"))
    assert torch.equal(state["head.classifier.weight"][-1], before["head.classifier.weight"][-1])
    said = new.extra["starts_from"]
    assert said.startswith("old.safetensors (4 classes of things): keeps backbone, decoder and no class")
    assert "new: boat, harbour" in said


def test_the_old_model_stays_as_it_was(old: SegViT) -> None:
    before = {name: value.clone() for name, value in old.state_dict().items()}
    new = with_classes(old, OLD)
    with torch.no_grad():
        for parameter in new.parameters():
            parameter.add_(1)
    assert all(torch.equal(value, before[name]) for name, value in old.state_dict().items())


def test_a_compiled_model_serves_as_well(old: SegViT) -> None:
    torch.manual_seed(7)
    expected = with_classes(old, NEW).state_dict()
    torch.manual_seed(7)
    new = with_classes(torch.compile(old), NEW)  # nothing is compiled before a forward
    assert isinstance(new, SegViT) and new.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in new.state_dict().items())


@torch.no_grad()
@pytest.mark.parametrize("variant", [*VARIANTS, PRESENCE])
@pytest.mark.parametrize(
    "structure, upsampling",
    [pytest.param("plain", "tap", marks=pytest.mark.slow), ("shrunk", "tap"), ("shrunk", "paper")],
)
def test_on_another_crop_it_is_the_same_model(variant: str, structure: Structure, upsampling: Upsampling) -> None:
    """Positions are resized as the model itself does it at that size, in every family, and then are the new model's."""
    if upsampling == "paper" and variant not in ("vit", "beitv2"):
        pytest.skip("its learned tokens do not depend on the backbone")
    torch.manual_seed(0)
    model = create_model(config=tiny_config(variant, structure, upsampling), num_classes=4, spec=OLD)
    stir(model)
    patch = model.backbone.patch_size
    side = model.config.image_size + 3 * patch
    larger = with_classes(model, OLD, config=replace(model.config, image_size=side)).eval()
    assert larger.backbone.native_grid == (side // patch, side // patch)
    images = random_images(1, (side, side))
    ours, theirs = larger(images), model.eval()(images)
    assert torch.equal(ours.mask_logits, theirs.mask_logits)
    assert torch.equal(ours.class_logits, theirs.class_logits)
    assert "positions resized from 4 x 4 to 7 x 7 patches" in larger.extra["starts_from"]


def test_the_public_name_and_the_licence_of_what_it_began_as(old: SegViT) -> None:
    assert segvit.with_classes is with_classes
    old.extra |= {"licence": "cc-by-nc-4.0", "starts_from": "timm X (licence cc-by-nc-4.0)"}
    try:
        new = with_classes(old, NEW)
        assert new.extra["licence"] == "cc-by-nc-4.0"
        assert "base_model" not in new.extra
        for ending in (".safetensors", ".SAFETENSORS"):
            new = with_classes(old, NEW, name=f"folder/old{ending}")
            assert new.extra["starts_from"].startswith(f"old{ending}") and "base_model" not in new.extra
        named = with_classes(old, NEW, name="somebody/old@v2").extra
        assert named["base_model"] == "somebody/old" and named["starts_from"].startswith("somebody/old@v2 ")
        old.extra["base_model"] = "timm/x"
        assert with_classes(old, NEW).extra["base_model"] == "timm/x"
        assert new.extra["starts_from"].endswith("that model started from timm X (licence cc-by-nc-4.0)")
        del old.extra["starts_from"]  # as of the zoo
        assert with_classes(old, NEW).extra["starts_from"].endswith("licence of its weights: cc-by-nc-4.0")
    finally:
        old.extra.clear()


# Runs -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def config(tmp_path: Path, old_file: Path, monkeypatch: pytest.MonkeyPatch) -> TrainConfig:
    """Four steps on the made-up scenes from the model in `old_file`, of which a class is shared: road."""
    monkeypatch.setattr(dataset_module, "SHAPES_LENGTH", {"train": 6, "val": 2})
    return TrainConfig(
        init=str(old_file),
        model=NETWORK,
        data=DataConfig(spec="shapes", workers=0),
        augment=AugmentConfig(resize_long=None, scale=(1.0, 1.0)),
        optim=OptimConfig(lr=1e-3, warmup_steps=1),
        eval=EvalConfig(mode="whole"),
        steps=4,
        batch_size=2,
        eval_every=4,
        save_every=2,
        device="cpu",
        output=tmp_path / "run",
    )


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_run_says_what_it_starts_from_and_its_model_knows_it(
    config: TrainConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(config)
    said = " ".join(capsys.readouterr().out.split())
    assert (
        f"starts from {Path(config.init).name} (4 classes of things): keeps backbone, decoder and 1 of 8 classes (road)"
        in said
    )
    assert TrainConfig.load(config.output / "config.yaml") == config
    header = read_header(run.path)
    assert header["starts_from"] in said and header["train"]["init"] == Path(config.init).name


def test_from_nothing_a_run_says_so(config: TrainConfig, capsys: pytest.CaptureFixture[str]) -> None:
    run = train(replace(config, init=None, steps=1))
    assert "vit_tiny_patch16_224 (plain) starts from random weights" in capsys.readouterr().out
    assert load_model(run.path).extra["starts_from"] == "random weights"


def test_the_first_step_is_taken_with_the_models_weights(
    config: TrainConfig, old: SegViT, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And with the mean and deviation that they were trained with, whatever the config leaves open."""
    seen: list[SegViT] = []

    def keep(*arguments: Any, **settings: Any) -> SegViT:
        seen.append(with_classes(*arguments, **settings))
        return seen[-1]

    monkeypatch.setattr("segvit.training.learner.with_classes", keep)
    train(replace(config, steps=1, model=replace(NETWORK, mean=None), optim=replace(config.optim, lr=1e-12)))
    for name in ("backbone.blocks.1.mlp.fc1.weight", "backbone.pos_embed", "mean"):
        assert torch.allclose(seen[0].state_dict()[name], old.state_dict()[name], atol=1e-6), name


def test_nothing_is_fetched_for_it(config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(create_module, "_load_pretrained", lambda *_: pytest.fail("asked for timm's weights"))
    model = load_model(str(config.init))
    model.config = replace(
        NETWORK, pretrained=True, pretrained_file=Path("gone.pth"), position_grid="crop"
    )  # as it began itself
    model.save(tmp_path / "once.safetensors")
    train(replace(config, init=str(tmp_path / "once.safetensors"), steps=1))


@pytest.mark.slow
def test_resumed_it_is_uninterrupted_to_the_bit_even_without_the_model(
    config: TrainConfig, old_file: Path, tmp_path: Path
) -> None:
    once = tmp_path / "once.safetensors"
    once.write_bytes(old_file.read_bytes())
    config = replace(config, init=str(once))
    train(replace(config, output=tmp_path / "whole"))

    def stop(step: int, _: Any) -> None:
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, on_step=stop)
    with pytest.raises(UserError, match=r"init: '.*once\.safetensors' in the run, 'other\.safetensors' now"):
        train(replace(config, init="other.safetensors"), resume=True)
    once.unlink()
    resumed = train(TrainConfig.load(config.output / "config.yaml"), resume=True)
    assert records(config.output) == records(tmp_path / "whole")
    assert read_header(resumed.path)["starts_from"] == read_header(tmp_path / "whole/best.safetensors")["starts_from"]


# Refusals -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"depth": 4}, r"model\.depth: 3 in .*old\.safetensors, 4 in the settings"),
        ({"structure": "shrunk"}, r"model\.structure: plain in .*, shrunk in the settings"),
        (
            {"depth": 2, "taps": (0, 1, 2)},
            r"(?s)old\.safetensors does not have the network of the settings.*model\.taps \(0, 1, 2\): give asc",
        ),
        ({"head_dim": 32}, r"model\.head_dim: 16 in .*, 32 in the settings"),
        ({"head_num_layers": 3}, r"model\.head_num_layers: 2 in .*, 3 in the settings"),
        ({"taps": (1, 2)}, r"model\.taps: \(0, 1, 2\) in .*, \(1, 2\) in the settings"),
        ({"patch_size": 16}, r"model\.patch_size: 8 in .*, 16 in the settings"),
        ({"class_token": True}, r"model\.class_token: False in .*, True in the settings"),
        ({"num_heads": 2}, r"model\.num_heads: 1 in .*, 2 in the settings"),
        ({"mean": (0.1, 0.2, 0.3)}, r"model\.mean: \[0\.4, 0\.5, 0\.6\] in .*, \[0\.1, 0\.2, 0\.3\] in the settings"),
        (
            {"backbone": "deit3_small_patch16_224", "depth": 2},
            r"(?s)model\.backbone: vit_tiny_patch16_224 in .*deit3_small_patch16_224 in.*model\.depth: 3",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_another_network_is_refused_with_what_differs(config: TrainConfig, changes: Any, told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        train(replace(config, model=replace(NETWORK, **changes)))
    assert "segvit train --init" in str(caught.value)
    assert not config.output.exists()


def test_what_says_the_same_network_in_other_words_is_taken(config: TrainConfig, old: SegViT) -> None:
    words = replace(NETWORK, taps=(0, 1, 2), num_heads=1, head_dim=16, mean=(0.4, 0.5, 0.6), drop_path=0.2)
    with_classes(old, NEW, config=replace(words, backbone="vit_tiny_patch16_224.augreg_in21k"))


def test_a_model_without_class_names_is_refused(config: TrainConfig, tmp_path: Path) -> None:
    path = tmp_path / "nameless.safetensors"
    model = create_model(config=NETWORK, num_classes=4)
    model.save(path)
    with pytest.raises(UserError, match=r"(?s)nameless\.safetensors: its 4 classes have no names.*model\.spec = "):
        train(replace(config, init=str(path)))
    with pytest.raises(UserError, match=r"no class names.*model\.spec"):
        with_classes(model, NEW)


@pytest.mark.parametrize("setting", [{"pretrained": True}, {"pretrained_file": Path("x.pth")}], ids=str)
def test_two_starts_are_refused(
    config: TrainConfig, setting: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.pth").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"init .* and model\.pretrained .* leave one of them out"):
        train(replace(config, model=replace(NETWORK, **setting)))


# The command line -----------------------------------------------------------------------------------------------------


@pytest.fixture
def settings_of(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., TrainConfig]:
    """The settings that `segvit train` would run; a UserError where it refuses."""
    seen: list[TrainConfig] = []
    monkeypatch.setattr("segvit.data.folder_spec.check_places", lambda _: None)
    monkeypatch.setattr("segvit.training.train.train", lambda settings, **_: seen.append(settings))

    def resolve(*arguments: Any) -> TrainConfig:
        monkeypatch.setattr("sys.argv", ["segvit", "train", *map(str, arguments)])
        try:
            cli.main()
        except AttributeError:  # it goes on to what the run has found
            pass
        except SystemExit as leave:
            raise UserError(capsys.readouterr().err) from leave
        return seen.pop()

    return resolve


@pytest.fixture
def defaults(tmp_path: Path) -> tuple[str, Path]:
    """Flags of a config that holds the defaults, so that nothing is chosen."""
    file = tmp_path / "defaults.yaml"
    file.write_text("seed: 0\n")
    return "--config", file


def test_the_network_comes_from_the_model(
    settings_of: Callable[..., TrainConfig], old_file: Path, defaults: tuple[str, Path]
) -> None:
    alone = settings_of("--init", old_file, *defaults)
    assert alone == TrainConfig(init=str(old_file), model=NETWORK)
    cropped = settings_of("--init", old_file, *defaults, "--model.image-size", "512", "--model.drop-path", "0.2")
    assert cropped.model == replace(NETWORK, image_size=512, drop_path=0.2)
    assert settings_of("--config", "camvid/vit_tiny").model == TrainConfig.load("camvid/vit_tiny").model


def test_a_flag_init_replaces_the_network_of_a_recipe(settings_of: Callable[..., TrainConfig], old_file: Path) -> None:
    recipe = TrainConfig.load("finetune")
    assert recipe.model.pretrained
    ours = settings_of("--config", "finetune", "--init", old_file)
    kept = {name: getattr(recipe.model, name) for name in ("drop_path", "image_size")}
    assert ours == replace(recipe, init=str(old_file), model=replace(NETWORK, **kept))


def test_an_init_beside_another_network_is_refused(
    settings_of: Callable[..., TrainConfig], old_file: Path, tmp_path: Path, defaults: tuple[str, Path]
) -> None:
    """Said at the same place, by flags or in a file, both are meant: the run then lists them."""
    flags = settings_of("--init", old_file, *defaults, "--model.depth", "2")
    file = tmp_path / "own.yaml"
    file.write_text(f"init: {old_file}\nmodel: {{depth: 2, image_size: 40}}\n")
    in_file = settings_of("--config", file)
    for settings in (flags, in_file):
        assert settings.model.depth == 2 and settings.model.embed_dim == 32
        with pytest.raises(UserError, match=r"model\.depth: 3 in .*, 2 in the settings"):
            train(settings)
    assert in_file.model.image_size == 40


def test_an_init_in_a_file_replaces_the_network_of_its_base(
    settings_of: Callable[..., TrainConfig], old_file: Path, tmp_path: Path
) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(f"base: finetune\ninit: {old_file}\nsteps: 7\n")
    settings = settings_of("--config", file)
    assert settings.model == replace(NETWORK, drop_path=0.1, image_size=518) and settings.steps == 7
    assert TrainConfig.load(file, network=load_model(old_file).config) == settings  # the same in Python


def test_a_resolved_config_needs_no_model_to_be_read(
    settings_of: Callable[..., TrainConfig], old_file: Path, tmp_path: Path
) -> None:
    resolved = replace(TrainConfig(), init="gone.safetensors", model=NETWORK)
    resolved.save(tmp_path / "config.yaml")
    assert settings_of("--config", tmp_path / "config.yaml") == resolved
    with pytest.raises(UserError, match=r"gone\.safetensors"):
        settings_of("--init", "gone.safetensors")


# Worth it -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_it_starts_from_a_lower_loss_than_from_scratch(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made-up scenes first, then CamVid: the first steps are cheaper than from random weights, by the same seed."""
    monkeypatch.setattr(dataset_module, "SHAPES_LENGTH", {"train": 200, "val": 2})
    scenes = TrainConfig(
        model=NETWORK,
        data=DataConfig(spec="shapes", workers=0),
        augment=AugmentConfig(resize_long=None, scale=(1.0, 1.0)),
        optim=OptimConfig(lr=2e-3, head_lr_factor=1.0, warmup_steps=10),
        eval=EvalConfig(mode="whole"),
        steps=60,
        batch_size=4,
        eval_every=60,
        save_every=60,
        device="cpu",
        output=tmp_path / "scenes",
    )
    monkeypatch.setattr("segvit.training.start.CHECKED_SAMPLES", 4)
    monkeypatch.setattr("segvit.training.train.Trainer.validate", lambda self, step, _: self._save_model("best", step))
    monkeypatch.setattr("segvit.training.train.Trainer.finish", lambda self: None)
    train(scenes)
    street = replace(
        scenes,
        data=DataConfig(spec="camvid", root=shared_data / "camvid", workers=0),
        model=replace(NETWORK, image_size=64),
        steps=5,
        optim=replace(scenes.optim, lr=1e-5),
    )
    losses = {}
    for name, init in (("scratch", None), ("tuned", str(tmp_path / "scenes" / "best.safetensors"))):
        train(replace(street, init=init, output=tmp_path / name))
        losses[name] = [record["loss"] for record in records(tmp_path / name) if "loss" in record]
    assert len(losses["tuned"]) == 5
    assert all(tuned < 0.9 * scratch for tuned, scratch in zip(losses["tuned"], losses["scratch"], strict=True)), losses

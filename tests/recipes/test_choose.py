"""The settings that `segvit train` chooses without --config: from facts alone, and on real folders."""

import contextlib
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

import segvit
import segvit.inference.precision as precision_module
from segvit.cli import main as cli
from segvit.config import DataConfig, TrainConfig
from segvit.data.dataset import open_dataset
from segvit.errors import UserError
from segvit.recipes import facts as facts_module
from segvit.recipes.capacity import estimated_memory
from segvit.recipes.choose import Recipe, choose
from segvit.recipes.draft import flat_settings
from segvit.recipes.facts import Images, Machine, RunFacts, look_at_images, look_at_machine
from segvit.training.settings import flat
from segvit.training.train import train
from tests.helpers.tiny import tiny_config

CPU = Machine(device="cpu", name="a processor", cores=2, memory=16, precision="fp32", precision_reason="unmeasured")
GPU = Machine(device="cuda", name="a GPU", cores=8, memory=24, precision="bf16", precision_reason="it multiplies bf16")
PHOTOS = Images(count=400, validation=40, height=1500, width=2000, classes=("a", "b", "c", "d", "e"))
DATA = {"data.images": "photos", "data.labels": "masks", "data.classes": ("a", "b")}


def chosen(machine: Machine = CPU, images: Images = PHOTOS, *, needs: float = 1.0, **given: Any) -> Recipe:
    """Choose settings; a whole batch in one part takes `needs` GiB."""
    settings = DATA | {name.replace("__", "."): value for name, value in given.items()}
    facts = RunFacts(machine=machine, images=images)
    return choose(facts, settings, memory=lambda config, *_: needs / config.accumulate)


def settings_of(config: TrainConfig) -> dict[str, Any]:
    """Settings by name, without the dataset and the output."""
    return {name: value for name, value in flat(config.to_dict()) if name not in (*DATA, "output")}


@pytest.mark.parametrize("machine, name", [(CPU, "finetune_cpu"), (GPU, "finetune")])
def test_the_reference_machines_get_the_shipped_recipes(machine: Machine, name: str) -> None:
    found = chosen(machine)
    assert settings_of(found.config) == settings_of(TrainConfig.load(name))
    assert found.config.output == TrainConfig().output and found.config.data.images == Path("photos")


def test_no_pretrained_weights_give_the_recipe_from_scratch() -> None:
    found = chosen(model__pretrained=False)
    assert settings_of(found.config) == settings_of(TrainConfig.load("scratch"))
    own = chosen(model__embed_dim=64, model__patch_size=8)
    assert not own.config.model.pretrained and own.config.optim.freeze == "none"
    assert own.reasons["model.pretrained"].startswith("model.embed_dim of your own")
    assert chosen(model__patch_size=7).config.model.starts_pretrained  # weights are resized to another patch
    kept = chosen(model__pretrained_file=Path("w.safetensors"), model__pretrained=False)
    assert kept.config.optim.freeze == 6 and kept.config.model.starts_pretrained


def test_shrunk_averages_its_queries_and_freezes_fewer_blocks() -> None:
    shrunk = chosen(model__structure="shrunk").config
    assert (shrunk.model.downsampling, shrunk.optim.freeze) == ("mean_q", 3)
    paper = chosen(model__structure="shrunk", model__upsampling="paper").config
    naive = chosen(model__structure="naive_shrunk").config
    assert {(one.model.downsampling, one.optim.freeze) for one in (paper, naive)} == {("nearest_q", 6)}
    assert chosen(model__structure="shrunk", model__downsampling="nearest_q").config.model.downsampling == "nearest_q"


@pytest.mark.parametrize("machine", [CPU, GPU, replace(GPU, memory=6), replace(CPU, processes=2)])
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"model__pretrained": False},
        {"model__pretrained": False, "model__backbone": "vit_base_patch16_224"},
        {"model__structure": "shrunk"},
        {"model__head": "linear"},
        {"parallel": "fsdp"},
        {"optim__freeze": "backbone"},
        {"optim__lora_rank": 8},
        {"data__cache_features": Path("features")},
        {"data__cache_features": Path("features"), "augment__views": 2, "optim__freeze": 3},
    ],
    ids=str,
)
def test_every_setting_that_is_not_the_default_has_a_reason(machine: Machine, given: dict[str, Any]) -> None:
    found = chosen(machine, **given)  # which checks that the settings go together
    ours, default = flat_settings(found.config), flat_settings(TrainConfig())
    differ = {name for name, value in ours.items() if value != default[name]}
    given = DATA | {name.replace("__", "."): value for name, value in given.items()}
    assert differ - set(given) <= set(found.reasons)
    assert not set(given) & set(found.reasons)


def test_low_rank_weights_learn_faster_in_an_unfrozen_backbone() -> None:
    for machine in (CPU, GPU):
        usual, low = chosen(machine).config.optim, chosen(machine, optim__lora_rank=8)
        optim = low.config.optim
        assert (optim.freeze, optim.layer_decay) == ("none", 1) and "LoRA already freezes" in low.reasons[
            "optim.freeze"
        ]
        assert optim.lr == pytest.approx(10 * usual.lr)
        assert optim.lr * optim.head_lr_factor == pytest.approx(usual.lr * usual.head_lr_factor)
        assert "low-rank" in low.reasons["optim.lr"] and "low-rank" in low.reasons["optim.head_lr_factor"]
    with pytest.raises(UserError, match="LoRA already freezes the backbone; leave one of the two out"):
        chosen(optim__lora_rank=8, optim__freeze=3)


def test_a_cache_of_features_gets_frozen_blocks_and_repeated_crops() -> None:
    for machine in (CPU, GPU):
        found = chosen(machine, data__cache_features=Path("features"))
        assert (found.config.optim.freeze, found.config.augment.views) == (6, 2)
        assert found.config.augment.rare_class_probability == 0
        assert chosen(machine, data__cache_features=Path("features"), augment__views=5).config.augment.views == 5
    with pytest.raises(UserError, match=r"data\.cache_features with optim\.freeze none"):
        chosen(data__cache_features=Path("features"), model__pretrained=False)


def test_a_frozen_backbone_needs_neither_drop_path_nor_decay() -> None:
    found = chosen(GPU, optim__freeze="backbone")
    assert (found.config.model.drop_path, found.config.optim.layer_decay) == (0, 1)
    assert not {"model.drop_path", "optim.layer_decay"} & set(found.reasons)


@pytest.mark.parametrize(
    "given, expected",
    [
        ({"model__backbone": "vit_small_patch14_dinov2"}, 0.04),
        ({"model__backbone": "vit_base_patch14_dinov2"}, 0.02),
        ({"model__backbone": "vit_large_patch14_dinov2"}, 0.02),
        ({"model__backbone": "vit_tiny_patch16_224.augreg_in21k"}, 0.04),
        ({"model__backbone": "vit_small_patch14_dinov2", "model__head_dim": 272}, 0.028),
        ({"model__pretrained": False, "model__backbone": "vit_base_patch16_224"}, 0.02),
    ],
)
def test_initial_weights_of_the_head_depend_on_its_width_alone(given: dict[str, Any], expected: float) -> None:
    for machine in (CPU, GPU, replace(GPU, memory=6)):
        assert chosen(machine, **given).config.model.init_std == expected


GIVEN: dict[str, Any] = {
    "model__backbone": "vit_base_patch16_224.augreg_in21k_ft_in1k",
    "model__image_size": 100,
    "model__pretrained": True,
    "model__drop_path": 0.3,
    "augment__resize_short": 99,
    "eval__resize_short": 98,
    "optim__lr": 7e-3,
    "optim__head_lr_factor": 2.0,
    "optim__layer_decay": 1.0,
    "optim__warmup_steps": 77,
    "optim__freeze": "none",
    "steps": 160_000,
    "batch_size": 24,
    "accumulate": 3,
    "precision": "fp32",
    "eval_every": 5_000,
    "save_every": 1_000,
    "data__workers": 2,
}


def test_every_given_setting_is_kept_even_if_it_is_the_default() -> None:
    everything = chosen(GPU, **GIVEN)
    assert not set(everything.reasons) & {name.replace("__", ".") for name in GIVEN}
    for name, value in GIVEN.items():
        dotted = name.replace("__", ".")
        assert dict(flat(everything.config.to_dict()))[dotted] == value, dotted
        assert dict(flat(chosen(GPU, **{name: value}).config.to_dict()))[dotted] == value, dotted


@pytest.mark.parametrize(
    "backbone, patch, depth",
    [("vit_base_patch16_dinov3", 16, 12), ("vit_large_patch14_dinov2.lvd142m", 14, 24), ("vit_base_patch8_224", 8, 12)],
)
def test_what_depends_on_the_backbone_follows_it(backbone: str, patch: int, depth: int) -> None:
    config = chosen(model__backbone=backbone).config
    assert config.model.image_size % patch == 0 and abs(config.model.image_size - 280) < patch
    assert config.optim.freeze == depth // 2


def test_what_depends_on_the_steps_and_the_batch_follows_them() -> None:
    short = chosen(steps=60, batch_size=2).config
    assert (short.optim.warmup_steps, short.eval_every, short.save_every) == (6, 30, 12)
    assert short.optim.lr == pytest.approx(chosen().config.optim.lr / 2)
    assert chosen(steps=1).config.eval_every == 1


@pytest.mark.parametrize(
    "size, crop, seen",
    [
        ((1500, 2000), 280, 364),
        ((360, 480), 280, 360),
        ((200, 300), 280, 280),
        ((80, 80), 168, 160),
        ((9, 900), 28, 18),
    ],
)
def test_crop_and_scale_fit_the_images(size: tuple[int, int], crop: int, seen: int) -> None:
    config = chosen(images=replace(PHOTOS, height=size[0], width=size[1])).config
    assert (config.model.image_size, config.augment.resize_short, config.eval.resize_short) == (crop, seen, seen)
    assert config.augment.resize_long is None and config.eval.resize_long is None


def test_what_a_large_image_loses_is_said() -> None:
    huge = replace(PHOTOS, height=8000, width=8000)
    assert (
        "reduced to 10 % of their size. What is smaller than 145 pixels is lost: cut"
        in (chosen(GPU, huge).reasons["augment.resize_short"])
    )
    assert chosen(GPU).reasons["augment.resize_short"].endswith("typical images are reduced to 52 % of their size")


def test_images_that_are_large_in_validations_are_cut_into_windows() -> None:
    for name in ("augment__resize_short", "eval__resize_short"):
        assert chosen(**{name: 3000}).config.eval.mode == "slide", name
        assert chosen(**{name: 560}).config.eval.mode == "whole", name
    assert chosen(eval__mode="whole", eval__resize_short=3000).config.eval.mode == "whole"


def test_steps_grow_with_the_images_between_bounds() -> None:
    counts = [1, 20, 100, 400, 1600, 10**6]
    steps = [chosen(images=replace(PHOTOS, count=count)).config.steps for count in counts]
    assert steps == [180, 180, 250, 500, 1000, 1000]
    assert chosen(GPU, replace(PHOTOS, count=20)).config.steps == chosen(GPU, replace(PHOTOS, count=100)).config.steps
    assert chosen(GPU, replace(PHOTOS, count=20_000)).config.steps > 20_000
    assert chosen(images=replace(PHOTOS, count=200_000)).reasons["steps"] == "only 4 % of the images are used"
    assert chosen(steps=50, images=replace(PHOTOS, count=300)).config.steps == 50
    assert "about once" in chosen(images=replace(PHOTOS, count=7000)).reasons["steps"]


def test_a_small_dataset_gets_a_small_batch() -> None:
    three = chosen(images=replace(PHOTOS, count=3))
    assert three.config.batch_size == 3 and three.reasons["batch_size"].endswith("the dataset has only 3")
    found = chosen(replace(GPU, processes=8), replace(PHOTOS, count=3))
    assert found.config.batch_size == 8 and "over 8 processes: the dataset has only 3" in found.reasons["batch_size"]


def test_the_batch_is_split_until_it_fits() -> None:
    assert chosen(GPU, needs=11).config.accumulate == 1
    split = chosen(GPU, needs=70)
    assert split.config.accumulate == 4 and "17.5 of 24 GB" in split.reasons["accumulate"]
    assert "too much" in chosen(GPU, needs=10_000).reasons["accumulate"]


def test_machines_differ() -> None:
    half = chosen(replace(GPU, precision="fp16", precision_reason="no bf16"))
    assert half.config.precision == "fp16" and half.reasons["precision"] == "mixed precision: no bf16"
    small = TrainConfig.load("finetune_cpu").model.backbone
    assert [chosen(replace(GPU, memory=size)).config.model.backbone == small for size in (6, 7.6)] == [True, False]
    assert chosen(replace(CPU, device="mps", memory=32)).config.precision == "fp32"
    assert [chosen(replace(CPU, cores=16, processes=count)).config.data.workers for count in (2, 4)] == [2, 1]
    assert chosen(replace(CPU, cores=16)).config.data.workers == 2
    three = chosen(replace(GPU, processes=3)).config
    assert three.batch_size == 18 and math.isclose(three.optim.lr, 5.3e-5)


def test_the_text_gives_each_flag_with_its_reason() -> None:
    found = chosen(model__pretrained=False, steps=7)
    lines = found.text.splitlines()
    assert "2 CPU cores with 16 GB of memory, no GPU, and" in lines[0] and "400 training images" in lines[0]
    flags = [re.split("  +", line)[1] for line in lines[1:]]
    assert "--batch-size 8" in flags and not any(flag.startswith("--steps") for flag in flags)
    assert all(re.match(r"  --\S+( \S+)* +\S", line) for line in lines[1:])
    assert "--augment.resize-long none" in flags and "--augment.scale 0.8 1.25" in chosen().text
    assert lines[0].endswith("pixels. Flags override them.")
    typed = [word for flag in chosen().text.splitlines()[1:] for word in re.split("  +", flag)[1].split()]
    assert settings_of(TrainConfig.from_dict({}, typed, source="flags")) == settings_of(chosen().config)


def test_nothing_is_left_to_choose() -> None:
    everything = {name.replace(".", "__"): value for name, value in flat(chosen().config.to_dict()) if name not in DATA}
    found = chosen(**everything)
    assert found.choices == () and found.text.endswith("You gave all of them.")


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(UserError, match=r"optim\]\[lrr\].*Did you mean --optim\.lr"):
        chosen(optim__lrr=1)
    with pytest.raises(UserError, match="unknown backbone 'vit_smal"):
        chosen(model__backbone="vit_smal_patch14_dinov2")
    with (
        pytest.raises(UserError, match="one machine only: give the same --config on each"),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("WORLD_SIZE", "16")
        patch.setenv("LOCAL_WORLD_SIZE", "8")
        look_at_machine("cpu")
    with pytest.raises(UserError, match=r"missing\.safetensors"):
        segvit.recipe(DataConfig(), {"init": "missing.safetensors"})
    for given in ({"model__backbone": "vit_giant_patch14_224"}, {"model__pretrained": True, "steps": 3}):
        with pytest.raises(UserError, match=r"timm has no weights of it.* --model\.no-pretrained"):
            chosen(**{"model__backbone": "vit_giant_patch14_224"} | given)
    for name in ("steps", "batch_size", "model__image_size", "optim__lr"):
        with pytest.raises(UserError, match="must be above 0"):
            chosen(**{name: 0})
    with pytest.raises(UserError, match="model is a section: give a mapping of its settings; found 'vit_tiny'"):
        segvit.recipe(DataConfig(spec="shapes"), {"model": "vit_tiny"})


def test_a_section_may_be_a_mapping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts_module, "LOOKED_AT", 1)
    data = DataConfig(spec="shapes")
    one = segvit.recipe(data, {"accumulate": 1, "model": {"embed_dim": 64, "patch_size": 8}, "data": {"workers": 1}})
    other = segvit.recipe(data, {"accumulate": 1, "model.embed_dim": 64, "model.patch_size": 8, "data.workers": 1})
    assert one.config == other.config and one.config.model.embed_dim == 64


def test_this_machine() -> None:
    machine = look_at_machine("cpu")
    assert machine.cores >= 1 and 0.5 < machine.memory < 10_000 and machine.processes == 1


def test_training_on_a_processor_stays_in_full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision_module, "_bf16_products", lambda: "AMX")
    machine = look_at_machine("cpu")
    assert (machine.precision, machine.precision_reason) == ("fp32", "training in less is unmeasured on a CPU")


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Ten photos of three sizes, and their masks of two classes."""
    for name in ("photos", "masks"):
        (tmp_path / name).mkdir()
    for index in range(10):
        size = (40, 60) if index else (600, 400)
        generator = np.random.default_rng(index)
        Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8)).save(tmp_path / f"photos/{index}.png")
        Image.fromarray(generator.integers(0, 2, size, dtype=np.uint8)).save(tmp_path / f"masks/{index}.png")
    return tmp_path


def data_of(folder: Path) -> DataConfig:
    return DataConfig(images=folder / "photos", labels=folder / "masks", classes=("a", "b"))


def test_images_are_counted_and_measured(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = look_at_images(data_of(folders))
    assert found == Images(count=9, validation=1, height=40, width=60, classes=("a", "b")) and found.short == 40
    monkeypatch.setattr(facts_module, "LOOKED_AT", 3)
    for path in (folders / "photos").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(UserError, match=r"cannot be read as an image"):
        look_at_images(data_of(folders))
    drawn = look_at_images(DataConfig(spec="shapes"))
    assert drawn.count > 100 and drawn.height == drawn.width


@pytest.mark.usefixtures("counted_memory")
def test_the_memory_of_a_step_is_estimated() -> None:
    config = TrainConfig.load("shapes/demo", ["--device", "cpu", *TINY])
    whole, half = (estimated_memory(replace(config, accumulate=parts), 4, 1) for parts in (1, 2))
    assert 0.001 < half < whole < 4
    assert estimated_memory(config, 4, 2) < whole


@pytest.mark.slow
@pytest.mark.usefixtures("counted_memory")
def test_processes_on_a_processor_share_its_memory() -> None:
    given = {
        "model.patch_size": 8,
        "model.embed_dim": 32,
        "model.depth": 2,
        "model.num_heads": 2,
    }
    needs: list[float] = []

    def memory(config: TrainConfig, num_classes: int, processes: int) -> float:
        needs.append(estimated_memory(config, num_classes, processes))
        return needs[-1]

    for machine, share in ((CPU, "of 16 GB"), (replace(CPU, processes=2), "of 8 GB")):
        found = choose(RunFacts(machine=machine, images=PHOTOS), DATA | given, memory=memory)
        assert share in found.reasons["accumulate"] and found.config.accumulate == 1
    assert needs[1] < 0.75 * needs[0]


def test_processes_on_a_processor_with_little_memory_accumulate() -> None:
    assert [chosen(replace(CPU, memory=2, processes=count)).config.accumulate for count in (1, 2)] == [1, 2]


TINY = ["--model.patch-size", "8", "--model.embed-dim", "32", "--model.depth", "2", "--model.num-heads", "2"]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run `segvit train`, and give what it prints or the text of its error."""

    def run(*words: Any) -> str:
        monkeypatch.setattr("sys.argv", ["segvit", "train", *map(str, words)])
        with contextlib.suppress(SystemExit):
            cli.main()
        seen = capsys.readouterr()
        return seen.out + seen.err

    return run


def test_a_run_without_config_is_repeated_by_its_file_and_resumed_by_its_folder(
    command: Callable[..., str], folders: Path
) -> None:
    data = ["--data.images", folders / "photos", "--data.labels", folders / "masks", "--data.classes", "a", "b"]
    first = command(*data, *TINY, "--steps", 2, "--device", "cpu", "--output", folders / "run")
    assert "Settings for" in first and "--batch-size 8" in first and "best model" in first
    assert first.count(f"-> {folders / 'run'} (settings: config.yaml)") == 1
    refused = command(*data, *TINY, "--steps", 2, "--device", "cpu", "--output", folders / "run")
    assert "already holds a run" in refused and "(settings: config.yaml)" not in refused
    config = TrainConfig.load(folders / "run" / "config.yaml")
    assert (config.steps, config.batch_size, config.augment.resize_short) == (2, 8, 80)
    again = segvit.recipe(
        data_of(folders),
        {"model.patch_size": 8, "model.embed_dim": 32, "model.depth": 2, "model.num_heads": 2, "steps": 2}
        | {"device": "cpu", "output": str(folders / "run")},
    )
    assert again.config == config
    said = command("--resume", "--output", folders / "run")
    assert "resumes at step 2" in said and "Settings for" not in said
    assert "has done 2 steps, and steps is 1" in command("--resume", "--output", folders / "run", "--steps", 1)
    assert "nothing to resume" in command("--resume", "--output", folders / "none", *data)
    said_miou = float(re.findall(r"mIoU (\S+)", first)[-1])
    assert train(replace(config, output=folders / "twin")).miou == pytest.approx(said_miou, abs=1e-3)


def test_an_older_shrunk_run_is_resumed_with_its_own_settings(
    command: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = TrainConfig.load("ade20k/large_shrunk").to_dict()
    del content["model"]["upsampling"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    seen: list[TrainConfig] = []

    def note(config: TrainConfig, **_: Any) -> None:
        seen.append(config)
        raise UserError("that is enough")

    monkeypatch.setattr("segvit.training.train.train", note)
    assert "that is enough" in command("--resume", "--output", tmp_path)
    assert seen[0].model.upsampling == "paper"


def test_a_model_of_ones_own_keeps_its_network_and_a_known_head_learns_no_faster(
    command: Callable[..., str], folders: Path
) -> None:
    model = segvit.create_model(config=tiny_config("vit"), num_classes=2)
    model.spec = open_dataset(data_of(folders), "train").spec
    init = folders / "best.safetensors"
    model.save(init)
    data = ["--data.images", folders / "photos", "--data.labels", folders / "masks", "--data.classes", "a", "b"]
    said = command(*data, "--init", init, "--steps", 2, "--device", "cpu", "--output", folders / "run")
    assert "--optim.head-lr-factor 1 " in said and "the head knows every class" in said and "best model" in said
    assert "--model." not in said and "--optim.freeze 2 " in said and "starts from" in said
    run = TrainConfig.load(folders / "run" / "config.yaml")
    assert (run.model.embed_dim, run.model.image_size, run.init) == (64, 64, str(init))
    more = segvit.recipe(replace(data_of(folders), classes=("a", "b", "c")), {"init": str(init)})
    assert more.config.optim.head_lr_factor == TrainConfig.load("finetune_cpu").optim.head_lr_factor
    assert more.reasons["optim.head_lr_factor"] == "1 of 3 classes are new to the head, which learns faster"


def test_the_hidden_parameter_is_no_flag(command: Callable[..., str]) -> None:
    assert "unknown option --given" in command("--given", "steps")


def test_without_weights_the_error_says_what_to_type(
    command: Callable[..., str], folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr("timm.create_model", _only_random(offline))
    data = ["--data.images", folders / "photos", "--data.labels", folders / "masks", "--data.classes", "a", "b"]
    said = command(*data, "--device", "cpu", "--output", folders / "run")
    assert "hf download timm/vit_small_patch14_dinov2.lvd142m model.safetensors" in said
    assert "--model.pretrained-file FILE" in said and "--model.no-pretrained" in said
    assert "licence apache-2.0" in said


def _only_random(offline: Callable[..., Any]) -> Callable[..., Any]:
    """`timm.create_model` that fails to fetch weights."""
    import timm

    create = timm.create_model
    return lambda *args, **kwargs: offline() if kwargs.get("pretrained") else create(*args, **kwargs)

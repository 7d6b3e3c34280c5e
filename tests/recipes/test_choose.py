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
import torch
from PIL import Image

import segvit
from segvit.cli import main as cli
from segvit.config import DataConfig, TrainConfig
from segvit.data.dataset import open_dataset
from segvit.errors import UserError
from segvit.recipes import facts as facts_module
from segvit.recipes.choose import Recipe, choose, estimated_memory
from segvit.recipes.facts import Facts, Images, Machine, look_at_images, look_at_machine
from segvit.training.settings import flat
from segvit.training.train import train
from tests.helpers.tiny import tiny_config

CPU = Machine(device="cpu", name="a processor", cores=2, memory=16, bf16=False)
GPU = Machine(device="cuda", name="a GPU", cores=8, memory=24, bf16=True)
PHOTOS = Images(count=400, validation=40, height=1500, width=2000, classes=("a", "b", "c", "d", "e"))
DATA = {"data.images": "photos", "data.labels": "masks", "data.classes": ("a", "b")}


def chosen(machine: Machine = CPU, images: Images = PHOTOS, *, needs: float = 1.0, **given: Any) -> Recipe:
    """Choose settings; a whole batch in one part takes `needs` GiB."""
    settings = DATA | {name.replace("__", "."): value for name, value in given.items()}
    return choose(Facts(machine=machine, images=images), settings, memory=lambda config, _: needs / config.accumulate)


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


def test_steps_grow_with_the_images_between_bounds() -> None:
    counts = [1, 20, 100, 400, 1600, 10**6]
    steps = [chosen(images=replace(PHOTOS, count=count)).config.steps for count in counts]
    assert steps == [250, 250, 250, 500, 1000, 1000]
    assert chosen(GPU, replace(PHOTOS, count=20_000)).config.steps > 20_000
    assert chosen(images=replace(PHOTOS, count=3)).config.batch_size == 3


def test_the_batch_is_split_until_it_fits() -> None:
    assert chosen(GPU, needs=11).config.accumulate == 1
    split = chosen(GPU, needs=70)
    assert split.config.accumulate == 4 and "17.5 of 24 GB" in split.reasons["accumulate"]
    assert "too much" in chosen(GPU, needs=10_000).reasons["accumulate"]


def test_machines_differ() -> None:
    assert chosen(replace(GPU, bf16=False)).config.precision == "fp16"
    assert chosen(replace(GPU, memory=6)).config.model.backbone == TrainConfig.load("finetune_cpu").model.backbone
    assert chosen(replace(CPU, device="mps", memory=32)).config.precision == "fp32"
    assert chosen(replace(CPU, cores=16)).config.data.workers == 2
    three = chosen(replace(GPU, processes=3)).config
    assert three.batch_size == 18 and math.isclose(three.optim.lr, 5.3e-5)


def test_the_text_gives_each_flag_with_its_reason() -> None:
    found = chosen(model__pretrained=False, steps=7)
    lines = found.text.splitlines()
    assert "2 CPU cores with 16 GB of memory and no GPU" in lines[0] and "400 training images" in lines[0]
    flags = [line.split("  ")[1] for line in lines[1:]]
    assert "--batch-size 8" in flags and not any(flag.startswith("--steps") for flag in flags)
    assert all(re.match(r"  --\S+( \S+)? +\S", line) for line in lines[1:])


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(UserError, match=r"optim\]\[lrr\].*Did you mean --optim\.lr"):
        chosen(optim__lrr=1)
    with pytest.raises(UserError, match="unknown backbone 'vit_smal"):
        chosen(model__backbone="vit_smal_patch14_dinov2")
    with pytest.raises(UserError, match="on several: give all of them"), pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORLD_SIZE", "16")
        patch.setenv("LOCAL_WORLD_SIZE", "8")
        look_at_machine("cpu")
    with pytest.raises(UserError, match=r"missing\.safetensors"):
        segvit.recipe(DataConfig(), {"init": "missing.safetensors"})


def test_this_machine() -> None:
    machine = look_at_machine("cpu")
    assert machine.cores >= 1 and 0.5 < machine.memory < 10_000 and machine.processes == 1


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


def test_the_memory_of_a_step_is_estimated() -> None:
    config = TrainConfig.load("shapes/demo", ["--device", "cpu"])
    whole, half = (estimated_memory(replace(config, accumulate=parts), 4) for parts in (1, 2))
    assert 0.01 < half < whole < 4


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
    assert "Settings chosen for" in first and "--batch-size 8" in first and "best model" in first
    assert f"written to {folders / 'run' / 'config.yaml'}" in first
    config = TrainConfig.load(folders / "run" / "config.yaml")
    assert (config.steps, config.batch_size, config.augment.resize_short) == (2, 8, 80)
    again = segvit.recipe(
        data_of(folders),
        {"model.patch_size": 8, "model.embed_dim": 32, "model.depth": 2, "model.num_heads": 2, "steps": 2}
        | {"device": "cpu", "output": str(folders / "run")},
    )
    assert again.config == config
    said = command("--resume", "--output", folders / "run")
    assert "resumes at step 2" in said and "Settings chosen" not in said
    assert "steps: 2 in the run, 3 now" in command("--resume", "--output", folders / "run", "--steps", 3)
    assert "nothing to resume" in command("--resume", "--output", folders / "none", *data)
    torch.manual_seed(0)
    assert train(replace(config, output=folders / "twin")).miou == pytest.approx(
        torch.tensor(float(re.findall(r"mIoU (\S+)", first)[-1])).item(), abs=1e-3
    )


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

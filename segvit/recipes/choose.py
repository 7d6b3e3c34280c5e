"""Choose the settings of a run from facts about machine and data, each with its reason.

    found = segvit.recipe(DataConfig(images="photos", labels="masks", classes=("sky", "road")), {"steps": 300})
    print(found.text); segvit.train(found.config)

The tuned numbers are in configs/finetune.yaml (GPU), finetune_cpu.yaml and scratch.yaml. The code here only adapts
them: to the sizes of the images, to memory and cores, and to the settings that you give, which are never changed.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from functools import cache
from typing import Any

import timm
import torch

from segvit.config import DataConfig, TrainConfig
from segvit.config_files import plain
from segvit.errors import UserError
from segvit.models.create import create_model, weightless
from segvit.profiling.plan import memory_of
from segvit.recipes.facts import GIBIBYTE, Facts, look_at_images, look_at_machine
from segvit.training.settings import check_settings, flat
from segvit.utils.text import percentage
from segvit.weights.timm_weights import is_cached, licence_of

REFERENCE_IMAGES = 400
"""Number of training images for which the recipes' numbers of steps are meant."""
MOST_STEPS = {"cpu": 2.0, "mps": 4.0, "cuda": 10.0}
"""Largest factor on the recipe's steps for a large dataset, by device."""
FEWEST_STEPS = 0.5
"""Smallest factor on the recipe's steps for a small dataset."""
SMALL_GPU = 8.0
"""GPU memory in GiB below which the backbone is the one of the recipe for a CPU."""
USABLE = {"cpu": 0.6, "mps": 0.6, "cuda": 0.85}
"""Share of the memory that a step may take, by device."""
OWN_SIZES = ("model.embed_dim", "model.depth", "model.num_heads")
"""Settings that make a network for which no pretrained weights exist."""

Memory = Callable[[TrainConfig, int], float]
"""Estimate the peak memory in GiB that a step takes on a device, given the number of classes."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A setting that was chosen."""

    name: str
    """Setting, such as `optim.lr`."""
    value: Any
    reason: str

    @property
    def flag(self) -> str:
        """The flag that sets this value on the command line."""
        name = self.name.replace("_", "-")
        if isinstance(self.value, bool):
            section, _, last = name.rpartition(".")
            return f"--{section}{'.' * bool(section)}{'' if self.value else 'no-'}{last}"
        value = f"{self.value:g}" if isinstance(self.value, float) else self.value
        return f"--{name} {value}"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of a run, and why they were chosen."""

    config: TrainConfig
    choices: tuple[Choice, ...]
    """The settings that were chosen; those that the caller gave are not among them."""
    facts: Facts

    @property
    def reasons(self) -> dict[str, str]:
        """Reason of each choice by the name of its setting."""
        return {choice.name: choice.reason for choice in self.choices}

    @property
    def text(self) -> str:
        """The choices as lines to print; each begins with a flag that may be typed with another value."""
        width = max(len(choice.flag) for choice in self.choices)
        lines = [f"  {choice.flag:<{width}}  {choice.reason}" for choice in self.choices]
        head = f"Settings chosen for {self.facts.machine}, and {self.facts.images}; flags override them:"
        return "\n".join([head, *lines])


def recipe(data: DataConfig, settings: Mapping[str, Any] | None = None) -> Recipe:
    """Choose the settings of a run for this machine and these data.

    Args:
        data: the dataset. Its settings are kept; `workers` is chosen if it has its default.
        settings: your own settings by name, such as `{"steps": 300, "model.backbone": "vit_base_patch16_dinov3"}`.

    Raises:
        UserError: the dataset cannot be opened, a setting is unknown or has a bad value, there is no such device, or
            the settings name an `init`.
    """
    named = {f"data.{each.name}": getattr(data, each.name) for each in fields(DataConfig)}
    given = {name: value for name, value in named.items() if value != getattr(DataConfig(), name.partition(".")[2])}
    return choose_for(given | dict(settings or {}))


def choose_for(given: Mapping[str, Any]) -> Recipe:
    """Choose every setting that is not given, for this machine.

    Args:
        given: settings by name, those of the dataset among them.

    Raises:
        UserError: as `recipe`.
    """
    if given.get("init") is not None:
        raise UserError(
            f"init {given['init']}: settings are chosen for a backbone of timm; for a model of yours, start from a "
            "recipe: --config finetune (in Python, segvit.TrainConfig.load)"
        )
    config = _parse(given)
    return choose(Facts(machine=look_at_machine(config.device), images=look_at_images(config.data)), given)


def estimated_memory(config: TrainConfig, num_classes: int) -> float:
    """Return the estimated peak memory in GiB of a step on one device, as `segvit info --plan` does."""
    with torch.device("meta"):
        model = create_model(config=config.model.without_weights(), num_classes=num_classes)
    images = config.batch_size // config.accumulate
    return memory_of(model, config, images=images, gpus=1).peak / GIBIBYTE


def choose(facts: Facts, given: Mapping[str, Any], *, memory: Memory = estimated_memory) -> Recipe:
    """Choose every setting that is not given, from facts alone.

    Args:
        facts: about machine and data.
        given: settings by name.
        memory: estimates the memory of a step.

    Raises:
        UserError: a setting is unknown or has a bad value, or the backbone is no plain ViT.
    """
    parsed = _parse(given)
    check_settings(parsed)
    values = _flat(parsed)
    draft = _Draft(facts, {name: values[name] for name in given})
    _choose_network(draft)
    _choose_sizes(draft)
    _choose_steps(draft)
    _choose_rates(draft)
    _choose_machine(draft)
    _choose_memory(draft, memory)
    return Recipe(config=_build(draft.settings), choices=tuple(draft.choices.values()), facts=facts)


class _Draft:
    """The settings so far: a recipe of `configs`, and over it what is given."""

    def __init__(self, facts: Facts, given: Mapping[str, Any]) -> None:
        self.facts, self.given = facts, given
        self.scratch = _from_scratch(given)
        name = "finetune_cpu" if facts.machine.device == "cpu" else "finetune"
        self.base = _settings_of("scratch" if self.scratch else name)
        self.settings: dict[str, Any] = {**self.base, "output": TrainConfig().output, **given}
        self.choices: dict[str, Choice] = {}

    def choose(self, name: str, value: Any, reason: str) -> None:
        """Set a setting and note the reason, unless the setting is given."""
        if name not in self.given:
            self.settings[name] = value
            self.choices[name] = Choice(name=name, value=value, reason=reason)

    @property
    def scale(self) -> float:
        """Number of steps as a share of the recipe's."""
        return float(self.settings["steps"] / self.base["steps"])


def _choose_network(draft: _Draft) -> None:
    """Choose the backbone, its initial weights and what is frozen."""
    machine, given = draft.facts.machine, draft.given
    name = draft.base["model.backbone"]
    if draft.scratch:
        draft.choose("model.backbone", name, "the smallest ViT: without pretrained weights a larger one learns no more")
        own = [name for name in OWN_SIZES if given.get(name) is not None]
        why = f"{' and '.join(own)} of your own: no weights fit" if own else "you chose to start from random weights"
        draft.choose("model.pretrained", False, why)
    elif machine.device == "cpu":
        draft.choose("model.backbone", name, "DINOv2 ViT-S: the best start that trains on a CPU within an hour")
    elif machine.memory < SMALL_GPU:
        small = _settings_of("finetune_cpu")["model.backbone"]
        draft.choose("model.backbone", small, f"DINOv2 ViT-S: a Base needs {SMALL_GPU:.0f} GB of memory or more")
    else:
        draft.choose("model.backbone", name, "DINOv2 ViT-B with registers: a strong start that one GPU trains")
    if not draft.scratch:
        file = given.get("model.pretrained_file")
        draft.choose(
            "model.pretrained", True, f"weights in {file}" if file else _origin(draft.settings["model.backbone"])
        )
    depth = given.get("model.depth") or _patch_and_depth(draft.settings["model.backbone"])[1]
    frozen = draft.base["optim.freeze"]
    if isinstance(frozen, int):
        frozen = round(frozen * depth / _patch_and_depth(name)[1])
        why = f"of {depth} blocks: early ones change least, and their backward pass is saved"
        draft.choose("optim.freeze", frozen, why)
    if draft.base["model.drop_path"]:
        draft.choose("model.drop_path", draft.base["model.drop_path"], "regularises a backbone that learns as a whole")


def _choose_sizes(draft: _Draft) -> None:
    """Choose the crop and the scale at which images are seen."""
    base, images = draft.base, draft.facts.images
    patch = draft.given.get("model.patch_size") or _patch_and_depth(draft.settings["model.backbone"])[0]
    crop = max(round(base["model.image_size"] / patch), 1) * patch
    ratio = base["augment.resize_short"] / base["model.image_size"]
    if "model.image_size" in draft.given:
        crop = int(draft.given["model.image_size"])
    seen = min(max(images.short, min(2 * images.short, crop)), round(ratio * crop))
    fitted = min(crop, math.ceil(seen / patch) * patch)
    why = f"{fitted // patch} x {fitted // patch} patches of {patch} pixels"
    why += ", since the images are small" if fitted < crop else f": what {_article(draft)} handles well"
    draft.choose("model.image_size", fitted, why)
    factor = seen / images.short
    how = "keep their size" if factor == 1 else f"are {'enlarged' if factor > 1 else 'reduced'} {factor:.2g} times"
    draft.choose("augment.resize_short", seen, f"shorter side in pixels: typical images {how}")
    draft.choose(
        "eval.resize_short", draft.settings["augment.resize_short"], "validate and predict at the scale of the training"
    )


def _origin(backbone: str) -> str:
    """Return the place and the licence of timm's weights of a backbone."""
    settings = timm.get_pretrained_cfg(backbone.removeprefix("hf_hub:timm/"))
    licence = licence_of(settings.to_dict() if settings else {})
    place = "in the cache" if is_cached(backbone) else "downloaded from the Hub on first use"
    return f"timm's weights (licence {licence}), {place}"


def _article(draft: _Draft) -> str:
    return {"cpu": "a CPU", "cuda": "a GPU", "mps": "an Apple GPU"}[draft.facts.machine.device]


def _choose_steps(draft: _Draft) -> None:
    """Choose the batch and the number of steps, and what follows from it."""
    base, facts = draft.base, draft.facts
    processes = facts.machine.processes
    batch = max(min(base["batch_size"], facts.images.count), 1)
    batch = math.ceil(batch / processes) * processes
    why = "images a step" if batch == base["batch_size"] else "images a step: no more than there are"
    draft.choose("batch_size", batch, why if processes == 1 else f"{why}, over {processes} processes")
    factor = 2 ** (round(math.log2(facts.images.count / REFERENCE_IMAGES)) / 2)
    factor = min(max(factor, FEWEST_STEPS), MOST_STEPS[facts.machine.device])
    steps = round(base["steps"] * factor / 10) * 10
    passes = steps * draft.settings["batch_size"] / facts.images.count
    draft.choose("steps", steps, f"each image is seen about {max(passes, 1):.0f} times")
    for name, thing in (("eval_every", "validations"), ("save_every", "checkpoints")):
        every = max(round(base[name] * draft.scale), 1)
        count = math.ceil(draft.settings["steps"] / every)
        draft.choose(name, every, f"{count} {thing}" + f" on {facts.images.validation} images" * (name == "eval_every"))


def _choose_rates(draft: _Draft) -> None:
    """Choose the learning rates and the warm-up."""
    base = draft.base
    share = draft.settings["batch_size"] / base["batch_size"]
    lr = float(f"{base['optim.lr'] * math.sqrt(share):.2g}")
    kind = "random weights" if draft.scratch else "pretrained weights"
    draft.choose("optim.lr", lr, f"for {kind}" + (f", times sqrt({share:g}) for the batch" if share != 1 else ""))
    factor = base["optim.head_lr_factor"]
    if factor != 1:
        draft.choose("optim.head_lr_factor", factor, "the head is new and learns faster")
    if base["optim.layer_decay"] != 1:
        decay = base["optim.layer_decay"]
        draft.choose("optim.layer_decay", decay, f"each earlier block learns at {percentage(decay, '.0f')} of the next")
    warmup = max(round(base["optim.warmup_steps"] * draft.scale), 1)
    share = warmup / draft.settings["steps"]
    draft.choose("optim.warmup_steps", warmup, f"{percentage(share, '.0f')} of the steps")


def _choose_machine(draft: _Draft) -> None:
    """Choose the precision and the loading processes."""
    machine = draft.facts.machine
    if machine.device == "cuda":
        if machine.bf16:
            draft.choose("precision", "bf16", "mixed precision: about twice as fast on this GPU")
        else:
            draft.choose("precision", "fp16", "mixed precision: this GPU is older than bf16")
    else:
        draft.choose("precision", "fp32", f"full precision: mixed ones are no faster on {_article(draft)}")
    if machine.device == "cpu":
        workers = min(machine.cores // 4, 2)
        why = "loading processes" if workers else "a loading process would take a core from the training"
    else:
        workers = max(min(machine.cores // (2 * machine.processes), 8), 1)
        why = f"loading processes, for {machine.cores} cores"
    draft.choose("data.workers", workers, why)


def _choose_memory(draft: _Draft, memory: Memory) -> None:
    """Split the batch into as many parts as the memory demands."""
    if "accumulate" in draft.given:
        return
    machine = draft.facts.machine
    batch = max(draft.settings["batch_size"] // machine.processes, 1)
    usable = USABLE[machine.device] * machine.memory
    for accumulate in (part for part in range(1, batch + 1) if batch % part == 0):
        config = _build(draft.settings | {"batch_size": batch, "accumulate": accumulate, "device": machine.device})
        needed = memory(config, draft.facts.images.num_classes)
        if needed <= usable:
            break
    too_much = ": that may be too much; give a smaller crop or backbone" if needed > usable else ""
    takes = f"takes about {needed:.1f} of {machine.memory:.0f} GB{too_much}"
    draft.choose("accumulate", accumulate, f"a step {takes}" if accumulate == 1 else f"parts of a batch, each {takes}")


def _from_scratch(given: Mapping[str, Any]) -> bool:
    """Return True if the given settings leave no pretrained weights to start from."""
    if given.get("model.pretrained_file") is not None or given.get("model.pretrained"):
        return False
    return given.get("model.pretrained") is False or any(given.get(name) is not None for name in OWN_SIZES)


@cache
def _settings_of(recipe: str) -> Mapping[str, Any]:
    """Return the settings of a shipped recipe by name."""
    return _flat(TrainConfig.load(recipe))


@cache
def _patch_and_depth(backbone: str) -> tuple[int, int]:
    """Return the patch size in pixels and the number of blocks of a backbone."""
    vit = weightless(backbone)
    return int(vit.patch_embed.patch_size[0]), len(vit.blocks)


def _flat(config: TrainConfig) -> dict[str, Any]:
    """Return settings by name, with values as in the config."""
    return dict(flat(asdict(config)))


def _parse(settings: Mapping[str, Any]) -> TrainConfig:
    """Return a config with some settings by name, over the defaults.

    Raises:
        UserError: a setting is unknown or has a bad value.
    """
    return TrainConfig.from_dict(plain(_nested(settings)), source="settings")


def _build(settings: Mapping[str, Any]) -> TrainConfig:
    """Return a config of all settings by name, with values as in a config."""
    default = TrainConfig()
    changes = {
        key: replace(getattr(default, key), **value) if is_dataclass(getattr(default, key)) else value
        for key, value in _nested(settings).items()
    }
    return replace(default, **changes)


def _nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by name as a dict of sections."""
    nested: dict[str, Any] = {}
    for name, value in settings.items():
        section, _, key = name.rpartition(".")
        (nested.setdefault(section, {}) if section else nested)[key] = value
    return nested

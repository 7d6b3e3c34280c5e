"""Choose the settings of a run from facts about machine and data, each with its reason.

    found = segvit.recipe(DataConfig(images="photos", labels="masks", classes=("sky", "road")), {"steps": 300})
    print(found.text); segvit.train(found.config)

The tuned numbers are in configs/finetune.yaml (GPU), finetune_cpu.yaml and scratch.yaml. The code here only adapts
them: to the sizes of the images, to memory and cores, and to the settings that you give, which are never changed.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import timm
import torch

from segvit.config import DataConfig, ModelConfig, TrainConfig
from segvit.models.create import create_model
from segvit.profiling.plan import memory_of
from segvit.recipes.draft import (
    OWN_SIZES,
    Choice,
    Draft,
    build,
    flat_settings,
    parse_settings,
    settings_of,
    shape_of,
)
from segvit.recipes.facts import GIBIBYTE, Facts, look_at_images, look_at_machine, look_at_model
from segvit.training.settings import check_settings
from segvit.utils.text import percentage
from segvit.weights.finetune import match_classes
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
Memory = Callable[[TrainConfig, int], float]
"""Estimate the peak memory in GiB that a step takes on a device, given the number of classes."""


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
            the model of an `init` cannot be read.
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
    model = None
    if given.get("init") is not None:
        model = look_at_model(str(given["init"]))
        given = {f"model.{name}": value for name, value in vars(model.network).items()} | dict(given)
    config = parse_settings(given)
    facts = Facts(machine=look_at_machine(config.device), images=look_at_images(config.data), model=model)
    return choose(facts, given)


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
    parsed = parse_settings(given)
    check_settings(parsed)
    values = flat_settings(parsed)
    draft = Draft(facts, {name: values[name] for name in given})
    _choose_network(draft)
    _choose_sizes(draft)
    _choose_steps(draft)
    _choose_rates(draft)
    _choose_machine(draft)
    _choose_memory(draft, memory)
    return Recipe(config=build(draft.settings), choices=tuple(draft.choices.values()), facts=facts)


def _choose_network(draft: Draft) -> None:
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
        small = settings_of("finetune_cpu")["model.backbone"]
        draft.choose("model.backbone", small, f"DINOv2 ViT-S: a Base needs {SMALL_GPU:.0f} GB of memory or more")
    else:
        draft.choose("model.backbone", name, "DINOv2 ViT-B with registers: a strong start that one GPU trains")
    if not draft.scratch:
        file = given.get("model.pretrained_file")
        draft.choose(
            "model.pretrained", True, f"weights in {file}" if file else _origin(draft.settings["model.backbone"])
        )
    shape, base_shape = shape_of(draft.settings["model.backbone"]), shape_of(name)
    depth, width = given.get("model.depth") or shape.depth, given.get("model.embed_dim") or shape.width
    init_std = round(draft.base["model.init_std"] * math.sqrt(base_shape.width / width), 3)
    if init_std != ModelConfig.init_std:
        draft.choose("model.init_std", init_std, "initial weights of the head: a narrow one learns faster from larger")
    frozen = draft.base["optim.freeze"]
    if isinstance(frozen, int):
        frozen = round(frozen * depth / base_shape.depth)
        why = f"of {depth} blocks: early ones change least, and their backward pass is saved"
        draft.choose("optim.freeze", frozen, why)
    if draft.base["model.drop_path"]:
        draft.choose("model.drop_path", draft.base["model.drop_path"], "regularises a backbone that learns as a whole")


def _choose_sizes(draft: Draft) -> None:
    """Choose the crop and the scale at which images are seen."""
    base, images = draft.base, draft.facts.images
    patch = draft.given.get("model.patch_size") or shape_of(draft.settings["model.backbone"]).patch
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
    rare = base["augment.rare_class_probability"]
    if rare:
        why = f"{percentage(rare, '.0f')} of the crops show a class drawn by its rarity"
        draft.choose("augment.rare_class_probability", rare, why)


def _origin(backbone: str) -> str:
    """Return the place and the licence of timm's weights of a backbone."""
    settings = timm.get_pretrained_cfg(backbone.removeprefix("hf_hub:timm/"))
    licence = licence_of(settings.to_dict() if settings else {})
    place = "in the cache" if is_cached(backbone) else "downloaded from the Hub on first use"
    return f"timm's weights (licence {licence}), {place}"


def _article(draft: Draft) -> str:
    return {"cpu": "a CPU", "cuda": "a GPU", "mps": "an Apple GPU"}[draft.facts.machine.device]


def _choose_steps(draft: Draft) -> None:
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


def _choose_rates(draft: Draft) -> None:
    """Choose the learning rates and the warm-up."""
    base = draft.base
    share = draft.settings["batch_size"] / base["batch_size"]
    lr = float(f"{base['optim.lr'] * math.sqrt(share):.2g}")
    kind = "random weights" if draft.scratch else "pretrained weights"
    draft.choose("optim.lr", lr, f"for {kind}" + (f", times sqrt({share:g}) for the batch" if share != 1 else ""))
    model, factor, why = draft.facts.model, base["optim.head_lr_factor"], "the head is new and learns faster"
    if model is not None:
        new = match_classes(model.classes, draft.facts.images.classes).new
        factor = factor if new else 1.0
        count = f"{len(new)} of {len(draft.facts.images.classes)} classes"
        why = f"{count} are new to the head, which learns faster" if new else "the head knows every class"
    if factor != 1 or model is not None:
        draft.choose("optim.head_lr_factor", factor, why)
    if base["optim.layer_decay"] != 1:
        decay = base["optim.layer_decay"]
        draft.choose("optim.layer_decay", decay, f"each earlier block learns at {percentage(decay, '.0f')} of the next")
    warmup = max(round(base["optim.warmup_steps"] * draft.scale), 1)
    share = warmup / draft.settings["steps"]
    draft.choose("optim.warmup_steps", warmup, f"{percentage(share, '.0f')} of the steps")


def _choose_machine(draft: Draft) -> None:
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


def _choose_memory(draft: Draft, memory: Memory) -> None:
    """Split the batch into as many parts as the memory demands."""
    if "accumulate" in draft.given:
        return
    machine = draft.facts.machine
    batch = max(draft.settings["batch_size"] // machine.processes, 1)
    usable = USABLE[machine.device] * machine.memory
    for accumulate in (part for part in range(1, batch + 1) if batch % part == 0):
        config = build(draft.settings | {"batch_size": batch, "accumulate": accumulate, "device": machine.device})
        needed = memory(config, len(draft.facts.images.classes))
        if needed <= usable:
            break
    too_much = ": that may be too much; give a smaller crop or backbone" if needed > usable else ""
    takes = f"takes about {needed:.1f} of {machine.memory:.0f} GB{too_much}"
    draft.choose("accumulate", accumulate, f"a step {takes}" if accumulate == 1 else f"parts of a batch, each {takes}")

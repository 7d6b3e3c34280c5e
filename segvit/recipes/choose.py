"""Choose the settings of a run from facts about machine and data, each with its reason.

    found = segvit.recipe(DataConfig(images="photos", labels="masks", classes=("sky", "road")), {"steps": 300})
    print(found.text); segvit.train(found.config)

The tuned numbers are in configs/finetune.yaml (GPU), finetune_cpu.yaml and scratch.yaml. The code here only adapts
them: to the sizes of the images, to memory and cores, and to the settings that you give, which are never changed.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import timm

from segvit.config import DataConfig, TrainConfig, under_preset
from segvit.config_files import plain
from segvit.data.check.class_names import name_classes
from segvit.data.given import data_of
from segvit.errors import UserError
from segvit.recipes.capacity import Memory, choose_machine, choose_memory, estimated_memory
from segvit.recipes.draft import (
    OWN_SIZES,
    Choice,
    Draft,
    build,
    default_of,
    flat_settings,
    parse_settings,
    settings_of,
    shape_of,
)
from segvit.recipes.facts import RunFacts, look_at_images, look_at_machine, look_at_model
from segvit.training.settings import check_settings, flat
from segvit.utils.text import counted, percentage
from segvit.weights.finetune import match_classes
from segvit.weights.timm_weights import is_cached, licence_of, weights_settings

REFERENCE_IMAGES = 400
"""Number of training images for which the recipes' numbers of steps are meant."""
MOST_STEPS = {"cpu": 2.0, "mps": 4.0, "cuda": 10.0}
"""Largest factor on the recipe's steps for a large dataset, by device."""
FEWEST_STEPS = {"cpu": 0.35, "mps": 0.5, "cuda": 0.5}
"""Smallest factor on the recipe's steps for a small dataset, by device. 50 photos take 2 CPU cores 15 minutes."""
SMALL_GPU = 7.5
"""GPU memory in GiB below which the backbone is the one of the recipe for a CPU. A card sold as 8 GB has some less."""
LARGEST_WHOLE = 2.0
"""Largest shorter side, as a multiple of the crop, of an image that is scored in one piece."""
SMALLEST_SCALE = 0.4
"""Factor on the size of typical images below which a reason names what is lost."""
CACHED_VIEWS = 2
"""Number of crops of each image if features are cached."""
LORA_RATE = 10.0
"""Factor on the learning rate for low-rank weights; that of the head stays (docs/training.md)."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of a run, and why they were chosen."""

    config: TrainConfig
    choices: tuple[Choice, ...]
    """The settings that were chosen; those that the caller gave are not among them."""
    facts: RunFacts
    class_names: str = ""
    """Origin of the class names. Empty if they were given."""

    @property
    def reasons(self) -> dict[str, str]:
        """Reason of each choice by the name of its setting."""
        return {choice.name: choice.reason for choice in self.choices}

    @property
    def text(self) -> str:
        """The choices as lines to print; each begins with a flag that may be typed with another value."""
        width = max((len(choice.flag) for choice in self.choices), default=0)
        lines = [f"  {choice.flag:<{width}}  {choice.reason}" for choice in self.choices]
        end = "Flags override them." if lines else "You gave all of them."
        origin = [self.class_names] if self.class_names else []
        return "\n".join([*origin, f"Settings for {self.facts.machine}, and {self.facts.images}. {end}", *lines])


def recipe(data: DataConfig | str | Path, settings: Mapping[str, Any] | None = None) -> Recipe:
    """Choose the settings of a run for this machine and these data.

    Examples:
        >>> import segvit
        >>> found = segvit.recipe("people.yaml", {"steps": 100, "device": "cpu"})
        >>> found.config.steps
        100
        >>> found.reasons["model.backbone"]
        'DINOv2 ViT-S: the best start that trains on a CPU within an hour'

    Args:
        data: the dataset: its settings, the name of a shipped one, or a YAML file that describes one. Its settings are
            kept; `workers` is chosen if it has its default.
        settings: your own settings by name, such as `{"steps": 300, "model.backbone": "vit_base_patch16_dinov3"}`; a
            section may be a mapping, such as `{"model": {"image_size": 280}}`.

    Raises:
        UserError: the dataset cannot be opened, a setting is unknown or has a bad value, there is no such device, or
            the model of an `init` cannot be read.
    """
    data = data_of(data)
    named = {f"data.{each.name}": getattr(data, each.name) for each in fields(DataConfig)}
    given = {name: value for name, value in named.items() if value != getattr(DataConfig(), name.partition(".")[2])}
    return choose_for(given | dict(flat(plain(settings or {}))))


def choose_for(given: Mapping[str, Any]) -> Recipe:
    """Choose every setting that is not given, for this machine.

    Args:
        given: settings by name, those of the dataset among them.

    Raises:
        UserError: as `recipe`.
    """
    model, extended = None, {"optim.freeze": "backbone", "model.added_classes": ()} if given.get("extend") else {}
    if source := given.get("init") or given.get("extend"):
        model = look_at_model(str(source))
        given = {f"model.{name}": value for name, value in vars(model.network).items()} | extended | dict(given)
    config, given = parse_settings(given), under_preset(given)
    named = name_classes(config.data)
    if named.text:
        config, given = replace(config, data=named.config), {**given, **named.settings}
    facts = RunFacts(machine=look_at_machine(config.device), images=look_at_images(config.data), model=model)
    return replace(choose(facts, given), class_names=named.text)


def choose(facts: RunFacts, given: Mapping[str, Any], *, memory: Memory = estimated_memory) -> Recipe:
    """Choose every setting that is not given, from facts alone.

    Args:
        facts: about machine and data.
        given: settings by name.
        memory: estimates the memory of a step.

    Raises:
        UserError: a setting is unknown or has a bad value, settings do not go together, the backbone is no plain ViT,
            or it has no weights to start from.
    """
    values = flat_settings(parse_settings(given))
    draft = Draft(facts, {name: values[name] for name in given})
    _choose_network(draft)
    _choose_frozen(draft)
    check_settings(build(draft.settings))  # numbers out of range fail below
    _choose_sizes(draft)
    _choose_steps(draft)
    _choose_rates(draft)
    choose_machine(draft)
    choose_memory(draft, memory)
    config = build(draft.settings)
    check_settings(config)
    return Recipe(config=config, choices=tuple(draft.choices.values()), facts=facts)


def _choose_network(draft: Draft) -> None:
    """Choose the backbone and the initial weights."""
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
        draft.choose("model.backbone", small, "DINOv2 ViT-S: a Base needs a GPU of 8 GB or more")
    else:
        draft.choose("model.backbone", name, "DINOv2 ViT-B with registers: a strong start that one GPU trains")
    width = given.get("model.embed_dim") or shape_of(draft.settings["model.backbone"]).width
    if draft.scratch:
        return
    if draft.restores:
        draft.choose("model.downsampling", "mean_q", "queries that are means of 2 x 2 tokens lose fewer small objects")
    if draft.facts.model is None:
        file = given.get("model.pretrained_file")
        origin = f"weights in {file}" if file else _origin(draft.settings["model.backbone"])
        draft.choose("model.pretrained", True, origin)
    init_std = _initial_deviation(max(given.get("model.head_dim") or width // 2, 1))
    if init_std == default_of("model.init_std"):
        draft.leave("model.init_std")
    else:
        draft.choose("model.init_std", init_std, "initial weights of the head: a narrow one learns faster from larger")


def _initial_deviation(head_dim: int) -> float:
    """Return the deviation of the initial weights of a head behind a pretrained backbone.

    It is that of the recipes at the widths of their heads, a power of the width between them, and constant outside.
    """
    narrow, wide = settings_of("finetune_cpu"), settings_of("finetune")
    widths = [shape_of(recipe["model.backbone"]).width // 2 for recipe in (narrow, wide)]
    share = math.log(head_dim / widths[0]) / math.log(widths[1] / widths[0])
    ratio = wide["model.init_std"] / narrow["model.init_std"]
    return float(round(narrow["model.init_std"] * ratio ** min(max(share, 0.0), 1.0), 3))


def _choose_frozen(draft: Draft) -> None:
    """Choose what is frozen, the crops whose features are cached, and the drop path."""
    recipe = draft.base
    if draft.cached and not draft.scratch and recipe["optim.freeze"] == "none":
        recipe = settings_of("finetune_cpu")
    depth = draft.given.get("model.depth") or shape_of(draft.settings["model.backbone"]).depth
    if draft.lora:
        draft.choose("optim.freeze", "none", "LoRA already freezes the backbone")
    elif isinstance(recipe["optim.freeze"], int):
        frozen = round(recipe["optim.freeze"] * depth / shape_of(recipe["model.backbone"]).depth)
        why = "early ones change least, and their backward pass is saved"
        if draft.cached:
            why = "their outputs are cached"
        elif draft.restores:
            frozen, why = frozen // 2, "fewer than in plain, since the map before QD must learn"
        draft.choose("optim.freeze", frozen, f"of {depth} blocks: {why}")
    if draft.cached:
        draft.choose("augment.views", CACHED_VIEWS, "crops of each image, so that each of them comes again")
    if draft.settings["optim.freeze"] == "backbone":
        draft.leave("model.drop_path")
    else:
        draft.adopt("model.drop_path", "regularises a backbone that learns as a whole")


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
    why += ", since the images are small" if fitted < crop else f": what {_device(draft)} handles well"
    draft.choose("model.image_size", fitted, why)
    draft.adopt("augment.resize_long", "no bound: the shorter side alone decides")
    draft.choose("augment.resize_short", seen, f"shorter side in pixels: {_resized(seen / images.short, patch)}")
    draft.adopt("augment.scale", "range of the random factor on that size, narrow for a short training")
    draft.choose(
        "eval.resize_short", draft.settings["augment.resize_short"], "validate and predict at the scale of the training"
    )
    if base["eval.mode"] == "whole":
        short = draft.settings["eval.resize_short"] or images.short
        fits = short <= LARGEST_WHOLE * draft.settings["model.image_size"]
        why = "an image in one piece is faster than in windows" if fits else "one piece of that size takes long"
        draft.choose("eval.mode", "whole" if fits else "slide", why)
    if draft.cached:  # a crop forced to show a class is cached apart, so fewer come again
        draft.leave("augment.rare_class_probability")
    else:
        rare = percentage(base["augment.rare_class_probability"], ".0f")
        draft.adopt("augment.rare_class_probability", f"{rare} of the crops show a class drawn by its rarity")


def _resized(factor: float, patch: int) -> str:
    """Describe in words how a factor changes the size of typical images, and what is lost."""
    if factor >= 1:
        return "typical images keep their size" if factor == 1 else f"typical images are enlarged {factor:.2g} times"
    reduced = f"typical images are reduced to {percentage(factor, '.0f')} of their size"
    if factor >= SMALLEST_SCALE:
        return reduced
    lost = f"What is smaller than {math.ceil(patch / factor)} pixels is lost"
    return f"{reduced}. {lost}: cut the images into tiles, or give --augment.resize-short"


def _origin(backbone: str) -> str:
    """Return the place and the licence of timm's weights of a backbone.

    Raises:
        UserError: timm has none.
    """
    settings = weights_settings(backbone)
    if settings is None or not settings.has_weights:
        tags = ", ".join(timm.list_pretrained(f"{backbone.partition('.')[0]}.*"))
        raise UserError(
            f"model.backbone {backbone!r}: timm has no weights of it{tags and f', only of {tags}'}. Give another "
            "--model.backbone (`segvit backbones` lists all), weights of your own with --model.pretrained-file FILE, "
            "or --model.no-pretrained to start from random ones"
        )
    licence = licence_of(settings.to_dict())
    place = "in the cache" if is_cached(backbone) else "downloaded from the Hub on first use"
    return f"timm's weights (licence {licence}), {place}"


def _device(draft: Draft) -> str:
    """Return the kind of the device with its article, for a reason."""
    return {"cpu": "a CPU", "cuda": "a GPU", "mps": "an Apple GPU"}[draft.facts.machine.device]


def _choose_steps(draft: Draft) -> None:
    """Choose the batch and the number of steps, and what follows from it."""
    base, facts = draft.base, draft.facts
    processes = facts.machine.processes
    batch = max(min(base["batch_size"], facts.images.count), 1)
    batch = math.ceil(batch / processes) * processes
    why = "images a step" if processes == 1 else f"images a step over {processes} processes"
    why += f": the dataset has only {facts.images.count}" if facts.images.count < base["batch_size"] else ""
    draft.choose("batch_size", batch, why)
    factor = 2 ** (round(math.log2(facts.images.count / REFERENCE_IMAGES)) / 2)
    factor = min(max(factor, FEWEST_STEPS[facts.machine.device]), MOST_STEPS[facts.machine.device])
    steps = round(base["steps"] * factor / 10) * 10
    passes = steps * draft.settings["batch_size"] / facts.images.count
    seen = f"each image is seen about {'once' if passes < 1.5 else f'{passes:.0f} times'}"
    draft.choose("steps", steps, seen if passes >= 1 else f"only {percentage(passes, '.2g')} of the images are used")
    for name, thing in (("eval_every", "validation"), ("save_every", "checkpoint")):
        every = max(round(base[name] * draft.scale), 1)
        count = counted(math.ceil(draft.settings["steps"] / every), thing)
        draft.choose(name, every, count + f" on {counted(facts.images.validation, 'image')}" * (name == "eval_every"))
    draft.adopt("log_every", "steps between printed lines")


def _choose_rates(draft: Draft) -> None:
    """Choose the learning rates and the warm-up."""
    base = draft.base
    share = draft.settings["batch_size"] / base["batch_size"]
    low_rank = LORA_RATE if draft.lora and not draft.scratch else 1.0
    lr = float(f"{base['optim.lr'] * low_rank * math.sqrt(share):.2g}")
    why = f"for {'random' if draft.scratch else 'pretrained'} weights"
    why += f", times {low_rank:g} for low-rank ones" if low_rank != 1 else ""
    draft.choose("optim.lr", lr, why + (f", times sqrt({share:g}) for the batch" if share != 1 else ""))
    factor, why = _head_rate(draft)
    why += f"; divided by {low_rank:g}, as low-rank weights learn faster" if low_rank != 1 else ""
    draft.choose("optim.head_lr_factor", factor / low_rank, why)
    draft.adopt("optim.weight_decay", "random weights overfit sooner than pretrained ones")
    if draft.lora or draft.settings["optim.freeze"] == "backbone":  # every block has new weights, or none learns
        draft.leave("optim.layer_decay")
    else:
        decay = percentage(base["optim.layer_decay"], ".0f")
        draft.adopt("optim.layer_decay", f"each earlier block learns at {decay} of the next")
    warmup = max(round(base["optim.warmup_steps"] * draft.scale), 1)
    share = warmup / draft.settings["steps"]
    draft.choose("optim.warmup_steps", warmup, f"{percentage(share, '.0f')} of the steps")


def _head_rate(draft: Draft) -> tuple[float, str]:
    """Return the factor on the learning rate for the head, and the reason."""
    factor, model = float(draft.base["optim.head_lr_factor"]), draft.facts.model
    if draft.scratch:
        return factor, "head and backbone both start at random"
    if model is None:
        return factor, "the head is new and learns faster"
    classes = draft.facts.images.classes
    new = match_classes(model.classes, classes).new
    if not new:
        return 1.0, "the head knows every class"
    return factor, f"{len(new)} of {len(classes)} classes are new to the head, which learns faster"

"""Give a trained model other classes: rows of a class move with its name, all other weights are kept.

    model = segvit.with_classes(segvit.load_model("best.safetensors"), segvit.load_spec("camvid"))
    segvit train --init best.safetensors --data.spec camvid --data.root camvid

The head names its parameters with a row per class (`class_bound`). The row of "no object" is always kept.

Letters: K classes, d head width, h w token grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segvit.config import EvalConfig, ModelConfig
from segvit.data.spec import DatasetSpec
from segvit.errors import UserError
from segvit.inference.compiled import uncompiled
from segvit.models.atm import ATMHead
from segvit.models.create import create_model
from segvit.models.create_decoder import crop_grid
from segvit.models.segvit import SegViT
from segvit.utils.text import counted
from segvit.weights.load import find_model, load_model
from segvit.weights.model_file import load_strictly, network_settings, read_header
from segvit.weights.names import FILE_SUFFIXES, RELEASED, is_model_name

NAMED = 20
"""Maximum number of class names that a summary lists."""


@dataclass(frozen=True, kw_only=True)
class ClassMatch:
    """Pairs of classes that a model and a dataset share, by name."""

    kept: dict[int, int]
    """Position among the new classes -> position among the old ones."""
    new: tuple[str, ...]
    """Names that only the dataset has."""
    dropped: tuple[str, ...]
    """Names that only the model had."""


def match_classes(old: Sequence[str], new: Sequence[str]) -> ClassMatch:
    """Pair classes of the same name; case, and spaces for `_` or `-`, do not matter.

    If two classes of one set differ only in these, exact names are compared.
    """
    old_keys, new_keys = [_key(name) for name in old], [_key(name) for name in new]
    kept = {}
    for index, (name, key) in enumerate(zip(new, new_keys, strict=True)):
        if name in old:
            kept[index] = old.index(name)
        elif old_keys.count(key) == new_keys.count(key) == 1:
            kept[index] = old_keys.index(key)
    return ClassMatch(
        kept=kept,
        new=tuple(name for index, name in enumerate(new) if index not in kept),
        dropped=tuple(name for index, name in enumerate(old) if index not in kept.values()),
    )


def _key(name: str) -> str:
    """Return the form in which names are compared."""
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


def network_of(name: str) -> ModelConfig:
    """Return the network settings of a model that training starts from; `name` is as in `load_model`."""
    path = find_model(name)
    return network_settings(read_header(path), path).without_weights()


def load_start(name: str, config: ModelConfig) -> SegViT:
    """Load the model to fine-tune, and check that it has the network of `config` and names for its classes.

    Args:
        name: as in `load_model`.
        config: settings of the model that starts from it.

    Raises:
        UserError: the model cannot be read, its classes have no names, or its network differs; all differences are
            listed.
    """
    model = load_model(name)
    if model.spec is None:
        raise UserError(
            f"init {name}: its {model.num_classes} classes have no names, so none can be kept. Give it the spec of the "
            "dataset that it was trained on, in Python:\n"
            f'  model = segvit.load_model("{name}"); model.spec = segvit.load_spec("ade20k")\n'
            '  model.save("named.safetensors")'
        )
    if config.starts_pretrained:
        raise UserError(
            f"init {name} and model.pretrained (or pretrained_file) both set the initial weights: leave one of them out"
        )
    check_network(model, config, name=name)
    return model


def check_network(model: SegViT, config: ModelConfig, *, name: str) -> None:
    """Refuse a model whose network is not the one of `config`.

    Raises:
        UserError: the networks differ; every differing setting is listed with both values.
    """
    way_out = (
        "Leave these settings out: `segvit train --init` takes the network from the model (in Python, "
        f'`model=segvit.load_model("{name}").config`). Or leave the init out, to train that other network'
    )
    try:
        with torch.device("meta"):
            wanted = create_model(config=replace(config.without_weights(), added_classes=()), num_classes=1)
    except UserError as error:  # the setting contradicts the model's others
        raise UserError(f"{name} does not have the network of the settings: {error}\n{way_out}") from error
    ours, theirs = network_facts(wanted), network_facts(model)
    if theirs["model.upscaler"] == "none":
        del ours["model.upscaler"]  # one may be added: it starts without effect
    rows = [
        f"  {key}: {theirs[key]} in {name}, {ours[key]} in the settings" for key in ours if ours[key] != theirs[key]
    ]
    for key, value in (("mean", config.mean), ("std", config.std)):
        own = getattr(model, key).cpu()
        if value is not None and (len(value) != len(own) or not torch.allclose(own, torch.tensor(value))):
            rows.append(
                f"  model.{key}: {[round(x, 4) for x in own.tolist()]} in {name}, {list(value)} in the settings"
            )
    if rows:
        raise UserError(f"{name} does not have the network of the settings:\n" + "\n".join(rows) + f"\n{way_out}")


def network_facts(model: SegViT) -> dict[str, Any]:
    """Return the settings that define a network, with defaults resolved."""
    backbone, head = model.backbone, model.head
    assert model.config is not None
    block: Any = backbone.blocks[0]
    shrinks = backbone.downsampling is not None
    upsampling = None if model.upsampling is None else model.config.upsampling
    atm = head if isinstance(head, ATMHead) else None
    return {
        "model.backbone": model.config.backbone.split(".")[0],  # a tag names weights, not a network
        "model.bands": model.bands,
        "model.structure": model.config.structure,
        "model.patch_size": backbone.patch_size,
        "model.embed_dim": backbone.embed_dim,
        "model.depth": len(backbone.blocks),
        "model.num_heads": block.attn.num_heads,
        "model.class_token": backbone.cls_token is not None,
        "model.taps": backbone.taps,
        "model.shrink_at": backbone.shrink_at,
        "model.downsampling": model.config.downsampling if shrinks else None,
        "model.edge_share": getattr(backbone.downsampling, "share", None),
        "model.head": model.config.head,
        "model.upscaler": model.config.upscaler,
        "model.head_classes": model.config.head_classes,
        "model.head_dim": _setting_of((head, model.upsampling), "dim"),
        "model.head_num_heads": _setting_of((head, model.upsampling), "num_heads"),
        "model.head_num_layers": None if atm is None else _num_layers(atm.stages),
        "model.upsampling": upsampling,
        "model.upsampling_num_layers": _num_layers(model.upsampling.stages) if upsampling == "paper" else None,
    }


def _setting_of(parts: Sequence[Any], name: str) -> int | None:
    """Return a setting that parts share, from the first that has it; None if no part has it."""
    return next((getattr(part, name) for part in parts if hasattr(part, name)), None)


def _num_layers(stages: Any) -> int:
    """Return the number of decoder layers of a stage."""
    return len(stages[0].layers)


def with_classes(
    model: SegViT,
    spec: DatasetSpec,
    *,
    config: ModelConfig | None = None,
    protocol: EvalConfig | None = None,
    name: str | None = None,
) -> SegViT:
    """Create a model of the classes of `spec` with the weights of `model`, ready for training.

    Classes of the same name keep their token and their row of the classifier. Others are initialised as in a new model,
    by the random seed. With another `image_size`, position embedding, bias tables and the tokens of the up-sampling are
    resized bicubic to the new grid, so on images of that size the model gives what it gave.

    Examples:
        >>> import segvit
        >>> model = segvit.load_model("best.safetensors")
        >>> segvit.with_classes(model, segvit.load_spec("camvid")).num_classes
        11

    Args:
        model: model with a spec.
        spec: spec of the new dataset.
        config: settings of the new model. Its network must be that of `model`; crop, drop path and dropout may differ,
            and an upscaler may be added. Default: the settings of `model`.
        protocol: how images are cut for the new model. Default: as for `model`.
        name: name of `model`, for errors and for the new model's `extra["starts_from"]`.

    Raises:
        UserError: `model` has no class names, custom parts or added groups, or `config` is another network.
    """
    model = uncompiled(model)
    if model.config is None:
        raise UserError(
            "with_classes: this model has custom parts. Create them for the new classes, then copy the "
            "weights to keep with load_state_dict"
        )
    if len(model.added):
        raise UserError(
            "with_classes: classes were added to this model in groups, which have heads of their own. Add more with "
            "`segvit train --extend`, or drop groups with segvit.drop_group(model, 1)"
        )
    config = model.config if config is None else config
    name = name or f"a model of {counted(model.num_classes, 'class')}"
    if model.spec is None:
        raise UserError(f"{name} has no class names, so none can be kept: set model.spec")
    check_network(model, config, name=name)
    protocol = protocol or model.protocol
    new = create_model(config=config.without_weights(), num_classes=spec.num_classes, spec=spec, protocol=protocol)
    new = new.to(model.mean.device)
    match = match_classes(model.spec.classes, spec.classes)
    state, own = dict(model.state_dict()), new.state_dict()
    bound = [f"head.{name}" for name in new.head.class_bound]
    if model.upscaler is not None:
        bound += [f"upscaler.{name}" for name in new.upscaler.class_bound]
    elif new.upscaler is not None:
        state |= {key: value for key, value in own.items() if key.startswith("upscaler.")}
    for key in bound:
        state[key] = _by_class(state[key], own[key], match)
    resized = model.backbone.resized(new.backbone.native_grid)
    state |= {f"backbone.{key}": value for key, value in resized.items()}
    if model.upsampling is not None:
        resized = model.upsampling.resized(crop_grid(config.image_size, new.backbone.patch_size))
        state |= {f"upsampling.{key}": value for key, value in resized.items()}
    load_strictly(new, state, source=name)
    public = Path(name).name if Path(name).suffix.lower() in FILE_SUFFIXES else name  # a folder would be published
    new.extra["starts_from"] = summary(model, new, match, name=public)
    new.extra |= {key: model.extra[key] for key in ("licence", "base_model") if key in model.extra}
    if is_model_name(name) and name not in RELEASED:
        new.extra["base_model"] = name.partition("@")[0]
    return new


def _by_class(old: Tensor, fresh: Tensor, match: ClassMatch) -> Tensor:
    """Take rows of kept classes, and the row of "no object" if there is one, from `old`; the others from `fresh`."""
    rows = fresh.clone()
    for new, index in match.kept.items():
        rows[new] = old[index]
    if len(fresh) == len(match.kept) + len(match.new) + 1:
        rows[-1] = old[-1]
    return rows


def summary(model: SegViT, new: SegViT, match: ClassMatch, *, name: str) -> str:
    """Describe in one line the model that training starts from, what is kept of it and what is new."""
    assert model.spec is not None and new.spec is not None
    count = new.num_classes
    if not match.new:
        classes = "the only class" if count == 1 else f"all {count} classes"
    elif match.kept:
        kept = [new.spec.classes[index] for index in match.kept]
        classes = f"{len(kept)} of {count} classes ({_listed(kept)}); new: {_listed(match.new)}"
    else:
        classes = f"no class, since no name matches; new: {_listed(match.new)}"
    text = f"{name} ({counted(model.num_classes, 'class')} of {model.spec.name}): keeps backbone, decoder and {classes}"
    if match.dropped:
        text += f"; dropped: {_listed(match.dropped)}"
    old, grid = model.backbone.native_grid, new.backbone.native_grid
    if old != grid:
        text += f"; positions resized from {old[0]} x {old[1]} to {grid[0]} x {grid[1]} patches"
    before, licence = model.extra.get("starts_from", ""), model.extra.get("licence", "")
    if before:
        text += f"; that model started from {before}"
    return text if licence in before else f"{text}; licence of its weights: {licence}"


def _listed(names: Sequence[str]) -> str:
    """Join names; a long list is shortened."""
    return ", ".join(names[:NAMED]) + (f", ... ({len(names)})" if len(names) > NAMED else "")

"""What a model, a config or a backbone is: its parts and parameters, as a table."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import nn

from segvit.config import CONFIG_DIRS, ModelConfig, TrainConfig
from segvit.data.spec import resolve_spec
from segvit.errors import UserError
from segvit.models.segvit import SegViT
from segvit.models.weights import read_header, settings_from_header

ASSUMED_CLASSES = 150
"""Classes of a model whose dataset is not known: those of ADE20K."""


def describe(
    name: str, *, num_classes: int | None = None, image_size: int | None = None, class_token: bool | None = None
) -> Table:
    """A table about a model file, a config (file or shipped recipe) or a backbone of timm, built without memory.

    Args:
        name: of the file, config or backbone.
        num_classes: for a backbone, or a config without a dataset. Default there: 150, as of ADE20K, and said so.
        image_size: for a backbone, side of the training crop in pixels.
        class_token: for a backbone, whether it keeps its class token.

    Raises:
        UserError: the name is none of the three, or says already what an argument would.
    """
    facts: dict[str, Any] = {}
    given = {"--num-classes": num_classes, "--image-size": image_size, "--class-token": class_token}
    known: tuple[str, ...] = ()
    count = num_classes
    if name.endswith(".safetensors"):
        known = tuple(given)
        header = read_header(name)
        config, count = settings_from_header(ModelConfig, header["model"], name), int(header["num_classes"])
        facts["written by"] = f"segvit {header['version']}"
        if header["spec"]:
            facts["classes"] = _names(header["spec"]["classes"])
        if header.get("metrics"):
            facts["validation mIoU"] = f"{header['metrics']['miou']:.4f} ({header['metrics']['images']} images)"
        facts["protocol"] = ", ".join(f"{key} {value}" for key, value in header["protocol"].items() if value)
    elif _is_config(name):
        known = ("--image-size", "--class-token")
        train = TrainConfig.load(name)
        config = train.model
        if train.data.spec or train.data.images:
            known = tuple(given)
            spec = resolve_spec(train.data)
            count, facts["classes"] = spec.num_classes, _names(spec.classes)
    else:
        config = ModelConfig(backbone=name, class_token=class_token)
        config = replace(config, image_size=image_size) if image_size else config
    if told := [flag for flag in known if given[flag] is not None]:
        raise UserError(f"{name} says itself what {' and '.join(told)} would: leave that out")
    if count is None:
        count, facts["classes"] = ASSUMED_CLASSES, f"not known here: {ASSUMED_CLASSES} are assumed (--num-classes K)"
    with torch.device("meta"):
        model = SegViT(replace(config, pretrained=False), num_classes=count)
    return _table(name, model, facts)


def _is_config(name: str) -> bool:
    """Whether a name means a config: a YAML file, a path, or a shipped recipe."""
    shipped = any((folder / f"{name}.yaml").is_file() for folder in CONFIG_DIRS)
    return shipped or Path(name).suffix in (".yaml", ".yml") or "/" in name


def _table(name: str, model: SegViT, facts: dict[str, Any]) -> Table:
    """Facts of a model as rows."""
    backbone = model.backbone
    table = Table(title=name, show_header=False)
    rows = {
        "backbone": model.config.backbone,
        "structure": model.config.structure,
        "number of classes": model.num_classes,
        "training crop": f"{model.config.image_size} px",
        "patch": f"{backbone.patch_size} px",
        "width, blocks": f"{backbone.embed_dim}, {len(backbone.blocks)}",
        "prefix tokens": backbone.num_prefix_tokens,
        "taps": ", ".join(map(str, backbone.taps)),
        "parameters, backbone": f"{_count(backbone):,}",
        "parameters, head": f"{_count(model.head):,}",
        "parameters": f"{_count(model):,}",
        **facts,
    }
    for key, value in rows.items():
        table.add_row(key, str(value))
    return table


def _count(module: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def _names(classes: Any) -> str:
    """Class names in a line, however a spec tells them; long lists are cut."""
    names = [item["name"] if isinstance(item, dict) else str(item) for item in classes]
    return ", ".join(names[:20]) + (f", ... ({len(names)})" if len(names) > 20 else "")

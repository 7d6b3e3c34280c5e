"""Describe a model, a config or a backbone and its cost, as tables and as plain values (`segvit info`)."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from rich.console import Group
from rich.table import Table

from segvit.config import ModelConfig, Structure, TrainConfig, Upsampling
from segvit.config_files import CONFIG_DIRS
from segvit.data.bands.names import COLORS
from segvit.data.folder_spec import resolve_spec
from segvit.errors import UserError
from segvit.inference.network import described
from segvit.models.create import create_model
from segvit.models.merging.token_merging import merges_by_threshold
from segvit.models.segvit import SegViT
from segvit.profiling.multiply_adds import Profile, profile
from segvit.utils.tables import COMPACT, Fitted, too_narrow_for
from segvit.utils.text import by_group, counted, listed, percentage, score_text
from segvit.weights.load import find_model
from segvit.weights.model_file import averaged, network_settings, read_header
from segvit.weights.names import is_model_name

YAML = (".yaml", ".yml")
"""Suffixes of configs."""
MERGE_FIND = "merge_find"
"""Key in the header of a model's file of the measurement by `segvit merge-find`."""
ASSUMED_CLASSES = 150
"""Number of classes if the dataset is not known: that of ADE20K."""


@dataclass(frozen=True, kw_only=True)
class Info:
    """Facts and costs of a model."""

    name: str
    """Name of the file, config or backbone."""
    model: SegViT
    """The model on the meta device: shapes without memory."""
    profile: Profile
    classes: tuple[str, ...] | None
    """Class names; None if they are not known."""
    assumed: bool
    """True if the number of classes is an assumption, because nothing states it."""
    header: dict[str, Any]
    """Version, metrics and protocol from the model's file. Empty for a config or a backbone."""

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        backbone, config = self.model.backbone, self.model.config
        assert config is not None  # the model is one of `create_model`
        return {
            "name": self.name,
            **described(self.model),
            "num_classes": self.model.num_classes,
            "num_classes_assumed": self.assumed,
            "classes": None if self.classes is None else list(self.classes),
            "groups": [list(names) for names in self._groups()],
            "bands": self.model.bands,
            "image_size": self.model.image_size,
            "patch_size": backbone.patch_size,
            "embed_dim": backbone.embed_dim,
            "depth": len(backbone.blocks),
            "num_prefix_tokens": backbone.num_prefix_tokens,
            "taps": list(backbone.taps),
            "shrink_at": backbone.shrink_at,
            "downsampling": None if backbone.downsampling is None else backbone.downsampling.method,
            "edge_share": getattr(backbone.downsampling, "share", None),
            "upsampling": None if self.model.upsampling is None else config.upsampling,
            "head": config.head,
            "upscaler": config.upscaler,
            "merging": None if backbone.merging is None else backbone.merging.extra_repr(),
            "head_classes": config.head_classes if config.head == "atm" else None,
            **self.header,
            **self.profile.to_dict(),
        }

    def tables(self) -> Group:
        """Return facts and costs as tables to print."""
        return Group(self._facts(), Fitted(partial(_costs, self.profile), levels=3))

    def _groups(self) -> tuple[tuple[str, ...], ...]:
        """Return the class names of each group."""
        assert self.model.config is not None
        return by_group(self.classes or self.model.classes, self.model.config.added_classes)

    def _facts(self) -> Table:
        """Return the table of facts."""
        facts = self.to_dict()
        rows = {
            "backbone": facts["backbone"],
            "structure": facts["structure"],
            "number of classes": facts["num_classes"],
            "training crop": f"{facts['image_size']} px",
            "patch": f"{facts['patch_size']} px",
            "width, blocks": f"{facts['embed_dim']}, {facts['depth']}",
            "prefix tokens": facts["num_prefix_tokens"],
            "taps": ", ".join(map(str, facts["taps"])),
        }
        if self.model.spec is not None and self.model.spec.bands:
            rows["bands"] = _names(self.model.spec.bands)
        elif facts["bands"] != COLORS:
            rows["bands"] = facts["bands"]
        if facts["shrink_at"] is not None:
            rows |= {"shrinks at block": facts["shrink_at"], "down-sampling": facts["downsampling"]}
        if facts["edge_share"] is not None:
            rows["edge tokens"] = f"{percentage(facts['edge_share'], 'g')} of all tokens"
        if facts["upsampling"] is not None:
            rows["up-sampling"] = facts["upsampling"]
        if facts["head"] != "atm":
            rows["head"] = facts["head"]
        if facts["upscaler"] != "none":
            rows["mask upscaler"] = facts["upscaler"]
        if facts["merging"] is not None:
            rows["token merging"] = facts["merging"]
            if merges_by_threshold(self.model.backbone):
                rows["token merging"] += "; the cost below is without it, since it depends on the image"
        if found := self.header.get(MERGE_FIND):
            rows["merging, measured"] = (
                f"{percentage(found['share'], '.1f')} of the multiply-adds on {counted(found['images'], 'image')}"
            )
        if facts["head_classes"] == "presence":
            rows["classes of the head"] = "presence"
        if len(facts["groups"]) > 1:
            rows["groups of classes"] = listed(facts["groups"])
        elif self.classes is not None:
            rows["classes"] = _names(self.classes)
        elif self.assumed:
            rows["classes"] = f"not known: {ASSUMED_CLASSES} assumed (--num-classes K)"
        if self.header:
            origins = {"started from": "starts_from", "converted from": "converted_from", "licence": "licence"}
            origins["weights"] = "weights"
            rows |= {row: self.header[key] for row, key in origins.items() if self.header[key]}
            rows["written by"] = f"segvit {self.header['segvit_version']}"
            if metrics := self.header["metrics"]:
                rows["validation mIoU"] = f"{score_text(metrics['miou'])} ({counted(metrics['images'], 'image')})"
            rows["protocol"] = ", ".join(f"{key} {value}" for key, value in self.header["protocol"].items() if value)
        table = Table(title=self.name, show_header=False)
        for _ in range(2):
            table.add_column(overflow="fold")
        for key, value in rows.items():
            table.add_row(key, str(value))
        return table


@dataclass(frozen=True, kw_only=True)
class Named:
    """A model found by its name, without its weights."""

    name: str
    """Name of the file, config or backbone."""
    config: ModelConfig
    num_classes: int | None
    """None if nothing states it."""
    classes: tuple[str, ...] | None
    """Class names; None if they are not known."""
    header: dict[str, Any]
    """See `Info`."""

    def build(self) -> SegViT:
        """Build the network with random weights, on the device of the context."""
        count = ASSUMED_CLASSES if self.num_classes is None else self.num_classes
        return create_model(config=self.config.without_weights(), num_classes=count)


def describe(
    name: str,
    *,
    size: tuple[int, int] | None = None,
    num_classes: int | None = None,
    image_size: int | None = None,
    class_token: bool | None = None,
    structure: Structure | None = None,
    upsampling: Upsampling | None = None,
) -> Info:
    """Describe a model, a config (file or shipped recipe) or a backbone of timm, without allocating its memory.

    Args:
        name: a model (anything that `load_model` takes), a config or a backbone.
        size: (H, W) in pixels of the image to count. Default: the training crop.
        num_classes, image_size, class_token, structure, upsampling: see `find_network`.

    Raises:
        UserError: as in `find_network`, or if the model does not take this size.
    """
    network = find_network(
        name,
        num_classes=num_classes,
        image_size=image_size,
        class_token=class_token,
        structure=structure,
        upsampling=upsampling,
    )
    with torch.device("meta"):
        model = network.build()
    crop = (network.config.image_size, network.config.image_size)
    costs = profile(model, crop if size is None else size)
    assumed = network.num_classes is None
    return Info(name=name, model=model, profile=costs, classes=network.classes, assumed=assumed, header=network.header)


def find_network(
    name: str,
    *,
    num_classes: int | None = None,
    image_size: int | None = None,
    class_token: bool | None = None,
    structure: Structure | None = None,
    upsampling: Upsampling | None = None,
) -> Named:
    """Find a model, a config (file or shipped recipe) or a backbone of timm by its name.

    Args:
        name: a model (anything that `load_model` takes), a config or a backbone.
        num_classes: number of classes of a backbone, or of a config without a dataset.
        image_size: side of a backbone's training crop in pixels.
        class_token: True if a backbone keeps its class token.
        structure, upsampling: structure around a backbone; see `ModelConfig`.

    Raises:
        UserError: the name is none of the three, or the file already states what an argument sets.
    """
    given: dict[str, Any] = {"--image-size": image_size, "--class-token": class_token, "--structure": structure}
    given["--upsampling"] = upsampling
    known = tuple(given)
    given["--num-classes"] = num_classes
    count, classes, header = num_classes, None, {}
    if _is_model(name):
        content = read_header(find_model(name))
        known = tuple(given)
        config, count = network_settings(content, name), int(content["num_classes"])
        classes = _class_names(content["spec"]["classes"]) if content["spec"] else None
        header = {"segvit_version": content["version"]}
        told = ("metrics", "protocol", "starts_from", "converted_from", "licence", MERGE_FIND)
        header |= {key: content.get(key) for key in told}
        header["weights"] = averaged(content)
    elif _is_config(name):
        train = TrainConfig.load(name)
        config = train.model
        if train.data.is_given:
            known = tuple(given)
            classes = _class_names(resolve_spec(train.data).classes)
            count = len(classes)
    else:
        known = ()
        chosen = {"structure": structure, "upsampling": upsampling, "image_size": image_size}
        settings: dict[str, Any] = {key: value for key, value in chosen.items() if value is not None}
        config = ModelConfig(backbone=name, class_token=class_token, **settings)
    if given_flags := [flag for flag in known if given[flag] is not None]:
        raise UserError(f"{name} already sets {' and '.join(given_flags)}: leave the flag out")
    return Named(name=name, config=config, num_classes=count, classes=classes, header=header)


def _is_model(name: str) -> bool:
    """True if a name means a model: a file of any suffix, a name for the Hub, or a folder that holds a model."""
    path = Path(name)
    if path.is_file() or path.suffix == ".safetensors":
        return path.suffix not in YAML
    return not _is_config(name) and (is_model_name(name) or (path.is_dir() and not timm.is_model(name)))


def _is_config(name: str) -> bool:
    """True if a name means a config: a YAML file, a path that does not exist, or a shipped recipe."""
    shipped = any((folder / f"{name}.yaml").is_file() for folder in CONFIG_DIRS)
    return shipped or Path(name).suffix in YAML or ("/" in name and not Path(name).exists() and not is_model_name(name))


def _costs(profile: Profile, level: int, *, ascii: bool) -> Table:
    """Draw the table of costs, part by part: at level 1 without FLOPs, at level 2 also without lines."""
    height, width = profile.size
    counted = (
        "Counted: Linear layers, convolutions, attention products, the product of classes and masks, up-sampling of "
        "the masks. 2 FLOPs per multiply-add. Scores: the (K, H, W) volume."
    )
    table = Table(
        title=f"Cost of an image of {height} x {width} px",
        caption=f"{counted}\n{too_narrow_for(['FLOPs'] if level else [])}".rstrip(),
        **COMPACT if level > 1 else {},
    )
    table.add_column("part", overflow="fold")
    headings = ("parameters", "multiply-adds (G)", "FLOPs (G)") if not level else ("parameters", "multiply-\nadds (G)")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)

    def add(name: str, parameters: str, multiply_adds: int, flops: int) -> None:
        """Add a row."""
        table.add_row(name, *(parameters, _giga(multiply_adds), _giga(flops))[: len(headings)])

    for part in profile.parts:
        add(part.name, f"{part.parameters:,}", part.multiply_adds, part.flops)
    table.add_section()
    add("total", f"{profile.parameters:,}", profile.multiply_adds, profile.flops)
    table.add_section()
    add("model.predict, at most", "", profile.predict_multiply_adds, profile.predict_flops)
    return table


def _giga(count: int) -> str:
    """Return a count in units of 10^9; small counts keep three digits."""
    return f"{count / 1e9:,.2f}" if count >= 1e9 or not count else f"{count / 1e9:.3g}"


def _class_names(classes: Any) -> tuple[str, ...]:
    """Return class names from either form that a spec may have."""
    return tuple(item["name"] if isinstance(item, dict) else str(item) for item in classes)


def _names(classes: tuple[str, ...]) -> str:
    """Return class names in one line; a long list is cut."""
    return ", ".join(classes[:20]) + (f", ... ({len(classes)})" if len(classes) > 20 else "")

"""A guide to the plain ViTs of timm that segvit takes: what they cost, and the licence of their weights.

    for backbone in find_backbones(licence="permissive", size="small"):
        print(backbone.name, backbone.licence, backbone.parameters)

Costs were counted once (docs/tools/backbone_table.py writes backbones.csv). Tags and licences come from the installed
timm.
"""

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import timm
from rich.table import Table

from segvit.config import BackboneSize, TrainConfig
from segvit.errors import UserError
from segvit.utils.tables import COMPACT, Fitted, too_narrow_for
from segvit.utils.text import suggest
from segvit.weights.timm_weights import licence_of, weights_settings

TABLE = Path(__file__).parent / "backbones.csv"
"""Costs of every plain ViT, one a line."""
TIMMS_TESTS = "test_"
"""Beginning of the names of tiny networks for timm's own tests."""
REFERENCE = 512
"""Side in pixels of the image that costs are counted for, up to the nearest multiple of the patch."""
PERMISSIVE = ("apache-2.0", "mit", "bsd-3-clause", "bsd-2-clause")
"""Licences that allow any use, also commercial."""
GATED = ("dinov3-license", "sapiens2-license")
"""Licences whose owner asks you to accept the terms, and who may refuse, before you download the weights."""
SIZES: dict[BackboneSize, float] = {
    "tiny": 12e6,
    "small": 40e6,
    "base": 130e6,
    "large": 450e6,
    "huge": 900e6,
    "giant": float("inf"),
}
"""Number of parameters of the largest backbone of each size."""

NUMBERS = ("M", "G", "patch", "px")
"""Columns of numbers in the table."""
NARROWER: tuple[tuple[str, ...], ...] = ((), ("px",), ("px", "patch"), ("px", "patch", "G"))
"""Columns that the table leaves out, the narrower the terminal the more."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Cost of a network, whatever its weights."""

    name: str
    """timm's name of the network, without a tag."""
    patch: int
    """Side of a patch in pixels."""
    width: int
    """Width of its tokens."""
    blocks: int
    """Number of blocks."""
    parameters: int
    """Number of parameters of the backbone."""
    multiply_adds: int
    """Multiply-adds of the backbone on a square image of about 512 pixels."""


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A network with one of its pretrained weights, or without any."""

    name: str
    """Value for --model.backbone: the network with the tag of its weights."""
    cost: Cost
    size: BackboneSize
    licence: str | None
    """Licence of the weights as timm states it; `unknown` if it states none. None if there are no weights."""
    pretrained_size: int | None
    """Side in pixels of the images that the weights were trained on."""
    advice: str
    """Reason to take it, or an empty text."""

    @property
    def permissive(self) -> bool:
        """True if the licence allows any use."""
        return self.licence in PERMISSIVE

    @property
    def gated(self) -> bool:
        """True if the licence has to be accepted by name."""
        return self.licence in GATED

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return asdict(self) | {"permissive": self.permissive, "gated": self.gated}


def reference_size(patch: int) -> int:
    """Return the side in pixels of the image that costs are counted for."""
    return -(-REFERENCE // patch) * patch


@cache
def costs() -> tuple[Cost, ...]:
    """Return the cost of every plain ViT in the table."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        rows = [(row.pop("name"), row) for row in csv.DictReader(file)]
    return tuple(Cost(name=name, **{key: int(value) for key, value in row.items()}) for name, row in rows)


def find_backbones(
    name: str | None = None,
    *,
    licence: str | None = None,
    size: BackboneSize | None = None,
    pretrained: bool = False,
) -> list[Backbone]:
    """List plain ViTs: recommended ones first, then by size.

    Args:
        name: part of the name; case does not matter.
        licence: `permissive`, or a licence such as `mit`.
        size: class of sizes.
        pretrained: leave out networks without weights.

    Raises:
        UserError: none fits, or no weights have that licence.
    """
    advice = _advice()
    usable = [cost for cost in costs() if timm.is_model(cost.name) and not cost.name.startswith(TIMMS_TESTS)]
    found = [backbone for cost in usable for backbone in _with_tags(cost, advice)]
    licences = sorted({backbone.licence for backbone in found if backbone.licence})
    if licence is not None and licence not in ("permissive", *licences):
        raise UserError(
            f"licence {licence!r}{suggest(licence, licences)}: give permissive, or one of {', '.join(licences)}"
        )
    kept = [
        backbone
        for backbone in found
        if (name is None or name.casefold() in backbone.name.casefold())
        and (licence is None or (backbone.permissive if licence == "permissive" else backbone.licence == licence))
        and (size is None or backbone.size == size)
        and (not pretrained or backbone.licence is not None)
    ]
    if not kept:
        near = suggest(name, [backbone.name for backbone in found], most=3) if name else ""
        raise UserError(f"no backbone fits{near}: leave a filter out; `segvit backbones` lists all {len(found)}")
    return sorted(kept, key=lambda backbone: (not backbone.advice, backbone.cost.parameters, backbone.name))


def table(backbones: Sequence[Backbone]) -> Fitted:
    """Return backbones as a table for a terminal. A narrow one gets fewer numbers, and names over several lines."""
    return Fitted(partial(_draw, backbones), levels=len(NARROWER))


def _draw(backbones: Sequence[Backbone], level: int, *, ascii: bool) -> Table:
    """Draw the table without the columns that `NARROWER` names for a level."""
    left_out = NARROWER[level]
    advised = [f"{backbone.name} is the {backbone.advice}" for backbone in backbones if backbone.advice]
    about = (
        f"Plain ViTs of timm {timm.__version__}. M: parameters in millions. G: multiply-adds in 10^9 on an image of "
        "about 512 x 512 pixels. Both are of the backbone alone. px: side of the pretraining images. *: the owner asks "
        f"you to accept the terms. {'; '.join(advised)}"
    )
    shown = Table(**COMPACT, caption=f"{about}\n{too_narrow_for(left_out)}".rstrip())
    shown.add_column("--model.backbone", overflow="fold")
    kept = [heading for heading in NUMBERS if heading not in left_out]
    for heading in kept:
        shown.add_column(heading, justify="right", no_wrap=True)
    shown.add_column("licence", overflow="fold")
    for backbone in backbones:
        cost = backbone.cost
        licence = "no weights" if backbone.licence is None else backbone.licence + " *" * backbone.gated
        numbers = (f"{cost.parameters / 1e6:,.1f}", f"{cost.multiply_adds / 1e9:,.0f}", str(cost.patch))
        cells = dict(zip(NUMBERS, (*numbers, str(backbone.pretrained_size or "")), strict=True))
        shown.add_row(backbone.name, *(cells[heading] for heading in kept), licence)
    return shown


def size_of(parameters: int) -> BackboneSize:
    """Return the class of sizes of a number of parameters."""
    return next(name for name, most in SIZES.items() if parameters <= most)


def _with_tags(cost: Cost, advice: dict[str, str]) -> list[Backbone]:
    """Return a network with each of its pretrained weights; a network without any is one row."""
    names = timm.list_pretrained(f"{cost.name}.*") or [cost.name]
    return [_backbone(name, cost, advice.get(name, "")) for name in names]


def _backbone(name: str, cost: Cost, advice: str) -> Backbone:
    settings = weights_settings(name)
    weights = settings if settings is not None and settings.has_weights else None
    return Backbone(
        name=name,
        cost=cost,
        size=size_of(cost.parameters),
        licence=None if weights is None else licence_of(weights.to_dict()),
        pretrained_size=None if weights is None else weights.input_size[-1],
        advice=advice,
    )


def _advice() -> dict[str, str]:
    """Return the reason to take each recommended backbone, by its name; the recipes hold the names."""
    recipes = {"finetune_cpu": "default on a CPU", "finetune": "default on a GPU"}
    return {TrainConfig.load(name).model.backbone: reason for name, reason in recipes.items()}

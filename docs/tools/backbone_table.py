"""Count what every plain ViT of timm costs, for `segvit backbones`: writes segvit/recipes/backbones.csv.

    python docs/tools/backbone_table.py

Rows that the file has already are kept, so that only names that are new in timm are counted. Delete the file to count
all of them again (a minute).
"""

import csv
from dataclasses import asdict, fields
from typing import Any

import timm
from torch import nn

from segvit.errors import UserError
from segvit.models.create import weightless
from segvit.models.families import adapt
from segvit.recipes.backbones import TABLE, Cost, costs, reference_size

MODULES = ("vision_transformer", "deit", "beit", "eva")
"""Modules of timm with plain ViTs."""


def cost_of(name: str) -> Cost | None:
    """Return the cost of a backbone, or None if it is no plain ViT."""
    try:
        vit = weightless(name)
    except UserError:
        return None
    backbone = adapt(vit, taps=(len(vit.blocks) - 1,))
    return Cost(
        name=name,
        patch=backbone.patch_size,
        width=backbone.embed_dim,
        blocks=len(backbone.blocks),
        parameters=sum(parameter.numel() for parameter in backbone.parameters()),
        multiply_adds=multiply_adds(backbone),
    )


def multiply_adds(backbone: Any) -> int:
    """Count the multiply-adds of patch embedding and blocks by formula, which is faster than to run them.

    A Linear layer has as many per token as weights, and the two products of attention have 2 N^2 per channel.
    """
    side = reference_size(backbone.patch_size) // backbone.patch_size
    patches = side * side
    tokens = patches + backbone.num_prefix_tokens
    total = patches * backbone.patch_embed.proj.weight.numel()
    for part in backbone.blocks.modules():
        if isinstance(part, nn.Linear):
            total += tokens * part.weight.numel()
        if hasattr(part, "num_heads") and hasattr(part, "head_dim"):
            total += 2 * tokens**2 * part.num_heads * part.head_dim
    return total


def main() -> None:
    """Add the missing rows."""
    known = {cost.name: cost for cost in costs()} if TABLE.is_file() else {}
    names = [name for module in MODULES for name in timm.list_models(module=module)]
    todo = [name for name in names if name not in known]
    for done, name in enumerate(todo, start=1):
        cost = cost_of(name)
        known |= {name: cost} if cost else {}
        print(f"{done}/{len(todo)} {cost or f'{name}: no plain ViT'}", flush=True)
    with TABLE.with_suffix(".new").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Cost)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(known[name]) for name in sorted(known))
    TABLE.with_suffix(".new").replace(TABLE)


if __name__ == "__main__":
    main()

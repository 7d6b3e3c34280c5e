"""Count what every plain ViT of timm costs, for `segvit backbones`: writes segvit/recipes/backbones.csv.

    python docs/tools/backbone_table.py

Rows that the file has already are kept, so that only names that are new in timm are counted. Delete the file to count
all of them again (some minutes).
"""

import csv
from dataclasses import asdict, fields

import timm

from segvit.errors import UserError
from segvit.models.create import weightless
from segvit.models.families import adapt
from segvit.profiling.info import describe
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
    found = describe(name, image_size=reference_size(backbone.patch_size))
    return Cost(
        name=name,
        patch=backbone.patch_size,
        width=backbone.embed_dim,
        blocks=len(backbone.blocks),
        parameters=sum(parameter.numel() for parameter in backbone.parameters()),
        multiply_adds=sum(part.multiply_adds for part in found.profile.parts if part.name == "backbone"),
    )


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

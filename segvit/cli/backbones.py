"""The command `segvit backbones`."""

from segvit.cli.flags import TERMINAL, JsonFile, check_json, check_paths, to_json, write_json
from segvit.config import BackboneSize


def backbones(
    name: str | None = None,
    *,
    licence: str | None = None,
    size: BackboneSize | None = None,
    pretrained: bool = False,
    json: JsonFile = None,
) -> None:
    """List the plain ViTs of timm that --model.backbone takes, with their cost and the licence of their weights.

    Parameters
    ----------
    name
        List only names that contain this, such as dinov2.
    licence
        List only weights with this licence: permissive (apache-2.0, mit, bsd), or one by its name.
    size
        List only backbones of this size.
    pretrained
        List only backbones that have pretrained weights.
    json
        Also write everything to this JSON file; - prints JSON and nothing else.
    """
    from rich import print as rich_print

    from segvit.recipes.backbones import find_backbones, table

    check_json(json)
    check_paths(files=(json if json != TERMINAL else None,))
    found = find_backbones(name, licence=licence, size=size, pretrained=pretrained)
    content = {"backbones": [backbone.to_dict() for backbone in found]}
    if json == TERMINAL:
        print(to_json(content))
        return
    rich_print(table(found))
    if json:
        write_json(json, content)

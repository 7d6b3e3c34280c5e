"""The plain content of a YAML file: what may stand in it, and what is said of what may not."""

from collections.abc import Mapping, Sequence
from importlib.resources.abc import Traversable
from typing import Any

import yaml

from segvit.data.palette import Color
from segvit.errors import UserError
from segvit.utils.text import suggest


def parse_yaml(file: Traversable, source: str) -> Mapping[str, Any]:
    """The mapping in a YAML file, which error texts call `source`.

    Raises:
        UserError: no YAML, or no mapping.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{source}: not a YAML file: {error}") from error
    if not isinstance(content, Mapping):
        raise UserError(f"{source}: a spec is `name: ...`, `classes: [...]`, `splits: ...`; found {repr(content)[:80]}")
    return content


def check_keys(content: Any, known: Mapping[str, bool], source: str) -> None:
    """Refuse keys outside `known` and the absence of those marked True.

    Raises:
        UserError: naming the key and the nearest known one, or the missing one.
    """
    if not isinstance(content, Mapping):
        raise UserError(f"{source}: expected keys {', '.join(known)}; found {repr(content)[:80]}")
    for key in content:
        if key not in known:
            raise UserError(f"{source}: unknown key {key!r}{suggest(str(key), known)}; known keys: {', '.join(known)}")
    for key, required in known.items():
        if required and key not in content:
            raise UserError(f"{source}: key `{key}` is missing")


def read_text(value: Any, key: str, source: str) -> str:
    """`value` where it is text.

    Raises:
        UserError: it is not, or it is blank.
    """
    if isinstance(value, str) and value.strip():
        return value
    raise UserError(f"{source}: `{key}` is {value!r}; give text, in quotes where YAML reads it otherwise, such as 'no'")


def read_color(value: Any, key: str, source: str) -> Color:
    """`value` where it is a list of three whole numbers.

    Raises:
        UserError: it is not.
    """
    if isinstance(value, Sequence) and len(value) == 3 and all(is_whole(part) for part in value):
        return (value[0], value[1], value[2])
    raise UserError(f"{source}: `{key}` is {value!r}; give red, green, blue in 0..255, such as [128, 64, 128]")


def check_color(color: Sequence[int], whose: str, where: str) -> None:
    """Refuse a colour that is not three numbers in 0..255."""
    if len(color) != 3 or not all(0 <= part <= 255 for part in color):
        raise UserError(f"{where}: colour {list(color)} of {whose} is not three numbers in 0..255")


def quoted(text: str) -> str:
    """`text` as it stands in the braces of a YAML file, in quotes where it needs them."""
    return yaml.safe_dump([text], default_flow_style=True, allow_unicode=True, width=2**30).strip()[1:-1]


def is_whole(value: Any) -> bool:
    """Whether `value` is a whole number (true and false are none)."""
    return isinstance(value, int) and not isinstance(value, bool)


def doubled(items: Sequence[Any]) -> list[Any]:
    """Those of `items` that came before."""
    return [item for position, item in enumerate(items) if item in items[:position]]

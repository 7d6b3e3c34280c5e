"""Read plain values from YAML, and report keys and values that are wrong."""

from collections.abc import Mapping, Sequence
from importlib.resources.abc import Traversable
from typing import Any

import yaml

from segvit.data.palette import Color
from segvit.errors import UserError
from segvit.utils.text import suggest
from segvit.utils.yaml_text import load_yaml


def parse_yaml(file: Traversable, source: str) -> Mapping[str, Any]:
    """Return the mapping in a YAML file. `source` is its name in error texts.

    Raises:
        UserError: the file is not YAML, or not a mapping.
    """
    try:
        content = load_yaml(file.read_text(encoding="utf-8"), source=source)
    except UnicodeDecodeError as error:
        raise UserError(f"{source}: not a YAML file: {error}") from error
    if not isinstance(content, Mapping):
        raise UserError(
            f"{source}: not a spec, but {repr(content)[:80]}; write `name: ...`, `classes: [...]`, `splits: ...`"
        )
    return content


def check_keys(content: Any, known: Mapping[str, bool], source: str) -> None:
    """Check that all keys are in `known`, and that none of those marked True is missing.

    Raises:
        UserError: a key is unknown (the text gives the nearest known one) or missing.
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
    """Return `value` if it is text.

    Raises:
        UserError: it is not text, or it is blank.
    """
    if isinstance(value, str) and value.strip():
        return value
    raise UserError(f"{source}: `{key}` is {value!r}; give text, in quotes if YAML reads it otherwise, such as 'no'")


def read_texts(value: Any, key: str, source: str) -> tuple[str, ...]:
    """Return `value` if it is a list of names.

    Raises:
        UserError: it is not.
    """
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise UserError(f"{source}: `{key}` is {value!r}; give a list of names in the files, such as [van, truck]")
    return tuple(read_text(name, key, source) for name in value)


def read_color(value: Any, key: str, source: str) -> Color:
    """Return `value` if it is a list of three whole numbers.

    Raises:
        UserError: it is not.
    """
    if isinstance(value, Sequence) and len(value) == 3 and all(is_whole(part) for part in value):
        return (value[0], value[1], value[2])
    raise UserError(f"{source}: `{key}` is {value!r}; give red, green, blue in 0..255, such as [128, 64, 128]")


def check_color(color: Sequence[int], whose: str, where: str) -> None:
    """Check that a colour is three numbers in 0..255.

    Raises:
        UserError: it is not.
    """
    if len(color) != 3 or not all(0 <= part <= 255 for part in color):
        raise UserError(f"{where}: colour {list(color)} of {whose} is not three numbers in 0..255")


def quoted(text: str) -> str:
    """Return `text` in the form for the braces of a YAML file, with quotes if it needs them."""
    return yaml.safe_dump([text], default_flow_style=True, allow_unicode=True, width=2**30).strip()[1:-1]


def is_whole(value: Any) -> bool:
    """True if `value` is a whole number (true and false are not)."""
    return isinstance(value, int) and not isinstance(value, bool)


def doubled(items: Sequence[Any]) -> list[Any]:
    """Return the items that occur earlier in `items` as well."""
    return [item for position, item in enumerate(items) if item in items[:position]]

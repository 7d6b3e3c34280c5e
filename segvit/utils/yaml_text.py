"""Read YAML, and refuse a key that is given twice: plain YAML readers drop the first one silently.

content = load_yaml(path.read_text(encoding="utf-8"), source=str(path))
"""

from typing import Any

import yaml

from segvit.errors import UserError


def load_yaml(text: str, *, source: str) -> Any:
    """Return the plain values in a YAML text.

    Args:
        text: content of the file.
        source: name of the file in error texts.

    Raises:
        UserError: the text is not YAML, or a mapping has a key twice.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except _GivenTwice as error:
        raise UserError(f"{source}: {error}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{source}: not a YAML file: {error}") from error


class _GivenTwice(Exception):
    """A mapping has a key twice."""


class _Loader(yaml.SafeLoader):
    """The safe loader of PyYAML, which accepts no key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return the mapping of a node.

        Raises:
            _GivenTwice: a key is given twice.
        """
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            name, line = (key.tag, key.value), key.start_mark.line + 1
            if before := lines.get(name):
                raise _GivenTwice(
                    f"key `{key.value}` is given in line {before} and in line {line}: keep one, with all its values"
                )
            lines[name] = line
        mapping: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return mapping

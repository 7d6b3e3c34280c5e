"""List every setting of a run with its default and its meaning, from the dataclasses of segvit/config."""

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any


def settings_tables() -> str:
    """Return Markdown: a heading and a table for each section, those of the whole run first."""
    import segvit

    sections = [("The run", "", segvit.TrainConfig)]
    sections += [
        (f"{field.name}: {_first_sentence(field.type)}", f"{field.name}.", field.type)
        for field in fields(segvit.TrainConfig)
        if is_dataclass(field.type)
    ]
    return "\n\n".join(_section(*section) for section in sections)


def _section(title: str, prefix: str, config: Any) -> str:
    """Return the heading and the table of one dataclass."""
    rows = ["| setting | default | meaning |", "|---|---|---|"]
    texts = dict(_docstrings(config))
    for field in fields(config):
        if not is_dataclass(field.type):
            name, meaning = prefix + field.name, texts[field.name].replace("|", "\\|")
            rows.append(f"| `{name}`{{ #{name.replace('.', '-')} }} | {_default(field)} | {meaning} |")
    return f"## {title}\n\n" + "\n".join(rows)


def _first_sentence(config: Any) -> str:
    """Return a dataclass's one-line description without its full stop, and without a name in brackets."""
    sentence = (inspect.getdoc(config) or "").partition("\n")[0]
    sentence = re.sub(r"\s*\(docs/.*?\)", "", sentence).split(". ")[0].rstrip(".")
    return sentence[0].lower() + sentence[1:] if not sentence.startswith(("AdamW",)) else sentence


def _docstrings(config: Any) -> Iterator[tuple[str, str]]:
    """Yield each field's name and the string below it in the source."""
    source = Path(inspect.getsourcefile(config) or "").read_text(encoding="utf-8")
    (body,) = (
        node.body for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == config.__name__
    )
    for field, below in pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            assert isinstance(field.target, ast.Name)
            yield field.target.id, " ".join(str(below.value.value).split())


def _default(field: "Field[Any]") -> str:
    """Return a default as a YAML file would write it."""
    value = field.default if field.default_factory is MISSING else field.default_factory()
    if value is None or value == ():
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{value}`"

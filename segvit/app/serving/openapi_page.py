"""Show an OpenAPI description as one HTML page, without scripts: GET /docs."""

from collections.abc import Iterator, Mapping
from typing import Any

from markupsafe import Markup

from segvit.app.serving.routes import SCHEMA
from segvit.reports.html import join, tag

STYLE = """
:root { color-scheme: light dark; }
body { max-width: 60rem; margin: 0 auto; padding: 1rem; font: 16px/1.5 system-ui, sans-serif; }
section { border-top: 1px solid #8886; padding: .5rem 0; }
h2 { font-size: 1.1rem; font-family: ui-monospace, monospace; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; vertical-align: top; padding: .2rem .8rem .2rem 0; }
code { overflow-wrap: anywhere; }
summary { cursor: pointer; }
"""
DEEPEST = 6
"""Number of levels of a schema that are shown."""


def page_of(description: Mapping[str, Any]) -> str:
    """Return the page.

    Args:
        description: of OpenAPI 3.1, with schemas as references to components.
    """
    about = description["info"]
    known = description["components"]["schemas"]
    operations = [
        _operation(path, method, operation, known)
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    ]
    body = tag(
        "main",
        tag("h1", f"API of {about['title']} {about['version']}"),
        tag("p", about["description"]),
        tag("p", "For programs: ", tag("a", "the same as OpenAPI 3.1", href=SCHEMA.lstrip("/")), "."),
        _keys(description["components"].get("securitySchemes", {})),
        *operations,
    )
    head = tag(
        "head",
        Markup('<meta charset="utf-8"><meta name="viewport" content="width=device-width">'),
        tag("title", f"API of {about['title']}"),
        tag("style", Markup(STYLE)),
    )
    return f"<!doctype html>\n{tag('html', head, tag('body', body), lang='en')}"


def _keys(schemes: Mapping[str, Any]) -> Markup | None:
    """Return the ways to send a key, if keys are needed."""
    if not schemes:
        return None
    ways = ("Authorization: Bearer KEY", "X-API-Key: KEY")
    codes = [tag("code", way) for way in ways]
    return tag("p", "Requests need a key, in the header ", codes[0], " or ", codes[1], ".")


def _operation(path: str, method: str, operation: Mapping[str, Any], known: Mapping[str, Any]) -> Markup:
    """Return the part of the page on one operation."""
    parts: list[Markup | None] = [tag("h2", f"{method.upper()} {path}"), tag("p", operation["summary"])]
    if parameters := operation.get("parameters"):
        rows = [
            (each["name"], f"{each['description']} One of: {', '.join(each['schema']['enum'])}.") for each in parameters
        ]
        parts.append(_table("Parameters of the address", rows))
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        parts.append(_schema(f"Body of the request, {kind}", content["schema"], known))
    parts.append(
        _table("Statuses", [(status, answer["description"]) for status, answer in operation["responses"].items()])
    )
    for kind, content in operation["responses"]["200"].get("content", {}).items():
        parts.append(_schema(f"Answer, {kind}", content["schema"], known))
    return tag("section", *parts)


def _schema(title: str, schema: Mapping[str, Any], known: Mapping[str, Any]) -> Markup | None:
    """Return the properties of a schema as a table that can be opened, or nothing if it has none."""
    rows = list(_properties(schema, known, "", DEEPEST))
    return tag("details", tag("summary", title), _table("", rows)) if rows else None


def _properties(
    schema: Mapping[str, Any], known: Mapping[str, Any], prefix: str, levels: int
) -> Iterator[tuple[str, str]]:
    """Yield name and meaning of each property of a schema, and of those inside."""
    schema = _resolved(schema, known)
    for name, part in schema.get("properties", {}).items():
        inner = _resolved(part, known)
        kind = inner.get("type", "any")
        kind = " or ".join(kind) if isinstance(kind, list) else kind
        optional = "" if name in schema.get("required", ()) else ", optional"
        yield f"{prefix}{name}", f"{inner.get('description', '')} ({kind}{optional})".strip()
        item, mark = (_resolved(inner["items"], known), "[].") if kind == "array" else (inner, ".")
        if levels > 0:
            yield from _properties(item, known, f"{prefix}{name}{mark}", levels - 1)


def _resolved(schema: Mapping[str, Any], known: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the schema that a reference names."""
    name = schema.get("$ref")
    found: Mapping[str, Any] = known[name.rpartition("/")[2]] if name else schema
    return found


def _table(title: str, rows: list[tuple[str, str]]) -> Markup:
    """Return a table of names, each with its meaning."""
    lines = [tag("tr", tag("th", tag("code", name), scope="row"), tag("td", text)) for name, text in rows]
    return join(tag("h3", title) if title else None, tag("table", *lines))

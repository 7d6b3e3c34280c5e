"""Pieces of an HTML page, in which every text is escaped unless it says that it is markup.

    tag("td", "<b>", tag("em", "x"), class_="name")     # <td class="name">&lt;b&gt;<em>x</em></td>
    fill("report.html", title=join("a & b"))            # a file of segvit/reports/templates/ with $title filled in

A page of ours loads nothing: its pictures are data URIs, and `content_policy` lets the browser run its one script
alone.
"""

import base64
import hashlib
import html
import io
from importlib.resources import files
from string import Template

from PIL import Image

JPEG_QUALITY = 82


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def tag(name: str, *children: object, **attributes: object) -> Markup:
    """An element; children that are no Markup, and all attributes, are escaped.

    Args:
        name: of the element.
        children: what it holds; None is left out.
        attributes: `class_` is class, `data_x` is data-x; None is left out.
    """
    words = [name]
    for key, value in attributes.items():
        if value is not None:
            words.append(f'{key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"')
    inside = join(*children)
    return Markup(f"<{' '.join(words)}>" if name == "img" else f"<{' '.join(words)}>{inside}</{name}>")


def join(*children: object) -> Markup:
    """Pieces one after the other; those that are no Markup are escaped, None is left out."""
    pieces = (
        child if isinstance(child, Markup) else html.escape(str(child)) for child in children if child is not None
    )
    return Markup("".join(pieces))


def table(head: list[object], rows: list[list[object]], *, class_: str | None = None) -> Markup:
    """A table whose rows begin with their name; it scrolls sideways where the screen is narrow."""
    top = tag("tr", *(tag("th", cell, scope="col") for cell in head))
    body = [tag("tr", tag("th", row[0], scope="row"), *(tag("td", cell) for cell in row[1:])) for row in rows]
    parts = [tag("thead", top) if head else None, tag("tbody", *body)]
    return tag("div", tag("table", *parts, class_=class_), class_="scroll")


def asset(name: str) -> str:
    """The text of a file of segvit/reports/templates/."""
    return (files("segvit.reports") / "templates" / name).read_text(encoding="utf-8")


def fill(name: str, /, **values: object) -> Markup:
    """A file of segvit/reports/templates/ with each $name in it replaced; values that are no Markup are escaped."""
    return Markup(Template(asset(name)).substitute({key: join(value) for key, value in values.items()}))


def content_policy(script: str) -> str:
    """The Content-Security-Policy of a page with this one script: it runs no other, and loads nothing.

    Args:
        script: as it stands between the page's <script> and </script>.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )


def jpeg_uri(picture: Image.Image) -> str:
    """A picture as a data URI, which needs no other file."""
    file = io.BytesIO()
    picture.convert("RGB").save(file, format="JPEG", quality=JPEG_QUALITY, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def png_uri(png: bytes) -> str:
    """The bytes of a PNG file as a data URI."""
    return "data:image/png;base64," + base64.b64encode(png).decode()

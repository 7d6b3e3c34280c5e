"""Build HTML pages. All text is escaped unless it is `Markup`.

    tag("td", "<b>", tag("em", "x"), class_="name")     # <td class="name">&lt;b&gt;<em>x</em></td>
    fill("report.html", title="a & b", ...)             # a template in segvit/reports/templates/

Pages load nothing. Their pictures are data URIs, and `content_policy` lets the browser run only their own script.
"""

import base64
import hashlib
import html
import io
from functools import cache, partial
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from segvit.utils.text import percent_cell

JPEG_QUALITY = 82
"""Quality of pictures on a page, 0..100."""


def tag(name: str, *children: object, **attributes: object) -> Markup:
    """Return an HTML element. Attributes are escaped, and so are children that are not Markup.

    Args:
        name: name of the element.
        children: content of the element; None is omitted.
        attributes: `class_` becomes class, `data_x` becomes data-x; None is omitted.
    """
    words = [name]
    for key, value in attributes.items():
        if value is not None:
            words.append(f'{key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"')
    inside = join(*children)
    return Markup(f"<{' '.join(words)}>" if name == "img" else f"<{' '.join(words)}>{inside}</{name}>")


def join(*children: object) -> Markup:
    """Concatenate pieces of HTML. Pieces that are not Markup are escaped; None is omitted."""
    pieces = (
        child if isinstance(child, Markup) else html.escape(str(child)) for child in children if child is not None
    )
    return Markup("".join(pieces))


def asset(name: str) -> str:
    """Return the text of a file in segvit/reports/templates/."""
    return (files("segvit.reports") / "templates" / name).read_text(encoding="utf-8")


def fill(name: str, /, **values: object) -> Markup:
    """Fill in a Jinja template in segvit/reports/templates/. Values that are not Markup are escaped.

    Raises:
        UndefinedError: the template uses a name that has no value.
    """
    return Markup(_templates().get_template(name).render(values))


@cache
def _templates() -> Environment:
    """Return the environment of the templates."""
    environment = Environment(
        loader=PackageLoader("segvit.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["percent"] = partial(percent_cell, missing="–")
    return environment


def content_policy(script: str) -> str:
    """Return a Content-Security-Policy that allows the page only this script and no external resources.

    Args:
        script: exact text between the page's <script> and </script>.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )


def jpeg_uri(picture: Image.Image) -> str:
    """Encode a picture as a JPEG data URI."""
    file = io.BytesIO()
    picture.convert("RGB").save(file, format="JPEG", quality=JPEG_QUALITY, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def png_uri(png: bytes) -> str:
    """Encode the bytes of a PNG file as a data URI."""
    return "data:image/png;base64," + base64.b64encode(png).decode()

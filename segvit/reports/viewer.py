"""Viewer of a label map over its photo for HTML pages: opacity, legend, isolated classes, zoom, downloads.

    html = viewer_page(photo, index_png, spec.classes, spec.palette, title="street.jpg")
    Path("street.html").write_text(html, encoding="utf-8")

A page can hold many viewers. `viewer` returns the fragment of one, and the page includes `viewer_style` and
`viewer_script` once. Nothing is loaded from elsewhere, and no library is used. The browser reads class indices from the
index PNG itself, not from colours, since two classes may share a colour.

Letters: H W photo, K classes. Index PNGs are those of `segvit.pictures.save_index_png`: 8 bits (255 = ignored) for up
to 255 classes, else 16-bit grey (65535 = ignored).
"""

import io
import json
import re
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from PIL import Image, UnidentifiedImageError

from segvit.data.images import IMAGE_SUFFIXES, open_unlimited
from segvit.data.palette import Color
from segvit.data.spec import IGNORE_INDEX
from segvit.errors import UserError
from segvit.pictures.paint import IGNORED_16_BIT, WRONG
from segvit.reports.html import asset, content_policy, fill, jpeg_uri, png_uri

LONGEST_SIDE = 2048
"""Maximum longer side of a photo in a page, in pixels; label maps keep their size."""
FRAME = "frame.js"
"""File of the script that makes a frame as high as the viewer in it."""
SCRIPTS = ("index_png.js", "label_picture.js", "legend.js", "viewer.js", "pointers.js", FRAME)
"""Files of the script, in the order of their dependencies."""
LONGEST_STEM = 80
"""Maximum length of the suggested name of a downloaded file, in characters."""
DEPTH, COLOR_TYPE, INTERLACED = 24, 25, 28
"""Offsets of these bytes in a PNG file (section 11.2.2 of its specification)."""


def viewer(
    photo: Image.Image,
    index_png: bytes,
    classes: Sequence[str],
    palette: Sequence[Color],
    *,
    title: str = "",
    truth_png: bytes | None = None,
) -> Markup:
    """Return the HTML fragment of one viewer, which `viewer_script` starts; without a script it shows the photo.

    Args:
        photo: upright photo, (H, W); the page holds a JPEG with a longer side of at most LONGEST_SIDE.
        index_png: prediction (H, W) in the format of `save_index_png`; users can download it unchanged.
        classes: K class names, any text.
        palette: K class colours.
        title: text above the picture, and the base of the names of downloaded files.
        truth_png: labels in the same format. If given, users can switch between prediction, labels and errors.

    Raises:
        UserError: a PNG has another format or size, a value is not a class, or classes and colours differ in number.
    """
    check_index_png(index_png, photo.size, len(classes))
    if truth_png is not None:
        check_index_png(truth_png, photo.size, len(classes))
    shown = photo.convert("RGB")
    shown.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    ratio = photo.width / photo.height
    return fragment(jpeg_uri(shown), index_png, classes, palette, ratio=ratio, title=title, truth_png=truth_png)


def fragment(
    photo_uri: str,
    index_png: bytes,
    classes: Sequence[str],
    palette: Sequence[Color],
    *,
    ratio: float,
    title: str = "",
    truth_png: bytes | None = None,
) -> Markup:
    """Return the fragment of `viewer` for a photo that is already a data URI. Only the number of colours is checked.

    Args:
        ratio: width of the photo divided by its height.

    Raises:
        UserError: classes and colours differ in number.
    """
    if not 0 < len(classes) == len(palette):
        raise UserError(f"{len(classes)} classes and {len(palette)} colours; give one colour per class")
    return fill(
        "viewer.html",
        label=f"Label map of {title}" if title else "Label map",
        title=title,
        ratio=f"{ratio:.4f}",
        classes=json.dumps(list(classes)),
        palette=json.dumps([[int(part) for part in color] for color in palette]),
        wrong=json.dumps(WRONG),
        photo=photo_uri,
        index=png_uri(index_png),
        truth=png_uri(truth_png) if truth_png is not None else "",
        stem=_stem(title),
    )


def empty_viewer(classes: Sequence[str], palette: Sequence[Color]) -> Markup:
    """Return the fragment of a viewer without photo and label map, which a script fills in.

    Raises:
        UserError: classes and colours differ in number.
    """
    return fragment("", b"", classes, palette, ratio=1)


def viewer_style() -> str:
    """Return the style sheet of viewers, for the page's <style>."""
    return asset("viewer.css")


def viewer_script() -> str:
    """Return the script of viewers, for the end of the page's <body>. It defines no global names."""
    parts = "\n".join(map(asset, SCRIPTS))
    return f'(() => {{\n"use strict";\n{parts}\n}})();\n'


def viewer_module() -> str:
    """Return the script of viewers as a JavaScript module that exports the class `Viewer`.

    Pages use it that make viewers later: `new Viewer(section).start()`, and `close()` before another takes its place.
    """
    parts = "\n".join(asset(name) for name in SCRIPTS if name != FRAME)
    return f"{parts}\nexport {{ Viewer }};\n"


def viewer_page(
    photo: Image.Image,
    index_png: bytes,
    classes: Sequence[str],
    palette: Sequence[Color],
    *,
    title: str = "",
    truth_png: bytes | None = None,
) -> str:
    """Return a page with one viewer that fills the window, for a file or an iframe's srcdoc.

    The page's policy keeps the browser from loading anything or running other scripts. Arguments and errors are those
    of `viewer`.
    """
    script = viewer_script()
    page = fill(
        "viewer_page.html",
        policy=content_policy(script),
        title=title or "Label map",
        style=Markup(viewer_style()),
        viewer=viewer(photo, index_png, classes, palette, title=title, truth_png=truth_png),
        script=Markup(script),
    )
    return str(page)


def check_index_png(png: bytes, size: tuple[int, int], num_classes: int) -> None:
    """Check that the viewer can show a label map exactly.

    Args:
        png: bytes of a PNG file.
        size: required size (W, H).
        num_classes: K; each pixel must be a class in 0..K-1, or ignored.

    Raises:
        UserError: the file has another format or size, or a pixel is neither a class nor ignored.
    """
    wanted = "give the bytes of a PNG written by save_index_png or segvit predict"
    try:
        with open_unlimited(io.BytesIO(png), formats=["PNG"]) as picture:
            picture.load()
            indices = np.asarray(picture)
            found = picture.size
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise UserError(f"the label map is not a complete PNG ({error}); {wanted}") from error
    depth, color_type = png[DEPTH], png[COLOR_TYPE]
    if (depth, color_type) not in {(8, 0), (8, 3), (16, 0)} or png[INTERLACED]:
        raise UserError(f"the label map is a PNG with {depth} bits and colour type {color_type}; {wanted}")
    if found != size:
        raise UserError(
            f"the label map is {found[0]} x {found[1]} and the photo {size[0]} x {size[1]} pixels; give equal sizes"
        )
    if depth == 8 and num_classes > IGNORE_INDEX:
        raise UserError(f"{num_classes} classes do not fit into a label map of 8 bits; {wanted}, which use 16 bits")
    ignored = IGNORE_INDEX if depth == 8 else IGNORED_16_BIT
    strange = indices[(indices >= num_classes) & (indices != ignored)]
    if strange.size:
        raise UserError(
            f"the label map holds the value {strange[0]}, but there are {num_classes} classes; "
            f"give 0..{num_classes - 1}, or {ignored} for ignored"
        )


def _stem(title: str) -> str:
    """Return a title as a file name without suffix that is valid on any system."""
    name = title.strip()
    suffix = next((suffix for suffix in IMAGE_SUFFIXES if name.lower().endswith(suffix)), "")
    name = name[: len(name) - len(suffix)]
    return re.sub(r"[^\w.-]+", "-", name).strip("-.")[:LONGEST_STEM] or "picture"

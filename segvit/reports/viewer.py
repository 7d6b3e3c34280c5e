"""The viewer of a label map over its photo, for HTML pages: opacity, legend, isolated classes, zoom, downloads.

    html = viewer_page(photo, index_png, spec.classes, spec.palette, title="street.jpg")
    Path("street.html").write_text(html, encoding="utf-8")

One page can hold many: `viewer` gives a fragment for each, and the page takes `viewer_style` and `viewer_script` once.
Nothing is loaded from elsewhere, and no library is used. The browser reads class numbers from the index PNG itself,
never from colours, which two classes may share.

Shapes: H W of the photo, K classes. Index PNGs are those of `segvit.pictures.save_index_png`: 8 bits (255 = ignored)
up to 255 classes, or 16 bits in grey (65535 = ignored).
"""

import io
import json
import re
from collections.abc import Sequence

import numpy as np
from PIL import Image, UnidentifiedImageError

from segvit.data.palette import Color
from segvit.data.spec import IGNORE_INDEX
from segvit.errors import UserError
from segvit.pictures.paint import IGNORED_16_BIT, WRONG
from segvit.reports.html import Markup, asset, content_policy, fill, jpeg_uri, png_uri

LONGEST_SIDE = 2048
"""Pixels to which the longer side of a photo is reduced in a page; label maps keep their size."""
SCRIPTS = ("index_png.js", "label_picture.js", "legend.js", "viewer.js", "pointers.js")
"""Parts of the script, in the order in which they need each other."""
LONGEST_STEM = 80
"""Characters of the name under which files are saved."""
DEPTH, COLOR_TYPE, INTERLACED = 24, 25, 28
"""Places of these bytes in a PNG file (section 11.2.2 of its specification)."""


def viewer(
    photo: Image.Image,
    index_png: bytes,
    classes: Sequence[str],
    palette: Sequence[Color],
    *,
    title: str = "",
    truth_png: bytes | None = None,
) -> Markup:
    """A fragment of a page: one viewer, which `viewer_script` brings to life; without a script it shows the photo.

    Args:
        photo: as it is displayed, (H, W); in the page it is a JPEG with a longer side of at most LONGEST_SIDE.
        index_png: the prediction, (H, W), as `save_index_png` writes it; handed out again as it is.
        classes: K names, any text.
        palette: K colours.
        title: stands above the picture, and names the files that are saved.
        truth_png: the labels in the same form; with them the viewer switches between prediction, labels and errors.

    Raises:
        UserError: a PNG of another form or size, a value that is no class, or not one colour per class.
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
    """The same of a photo that is a data URI already; nothing is checked but the number of colours.

    Args:
        ratio: width of the photo by its height.

    Raises:
        UserError: not one colour per class.
    """
    if not 0 < len(classes) == len(palette):
        raise UserError(f"{len(classes)} classes and {len(palette)} colours; give one colour for each class")
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


def viewer_style() -> str:
    """The style of viewers, for the page's <style>."""
    return asset("viewer.css")


def viewer_script() -> str:
    """The script of viewers, for the end of the page's <body>; it adds no name to those of the page."""
    parts = "\n".join(map(asset, SCRIPTS))
    return f'(() => {{\n"use strict";\n{parts}\n}})();\n'


def viewer_page(
    photo: Image.Image,
    index_png: bytes,
    classes: Sequence[str],
    palette: Sequence[Color],
    *,
    title: str = "",
    truth_png: bytes | None = None,
) -> str:
    """A whole page with one viewer, for a file or an iframe's srcdoc; it fills the window.

    The page's policy lets the browser load nothing and run no other script. Arguments and errors are those of `viewer`.
    """
    script = viewer_script()
    return fill(
        "viewer_page.html",
        policy=content_policy(script),
        title=title or "Label map",
        style=Markup(viewer_style()),
        viewer=viewer(photo, index_png, classes, palette, title=title, truth_png=truth_png),
        script=Markup(script),
    )


def check_index_png(png: bytes, size: tuple[int, int], num_classes: int) -> None:
    """Refuse a label map that the viewer could not show exactly.

    Args:
        png: the bytes of a PNG file.
        size: (W, H) that it must have.
        num_classes: K; pixels must be below, or ignored.

    Raises:
        UserError: it is another kind of file, its size differs, or a pixel is no class.
    """
    wanted = "give the bytes of a PNG that save_index_png (or segvit predict) wrote"
    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as picture:
            picture.load()
            indices = np.asarray(picture)
            found = picture.size
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise UserError(f"the label map is no whole PNG ({error}); {wanted}") from error
    depth, color_type = png[DEPTH], png[COLOR_TYPE]
    if (depth, color_type) not in {(8, 0), (8, 3), (16, 0)} or png[INTERLACED]:
        raise UserError(f"the label map is a PNG of {depth} bits, colour type {color_type}; {wanted}")
    if found != size:
        raise UserError(
            f"the label map is {found[0]} x {found[1]} and the photo {size[0]} x {size[1]} pixels; give one size"
        )
    if depth == 8 and num_classes > IGNORE_INDEX:
        raise UserError(f"{num_classes} classes in a label map of 8 bits; {wanted}: it takes 16 bits")
    ignored = IGNORE_INDEX if depth == 8 else IGNORED_16_BIT
    strange = indices[(indices >= num_classes) & (indices != ignored)]
    if strange.size:
        raise UserError(
            f"the label map holds {strange[0]} among {num_classes} classes; give 0..{num_classes - 1}, "
            f"or {ignored} for ignored"
        )


def _stem(title: str) -> str:
    """A file name without suffix that any system takes."""
    name = re.sub(r"\.(?:jpe?g|png|tiff?|webp|bmp|gif|avif)$", "", title.strip(), flags=re.IGNORECASE)
    return re.sub(r"[^\w.-]+", "-", name).strip("-.")[:LONGEST_STEM] or "picture"

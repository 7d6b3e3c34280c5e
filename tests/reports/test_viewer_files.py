"""The viewer and its files: PNGs of every form are read exactly and handed out as they came; others are refused."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segvit.data.palette import default_palette
from segvit.errors import UserError
from segvit.pictures.paint import IGNORED_16_BIT, colorize
from segvit.reports.html import jpeg_uri
from segvit.reports.viewer import LONGEST_SIDE, fragment, viewer, viewer_page, viewer_script
from tests.helpers.browser import Visit, browser, visit  # noqa: F401
from tests.helpers.viewing import Map, Scene, Street, index_png, noise, show_fixture, street_fixture  # noqa: F401


def test_the_index_png_is_handed_out_as_it_came(show: Callable[..., Scene], street: Street) -> None:
    scene = show(street.page(), street.photo.size)
    assert scene.saved("index") == street.index
    with scene.page.expect_download() as download:
        scene.root.locator(".viewer-overlay").click()
    assert download.value.suggested_filename == "street_shown.png"
    with Image.open(download.value.path()) as picture:
        assert picture.size == street.photo.size and picture.format == "PNG"


def test_a_large_photo_is_reduced_but_its_labels_are_not(show: Callable[..., Scene], tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 4, (30, LONGEST_SIDE + 500))
    html = viewer_page(noise(*labels.shape), index_png(labels, 4, tmp_path), "abcd", default_palette(4))
    scene = show(html, labels.shape[::-1])
    assert scene.root.locator("img").evaluate("image => image.naturalWidth") == LONGEST_SIDE
    scene.opacity(100)
    assert (scene.overlay() == colorize(labels, default_palette(4))).all()


@pytest.mark.parametrize(
    "num_classes, bits",
    [(3, 8), (255, 8), (256, 16), *(pytest.param(*case, marks=pytest.mark.slow) for case in ((254, 8), (300, 16)))],
)
def test_every_number_of_classes(show: Callable[..., Scene], tmp_path: Path, num_classes: int, bits: int) -> None:
    labels = np.random.default_rng(num_classes).integers(-1, num_classes, (37, 53))
    png = index_png(labels, num_classes, tmp_path)
    assert png[24] == bits
    names = [f"class {k}" for k in range(num_classes)]
    scene = show(viewer_page(noise(37, 53), png, names, default_palette(num_classes)), (53, 37))
    assert scene.saved("index") == png
    scene.opacity(100)
    inside = labels >= 0
    assert (scene.overlay() == colorize(labels, default_palette(num_classes)))[inside].all()
    for y, x in [(0, 0), (36, 52), *np.argwhere(~inside)[:1], *np.argwhere(labels == num_classes - 1)[:1]]:
        assert scene.hover(int(x), int(y)) == (labels[y, x] if labels[y, x] >= 0 else num_classes)


@pytest.mark.parametrize("depth", [8, 16])
def test_png_filters_are_undone(show: Callable[..., Scene], depth: int) -> None:
    num_classes = 200 if depth == 8 else 3_000
    labels = np.random.default_rng(0).integers(0, num_classes, (25, 31))
    labels[5:15, 3:20] = 150  # where filters have something to find
    names, palette = [str(k) for k in range(num_classes)], default_palette(num_classes)
    scene = show(viewer_page(noise(25, 31), filtered_png(labels, depth), names, palette), (31, 25))
    scene.opacity(100)
    assert (scene.overlay() == colorize(labels, palette)).all()


def filtered_png(labels: Map, depth: int) -> bytes:
    """A grey PNG whose rows take turns with the five filters, in several chunks; straight from the specification."""
    pixel = depth // 8
    raw = labels.astype(">u2" if depth == 16 else "u1").tobytes()
    height, width = labels.shape
    row = width * pixel
    out = bytearray()

    def at(y: int, place: int) -> int:
        return raw[y * row + place] if y >= 0 and place >= 0 else 0

    for y in range(height):
        kind = y % 5
        out.append(kind)
        for place in range(row):
            left, above, corner = at(y, place - pixel), at(y - 1, place), at(y - 1, place - pixel)
            estimate = left + above - corner
            paeth = min((left, above, corner), key=lambda value: abs(estimate - value))
            out.append((at(y, place) - [0, left, above, (left + above) // 2, paeth][kind]) & 255)
    packed = zlib.compress(bytes(out))
    third = len(packed) // 3
    parts = [packed[:third], b"", packed[third : 2 * third], packed[2 * third :]]
    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"tEXt", b"a\0b"), *((b"IDAT", part) for part in parts), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


@pytest.mark.parametrize("height, width", [(1, 400), (400, 1), (1, 1)])
def test_thin_pictures(show: Callable[..., Scene], tmp_path: Path, height: int, width: int) -> None:
    labels = np.arange(height * width).reshape(height, width) % 3
    html = viewer_page(noise(height, width), index_png(labels, 3, tmp_path), "abc", default_palette(3), title="thin")
    scene = show(html, (width, height))
    scene.opacity(100)
    assert (scene.overlay() == colorize(labels, default_palette(3))).all()
    assert scene.hover(width // 2, height // 2) == labels[height // 2, width // 2]
    stage = scene.root.locator(".viewer-stage").bounding_box()
    assert stage and stage["height"] >= 200


def test_a_broken_map_is_told_in_the_picture(show: Callable[..., Scene], tmp_path: Path) -> None:
    png = index_png(np.zeros((4, 4), dtype=np.int64), 1, tmp_path)
    photo = noise(4, 4)
    page = viewer_page(photo, png, "a", default_palette(1))
    for broken, words in ((b"GIF89a", "is not a PNG"), (png[:24] + b"\x04" + png[25:], "a PNG with 4 bits")):
        part = fragment(jpeg_uri(photo), broken, "a", default_palette(1), ratio=1)
        html = page[: page.index("<section")] + str(part) + f"<script>{viewer_script()}</script>"
        scene = show(html, (1, 1), ready=False)
        alert = scene.root.get_by_role("alert")
        alert.wait_for()
        assert words in alert.inner_text()
        assert scene.root.locator("img").is_visible() and not scene.root.locator(".viewer-foot").is_visible()


def test_maps_that_cannot_be_shown_exactly_are_refused(tmp_path: Path) -> None:
    photo, labels = noise(4, 6), np.zeros((4, 6), dtype=np.int64)
    good = index_png(labels, 2, tmp_path)

    def refuse(match: str, png: bytes, *, names: int = 2, colors: int | None = None) -> None:
        with pytest.raises(UserError, match=match):
            viewer(photo, png, ["x"] * names, default_palette(names if colors is None else colors))

    file = io.BytesIO()
    photo.save(file, format="PNG")
    refuse("colour type 2", file.getvalue())
    refuse("not a complete PNG", b"nothing")
    refuse("not a complete PNG", good[:50])
    refuse("4 x 6 and the photo 6 x 4", index_png(labels.T, 2, tmp_path))
    refuse("holds the value 7, but there are 2 classes", index_png(labels + 7, 9, tmp_path))
    refuse("which use 16 bits", good, names=256)
    refuse("one colour", good, colors=1)
    with pytest.raises(UserError, match="4 x 6 and the photo 6 x 4"):
        viewer(photo, good, ["x"] * 2, default_palette(2), truth_png=index_png(labels.T, 2, tmp_path))
    wide = index_png(np.full((4, 6), -1), 300, tmp_path)
    assert np.asarray(Image.open(io.BytesIO(wide))).max() == IGNORED_16_BIT
    viewer(photo, wide, ["x"] * 2, default_palette(2))  # 16 bits hold few classes as well

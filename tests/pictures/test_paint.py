"""Pictures: exact colours, untouched ignored pixels, legends that say what is there."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from segvit import pictures
from segvit.data.palette import _perceived
from segvit.errors import UserError
from segvit.pictures.paint import without_background
from segvit.pictures.text import font_for

RED, GREEN, BLUE = (200, 30, 40), (20, 180, 60), (30, 60, 220)
PALETTE = (RED, GREEN, BLUE)
NAMES = ("road", "tree", "sky")


def many_colors(count: int) -> list[tuple[int, int, int]]:
    return [(k % 256, k // 256, 255 - k % 200) for k in range(count)]


@pytest.fixture
def labels() -> npt.NDArray[np.int64]:
    """Three classes in stripes, ignored pixels in the corner."""
    stripes = np.repeat([[0] * 8 + [1] * 10 + [2] * 2], 12, axis=0)
    stripes[:3, :3] = 255
    return stripes


@pytest.fixture
def image() -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)


def has_color(picture: Image.Image, color: tuple[int, int, int]) -> bool:
    return bool((np.asarray(picture) == color).all(axis=2).any())


def test_shares_count_every_pixel(labels: npt.NDArray[np.int64]) -> None:
    result = pictures.shares(labels, 3)
    np.testing.assert_allclose(result, np.array([96 - 9, 120, 24]) / 240)
    assert pictures.shares(np.full((2, 2), 255), 3).tolist() == [0, 0, 0]


def test_colorize_gives_the_palette(labels: npt.NDArray[np.int64]) -> None:
    colors = pictures.colorize(labels, PALETTE, ignored=(1, 2, 3))
    assert colors.dtype == np.uint8
    for k, color in enumerate(PALETTE):
        assert (colors[labels == k] == color).all()
    assert (colors[labels == 255] == (1, 2, 3)).all()


@pytest.mark.parametrize("opacity", [0.0, 0.6, 1.0])
def test_overlay_leaves_ignored_pixels(
    image: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], opacity: float
) -> None:
    before = image.copy()
    picture = pictures.overlay(image, labels, PALETTE, opacity=opacity, contours=False)
    assert picture.shape == image.shape
    assert picture.dtype == np.uint8
    assert (picture[labels == 255] == image[labels == 255]).all()
    assert (picture == image).all() == (opacity == 0)
    assert (image == before).all()


def test_overlay_shows_colors_and_keeps_detail() -> None:
    photo = np.full((64, 64, 3), 120, dtype=np.uint8)
    labels = np.zeros((64, 64), dtype=np.int64)
    flat = pictures.overlay(photo, labels, PALETTE, opacity=1.0)
    assert np.abs(flat.astype(int) - RED).max() <= 1
    photo[32, 8:56] = 250
    seen = pictures.overlay(photo, labels, PALETTE, opacity=1.0).astype(int)
    assert (seen[32, 16:48].sum(axis=1) > seen[20, 16:48].sum(axis=1) + 60).all()


def test_an_unpainted_background_keeps_the_photo() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    labels = np.zeros((60, 90), dtype=np.int64)
    labels[:, 45:] = 1
    palette = without_background((" Background", "person"), ((9, 9, 9), (200, 0, 0)))
    assert palette == (None, (200, 0, 0))
    picture = pictures.overlay(photo, labels, palette, contours=False)
    whole = pictures.overlay(photo, labels, ((9, 9, 9), (200, 0, 0)), contours=False)
    assert (picture[:, :45] == photo[:, :45]).all() and (picture[:, 45:] == whole[:, 45:]).all()
    legend = np.asarray(pictures.with_legend(picture, ("background", "person"), palette, (0.6, 0.4)))
    assert (legend == pictures.IGNORED).all(axis=2).any(), "its chip is that of pixels without a colour"
    with pytest.raises(UserError, match="the classes are sky, road: leave out"):
        without_background(("sky", "road"), palette)


def test_pictures_and_figures_share_a_font() -> None:
    from matplotlib.font_manager import findfont

    assert Path(str(font_for(14).path)).samefile(findfont("DejaVu Sans")) and font_for(14).getname()[0] == "DejaVu Sans"


def test_contours_run_between_classes_only() -> None:
    photo = np.full((40, 1000, 3), 90, dtype=np.uint8)
    labels = np.zeros((40, 1000), dtype=np.int64)
    labels[:, 500:] = 1
    labels[:, 800:] = 255
    changed = (
        pictures.overlay(photo, labels, PALETTE) != pictures.overlay(photo, labels, PALETTE, contours=False)
    ).any(axis=(0, 2))
    assert changed[499]
    assert set(np.flatnonzero(changed)) <= set(range(496, 504))


@pytest.mark.parametrize("labels", [np.zeros((1, 1), dtype=np.uint8), np.full((1, 1), 255), np.full((1, 1), -1)])
def test_one_pixel(labels: npt.NDArray[np.int64], tmp_path: Path) -> None:
    image = np.full((1, 1, 3), 77, dtype=np.uint8)
    picture = pictures.overlay(image, labels, PALETTE)
    errors = pictures.error_map(image, labels, labels, num_classes=3)
    assert picture.shape == errors.shape == (1, 1, 3)
    legend = pictures.with_legend(picture, NAMES, PALETTE, pictures.shares(labels, 3))
    assert min(legend.size) >= 100
    pictures.save_index_png(labels, PALETTE, tmp_path / "one.png")
    assert Image.open(tmp_path / "one.png").size == (1, 1)


@pytest.mark.parametrize("count", [2, 3, 16, 17, 254, 255])
def test_index_png_keeps_index_and_palette(count: int, tmp_path: Path) -> None:
    palette = many_colors(count)
    labels = np.arange(count * 2).reshape(2, count) % count
    for name, ignored in (("all.png", False), ("ignored.png", True)):
        if ignored:
            labels[0, 0] = 255
        pictures.save_index_png(labels, palette, tmp_path / name)
        file = Image.open(tmp_path / name)
        assert file.mode == "P"
        assert (np.asarray(file) == labels).all()
        colors = np.array(file.getpalette(), dtype=np.uint8).reshape(-1, 3)
        assert (colors[:count] == palette).all()
        assert (np.asarray(file.convert("RGB")) == pictures.colorize(labels, palette)).all()


def test_three_hundred_classes(tmp_path: Path) -> None:
    palette = many_colors(300)
    labels = np.arange(300).reshape(15, 20)
    labels[0, 0] = -1
    pictures.save_index_png(labels, palette, tmp_path / "wide.png")
    file = Image.open(tmp_path / "wide.png")
    assert file.mode in {"I;16", "I"}
    values = np.asarray(file)
    assert values[0, 0] == 65_535
    assert (values.ravel()[1:] == np.arange(1, 300)).all(), "255 is a class here"
    assert (pictures.colorize(labels, palette).reshape(-1, 3)[1:] == palette[1:]).all()
    picture = pictures.with_legend(
        pictures.colorize(labels, palette), [f"class {k}" for k in range(300)], palette, pictures.shares(labels, 300)
    )
    legend = np.asarray(picture)[360:].reshape(-1, 3)
    assert {tuple(color) for color in np.unique(legend, axis=0).tolist()} >= set(palette[1:])


def test_legend_holds_the_classes_present_largest_first(labels: npt.NDArray[np.int64]) -> None:
    labels = np.where(labels == 2, 1, labels)
    photo = np.full((12, 20, 3), 250, dtype=np.uint8)
    picture = pictures.with_legend(photo, NAMES, PALETTE, pictures.shares(labels, 3))
    assert picture.width == 480, "enlarged by a whole factor"
    legend = picture.crop((0, 288, *picture.size))
    assert has_color(legend, RED)
    assert has_color(legend, GREEN)
    assert not has_color(legend, BLUE)
    first = {color: np.argwhere((np.asarray(legend) == color).all(axis=2))[0].tolist() for color in (RED, GREEN)}
    assert first[GREEN][1] < first[RED][1]


@pytest.mark.parametrize("side", [96, 1500])
def test_legend_text_grows_with_the_picture(side: int) -> None:
    picture = pictures.with_legend(np.zeros((side, side, 3), np.uint8), NAMES, PALETTE, [0.5, 0.3, 0.2])
    top = side * round(picture.width / side)
    strip = np.asarray(picture)[top:]
    chip = np.flatnonzero((strip == RED).all(axis=2).any(axis=0))
    assert 0.015 < (chip[-1] - chip[0]) / picture.width < 0.04


def test_legend_takes_any_name() -> None:
    names = ["Straße", "自転車\nmit Umbruch", "", "x" * 500, "🚲"]
    picture = pictures.with_legend(np.zeros((90, 300, 3), np.uint8), names, many_colors(5), [0.2] * 5)
    assert picture.width == 600
    tall = pictures.with_legend(np.zeros((600, 9, 3), np.uint8), names, many_colors(5), [0.2] * 5)
    assert tall.width > 150
    accented = [
        pictures.with_legend(np.zeros((90, 300, 3), np.uint8), [name], [RED], [1.0]).tobytes() for name in "éèß"
    ]
    assert len(set(accented)) == 3, "each letter has a glyph of its own"


def test_error_map_colors(image: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> None:
    predicted = np.where(labels == 255, 0, labels)
    predicted[:, 18:] = 0
    picture = pictures.error_map(image, predicted, labels, num_classes=3).astype(int)
    red, green, blue = np.moveaxis(picture, 2, 0)
    wrong, ignored = labels == 2, labels == 255
    assert (red[wrong] > green[wrong] + 80).all()
    right = ~wrong & ~ignored
    assert (red[right] == green[right]).all()
    assert (red[right] == blue[right]).all()
    assert (red[ignored] < 90).all()


def test_errors_stand_out_for_every_eye() -> None:
    grey = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    labels, wrong = np.zeros((1, 256), np.int64), np.ones((1, 256), np.int64)
    right_colors, wrong_colors = (
        _perceived(pictures.error_map(grey, predicted, labels, num_classes=2)[0].astype(float))
        for predicted in (labels, wrong)
    )
    for right, other in zip(right_colors, wrong_colors, strict=True):  # of normal, protanope and deuteranope eyes
        assert np.linalg.norm(right[:, None] - other, axis=2).min() > 40


def test_tables_of_pictures(image: npt.NDArray[np.uint8]) -> None:
    row = pictures.side_by_side([("photo", image), ("the same", Image.fromarray(image))])
    assert row.width > 2 * 320
    pixels = np.asarray(row)
    block = np.kron(image, np.ones((16, 16, 1), np.uint8))
    gap = int(np.flatnonzero((pixels[-20] != 255).any(axis=1))[0])
    assert any((pixels[y : y + block.shape[0], gap : gap + block.shape[1]] == block).all() for y in range(60))
    sheet = pictures.contact_sheet([[image, image, image], [image]], titles=["a", "b"])
    assert sheet.width > row.width
    assert sheet.height > 2 * 192
    with pytest.raises(UserError, match="no pictures"):
        pictures.side_by_side([])
    with pytest.raises(UserError, match="2 titles for 1 column"):
        pictures.contact_sheet([[image]], titles=["a", "b"])


def test_captions_stand_above_their_rows(image: npt.NDArray[np.uint8]) -> None:
    white = np.full((360, 480, 3), 255, np.uint8)
    rows = [[white, white], [white, white]]
    bare = pictures.contact_sheet(rows)
    captioned = pictures.contact_sheet(rows, captions=["first", "second"], text_size=20)
    dark = np.flatnonzero((np.asarray(captioned) < 128).all(axis=2).any(axis=1))
    assert not (np.asarray(bare) < 128).any() and captioned.height >= bare.height + 2 * 40
    assert dark[0] < 40 and 10 <= dark[dark < 100][-1] - dark[0] < 30
    assert dark[dark > 100][0] > 400 and dark[-1] < 460
    only_first = np.asarray(pictures.contact_sheet(rows, captions=["first"], text_size=20))
    assert (only_first[100:] == 255).all()
    with pytest.raises(UserError, match="3 captions for 2 rows"):
        pictures.contact_sheet(rows, captions=["a", "b", "c"])
    with pytest.raises(UserError, match="no pictures"):
        pictures.contact_sheet([], captions=["a"])


def test_a_legend_without_numbers_is_narrower() -> None:
    arguments = (np.zeros((90, 480, 3), np.uint8), NAMES, PALETTE, [0.5, 0.3, 0.1])
    grey = [
        (np.asarray(pictures.with_legend(*arguments, numbers=numbers, text_size=20))[90:] == 120).all(axis=2).any()
        for numbers in (True, False)
    ]
    assert grey[0] and not has_color(pictures.with_legend(*arguments, numbers=False), (1, 2, 3))
    sizes = [pictures.with_legend(*arguments, text_size=size).height for size in (16, 32)]
    assert sizes[1] - 90 > 1.5 * (sizes[0] - 90)


def test_pictures_are_deterministic(
    image: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], tmp_path: Path
) -> None:
    for name in ("a", "b"):
        picture = pictures.with_legend(pictures.overlay(image, labels, PALETTE), NAMES, PALETTE, [0.5, 0.4, 0.1])
        picture.save(tmp_path / f"{name}.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_mistakes_are_named(image: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> None:
    with pytest.raises(UserError, match=r"label 3 among 3 classes; give 0\.\.2, or 255"):
        pictures.colorize(np.full((2, 2), 3), PALETTE)
    with pytest.raises(UserError, match="label -2"):
        pictures.shares(np.full((2, 2), -2), 3)
    with pytest.raises(UserError, match="label 300"):
        pictures.colorize(np.full((2, 2), 300), many_colors(300))
    with pytest.raises(UserError, match="same size"):
        pictures.overlay(image[:5], labels, PALETTE)
    with pytest.raises(UserError, match=r"give uint8 \(H, W, 3\)"):
        pictures.overlay(np.moveaxis(image, 2, 0), labels, PALETTE)
    with pytest.raises(UserError, match="opacity is 60"):
        pictures.overlay(image, labels, PALETTE, opacity=60)
    with pytest.raises(UserError, match="3 names, 3 colours and 2 shares"):
        pictures.with_legend(image, NAMES, PALETTE, [0.5, 0.5])


@pytest.mark.parametrize("size", [(37, 61), (30, 2800), (2800, 30)])
@pytest.mark.parametrize("opacity", [pytest.param(0.0, marks=pytest.mark.slow), 0.6])
def test_strips_change_no_pixel(size: tuple[int, int], opacity: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large photos are painted strip by strip, with the lines and the detail of the whole."""
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (*size, 3), dtype=np.uint8)
    labels = np.kron(random.integers(0, 4, (size[0] // 7 + 1, size[1] // 7 + 1)), np.ones((7, 7), dtype=int))
    labels = np.where(labels == 3, 255, labels)[: size[0], : size[1]]
    whole, shares = pictures.overlay(image, labels, PALETTE, opacity=opacity), pictures.shares(labels, 3)
    for pixels in (1, 5 * size[1]):
        monkeypatch.setattr("segvit.pictures.paint.STRIP_PIXELS", pixels)
        assert (pictures.overlay(image, labels, PALETTE, opacity=opacity) == whole).all()
        assert (pictures.shares(labels, 3) == shares).all()

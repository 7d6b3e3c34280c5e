"""The viewer in a real browser: what it tells of pixels, what it saves, that names stay text and nothing is loaded."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from markupsafe import Markup

from segvit.data.palette import default_palette
from segvit.pictures.paint import WRONG, colorize, shares
from segvit.reports.html import content_policy, fill
from segvit.reports.viewer import viewer, viewer_page, viewer_script, viewer_style
from tests.helpers.browser import Visit, browser, visit  # noqa: F401
from tests.helpers.viewing import Scene, Street, index_png, noise, show_fixture, street_fixture, told  # noqa: F401

HOSTILE = (
    "<script>window.hacked=1</script>",
    "'\"><img src=x onerror=hacked()>",
    "long " * 40,
    "שמיים",
    "&amp; $title {}",
)


# What it tells and draws ----------------------------------------------------------------------------------------------


def test_it_tells_the_class_under_the_cursor(show: Callable[..., Scene], street: Street) -> None:
    scene = show(street.page(), street.photo.size)
    random = np.random.default_rng(1)
    height, width = street.labels.shape
    edges = np.argwhere(np.diff(street.prediction, axis=1) != 0) + (
        0,
        1,
    )  # the left neighbour differs
    for y, x in (*random.choice(edges, 20), *random.integers(0, (height, width), (20, 2))):
        assert scene.hover(int(x), int(y)) == street.prediction[y, x]
    for _ in range(3):
        scene.press("Zoom in")
    near = edges[np.abs(edges - (height // 2, width // 2)).max(axis=1) < 40]
    for y, x in (*random.choice(near, 20), *(random.integers(-40, 40, (10, 2)) + (height // 2, width // 2))):
        assert scene.hover(int(x), int(y), zooms=3) == street.prediction[y, x]
    name = street.classes[street.prediction[y, x]]
    fractions = shares(street.prediction, len(street.classes))
    assert scene.root.locator(".viewer-tip").inner_text().split("\n")[0] == name
    assert told(fractions[street.prediction[y, x]]) in scene.root.locator(".viewer-tip").inner_text()


def test_it_draws_every_pixel_in_the_colour_of_its_class(show: Callable[..., Scene], street: Street) -> None:
    scene = show(street.page(truth_png=street.truth), street.photo.size)
    scene.opacity(100)
    assert (scene.overlay() == colorize(street.prediction, street.palette)).all()
    scene.press("Labels")
    labelled = street.labels != 255
    assert (~labelled).any()
    assert (scene.overlay() == colorize(street.labels, street.palette))[labelled].all()
    photo = np.asarray(street.photo).astype(np.int64)
    assert np.abs(scene.overlay() - photo)[~labelled].mean() < 6  # JPEG; the photo as it is where nothing is labelled
    scene.opacity(0)
    assert np.abs(scene.overlay() - photo).mean() < 6
    scene.opacity(50)
    middle = (colorize(street.labels, street.palette).astype(np.int64) + photo) / 2
    assert np.abs(scene.overlay() - middle)[labelled].mean() < 4
    assert scene.root.locator("output").inner_text() == "50 %"


def test_the_legend_tells_shares_the_largest_first(show: Callable[..., Scene], street: Street) -> None:
    scene = show(street.page(truth_png=street.truth), street.photo.size)
    for button, values in (("Labels", street.labels), ("Prediction", street.prediction)):
        scene.press(button)
        fractions = list(shares(values, len(street.classes)))
        named = [*zip(fractions, [*street.classes], strict=True), (1 - sum(fractions), "ignored")]
        expected = [(name, told(share)) for share, name in sorted(named, key=lambda pair: -pair[0]) if share > 1e-9]
        assert scene.rows() == expected
    missing = [name for name, share in zip(street.classes, fractions, strict=True) if share == 0]
    if missing:
        scene.root.get_by_role("button", name="not in the picture").click()
        assert [name for name, share in scene.rows() if share == "–"] == missing


def test_errors_show_what_is_wrong_by_true_class(show: Callable[..., Scene], street: Street) -> None:
    scene = show(street.page(truth_png=street.truth), street.photo.size)
    scene.press("Errors")
    scene.opacity(100)
    labelled = street.labels != 255
    wrong = labelled & (street.labels != street.prediction)
    drawn = scene.overlay()
    assert (drawn[wrong] == WRONG).all()
    right = drawn[labelled & ~wrong]
    assert (right == right[:, :1]).all() and right.min() >= 90  # pale grey
    assert (drawn[~labelled] == 40).all()
    counts = np.bincount(street.labels[wrong], minlength=len(street.classes))
    expected = {street.classes[k]: told(counts[k] / labelled.sum()) for k in np.flatnonzero(counts)}
    assert dict(scene.rows()) == expected
    assert told(wrong.sum() / labelled.sum()) in scene.root.locator(".viewer-caption").inner_text()
    y, x = (int(part) for part in np.argwhere(wrong)[wrong.sum() // 2])
    assert scene.hover(x, y) == street.labels[y, x]
    words = scene.root.locator(".viewer-tip").inner_text()
    assert f"predicted as {street.classes[street.prediction[y, x]]}" in words
    y, x = (int(part) for part in np.argwhere(labelled & ~wrong)[0])
    scene.hover(x, y)
    assert "right" in scene.root.locator(".viewer-tip").inner_text()


def test_a_class_is_isolated_and_released(show: Callable[..., Scene], street: Street) -> None:
    scene = show(street.page(), street.photo.size)
    scene.opacity(100)
    values, counts = np.unique(street.prediction, return_counts=True)
    road = int(values[counts.argmax()])
    chosen = street.prediction == road
    row = scene.root.locator(f".viewer-row[data-value='{road}']")

    def alone() -> bool:
        drawn = scene.overlay()
        grey = bool((drawn[~chosen] == drawn[~chosen][:, :1]).all())
        return grey and bool((drawn[chosen] == street.palette[road]).all())

    y, x = (int(part) for part in np.argwhere(chosen)[chosen.sum() // 2])
    row.click()
    assert alone() and row.get_attribute("aria-pressed") == "true"
    row.click()
    assert not alone() and row.get_attribute("aria-pressed") == "false"
    scene.page.mouse.click(*scene.spot(x, y))
    assert alone()
    scene.page.mouse.click(*scene.spot(x, y))
    assert not alone()
    scene.page.mouse.click(*scene.spot(x, y))
    scene.page.keyboard.press("Escape")
    assert not alone()
    row.click()
    scene.press("Show all")
    assert not alone()


def test_dragging_is_no_click(show: Callable[..., Scene], street: Street) -> None:
    scene = show(street.page(), street.photo.size)
    scene.press("Zoom in")
    before = scene.hover(240, 180, zooms=1)
    x, y = scene.spot(240, 180, zooms=1)
    scene.page.mouse.down()
    scene.page.mouse.move(x + 60, y + 20, steps=4)
    scene.page.mouse.up()
    assert not scene.root.locator("[aria-pressed=true].viewer-row").count()
    scene.page.mouse.move(x + 60, y + 21)
    scene.page.mouse.move(x + 60, y + 20)
    assert scene.root.locator(".viewer-tip").get_attribute("data-value") == str(before)  # it went with the mouse


def test_the_wheel_zooms_where_it_is_asked_to(show: Callable[..., Scene], street: Street) -> None:
    scene = show(street.page(), street.photo.size)
    fit = scene.root.locator("[data-zoom=fit]")
    scene.page.mouse.move(*scene.spot(100, 300))
    scene.page.mouse.wheel(0, -300)
    assert fit.inner_text() == "1×"  # the page may be scrolled past it
    before = scene.hover(100, 300)
    scene.page.keyboard.down("Control")
    scene.page.mouse.wheel(0, -400)
    scene.page.keyboard.up("Control")
    scene.page.wait_for_function("document.querySelector('[data-zoom=fit]').textContent !== '1×'")
    assert scene.root.locator(".viewer-tip").get_attribute("data-value") == str(before)  # the point stays
    for _ in range(12):
        scene.page.mouse.wheel(0, 400)
    scene.page.wait_for_function("document.querySelector('[data-zoom=fit]').textContent === '1×'")
    assert scene.root.get_by_role("button", name="Zoom out").is_disabled()


# Names, pages, devices ------------------------------------------------------------------------------------------------


def test_hostile_names_stay_text(show: Callable[..., Scene], tmp_path: Path) -> None:
    labels = np.arange(50).reshape(5, 10) // 10
    title = "</title><script>window.hacked=1</script>/..\\\"'.png"
    html = viewer_page(noise(5, 10), index_png(labels, 5, tmp_path), HOSTILE, default_palette(5), title=title)
    scene = show(html, (10, 5))
    assert [name for name, _ in scene.rows()] == list(HOSTILE)
    for k, name in enumerate(HOSTILE):
        assert scene.hover(5, k) == k
        assert scene.root.locator(".viewer-tip bdi").text_content() == name
    assert scene.page.evaluate("window.hacked") is None
    assert scene.page.locator("script").count() == 1 and scene.page.locator("img").count() == 1
    assert scene.page.title() == title and scene.root.locator(".viewer-title").text_content() == title
    assert scene.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    with scene.page.expect_download() as download:
        scene.root.locator(".viewer-index").click()
    assert download.value.suggested_filename == "title-script-window.hacked-1-script.png"


def test_the_policy_lets_nothing_else_run_or_load(visit: Callable[..., Visit], tmp_path: Path) -> None:  # noqa: F811
    labels = np.zeros((4, 4), dtype=np.int64)
    html = viewer_page(noise(4, 4), index_png(labels, 1, tmp_path), "a", default_palette(1))
    foreign = '<script>window.hacked=1</script><img src="http://127.0.0.1:9/x"><iframe src="http://127.0.0.1:9/"></iframe></body>'
    visited = visit()
    visited.page.set_content(html.replace("</body>", foreign))
    visited.page.locator("section.viewer[data-ready]").wait_for()
    assert visited.page.evaluate("window.hacked") is None
    assert sum("Content Security Policy" in text for text in visited.complaints) == 3


def test_two_viewers_on_a_page_mind_their_own(show: Callable[..., Scene], tmp_path: Path) -> None:
    script = viewer_script()
    maps = [np.full((8, 12), 0), np.tile(np.arange(12) % 2, (8, 1))]
    parts = [
        viewer(noise(8, 12), index_png(labels, 2, tmp_path), ("one", "two"), default_palette(2), title=f"map {k}")
        for k, labels in enumerate(maps)
    ]
    html = fill(
        "viewer_page.html",
        policy=content_policy(script),
        title="two",
        style=Markup(viewer_style()),
        viewer=Markup("".join(parts)),
        script=Markup(script),
    )
    first = show(html, (12, 8), height=1400)
    second = Scene(first.visited, first.page.locator("section.viewer").nth(1), (12, 8))
    second.root.locator("[data-zoom=in]:visible").wait_for()
    second.root.locator(".viewer-row").nth(1).click()
    assert first.root.locator("[aria-pressed=true].viewer-row").count() == 0
    assert [name for name, _ in first.rows()] == ["one"] and len(second.rows()) == 2
    first.opacity(100)
    assert first.hover(3, 3) == 0
    assert second.hover(3, 3) == 1
    assert (first.overlay() == default_palette(2)[0]).all()
    assert second.root.locator("output").inner_text() == "60 %"


def test_many_classes_are_filtered(show: Callable[..., Scene], tmp_path: Path) -> None:
    labels = np.arange(100).reshape(10, 10)
    names = [f"class {k}" for k in range(149)] + ["Café"]
    scene = show(viewer_page(noise(10, 10), index_png(labels, 150, tmp_path), names, default_palette(150)), (10, 10))
    legend = scene.root.locator(".viewer-legend")
    assert len(scene.rows()) == 100
    assert legend.evaluate("list => list.scrollHeight > list.clientHeight")
    assert scene.page.evaluate("document.documentElement.scrollHeight <= innerHeight")
    box = scene.root.get_by_role("searchbox")
    box.fill("CLASS 9")
    assert {name for name, _ in scene.rows()} == {"class 9", *(f"class {k}" for k in range(90, 100))}
    box.fill("cafe")
    assert scene.rows() == [("Café", "–")]  # in no pixel
    box.fill("nowhere")
    assert scene.rows() == [] and "No class matches" in legend.inner_text()
    box.fill("")
    assert len(scene.rows()) == 100


def test_it_goes_by_the_keyboard_alone(show: Callable[..., Scene], street: Street) -> None:
    scene = show(street.page(truth_png=street.truth), street.photo.size)
    keyboard = scene.page.keyboard
    reached = []
    for _ in range(9):
        keyboard.press("Tab")
        reached.append(scene.page.evaluate("document.activeElement.className || document.activeElement.innerText"))
        if reached[-1] == "viewer-canvas":
            outline = scene.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline != "none"
            keyboard.press("+")
            keyboard.press("+")
            assert scene.root.locator("[data-zoom=fit]").inner_text() == "2.3×"  # 1.5 squared
            keyboard.press("ArrowLeft")
            keyboard.press("0")
            assert scene.root.locator("[data-zoom=fit]").inner_text() == "1×"
        if reached[-1] == "viewer-row":
            keyboard.press("Enter")
            break
    assert reached[:4] == ["Prediction", "Labels", "Errors", "viewer-canvas"]
    assert scene.root.locator("[aria-pressed=true].viewer-row").count() == 1
    keyboard.press("Escape")
    assert scene.root.locator("[aria-pressed=true].viewer-row").count() == 0


def test_fingers_tell_isolate_and_pinch(show: Callable[..., Scene], street: Street) -> None:
    scene = show(street.page(), street.photo.size, width=390, height=844, has_touch=True, is_mobile=True)
    x, y = scene.spot(240, 300)
    scene.page.touchscreen.tap(x, y)
    assert scene.root.locator(".viewer-tip").get_attribute("data-value") == str(street.prediction[300, 240])
    assert scene.root.locator("[aria-pressed=true].viewer-row").count() == 1
    scene.page.touchscreen.tap(x, y)
    assert scene.root.locator("[aria-pressed=true].viewer-row").count() == 0
    session = scene.page.context.new_cdp_session(scene.page)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        places = [{"x": across, "y": down, "id": number} for number, (across, down) in enumerate(points)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})

    touch("touchStart", (x - 20, y))
    touch("touchStart", (x - 20, y), (x + 20, y))
    for apart in (30, 40, 60):
        touch("touchMove", (x - apart, y), (x + apart, y))
    touch("touchEnd")
    times = float(scene.root.locator("[data-zoom=fit]").inner_text().rstrip("×"))
    assert math.isclose(times, 3, abs_tol=0.15)
    assert scene.root.locator("[aria-pressed=true].viewer-row").count() == 0


def test_narrow_windows_put_the_legend_below(show: Callable[..., Scene], street: Street) -> None:
    for width, below in ((390, True), (1280, False)):
        scene = show(street.page(truth_png=street.truth), street.photo.size, width=width)
        stage, side = (scene.root.locator(f".viewer-{part}").bounding_box() for part in ("stage", "side"))
        assert stage and side
        assert (side["y"] >= stage["y"] + stage["height"]) == below
        assert scene.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_it_is_dark_where_the_system_is(show: Callable[..., Scene], street: Street) -> None:
    light, dark = (show(street.page(), street.photo.size, dark=dark).page for dark in (False, True))
    brightness = "getComputedStyle(document.body).backgroundColor"
    assert light.evaluate(brightness) == "rgb(255, 255, 255)"
    assert dark.evaluate(brightness) == "rgb(20, 23, 28)"


def test_without_a_browser_the_fragment_is_whole(tmp_path: Path) -> None:
    labels = np.zeros((4, 6), dtype=np.int64)
    part = viewer(noise(4, 6), index_png(labels, 2, tmp_path), HOSTILE[:2], default_palette(2), title="a<b>.png")
    assert "<script" not in part and "<b>" not in part and "a&lt;b&gt;" in part
    assert "</script" not in viewer_script()
    for text in (viewer_style(), viewer_script()):
        assert "http" not in text and "url(" not in text and "@import" not in text and "innerHTML" not in text

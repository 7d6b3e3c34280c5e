"""Figures of the inside of a model: text that can be read, files that are the same each time; the verb; the method."""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from segvit import pictures
from segvit.cli.look import folder_names
from segvit.config import Structure, Upsampling
from segvit.data.spec import load_spec
from segvit.errors import UserError
from segvit.models.create import create_model
from segvit.pictures.inside.record import Inside
from tests.helpers.looked_at import REGISTERS, SLIDE, WHOLE, make, photo_of
from tests.helpers.tiny import stir, tell_apart, tiny_config

ROOT = Path(__file__).resolve().parents[2]


def long_names(inside: Inside, count: int) -> Inside:
    names = tuple(f"the class number {k} $of_1$ {'many ' * (k % 5)}".strip() for k in range(count))
    return replace(inside, names=names)


def all_figures(inside: Inside) -> Iterator[Figure]:
    yield pictures.labels_figure(inside)
    yield pictures.tokens_figure(inside)
    if inside.gazes:
        yield pictures.queries_figure(inside)
    for draw in (pictures.attention_figure, pictures.heads_figure, pictures.cascade_figure):
        yield draw(inside, inside.classes[0])


@pytest.mark.parametrize(
    "variant, structure, upsampling, count, size, looked",
    [
        ("vit", "plain", "tap", 1, (30, 40), None),
        ("vit", "plain", "tap", 150, (120, 160), None),
        (REGISTERS, "shrunk", "paper", 7, (60, 300), None),
        (REGISTERS, "shrunk", "tap", 7, (60, 300), None),
        (REGISTERS, "naive_shrunk", "tap", 7, (300, 60), None),
        ("vit", "plain", "tap", 3, (1500, 2000), 64),
    ],
)
def test_text_lies_inside_and_apart(
    variant: str, structure: Structure, upsampling: Upsampling, count: int, size: tuple[int, int], looked: int | None
) -> None:
    model = make(variant, structure, upsampling, classes=count, protocol=SLIDE)
    inside = long_names(pictures.look(model, photo_of(*size), size=looked), count)
    if count == 150:  # many classes at once
        labels = np.arange(inside.labels[0].size).reshape(inside.labels[0].shape) % 150
        inside = replace(inside, labels=np.stack([labels] * 3))
    for figure in all_figures(inside):
        figure.set_dpi(100)
        figure.draw_without_rendering()
        page = figure.bbox
        assert page.width <= 701 and page.height < 1000, "inches of a page"
        texts = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
        boxes = {text: text.get_window_extent() for text in texts if is_drawn(text)}
        assert boxes
        for text, box in boxes.items():
            told = f"{text.get_text()!r} in a figure of {page.width:.0f} x {page.height:.0f}: {box}"
            assert box.x0 >= -3 and box.y0 >= -3, told
            assert box.x1 <= page.width + 3 and box.y1 <= page.height + 3, told
        entries = [box.shrunk(0.9, 0.6) for box in boxes.values()]
        for place, box in enumerate(entries):
            assert not any(box.overlaps(other) for other in entries[:place]), list(boxes)[place].get_text()


def is_drawn(text: Text) -> bool:
    """Texts of hidden axes are there, and not drawn."""
    return text.axes is None or text.axes.axison or text in text.axes.texts


def test_files_are_named_for_what_they_show(tmp_path: Path) -> None:
    inside = pictures.look(make(REGISTERS, "shrunk"), photo_of(60, 80), classes=[1])
    files = pictures.save_inside(inside, tmp_path / "no learned tokens")
    assert [file.stem for file in files[:3]] == ["labels", "tokens", "attention_1_class-1"]
    inside = pictures.look(make(REGISTERS, "shrunk", "paper"), photo_of(60, 80), classes=[1])
    inside = replace(inside, names=("a", "Straße / 2", "c", "d", "e"))
    files = pictures.save_inside(inside, tmp_path / "seen")
    assert [file.name for file in files] == [
        *("labels.png", "tokens.png", "queries.png"),
        *("attention_1_straße-2.png", "heads_1_straße-2.png", "cascade_1_straße-2.png"),
    ]
    for file in files:
        with Image.open(file) as picture:
            assert round(picture.info["dpi"][0]) == 300 and 300 < picture.width <= 2100
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot be written"):
        pictures.save_inside(inside, tmp_path / "file" / "x")
    with pytest.raises(UserError, match=r"tokens\.jpg: give a file that ends in \.png, \.pdf or \.svg"):
        pictures.save(Figure(), tmp_path / "tokens.jpg")


def test_files_are_the_same_each_time_and_fit_for_print(tmp_path: Path) -> None:
    inside = pictures.look(make(REGISTERS, "shrunk"), photo_of(60, 80), classes=[1])
    for ending in ("png", "pdf", "svg"):
        for name in ("a", "b"):
            pictures.save(pictures.tokens_figure(inside), tmp_path / f"{name}.{ending}")
        assert (tmp_path / f"a.{ending}").read_bytes() == (tmp_path / f"b.{ending}").read_bytes()
    pdf = (tmp_path / "a.pdf").read_bytes()
    assert b"/CIDFontType2" in pdf and b"/Type3" not in pdf, "journals refuse fonts of Type 3"
    svg = (tmp_path / "a.svg").read_bytes()
    assert b"<text" not in svg, "outlines look the same everywhere"


@pytest.mark.parametrize("upsampling, name", [("tap", "up-sampled"), ("paper", "QU")])
def test_the_kept_tokens_are_those_that_are_framed(upsampling: Upsampling, name: str) -> None:
    inside = pictures.look(make(REGISTERS, "shrunk", upsampling), photo_of(100, 70))
    all_of_them, kept, restored = pictures.tokens_figure(inside).axes
    patch = inside.tokens.patch
    (frames,) = (part for part in kept.collections if len(part.get_paths()) == inside.tokens.kept.sum())
    corners = {(int(y // patch), int(x // patch)) for x, y in (path.vertices[0] for path in frames.get_paths())}
    assert corners == {(int(y), int(x)) for y, x in np.argwhere(inside.tokens.kept)}
    dots = [part.get_offsets() for part in restored.collections if len(part.get_offsets()) == 40]
    assert [(float(x), float(y)) for x, y in np.asarray(dots[0])[[0, 1, 5]]] == [
        (7, 7),
        (21, 7),
        (7, 21),
    ] and patch == 14
    assert "8 × 5 = 40" in all_of_them.get_title() and "4 × 3 = 12 tokens + 5 prefix" in kept.get_title()
    assert restored.get_title() == f"{name}: 8 × 5 = 40 tokens"


def test_heat_is_read_without_colour_vision() -> None:
    from matplotlib import colormaps

    from segvit.data.palette import _perceived
    from segvit.pictures.figure_style import HEAT, MATRIX, matrix_colors

    colors = 255 * np.asarray(colormaps[HEAT](np.linspace(0, 1, 64)))[:, :3]
    blues = 255 * np.asarray(matrix_colors()(np.linspace(0, 1, 64)))[:, :3]
    ends = [[int(color[start : start + 2], 16) for start in (1, 3, 5)] for color in MATRIX]
    np.testing.assert_allclose(blues[[0, -1]], ends, atol=0.6)
    steps = np.diff(_perceived(blues)[0, :, 0])
    assert steps.min() > 1.6 * steps.max() > 1.6 * 1.6 * steps.min(), "equal steps of lightness"
    for ramp, sign in ((colors, 1), (blues, -1)):
        lightness = _perceived(ramp)[:, :, 0]  # of normal, protanope and deuteranope eyes
        assert (sign * np.diff(lightness, axis=1) > 0).all()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    from segvit.cli.main import app

    def type_in(*words: object) -> str:
        app([str(word) for word in words])
        return capsys.readouterr().out

    return type_in


def test_the_verb_look(tmp_path: Path, run: Callable[..., str]) -> None:
    make("vit", "plain").save(tmp_path / "model.safetensors")
    for name in ("a.png", "b.jpg", "b.png"):
        Image.fromarray(photo_of(40, 60)).save(tmp_path / name)
    words = [
        "look",
        tmp_path / "model.safetensors",
        "--output",
        tmp_path / "seen",
        "--device",
        "cpu",
        "--format",
        "svg",
    ]
    out = run(*words, tmp_path / "b.jpg", tmp_path / "b.png", "--classes", "class 1", "--size", 48)
    assert "b.jpg at 48 x 72 pixels, class 1: 5 figures in " in out
    assert {path.name for path in (tmp_path / "seen").iterdir()} == {"b.jpg", "b.png"}
    assert (tmp_path / "seen" / "b.png" / "cascade_1_class-1.svg").is_file()
    for wrong, text in [
        ((tmp_path,), "is a folder: name photos"),
        ((tmp_path / "a.png", tmp_path / "a.png"), "2 photos are called a.png"),
        ((tmp_path / "a.png", "--classes", "clas 1"), "did you mean 'class 1'"),
        ((tmp_path / "b.jpg", tmp_path / "none.png"), "none.png: no such file; nothing was drawn"),
    ]:
        with pytest.raises(UserError, match=text):
            run(*words, *wrong)
    with pytest.raises(UserError, match=r"model\.onnx is an exported model"):
        run("look", "model.onnx", tmp_path / "a.png", "--output", tmp_path / "seen")
    assert folder_names([Path("x/a.png"), Path("b.jpg"), Path("b.png")]) == ["a", "b.jpg", "b.png"]


@pytest.fixture
def method(monkeypatch: pytest.MonkeyPatch) -> Any:
    """docs/tools/figures.py as a module."""
    found = importlib.util.spec_from_file_location("figures", ROOT / "docs" / "tools" / "figures.py")
    assert found is not None and found.loader is not None
    figures = importlib.util.module_from_spec(found)
    monkeypatch.setitem(sys.modules, "figures", figures)
    found.loader.exec_module(figures)
    return figures


@pytest.fixture
def street(tmp_path: Path) -> Path:
    """A tiny model of the made-up scenes."""
    config = replace(tiny_config("vit without class token", "plain"), image_size=96)
    torch.manual_seed(0)
    model = create_model(config=config, num_classes=8, spec=load_spec("shapes"), protocol=WHOLE).eval()
    stir(model)
    tell_apart(model)
    model.save(tmp_path / "street.safetensors")
    return tmp_path / "street.safetensors"


def test_the_figures_of_the_method(method: Any, street: Path, tmp_path: Path) -> None:
    scene = method.read_scene(street)
    assert scene.inside.names[scene.number] == "tree" and scene.inside.classes[0] == scene.number
    assert scene.probabilities.sum() == pytest.approx(1) and len(scene.probabilities) == 9
    for name, draw in method.FIGURES.items():
        figure = draw(scene)
        figure.draw_without_rendering()
        assert figure.get_figwidth() <= 7
        shipped = ROOT / "docs" / "images" / f"method_{name}.png"
        assert shipped.stat().st_size < 150_000
        with Image.open(shipped) as picture:
            size = (round(figure.get_figwidth() * 200), round(figure.get_figheight() * 200))
            assert np.abs(np.subtract(picture.size, size)).max() <= 1, "drawn by today's docs/tools/figures.py"
    make("vit", "shrunk").save(tmp_path / "shrunk.safetensors")
    with pytest.raises(UserError, match="give a plain model"):
        method.read_scene(tmp_path / "shrunk.safetensors")


def test_main_directions_are_those_of_a_plain_analysis(method: Any) -> None:
    features = np.random.default_rng(0).normal(size=(9, 4, 5)).astype(np.float32) * np.arange(9, 0, -1)[:, None, None]
    colors = method.main_directions(features).astype(float)
    tokens = features.reshape(9, 20).T - features.reshape(9, 20).mean(axis=1)
    _, vectors = np.linalg.eigh(tokens.T @ tokens)
    for color, vector in enumerate(vectors.T[::-1][:3]):
        inner = colors[:, :, color].ravel()
        clear = (inner > inner.min()) & (inner < inner.max())  # the outermost two per cent are cut
        assert abs(np.corrcoef(inner[clear], (tokens @ vector)[clear])[0, 1]) > 0.999


@pytest.mark.slow
def test_the_figures_are_written(method: Any, street: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for ending in ("png", "pdf"):
        words = ["figures.py", str(street), "--output", str(tmp_path / "out"), "--format", ending]
        monkeypatch.setattr(sys, "argv", words)
        method.main()
    names = {f"method_{name}.{ending}" for name in ("atm", "cascade", "shrunk") for ending in ("png", "pdf")}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    assert all(path.stat().st_size < 150_000 for path in (tmp_path / "out").glob("*.png"))

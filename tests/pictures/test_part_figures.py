"""The figures of the parts beyond the paper: the shipped ones are today's, and they show what the models computed."""

from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from segvit.config import ModelConfig
from segvit.data.spec import load_spec
from segvit.models.create import create_model
from segvit.models.segvit import SegViT
from tests.helpers.looked_at import WHOLE, photo_of
from tests.helpers.pages import load_script
from tests.helpers.tiny import stir, tell_apart, tiny_config

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"
MAX_BYTES = 150_000
"""Largest size of a shipped figure."""


@pytest.fixture
def diagrams() -> ModuleType:
    return load_script("part_diagrams")


@pytest.fixture
def photos() -> ModuleType:
    return load_script("part_photos")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A photo of 4 x 6 patches, the last ones not whole, with the aspect of the shipped one."""
    Image.fromarray(photo_of(60, 90)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def model_of(config: ModelConfig) -> SegViT:
    torch.manual_seed(0)
    model = create_model(config=config, num_classes=8, spec=load_spec("shapes"), protocol=WHOLE).eval()
    stir(model)
    tell_apart(model)
    return model


def texts(figure: Figure) -> list[str]:
    """All texts of a figure, after a check that each is inside it."""
    figure.set_dpi(100)
    figure.draw_without_rendering()
    assert figure.get_figwidth() <= 7
    found = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    for text in found:
        box = text.get_window_extent()
        inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= figure.bbox.width + 1 and box.y1 <= figure.bbox.height + 1
        assert inside, f"{text.get_text()!r}: {box}"
    return [text.get_text() for text in found]


def check_shipped(name: str, figure: Figure) -> None:
    """Check that a shipped PNG is small, and as large as the figure."""
    shipped = IMAGES / f"method_{name}.png"
    assert shipped.stat().st_size < MAX_BYTES
    with Image.open(shipped) as picture:
        size = (round(figure.get_figwidth() * 200), round(figure.get_figheight() * 200))
        assert np.abs(np.subtract(picture.size, size)).max() <= 1, "draw it again"


def test_diagrams_are_todays_and_their_text_is_inside(diagrams: ModuleType) -> None:
    scene = diagrams.Scene()
    assert scene.mask("boat").max() == 0 and scene.mask("tree").max() > 0.9
    assert np.allclose(np.sum(diagrams.PROBABILITIES, axis=1), 1)
    assert {name for group in diagrams.GROUPS for name in group} == set(scene.spec.classes)
    for name, draw in diagrams.DIAGRAMS.items():
        figure = draw(scene)
        assert texts(figure)
        check_shipped(name, figure)


def test_a_merged_token_has_the_mean_color_of_its_patches(photos: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photos, "NEAR", 2.5)
    shot = photos.Shot(photo_of(30, 50), torch.empty(0), (2, 3), 20)
    token_of = np.array([[0, 0, 1], [1, 2, 0]])  # sqrt(5) patches apart at most
    picture = photos.painted_tokens(shot, token_of)
    merged = np.concatenate([shot.photo[:20, :40].reshape(-1, 3), shot.photo[20:, 40:].reshape(-1, 3)])
    assert (picture[:20, :40] == np.rint(merged.mean(axis=0))).all()
    assert (picture[20:, 40:] == picture[0, 0]).all()
    assert (picture[20:, 20:40] == shot.photo[20:, 20:40]).all()
    monkeypatch.setattr(photos, "NEAR", 2.1)
    assert photos.painted_tokens(shot, token_of)[0, 0].tolist() == [0xD5, 0x5E, 0x00]


def test_merging_shows_the_numbers_of_tokens(photos: ModuleType, photo: Path) -> None:
    model = model_of(tiny_config("vit", "plain"))
    figure = photos.draw_merging(model, photo)
    first, second = (text for text in texts(figure) if text.startswith("behind block"))
    counts = [int(text.split()[3]) for text in (first, second)]
    assert first.endswith("of 24 patches") and 24 >= counts[0] >= counts[1] > 0
    assert model.backbone.merging is None, "the model is not changed"
    check_shipped("merging", figure)


def test_edges_are_those_that_the_block_keeps(photos: ModuleType, photo: Path) -> None:
    figure = photos.draw_edges(model_of(tiny_config("vit", "shrunk", downsampling="edge")), photo)
    said = texts(figure)
    assert {"block 1 keeps 12 of 24 tokens", "lattice: 6", "edges: 6"} <= set(said)
    check_shipped("edges", figure)


def test_the_upscaler_is_shown_with_and_without_its_correction(photos: ModuleType, photo: Path) -> None:
    model = model_of(replace(tiny_config("vit", "plain"), upscaler="conv"))
    assert model.upscaler is not None
    model.upscaler.coefficients.data.normal_(generator=torch.Generator().manual_seed(0))
    before = model.upscaler.coefficients.clone()
    figure: Any = photos.draw_upscaler(model, photo)
    assert {"photo", "mask of “building”", "with the correction", "the correction"} <= set(texts(figure))
    assert torch.equal(model.upscaler.coefficients, before)
    pictures = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    assert not np.array_equal(pictures[1], pictures[2]) and np.abs(pictures[3]).max() > 0.01
    check_shipped("upscaler", figure)


@pytest.mark.slow
def test_the_scripts_write_their_figures(
    diagrams: ModuleType, photos: ModuleType, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["part_diagrams.py", "--output", str(tmp_path / "out"), "--format", "pdf"])
    diagrams.main()
    model_of(tiny_config("vit", "plain")).save(tmp_path / "plain.safetensors")
    photos.main([str(photo), "--merging", str(tmp_path / "plain.safetensors"), "--output", str(tmp_path / "out")])
    names = {"method_presence.pdf", "method_groups.pdf", "method_merging.png"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names

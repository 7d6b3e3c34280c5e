"""Which blocks are tapped and which one shrinks: the paper's by default, and what cannot be is told."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from segvit.config import ModelConfig, TrainConfig
from segvit.errors import UserError
from segvit.models.structure import default_shrink_at, default_taps, resolve_blocks


def test_default_taps() -> None:
    assert default_taps(12) == (5, 7, 11)
    assert default_taps(24) == (7, 15, 23)
    assert default_taps(6) == (1, 3, 5)
    assert default_taps(4) == (1, 2, 3)
    assert default_taps(2) == (0, 1)
    assert default_taps(1) == (0,)


def test_default_block_that_shrinks() -> None:
    assert default_shrink_at(12) == 6
    assert default_shrink_at(24) == 8
    assert default_shrink_at(6) == 2
    assert default_shrink_at(3) == 1
    assert [default_shrink_at(depth, tap=True) for depth in (12, 24, 6, 3)] == [7, 9, 3, 1]
    assert [default_shrink_at(depth, edge=True) for depth in (12, 24, 6, 3, 40)] == [3, 5, 2, 1, 8]


@pytest.mark.parametrize(
    "depth, settings, expected",
    [
        (12, {}, (None, (5, 7, 11))),
        (12, {"taps": (3,)}, (None, (3,))),
        (12, {"structure": "shrunk"}, (7, (6, 8, 11))),
        (24, {"structure": "shrunk"}, (9, (8, 15, 23))),
        (12, {"structure": "shrunk", "upsampling": "paper"}, (6, (5, 11))),
        (24, {"structure": "shrunk", "upsampling": "paper"}, (8, (7, 23))),
        (12, {"structure": "naive_shrunk"}, (6, (11,))),
        (24, {"structure": "naive_shrunk"}, (8, (23,))),
        (3, {"structure": "shrunk"}, (1, (0, 2))),
        (12, {"structure": "shrunk", "downsampling": "edge"}, (3, (2, 6, 11))),
        (24, {"structure": "shrunk", "downsampling": "edge"}, (5, (4, 13, 23))),
        (12, {"structure": "naive_shrunk", "downsampling": "edge"}, (3, (11,))),
        (12, {"structure": "shrunk", "downsampling": "edge", "shrink_at": 4}, (4, (3, 7, 11))),
        (2, {"structure": "naive_shrunk"}, (0, (1,))),
        (12, {"structure": "shrunk", "shrink_at": 1}, (1, (0, 5, 11))),
        (12, {"structure": "shrunk", "shrink_at": 6}, (6, (5, 8, 11))),
        (12, {"structure": "shrunk", "shrink_at": 10}, (10, (9, 11))),
        (4, {"structure": "shrunk"}, (2, (1, 3))),
        (12, {"structure": "naive_shrunk", "shrink_at": 0}, (0, (11,))),
        (12, {"structure": "naive_shrunk", "shrink_at": 10}, (10, (11,))),
        (12, {"structure": "shrunk", "shrink_at": 4, "taps": (1, 3, 5, 9)}, (4, (1, 3, 5, 9))),
        (12, {"structure": "shrunk", "shrink_at": 6, "taps": (7,)}, (6, (7,))),
        (12, {"structure": "naive_shrunk", "taps": (7, 9)}, (6, (7, 9))),
    ],
)
def test_blocks(depth: int, settings: dict[str, Any], expected: tuple[int | None, tuple[int, ...]]) -> None:
    assert resolve_blocks(**{"structure": "plain", **settings}, depth=depth) == expected


def refusals() -> Iterator[Any]:
    """Depth, settings, and what the error says."""
    for block in (-1, 0, 11, 12, 99):
        yield pytest.param(
            12,
            {"structure": "shrunk", "shrink_at": block},
            rf"model\.shrink_at {block}: .*12 blocks can shrink at blocks 1 to 10.*the default is 7",
            id=f"shrunk at {block}",
        )
    for block in (-1, 11, 12):
        yield pytest.param(
            12,
            {"structure": "naive_shrunk", "shrink_at": block},
            rf"model\.shrink_at {block}: .*12 blocks can shrink at blocks 0 to 10.*the default is 6",
            id=f"naive at {block}",
        )
    yield pytest.param(2, {"structure": "shrunk"}, r"structure shrunk needs a backbone of 3 blocks.*has 2", id="two")
    yield pytest.param(
        1, {"structure": "naive_shrunk"}, r"structure naive_shrunk needs a backbone of 2 blocks.*has 1", id="one"
    )
    for taps in ((3, 7), (7, 11), (5, 7, 11), (7,)):
        yield pytest.param(
            12,
            {"structure": "shrunk", "taps": taps},
            r"model\.shrink_at 7 is one of model\.taps .*before or after.*taps \(6, 8, 11\) would do",
            id=f"at a tap of {taps}",
        )
    yield pytest.param(
        12,
        {"structure": "shrunk", "taps": (2, 5)},
        r"model\.shrink_at 7 is after the last of model\.taps \(2, 5\).*taps \(6, 8, 11\) would do",
        id="behind the taps",
    )
    yield pytest.param(
        12,
        {"structure": "naive_shrunk", "taps": (4,)},
        r"model\.shrink_at 6 is after the last of model\.taps \(4,\).*taps \(11,\) would do",
        id="naive, behind the taps",
    )
    yield pytest.param(
        12,
        {"structure": "naive_shrunk", "taps": (5, 11)},
        r"model\.taps \(5, 11\) of the naive_shrunk structure.*after model\.shrink_at 6.*taps \(11,\) would do",
        id="naive, a tap before",
    )
    yield pytest.param(
        12,
        {"shrink_at": 6},
        r"model\.shrink_at 6 with model\.structure plain: set model\.structure to shrunk or naive_shrunk, or leave",
        id="plain, shrink_at",
    )
    for method in ("conv", "nearest_qkv"):
        yield pytest.param(
            12,
            {"downsampling": method},
            rf"model\.downsampling {method} with model\.structure plain: set model\.structure to shrunk or naive",
            id=f"plain, {method}",
        )
    for structure in ("plain", "shrunk"):
        for taps in ((), (11, 5), (5, 5), (5, 12), (-1, 11)):
            yield pytest.param(
                12,
                {"structure": structure, "taps": taps},
                r"model\.taps \(.*\): give ascending block numbers from 0 to 11, shallow first",
                id=f"{structure}, taps {taps}",
            )
    yield pytest.param(
        12, {"structure": "Shrunk"}, r"model\.structure 'Shrunk': give plain, shrunk or naive_shrunk", id="structure"
    )
    yield pytest.param(
        12,
        {"structure": "shrunk", "downsampling": "nearest"},
        r"model\.downsampling 'nearest': give nearest_q, nearest_qkv, conv, mean_q or edge",
        id="downsampling",
    )


@pytest.mark.parametrize("depth, settings, message", refusals())
def test_blocks_that_cannot_be_are_told(depth: int, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve_blocks(**{"structure": "plain", **settings}, depth=depth)


SETTINGS = {
    "structure": ("shrunken", "plain", "shrunk", "naive_shrunk"),
    "downsampling": ("nearest", "nearest_q", "nearest_qkv", "conv", "mean_q"),
    "upsampling": ("bilinear", "tap", "paper"),
}


@pytest.mark.parametrize("key", SETTINGS)
def test_a_word_that_is_no_choice_is_told_by_files_and_flags(key: str, tmp_path: Path) -> None:
    wrong, *right = SETTINGS[key]
    path = tmp_path / "mine.yaml"
    for text, flags in ((f"model: {{{key}: {wrong}}}", []), ("", [f"--model.{key}", wrong])):
        path.write_text(text)
        with pytest.raises(UserError) as caught:
            TrainConfig.load(path, flags)
        assert all(word in str(caught.value) for word in (key, f'"{wrong}"', *(f'"{choice}"' for choice in right)))


def test_files_and_flags_say_the_structure(tmp_path: Path) -> None:
    model = ModelConfig(
        structure="shrunk", shrink_at=4, downsampling="conv", upsampling="paper", upsampling_num_layers=2
    )
    config = TrainConfig(model=model)
    path = tmp_path / "mine.yaml"
    config.save(path)
    assert TrainConfig.load(path) == config
    path.write_text("model: {structure: naive_shrunk, shrink_at: 4}\n")
    flags = ["--model.structure", "shrunk", "--model.downsampling", "conv"]
    flags += ["--model.upsampling", "paper", "--model.upsampling-num-layers", "2"]
    assert TrainConfig.load(path, flags) == config

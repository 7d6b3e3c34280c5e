"""Training augmentation against slow references: sizes, crops, colours, padding, and where the luck comes from."""

import colorsys
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import functional

from segvit.config import AugmentConfig
from segvit.data.augment import colors as colors_module, geometry, transform as transform_module
from segvit.data.augment.colors import photometric, turn_hue
from segvit.data.augment.geometry import CROP_TRIES, flip, pad_to, random_crop
from segvit.data.augment.transform import TrainTransform
from segvit.data.spec import IGNORE_INDEX
from segvit.errors import UserError
from segvit.utils.resize import Window, _select, resize_labels, to_uint8

STILL = AugmentConfig(
    resize_long=None,
    scale=(1.0, 1.0),
    max_class_share=1.0,
    flip=0.0,
    brightness=0.0,
    contrast=0.0,
    saturation=0.0,
    hue=0.0,
)
"""Nothing but the crop and the padding."""
FILL = (124, 116, 104)


def luck(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_image(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.randint(256, (3, height, width), dtype=torch.uint8, generator=luck(seed))


def random_labels(height: int, width: int, seed: int = 0) -> Tensor:
    labels = torch.randint(6, (height, width), generator=luck(seed))
    return torch.where(labels == 5, IGNORE_INDEX, labels)


def crop_is_good(labels: Tensor, share: float) -> bool:
    """The paper's rule, slowly."""
    counts: dict[int, int] = {}
    for value in labels.flatten().tolist():
        if value != IGNORE_INDEX:
            counts[value] = counts.get(value, 0) + 1
    return len(counts) > 1 and max(counts.values()) <= share * sum(counts.values())


@pytest.fixture
def crops(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Every window that `random_crop` looks at."""
    seen: list[Tensor] = []

    def record(labels: Tensor, size: tuple[int, int], window: Window) -> Tensor:
        seen.append(resize_labels(labels, size, window))
        return seen[-1]

    monkeypatch.setattr(geometry, "resize_labels", record)
    return seen


def draw_crop(labels: Tensor, seed: int, *, size: tuple[int, int], crop: int = 8, share: float = 0.75) -> Window:
    return random_crop(labels, size=size, crop=crop, max_class_share=share, generator=luck(seed))


@pytest.mark.parametrize("size", [(24, 24), (36, 30)])
def test_crops_are_drawn_until_no_class_is_too_large(size: tuple[int, int], crops: list[Tensor]) -> None:
    labels = torch.zeros(24, 24, dtype=torch.int64)
    labels[:12, :12] = torch.tensor([[1, 2], [2, 3]]).repeat(6, 6)
    labels[6:18, 16:] = IGNORE_INDEX
    tries = []
    for seed in range(200):
        crops.clear()
        window = draw_crop(labels, seed, size=size)
        assert not any(crop_is_good(crop, 0.75) for crop in crops[:-1])
        assert crop_is_good(crops[-1], 0.75) or len(crops) == CROP_TRIES
        assert torch.equal(resize_labels(labels, size, window), crops[-1])
        tries.append(len(crops))
    assert {1, 2, 3, 4} < set(tries) and max(tries) <= 10


def test_a_hopeless_image_gives_its_tenth_crop(crops: list[Tensor]) -> None:
    draw_crop(torch.full((24, 24), 3), 0, size=(24, 24))
    assert len(crops) == 10
    crops.clear()
    draw_crop(torch.full((24, 24), IGNORE_INDEX), 0, size=(24, 24))
    assert len(crops) == 10


def test_ignored_pixels_count_for_nothing_in_a_crop(crops: list[Tensor]) -> None:
    labels = torch.full((8, 8), IGNORE_INDEX)
    labels[0, :4] = torch.tensor([1, 1, 1, 2])  # three of four: at the limit, not above
    draw_crop(labels, 0, size=(8, 8))
    assert len(crops) == 1
    crops.clear()
    labels[0, 4] = 1  # four of five
    draw_crop(labels, 0, size=(8, 8))
    assert len(crops) == 10


def test_a_share_of_one_takes_the_first_crop(crops: list[Tensor]) -> None:
    draw_crop(torch.full((24, 24), 3), 0, size=(24, 24), share=1.0)
    assert len(crops) <= 1


def test_every_place_comes_and_a_small_image_is_one_window() -> None:
    labels = random_labels(10, 9)
    places = {draw_crop(labels, seed, size=(10, 9), share=1.0)[:2] for seed in range(200)}
    assert places == {(top, left) for top in range(3) for left in range(2)}
    assert draw_crop(labels, 0, size=(10, 9), crop=20) == (0, 0, 10, 9)
    assert draw_crop(labels, 0, size=(10, 9), crop=10)[2:] == (10, 9)


def test_flip_moves_both() -> None:
    image, labels = random_image(4, 5), random_labels(4, 5)
    turned, turned_labels = flip(image, labels, probability=1.0, generator=luck())
    for x in range(5):
        assert torch.equal(turned[:, :, x], image[:, :, 4 - x])
        assert torch.equal(turned_labels[:, x], labels[:, 4 - x])
    same, same_labels = flip(image, labels, probability=0.0, generator=luck())
    assert torch.equal(same, image) and torch.equal(same_labels, labels)
    flips = sum(not torch.equal(flip(image, labels, probability=0.3, generator=luck(s))[0], image) for s in range(400))
    assert 80 < flips < 160


# --- colours ---------------------------------------------------------------------------------------------------------

RANGES = {"brightness": 32.0, "contrast": 0.5, "saturation": 0.4, "hue": 18.0}
LIMITS = {(-32.0, 32.0): "brightness", (0.5, 1.5): "contrast", (0.6, 1.4): "saturation", (-18.0, 18.0): "hue"}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What each part drew in the last call of `photometric`; the ranges tell the parts apart."""
    values: dict[str, Any] = {}
    maybe, chance = colors_module.maybe, colors_module.chance

    def record_maybe(generator: torch.Generator, low: float, high: float, *, neutral: float) -> float:
        first = values.get("contrast first")
        value = maybe(generator, low, high, neutral=neutral)
        values["contrast first"] = first  # a part's own chance is not the order's
        values[LIMITS[low, high]] = None if value == neutral else value
        return value

    def record_chance(generator: torch.Generator, probability: float) -> bool:
        values["contrast first"] = chance(generator, probability)
        return bool(values["contrast first"])

    monkeypatch.setattr(colors_module, "maybe", record_maybe)
    monkeypatch.setattr(colors_module, "chance", record_chance)
    return values


def distort_slowly(pixel: list[float], drawn: dict[str, Any]) -> list[float]:
    """PAPER section 5 for one pixel, with the HSV of the standard library; 0..255 in and out."""

    def cut(values: list[float]) -> list[float]:
        return [min(max(value, 0.0), 255.0) for value in values]

    if drawn["brightness"] is not None:
        pixel = cut([value + drawn["brightness"] for value in pixel])
    if drawn["contrast"] is not None and drawn["contrast first"]:
        pixel = cut([value * drawn["contrast"] for value in pixel])
    hue, saturation, value = colorsys.rgb_to_hsv(*(part / 255 for part in pixel))
    if drawn["saturation"] is not None:
        saturation = min(saturation * drawn["saturation"], 1.0)
    if drawn["hue"] is not None:
        hue = (hue + drawn["hue"] / 180) % 1  # half of the degrees: 180 is the whole circle
    pixel = [255 * part for part in colorsys.hsv_to_rgb(hue, saturation, value)]
    if drawn["contrast"] is not None and not drawn["contrast first"]:
        pixel = cut([value * drawn["contrast"] for value in pixel])
    return pixel


def colours() -> Tensor:
    """An image (3, 9, 16) of random colours, greys, black, white and the six pure ones."""
    image = random_image(9, 16)
    image[:, 0, :6] = 255 * torch.tensor([[1, 1, 0, 0, 0, 1], [0, 1, 1, 1, 0, 0], [0, 0, 0, 1, 1, 1]])
    image[:, 0, 6], image[:, 0, 7], image[:, 0, 8:12] = 0, 255, torch.tensor([1, 60, 128, 254])
    return image


def assert_as_slow(result: Tensor, image: Tensor, drawn: dict[str, Any]) -> None:
    for y in range(image.shape[1]):
        for x in range(image.shape[2]):
            expected = distort_slowly(image[:, y, x].tolist(), drawn)
            for got, want in zip(result[:, y, x].tolist(), expected, strict=True):
                assert abs(got - want) <= 0.5 + 1e-2, (drawn, image[:, y, x].tolist(), expected)


def test_photometric_distortion_by_loops(drawn: dict[str, Any]) -> None:
    image = colours()
    kinds = set()
    for seed in range(60):
        result = photometric(image, **RANGES, generator=luck(seed))
        assert result.dtype == torch.uint8
        kinds.add((drawn["contrast"] is not None, drawn["contrast first"], drawn["saturation"] is not None))
        assert_as_slow(result, image, drawn)
    assert len(kinds) == 8  # contrast before and after, with and without saturation


@pytest.mark.parametrize("part", RANGES)
def test_each_part_alone(part: str, drawn: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LIMITS, (0.0, 0.0), "none")
    monkeypatch.setitem(LIMITS, (-0.0, 0.0), "none")
    monkeypatch.setitem(LIMITS, (1.0, 1.0), "none")
    image = colours()
    changed = 0
    for seed in range(20):
        result = photometric(image, **{**dict.fromkeys(RANGES, 0.0), part: RANGES[part]}, generator=luck(seed))
        assert_as_slow(result, image, {**dict.fromkeys(RANGES), **drawn})
        changed += not torch.equal(result, image)
    assert 4 <= changed <= 16


def test_parts_come_half_of_the_time_independently_and_evenly(drawn: dict[str, Any]) -> None:
    image = random_image(1, 1)
    rows: list[dict[str, Any]] = []
    for seed in range(800):
        photometric(image, **RANGES, generator=luck(seed))
        rows.append(dict(drawn))
    there = {key: np.array([row[key] not in (None, False) for row in rows]) for key in rows[0]}
    assert set(there) == {*RANGES, "contrast first"}
    for one, came in there.items():
        assert 0.43 < came.mean() < 0.57, one
        for other, came_too in there.items():
            if one < other:
                assert 0.19 < (came & came_too).mean() < 0.31, (one, other)
    for (low, high), part in LIMITS.items():
        shares = (np.array([row[part] for row in rows if row[part] is not None]) - low) / (high - low)
        assert 0 <= shares.min() < 0.03 and 0.97 < shares.max() <= 1
        assert np.abs(np.histogram(shares, bins=4, range=(0, 1))[0] / len(shares) - 0.25).max() < 0.08


@pytest.mark.parametrize("turns", [-0.5, -0.1, 0.03, 0.1, 1 / 3])
def test_hue_turns_as_torchvisions(turns: float) -> None:
    image = colours().float()
    expected = functional.adjust_hue(image / 255, turns) * 255
    torch.testing.assert_close(turn_hue(image, turns), expected, atol=2e-2, rtol=0)


@pytest.mark.parametrize("turns", [-0.5, -1 / 6, -0.1, 0.0, 0.03, 1 / 3, 0.5])
def test_hue_is_that_of_the_plain_remainder_to_the_bit(turns: float) -> None:
    """The slow twin of `turn_hue`: a branch for every pixel and the remainder of the circle."""
    generator = luck(3)
    smooth = torch.rand(3, 90, 70, generator=generator) * 255
    for colors in (smooth, smooth.round(), (smooth / 85).round() * 85, smooth[:1].expand(3, -1, -1)):
        red, green, blue = colors
        value, low = colors.amax(dim=0), colors.amin(dim=0)
        safe = (value - low).clamp(min=1e-6)
        of_green = torch.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4)
        sixth = torch.where(value == red, (green - blue) / safe, of_green)
        position = (sixth + (torch.tensor([5.0, 3.0, 1.0]).view(3, 1, 1) + 6 * turns)).remainder(6)
        gap = torch.minimum(position, 4 - position).clamp(0, 1)
        assert torch.equal(turn_hue(colors, turns), value - (value - low) * gap)


def test_fast_selections_and_casts_are_the_plain_ones_to_the_bit() -> None:
    values = torch.randn(3, 40, 50, generator=luck())
    columns = torch.randint(50, (31,), generator=luck(1)).sort().values
    for source in (values, values.long()[0], values[:, ::2, 5:]):
        places = columns.clamp(max=source.shape[-1] - 1)
        assert torch.equal(_select(source, places, source.ndim - 1), source.index_select(-1, places))
    first = values > 0
    for scale in (1.0, 1e-30, 1e30):
        chosen = colors_module._choose(first, values * scale, values.flip(-1))
        assert torch.equal(chosen, torch.where(first, values * scale, values.flip(-1)))
    shades = torch.linspace(0, 255, 20_001)
    assert torch.equal(to_uint8(shades.clone()), shades.round().to(torch.uint8))


def test_light_colours_are_cut_not_wrapped() -> None:
    for seed in range(40):
        result = photometric(colours(), brightness=255, contrast=1, saturation=1, hue=90, generator=luck(seed))
        assert result.dtype == torch.uint8  # a value that wrapped round would differ from the slow reference
    image = torch.full((3, 2, 2), 250, dtype=torch.uint8)
    brighter = [
        photometric(image, brightness=32, contrast=0, saturation=0, hue=0, generator=luck(s)) for s in range(20)
    ]
    assert min(int(result.min()) for result in brighter) >= 250 - 32
    assert max(int(result.max()) for result in brighter) == 255


# --- the whole -------------------------------------------------------------------------------------------------------


def test_padding_is_the_fill_and_ignored_whatever_the_colours_do() -> None:
    image, labels = random_image(10, 12), random_labels(10, 12)
    transform = TrainTransform(16, AugmentConfig(resize_long=None, scale=(1.0, 1.0), flip=1.0), FILL)
    for seed in range(12):
        result, result_labels = transform(image, labels, luck(seed))
        assert result.shape == (3, 16, 16) and result.dtype == torch.uint8 and result.is_contiguous()
        assert result_labels.shape == (16, 16) and result_labels.dtype == torch.int64
        assert (result_labels[10:] == IGNORE_INDEX).all() and (result_labels[:, 12:] == IGNORE_INDEX).all()
        fill = torch.tensor(FILL, dtype=torch.uint8).view(3, 1, 1)
        assert (result[:, 10:] == fill).all() and (result[:, :, 12:] == fill).all()
        assert torch.equal(result_labels[:10, :12], labels.flip(-1))


def test_pad_to_extends_right_and_bottom() -> None:
    fill = torch.tensor(FILL, dtype=torch.uint8).view(3, 1, 1)
    image, labels = random_image(3, 5), random_labels(3, 5)
    padded, padded_labels = pad_to(image, labels, size=6, fill=fill)
    assert torch.equal(padded[:, :3, :5], image) and torch.equal(padded_labels[:3, :5], labels)
    for y, x in ((5, 0), (0, 5), (5, 5)):
        assert padded[:, y, x].tolist() == list(FILL) and padded_labels[y, x] == IGNORE_INDEX


def test_zeros_leave_the_image_as_it_is() -> None:
    image, labels = random_image(16, 16), random_labels(16, 16)
    transform = TrainTransform(16, STILL, FILL)
    for seed in range(20):
        result, result_labels = transform(image, labels, luck(seed))
        assert torch.equal(result, image) and torch.equal(result_labels, labels)


def test_without_other_parts_a_sample_is_a_window_of_the_pair() -> None:
    image = torch.arange(24 * 20, dtype=torch.int64).view(24, 20)
    coded = torch.stack([image // 256, image % 256, torch.zeros_like(image)]).to(torch.uint8)
    transform = TrainTransform(16, STILL, FILL)
    corners = set()
    for seed in range(60):
        result, labels = transform(coded, image % 7, luck(seed))
        places = result[0].long() * 256 + result[1].long()
        top, left = divmod(int(places[0, 0]), 20)
        assert torch.equal(places, image[top : top + 16, left : left + 16])
        assert torch.equal(labels, places % 7)
        corners.add((top, left))
    assert len(corners) > 20


@pytest.mark.parametrize("long, short", [(2048, None), (None, None), (60, 60), (None, 24)])
def test_image_and_labels_stay_together(long: int | None, short: int | None) -> None:
    """Red tells the class: where the labels are the same all around, the image must say that class."""
    blocks = torch.randint(6, (6, 9), generator=luck()).repeat_interleave(10, 0).repeat_interleave(10, 1)
    image = torch.stack([blocks * 40] * 3).to(torch.uint8)
    augment = AugmentConfig(resize_long=long, resize_short=short, brightness=0, contrast=0, saturation=0, hue=0)
    transform = TrainTransform(48, augment, (255, 255, 255))
    compared = 0
    for seed in range(30):
        result, labels = transform(image, blocks, luck(seed))
        around = F.pad(labels[None, None].float(), (1, 1, 1, 1), mode="replicate")
        low, high = -F.max_pool2d(-around, 3, stride=1)[0, 0], F.max_pool2d(around, 3, stride=1)[0, 0]
        flat = (low == high) & (labels != IGNORE_INDEX)
        agree = ((result[0].long() - 40 * labels)[flat] == 0).float().mean()
        assert agree > 0.95, seed
        compared += int(flat.sum())
    assert compared > 10_000


def test_the_recipes_sizes_are_the_papers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fitted into (2048, crop), times a ratio of 0.5 to 2."""
    sizes: list[tuple[int, int]] = []

    def record(labels: Tensor, *, size: tuple[int, int], **settings: Any) -> Window:
        sizes.append(size)
        return random_crop(labels, size=size, **settings)

    monkeypatch.setattr(transform_module, "random_crop", record)
    transform = TrainTransform(32, AugmentConfig(), FILL)
    for seed in range(200):
        transform(random_image(40, 60), random_labels(40, 60), luck(seed))
    heights = np.array([height for height, _ in sizes])
    assert 16 <= heights.min() < 18 and 62 < heights.max() <= 64
    assert 36 < heights.mean() < 44
    assert all(abs(width - 1.5 * height) <= 1.5 for height, width in sizes)


def test_a_sample_depends_on_the_generator_only() -> None:
    image, labels = random_image(50, 70), random_labels(50, 70)
    copies = image.clone(), labels.clone()
    transform = TrainTransform(32, AugmentConfig(), FILL)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first, first_labels = transform(image, labels, luck(5))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    again, again_labels = TrainTransform(32, AugmentConfig(), FILL)(image, labels, luck(5))
    assert torch.equal(first, again) and torch.equal(first_labels, again_labels)
    assert not torch.equal(first, transform(image, labels, luck(6))[0])
    assert torch.equal(image, copies[0]) and torch.equal(labels, copies[1])  # the pair itself is left alone


def test_a_part_that_is_off_does_not_move_the_luck_of_the_others() -> None:
    """So that runs with and without a part see the same crops."""
    image, labels = random_image(50, 70), random_labels(50, 70)
    for seed in range(5):
        _, with_hue = TrainTransform(32, AugmentConfig(), FILL)(image, labels, luck(seed))
        _, without = TrainTransform(32, AugmentConfig(hue=0, brightness=0), FILL)(image, labels, luck(seed))
        assert torch.equal(with_hue, without)


def settings_out_of_range() -> Iterator[Any]:
    for key, value in {
        "scale": (0.0, 1.0),
        "max_class_share": 0.0,
        "flip": 1.5,
        "brightness": -1.0,
        "contrast": 1.5,
        "saturation": -0.1,
        "hue": 91.0,
        "resize_long": 0,
        "resize_short": -5,
    }.items():
        yield pytest.param(key, value, id=key)
    yield pytest.param("scale", (2.0, 0.5), id="scale reversed")
    yield pytest.param("scale", (math.nan, 1.0), id="scale no number")


@pytest.mark.parametrize("key, value", settings_out_of_range())
def test_settings_out_of_range_are_named(key: str, value: Any) -> None:
    with pytest.raises(UserError, match=rf"augment\.{key} is .*it must be ") as caught:
        TrainTransform(32, AugmentConfig(**{key: value}), FILL)
    assert str(value) in str(caught.value)

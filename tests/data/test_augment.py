"""Optional steps of the augmentation: slow references, image and labels together, and draws that repeat."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor
from torch.utils.data import DataLoader

from segvit.config import AugmentConfig, TrainConfig
from segvit.data.augment import colors, geometry, mixing
from segvit.data.augment.draws import stream
from segvit.data.augment.transform import TrainTransform
from segvit.data.sampling.class_counts import take_census
from segvit.data.sampling.crops import TrainingSamples, collate
from segvit.data.sampling.order import EndlessBatches
from segvit.data.sampling.partners import Partners
from segvit.data.sampling.rare_classes import RareClasses
from segvit.data.shapes.scenes import ShapesDataset
from segvit.data.spec import IGNORE_INDEX
from segvit.errors import UserError
from segvit.utils.resize import Window, resize, resize_labels

FILL = (124, 116, 104)
STILL: dict[str, Any] = {
    "resize_long": None, "scale": (1.0, 1.0), "max_class_share": 1.0, "flip": 0.0, "brightness": 0.0,
    "contrast": 0.0, "saturation": 0.0, "hue": 0.0,
}  # fmt: skip
"""Nothing but the crop and the padding."""
EVERYTHING = AugmentConfig(
    aspect=1.3, rotation=20.0, vertical_flip=0.5, rot90=0.5, gamma=0.4, blur=1.5, noise=8.0, jpeg_quality=60, erase=0.5,
    copy_paste=0.5, cutmix=0.5,
)  # fmt: skip


def luck(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def fill() -> Tensor:
    return torch.tensor(FILL, dtype=torch.uint8).view(3, 1, 1)


def random_image(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.randint(256, (3, height, width), dtype=torch.uint8, generator=luck(seed))


def random_labels(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.randint(6, (height, width), generator=luck(seed))


def applied(step: Callable[[torch.Generator], Tensor], image: Tensor, count: int = 40) -> list[tuple[int, Tensor]]:
    """Seeds for which a step changed the image, and its results; about half of all."""
    found = [(seed, step(luck(seed))) for seed in range(count)]
    changed = [(seed, result) for seed, result in found if not torch.equal(result, image)]
    assert count / 4 < len(changed) < count * 3 / 4
    assert all(result.dtype == torch.uint8 and result.shape == image.shape for _, result in found)
    return changed


# --- the defaults ----------------------------------------------------------------------------------------------------

RECORDED = {
    "paper": ("30f072247ab08bc1", 15684542),
    "views": ("8d39ff94ad7283dc", 16854150),
    "rare": ("ab2a1f7822d591d0", 15432690),
    "finetune": ("256933c3de5f9119", 13878308),
}
"""Hash of the labels and sum of the images of 24 crops, before any optional step existed."""


@pytest.mark.parametrize("name", RECORDED)
def test_the_defaults_give_the_crops_that_they_always_gave(name: str) -> None:
    samples = ShapesDataset(6, size=48)
    augment = {"views": AugmentConfig(views=2), "finetune": TrainConfig.load("finetune").augment}
    options: dict[str, Any] = {
        "rare": {"rare": RareClasses(take_census(samples), probability=0.5, seed=3)},
        "views": {"views": 2},
    }
    transform = TrainTransform(40, augment.get(name, AugmentConfig()), FILL)
    crops = TrainingSamples(samples, transform, seed=3, **options.get(name, {}))
    digest, total = hashlib.sha256(), 0
    for draw in range(24):
        image, labels, _ = crops[draw % 6, draw]  # type: ignore[misc]
        digest.update(labels.numpy().tobytes())
        total += int(image.long().sum())
    recorded, recorded_total = RECORDED[name]
    assert digest.hexdigest()[:16] == recorded
    assert abs(total - recorded_total) <= 24  # colours are floats: a processor may round a value otherwise


def test_a_step_does_not_move_the_draws_of_the_others() -> None:
    image, labels = random_image(50, 70), random_labels(50, 70)
    _, plain = TrainTransform(32, AugmentConfig(), FILL)(image, labels, luck(5))
    for changes in ({"blur": 2.0}, {"noise": 9.0}, {"gamma": 0.5}, {"jpeg_quality": 30}, {"cutmix": 1.0}):
        _, with_it = TrainTransform(32, AugmentConfig(**changes), FILL)(image, labels, luck(5))
        assert torch.equal(plain, with_it), changes
    used = luck(5)
    torch.rand(7, generator=used)
    assert torch.equal(torch.rand(3, generator=stream(used, "blur")), torch.rand(3, generator=stream(luck(5), "blur")))
    assert not torch.equal(torch.rand(3, generator=stream(used, "a")), torch.rand(3, generator=stream(used, "b")))


# --- geometry --------------------------------------------------------------------------------------------------------


def turned_slowly(image: Tensor, labels: Tensor, window: Window, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """Turn a window of a pair pixel by pixel: inverse rotation about its centre, bilinear and nearest."""
    height, width = labels.shape
    result = np.zeros((3, window.height, window.width))
    result_labels = np.zeros((window.height, window.width), dtype=np.int64)
    angle = math.radians(degrees)
    for row in range(window.height):
        for column in range(window.width):
            down, right = row - (window.height - 1) / 2, column - (window.width - 1) / 2
            y = window.top + (window.height - 1) / 2 + math.cos(angle) * down + math.sin(angle) * right
            x = window.left + (window.width - 1) / 2 + math.cos(angle) * right - math.sin(angle) * down
            if not (-0.5 <= y < height - 0.5 and -0.5 <= x < width - 0.5):
                result[:, row, column], result_labels[row, column] = FILL, IGNORE_INDEX
                continue
            result_labels[row, column] = labels[math.floor(y + 0.5), math.floor(x + 0.5)]
            y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
            top, left = min(int(y), height - 2), min(int(x), width - 2)
            for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):
                weight = (1 - abs(y - top - dy)) * (1 - abs(x - left - dx))
                result[:, row, column] += weight * image[:, top + dy, left + dx].numpy()
    return result, result_labels


@pytest.mark.parametrize("degrees", [7.0, -33.0, 90.0, 180.0])
@pytest.mark.parametrize("window", [Window(3, 5, 12, 10), Window(0, 0, 12, 12), Window(8, 11, 12, 9)], ids=str)
def test_a_turned_window_by_loops(window: Window, degrees: float) -> None:
    image, labels = random_image(20, 20), random_labels(20, 20)
    turned, turned_labels = geometry.turned_window(image, labels, (20, 20), window, degrees=degrees, fill=fill())
    expected, expected_labels = turned_slowly(image, labels, window, degrees)
    assert turned.dtype == torch.uint8 and turned_labels.dtype == torch.int64
    differs = torch.from_numpy(expected_labels) != turned_labels
    assert differs.float().mean() < (0.02 if degrees % 90 else 1e-9)  # a place on a border may round either way
    assert np.abs(turned.numpy() - expected)[:, ~differs.numpy()].max() <= 0.51


def test_a_turned_window_of_a_resized_pair_is_cut_from_the_resized_pair() -> None:
    image, labels = random_image(30, 24), random_labels(30, 24)
    size, window = (45, 40), Window(4, 6, 20, 24)
    whole = resize(image, size), resize_labels(labels, size)
    found = geometry.turned_window(image, labels, size, window, degrees=17.0, fill=fill())
    expected = geometry.turned_window(*whole, size, window, degrees=17.0, fill=fill())
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_angles_and_ratios_are_drawn_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = []
    for seed in range(300):
        height, width = geometry.stretched((1000, 2000), aspect=1.5, generator=luck(seed))
        assert abs(height * width / 2_000_000 - 1) < 2e-3
        shares.append(math.log(height / width * 2) / math.log(1.5))
    assert -1.001 <= min(shares) < -0.95 and 0.95 < max(shares) <= 1.001 and abs(np.mean(shares)) < 0.1
    angles: list[float] = []
    real = geometry.turned_window

    def spy(*arguments: Any, degrees: float, **others: Any) -> Any:
        angles.append(degrees)
        return real(*arguments, degrees=degrees, **others)

    monkeypatch.setattr("segvit.data.augment.transform.turned_window", spy)
    transform = TrainTransform(8, AugmentConfig(**STILL, rotation=30.0), FILL)
    for seed in range(200):
        transform(random_image(12, 12), random_labels(12, 12), luck(seed))
    assert -30 <= min(angles) < -28 and 28 < max(angles) <= 30 and abs(np.mean(angles)) < 4


def test_flips_and_quarter_turns() -> None:
    image, labels = random_image(4, 5), random_labels(4, 5)
    up, up_labels = geometry.flip(image, labels, probability=1.0, generator=luck(), axis=-2)
    for y in range(4):
        assert torch.equal(up[:, y], image[:, 3 - y]) and torch.equal(up_labels[y], labels[3 - y])
    seen = set()
    for seed in range(30):
        turned, turned_labels = geometry.quarter_turns(image, labels, probability=1.0, generator=luck(seed))
        turns = next(k for k in range(1, 4) if np.array_equal(np.rot90(labels.numpy(), k), turned_labels.numpy()))
        assert np.array_equal(np.rot90(image.numpy(), turns, (1, 2)), turned.numpy())
        seen.add(turns)
    assert seen == {1, 2, 3}
    same, _ = geometry.quarter_turns(image, labels, probability=0.0, generator=luck())
    assert torch.equal(same, image)


GEOMETRY: dict[str, dict[str, Any]] = {
    "aspect": {"aspect": 1.5},
    "rotation": {"rotation": 40.0},
    "vertical flip": {"vertical_flip": 0.5},
    "quarter turns": {"rot90": 0.7},
    "erase": {"erase": 1.0},
    "cutmix": {"cutmix": 1.0},
    "copy-paste": {"copy_paste": 1.0},
    "all": {
        "aspect": 1.5, "rotation": 40.0, "vertical_flip": 0.5, "rot90": 0.7, "erase": 0.5, "cutmix": 0.5,
        "copy_paste": 0.5, "flip": 0.5, "scale": (0.7, 1.5),
    },
}  # fmt: skip


class Blocks(ShapesDataset):
    """Scenes whose image shows the class of each pixel, in blocks of 10 pixels: grey value 40 x class."""

    def read(self, index: int) -> Any:
        blocks = torch.randint(6, (6, 9), generator=luck(index)).repeat_interleave(10, 0).repeat_interleave(10, 1)
        return super().read(index)._replace(image=torch.stack([blocks * 40] * 3).to(torch.uint8), labels=blocks)


@pytest.mark.parametrize("name", GEOMETRY)
def test_image_and_labels_move_together(name: str) -> None:
    """Where the labels are the same all around, the grey value must name that class, or the fill an ignored pixel."""
    samples = Blocks(4, size=48)
    augment = AugmentConfig(**{**STILL, **GEOMETRY[name]})
    rare = RareClasses(take_census(samples), probability=0.0, seed=0)
    partners = Partners(augment, length=4, rare=rare)
    crops = TrainingSamples(samples, TrainTransform(48, augment, (7, 7, 7)), seed=0, partners=partners)
    compared = agreeing = ignored = 0
    for draw in range(24):
        image, labels, _ = crops[draw % 4, draw]  # type: ignore[misc]
        around = torch.nn.functional.pad(labels[None, None].float(), (2, 2, 2, 2), mode="replicate")
        low = -torch.nn.functional.max_pool2d(-around, 5, stride=1)[0, 0]
        high = torch.nn.functional.max_pool2d(around, 5, stride=1)[0, 0]
        flat = low == high
        meant = torch.where(labels == IGNORE_INDEX, 7, labels * 40)
        agreed = int((image[0].long() == meant)[flat].sum())
        assert agreed > 0.9 * flat.sum(), draw  # along the sides, the neighbours are unknown
        agreeing += agreed
        compared += int(flat.sum())
        ignored += int((labels == IGNORE_INDEX).sum())
    assert compared > 10_000 and agreeing > 0.97 * compared
    assert (ignored > 0) == (name in ("rotation", "erase", "all"))


# --- colours ---------------------------------------------------------------------------------------------------------


def test_gamma_is_a_power_of_the_values() -> None:
    image = torch.arange(256, dtype=torch.uint8).repeat(3, 1)[:, None]
    exponents = []
    for _, result in applied(lambda g: colors.gamma_corrected(image, gamma=1.0, generator=g), image):
        exponent = math.log(int(result[0, 0, 128]) / 255) / math.log(128 / 255)
        expected = [255 * (value / 255) ** exponent for value in range(256)]
        assert np.abs(result[0, 0].numpy() - expected).max() < 1.5  # the exponent is read off a rounded value
        exponents.append(exponent)
    assert 0.49 < min(exponents) < 0.7 and 1.5 < max(exponents) < 2.02


def test_blur_is_scipys() -> None:
    image = random_image(17, 23)
    for seed, result in applied(lambda g: colors.blurred(image, sigma=3.0, generator=g), image):
        sigma = 3.0 * float(torch.rand((), generator=luck(seed)))
        reach = math.ceil(3 * sigma)
        expected = [ndimage.gaussian_filter(part.astype(float), sigma, mode="nearest", radius=reach)
                    for part in image.numpy()]  # fmt: skip
        assert np.abs(result.numpy() - np.stack(expected)).max() <= 0.51
    tiny = random_image(1, 2)
    assert colors.blurred(tiny, sigma=9.0, generator=luck(1)).shape == (3, 1, 2)


def test_noise_has_the_drawn_width() -> None:
    image = torch.full((3, 60, 60), 128, dtype=torch.uint8)
    for seed, result in applied(lambda g: colors.noisy(image, noise=20.0, generator=g), image):
        width = 20.0 * float(torch.rand((), generator=luck(seed)))
        off = result.float() - 128
        assert abs(float(off.mean())) < 1 and abs(float(off.std()) - math.hypot(width, 0.29)) < 0.6
    black = colors.noisy(torch.zeros(3, 60, 60, dtype=torch.uint8), noise=20.0, generator=luck(1))
    assert int(black.max()) < 128  # cut, not wrapped


def test_jpeg_is_pillows(tmp_path: Any) -> None:
    image = colors.blurred(random_image(40, 48), sigma=4.0, generator=luck(1))
    for seed, result in applied(lambda g: colors.recompressed(image, quality=20, generator=g), image):
        quality = 20 + int(torch.randint(81, (), generator=luck(seed)))
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / "x.jpg", quality=quality)
        expected = np.asarray(Image.open(tmp_path / "x.jpg")).astype(int)
        assert np.abs(result.permute(1, 2, 0).numpy() - expected).mean() < 2, quality
    assert torch.equal(
        colors.recompressed(image.flip(-1), quality=20, generator=luck(3)),
        colors.recompressed(image.flip(-1).contiguous(), quality=20, generator=luck(3)),
    )


# --- areas -----------------------------------------------------------------------------------------------------------


def test_an_erased_rectangle_is_filled_and_ignored() -> None:
    image, labels = random_image(60, 60), random_labels(60, 60)
    shares, ratios = [], []
    for seed in range(100):
        result, result_labels = mixing.erased((image, labels), share=(0.05, 0.2), fill=fill(), generator=luck(seed))
        rows, columns = (result_labels == IGNORE_INDEX).nonzero(as_tuple=True)
        y, x = slice(int(rows.min()), int(rows.max()) + 1), slice(int(columns.min()), int(columns.max()) + 1)
        assert len(rows) == (y.stop - y.start) * (x.stop - x.start)  # one full rectangle
        assert (result[:, y, x] == fill()).all()
        kept = torch.ones(60, 60, dtype=torch.bool)
        kept[y, x] = False
        assert torch.equal(result[:, kept], image[:, kept]) and torch.equal(result_labels[kept], labels[kept])
        shares.append(len(rows) / 3600)
        ratios.append((y.stop - y.start) / (x.stop - x.start))
    assert 0.04 < min(shares) < 0.08 and 0.17 < max(shares) < 0.21
    assert 1 / 3.3 < min(ratios) < 0.5 and 2 < max(ratios) < 3.3
    assert not (labels == IGNORE_INDEX).any()  # the pair itself is left alone


def test_cutmix_takes_a_square_of_the_other() -> None:
    crop, other = (random_image(40, 40, 1), torch.zeros(40, 40, dtype=torch.int64)), (
        random_image(40, 40, 2), torch.ones(40, 40, dtype=torch.int64),
    )  # fmt: skip
    shares = []
    for seed in range(200):
        image, labels = mixing.cut_and_mixed(crop, other, generator=luck(seed))
        assert torch.equal(image, torch.where(labels == 1, other[0], crop[0]))
        rows, columns = labels.nonzero(as_tuple=True)
        if len(rows):
            side = int(rows.max() - rows.min()) + 1
            assert side == int(columns.max() - columns.min()) + 1 and len(rows) == side**2
        shares.append(len(rows) / 1600)
    assert min(shares) < 0.05 and max(shares) > 0.95 and abs(np.mean(shares) - 0.5) < 0.08


def test_copy_paste_takes_the_pixels_of_a_class() -> None:
    crop, other = (
        (random_image(20, 20, 1), random_labels(20, 20, 1)),
        (random_image(20, 20, 2), random_labels(20, 20, 2)),
    )
    image, labels = mixing.pasted(crop, other, class_index=3)
    for y in range(20):
        for x in range(20):
            source = other if int(other[1][y, x]) == 3 else crop
            assert labels[y, x] == source[1][y, x] and torch.equal(image[:, y, x], source[0][:, y, x])


def test_partners_are_rare_classes_and_any_sample() -> None:
    samples = ShapesDataset(12, size=48)
    census = take_census(samples)
    rare = RareClasses(census, probability=0.0, seed=0)
    partners = Partners(AugmentConfig(copy_paste=0.5, cutmix=0.5), length=12, rare=rare)
    chosen = [list(partners.choose(luck(seed))) for seed in range(400)]
    pasted = [partner for row in chosen for partner in row if partner.wanted is not None]
    cut = [partner for row in chosen for partner in row if partner.wanted is None]
    assert 150 < len(pasted) < 250 and 150 < len(cut) < 250
    assert {partner.sample for partner in cut} == set(range(12))
    assert all(census.shown[partner.sample, partner.wanted] for partner in pasted)
    counts = np.bincount([partner.wanted for partner in pasted], minlength=len(rare.odds))
    assert np.abs(counts / len(pasted) - rare.odds.numpy()).max() < 0.12
    assert not [*Partners(AugmentConfig(), length=12).choose(luck())]


def test_a_class_that_a_crop_must_show_is_never_removed() -> None:
    samples = ShapesDataset(8, size=48)
    rare = RareClasses(take_census(samples), probability=1.0, seed=0)
    augment = AugmentConfig(**{**STILL, "rotation": 90.0, "erase": 1.0, "erase_share": (0.5, 0.9), "cutmix": 1.0})
    transform = TrainTransform(24, augment, FILL)
    crops = TrainingSamples(samples, transform, seed=0, rare=rare, partners=Partners(augment, length=8))
    shown = ignored = 0
    for draw in range(60):
        wanted = crops.crop_key(draw % 8, draw).wanted
        _, labels, _ = crops[draw % 8, draw]  # type: ignore[misc]
        shown += int((labels == wanted).any())
        ignored += int((labels == IGNORE_INDEX).any())
    assert shown == 60 and ignored > 20


# --- draws that repeat -----------------------------------------------------------------------------------------------


def everything(seed: int = 0) -> TrainingSamples:
    samples = ShapesDataset(6, size=48)
    rare = RareClasses(take_census(samples), probability=0.3, seed=seed)
    partners = Partners(EVERYTHING, length=6, rare=rare)
    return TrainingSamples(samples, TrainTransform(32, EVERYTHING, FILL), seed=seed, rare=rare, partners=partners)


def drawn(*, workers: int, rank: int = 0, world: int = 1, start: int = 0, steps: int = 4) -> list[list[Tensor]]:
    order = EndlessBatches(6, 4, seed=1, rank=rank, world_size=world, start_step=start, steps=steps)
    loader: Any = DataLoader(everything(), batch_sampler=order, num_workers=workers, collate_fn=collate)
    return [list(batch) for batch in loader]


def test_draws_depend_on_neither_workers_nor_ranks_nor_the_start() -> None:
    torch.manual_seed(1)
    expected = drawn(workers=0)
    torch.manual_seed(2)
    for batch, other in zip(expected, drawn(workers=2), strict=True):
        assert all(torch.equal(one, two) for one, two in zip(batch, other, strict=True))
    halves = [drawn(workers=0, rank=rank, world=2) for rank in range(2)]
    for step, batch in enumerate(expected):
        for rank in range(2):
            assert all(torch.equal(part[rank::2], own) for part, own in zip(batch, halves[rank][step], strict=True))
    for batch, other in zip(expected[2:], drawn(workers=0, start=2), strict=True):
        assert all(torch.equal(one, two) for one, two in zip(batch, other, strict=True))


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, value",
    [
        ("vertical_flip", 1.5), ("rot90", -0.1), ("rotation", 181.0), ("aspect", 0.9), ("gamma", -1.0), ("blur", -0.5),
        ("noise", 256.0), ("jpeg_quality", 0), ("erase", 2.0), ("erase_share", (0.0, 0.1)), ("cutmix", -1.0),
        ("copy_paste", 1.1), ("rotation", float("nan")),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(name: str, value: Any) -> None:
    with pytest.raises(UserError, match=rf"augment\.{name} is .*; it must be "):
        TrainTransform(16, AugmentConfig(**{name: value}), FILL)


def test_a_preset_gives_defaults_that_settings_override(tmp_path: Any) -> None:
    aerial = AugmentConfig(preset="aerial")
    assert (aerial.rot90, aerial.rotation, aerial.flip) == (0.75, 15.0, 0.5)
    assert AugmentConfig(preset="aerial", rotation=0.0).rotation == 0.0
    (tmp_path / "own.yaml").write_text("base: finetune\naugment: {preset: aerial, rotation: 0}\n")
    config = TrainConfig.load(tmp_path / "own.yaml", ["--augment.hue", "18"])
    assert config.augment.resize_short == 777  # of the base
    found = config.augment
    assert (found.rotation, found.hue, found.rot90, found.vertical_flip) == (0.0, 18.0, 0.75, 0.5)
    config.save(tmp_path / "config.yaml")
    assert "rot90: 0.75" in (tmp_path / "config.yaml").read_text()  # resolved
    assert TrainConfig.load(tmp_path / "config.yaml") == config
    for flags in (["--augment.preset", "microscopy"], ["--augment.preset=microscopy"]):  # a flag goes over the file
        found = TrainConfig.load(tmp_path / "config.yaml", [*flags, "--augment.noise", "1"]).augment
        assert (found.rotation, found.hue, found.noise, found.saturation) == (45.0, 9.0, 1.0, 0.3)
    photo = replace(AugmentConfig(preset="photo"), noise=3.0)
    replace(config, augment=photo).save(tmp_path / "photo.yaml")
    found = TrainConfig.load(tmp_path / "photo.yaml", ["--augment.preset", "aerial"]).augment
    assert found == AugmentConfig(preset="aerial", noise=3.0)  # nothing of the other preset is left
    with pytest.raises(UserError, match=r"'aerial' has no effect, .* write AugmentConfig\(preset=\"aerial\"\)"):
        replace(AugmentConfig(), preset="aerial")
    with pytest.raises(UserError, match=r"augment\.preset 'arial': give photo, aerial, microscopy"):
        AugmentConfig(preset="arial")  # type: ignore[arg-type]
    for name in ("photo", "aerial", "microscopy"):
        TrainTransform(16, AugmentConfig(preset=name), FILL)  # type: ignore[arg-type]

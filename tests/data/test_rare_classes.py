"""Counts of classes, crops that show rare ones, and weights of classes in the loss."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import segvit.data.dataset as dataset_module
import segvit.data.sampling.class_counts as census_module
from segvit.config import AugmentConfig, DataConfig, LossConfig, TrainConfig
from segvit.data.augment.geometry import random_crop
from segvit.data.augment.transform import TrainTransform
from segvit.data.dataset import open_dataset
from segvit.data.sampling.class_counts import Census, take_census
from segvit.data.sampling.crops import TrainingSamples, collate
from segvit.data.sampling.order import EndlessBatches
from segvit.data.sampling.rare_classes import RareClasses
from segvit.data.spec import IGNORE_INDEX, load_spec
from segvit.errors import UserError
from segvit.losses import class_losses, criterion, normalizers
from segvit.models.output import SegOutput
from segvit.training.class_weights import resolve_class_weights
from segvit.training.train import train
from segvit.utils.resize import resize_labels
from tests.helpers.tiny import run_records, tiny_run

SIDE = 40


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataConfig:
    """Eight pictures of sky and road, of which two show 4 pixels of a cat and one 16 of a dog, and none a cow."""
    monkeypatch.setenv("SEGVIT_CACHE", str(tmp_path / "cache"))
    for name in ("photos", "masks"):
        (tmp_path / name).mkdir()
    for index in range(8):
        labels = np.zeros((SIDE, SIDE), dtype=np.uint8)
        labels[SIDE // 2 :] = 1
        if index in (2, 5):
            labels[3:5, 30:32] = 2
        if index == 5:
            labels[30:34, 4:8] = 3
        labels[0, 0] = 255
        Image.fromarray(labels).save(tmp_path / "masks" / f"{index}.png")
        Image.fromarray(np.stack([labels * 60] * 3, axis=2)).save(tmp_path / "photos" / f"{index}.jpg")
    folders = {"images": tmp_path / "photos", "labels": tmp_path / "masks"}
    return DataConfig(
        **folders, val_images=folders["images"], val_labels=folders["labels"], workers=0,
        classes=("sky", "road", "cat", "dog", "cow"),
    )  # fmt: skip


# Counts ---------------------------------------------------------------------------------------------------------------


def test_the_census_counts_every_pixel(data: DataConfig) -> None:
    samples = open_dataset(data, "train")
    census = take_census(samples)
    labels = torch.stack([samples.read(index).labels for index in range(len(samples))])
    assert census.pixels.tolist() == [int((labels == k).sum()) for k in range(5)]
    assert census.pixels.tolist()[2:] == [8, 16, 0]
    assert census.shown.tolist() == [[bool((each == k).any()) for k in range(5)] for each in labels]


def test_it_is_kept_until_a_file_changes(data: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples, folder = open_dataset(data, "train"), tmp_path / "kept"
    count, calls = census_module._count, []
    monkeypatch.setattr(census_module, "_count", lambda samples: calls.append(1) or count(samples))
    first = take_census(samples, folder=folder)
    again = take_census(open_dataset(data, "train"), folder=folder)
    assert len(calls) == 1
    assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))
    (kept,) = folder.iterdir()
    kept.write_bytes(kept.read_bytes()[:100])  # damaged
    assert np.array_equal(take_census(samples, folder=folder).shown, first.shown) and len(calls) == 2
    Image.fromarray(np.full((SIDE, SIDE), 4, dtype=np.uint8)).save(tmp_path / "masks" / "0.png")
    assert take_census(samples, folder=folder).pixels[4] == SIDE * SIDE and len(calls) == 3
    merged = replace(data, classes=("sky", "road", "cat=2", "dog=3", "cow=7"), ignore=(255, 4))
    assert take_census(open_dataset(merged, "train"), folder=folder).pixels[4] == 0 and len(calls) == 4


def test_a_cache_that_cannot_be_written_is_told(data: DataConfig, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be written.*class counts in SEGVIT_CACHE"):
        take_census(open_dataset(data, "train"), folder=tmp_path / "file" / "census")


def test_scenes_in_no_files_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset_module, "SHAPES_LENGTH", {"train": 5, "val": 1})
    samples = open_dataset(DataConfig(spec="shapes"), "train", size=32)
    census = take_census(samples)
    labels = torch.stack([samples.read(index).labels for index in range(5)])
    assert census.pixels.tolist() == [int((labels == k).sum()) for k in range(samples.spec.num_classes)]


# Crops ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_class_share", [0.75, 1.0])
@pytest.mark.parametrize("size", [(40, 40), (31, 57), (90, 80), (10, 200)])
def test_a_bound_crop_shows_its_class_wherever_it_lies(size: tuple[int, int], max_class_share: float) -> None:
    generator = torch.Generator().manual_seed(0)
    corners = set()
    for row, column in ((0, 0), (39, 39), (20, 5), (0, 39)):
        labels = torch.zeros(40, 40, dtype=torch.int64)
        labels[row, column] = 3
        shown = bool((resize_labels(labels, size) == 3).any())
        for _ in range(20):
            window = random_crop(
                labels, size=size, crop=16, max_class_share=max_class_share, wanted=3, generator=generator
            )
            assert window.height == min(16, size[0]) and window.width == min(16, size[1])
            assert 0 <= window.top <= size[0] - window.height and 0 <= window.left <= size[1] - window.width
            assert bool((resize_labels(labels, size, window) == 3).any()) == shown
            corners.add((row, window.top, window.left))
    assert len(corners) > 12  # the place in the crop is random


def rare_of(data: DataConfig, probability: float, seed: int = 0) -> RareClasses:
    return RareClasses(take_census(open_dataset(data, "train")), probability=probability, seed=seed)


def test_classes_come_by_inverse_frequency_and_samples_that_show_them(data: DataConfig) -> None:
    rare = rare_of(data, 0.4)
    chosen = [rare.choose(draw) for draw in range(4000)]
    bound = [each for each in chosen if each is not None]
    assert len(bound) / len(chosen) == pytest.approx(0.4, abs=0.03)
    pixels = take_census(open_dataset(data, "train")).pixels
    inverse = [1 / count if count else 0 for count in pixels.tolist()]
    for k in range(5):
        share = sum(wanted == k for _, wanted in bound) / len(bound)
        assert share == pytest.approx(inverse[k] / sum(inverse), abs=0.03)
    assert {index for index, wanted in bound if wanted == 2} == {2, 5}
    assert {index for index, wanted in bound if wanted == 3} == {5}
    assert rare.describe(("sky", "road", "cat", "dog", "cow")).startswith(
        "40 % of the crops show a class drawn by its rarity: cat 67 %, dog 33 %"
    )
    rare.odds = torch.tensor([0.996, 0.004])
    assert rare.describe(("car", "rest")).endswith(": car 100 %, rest 0.4 %")


def batches(data: DataConfig, probability: float, *, workers: int = 0, rank: int = 0, size: int = 1) -> list[Tensor]:
    """Labels of the first four steps of four, on one process of several."""
    samples = open_dataset(data, "train")
    augment = AugmentConfig(resize_long=None, scale=(1.0, 1.5), max_class_share=1.0)
    rare = rare_of(data, probability) if probability else None
    loader = torch.utils.data.DataLoader(
        TrainingSamples(samples, TrainTransform(16, augment, [0, 0, 0]), seed=0, rare=rare),
        batch_sampler=EndlessBatches(8, 4, seed=0, rank=rank, world_size=size, steps=4),
        num_workers=workers,
        collate_fn=collate,
    )
    return [labels for _, labels, _ in loader]


def test_crops_show_rare_classes_more_often(data: DataConfig) -> None:
    plain, bound = (torch.cat(batches(data, probability)) for probability in (0.0, 1.0))
    rare = [((labels == 2) | (labels == 3)).flatten(1).any(dim=1).float().mean() for labels in (plain, bound)]
    assert rare[0] < 0.3 and rare[1] > 0.9


def test_a_draw_depends_on_seed_and_number_alone(data: DataConfig) -> None:
    alone = batches(data, 0.5)
    assert all(torch.equal(one, other) for one, other in zip(alone, batches(data, 0.5, workers=2), strict=True))
    shares = [batches(data, 0.5, rank=rank, size=2) for rank in range(2)]
    for step, whole in enumerate(alone):
        assert torch.equal(whole[0::2], shares[0][step]) and torch.equal(whole[1::2], shares[1][step])
    first = [rare_of(data, 0.5, seed).choose(7) for seed in range(8)]
    assert len(set(first)) > 2


def test_no_class_at_all_is_refused() -> None:
    with pytest.raises(UserError, match="no label map of the training set shows any class"):
        RareClasses(Census(np.zeros(2, dtype=np.int64), np.zeros((3, 2), dtype=bool)), probability=0.5, seed=0)


# Weights --------------------------------------------------------------------------------------------------------------


def batch() -> tuple[SegOutput, Tensor]:
    """Random logits of two outputs, two images and five classes, and labels that lack some."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (2, 16, 16), generator=generator)
    labels[1] = labels[1].clamp(max=1) * 4
    labels[:, 0] = IGNORE_INDEX
    class_logits = torch.randn(2, 2, 5, 6, generator=generator)
    return SegOutput(class_logits, torch.randn(2, 2, 5, 4, 4, generator=generator), (16, 16), (16, 16)), labels


def test_weights_of_one_change_nothing_to_the_bit() -> None:
    output, labels = batch()
    plain, weighted = criterion(output, labels), criterion(output, labels, class_weights=torch.ones(5))
    assert torch.equal(plain.total, weighted.total) and torch.equal(plain["class"], weighted["class"])
    divisors = normalizers(labels, 5), normalizers(labels, 5, class_weights=torch.ones(5))
    assert torch.equal(divisors[0].class_weight, divisors[1].class_weight)


def test_weighted_the_class_term_is_the_weighted_mean_and_the_masks_stay() -> None:
    output, labels = batch()
    weights = torch.tensor([0.5, 2.0, 3.0, 5.0, 7.0])
    losses = criterion(output, labels, class_weights=weights)
    for s in range(2):
        total, weight_sum = 0.0, 0.0
        for image in range(2):
            for k in range(5):
                present = bool((labels[image] == k).any())
                weight = float(weights[k]) if present else 0.1
                log_softmax = output.class_logits[s, image, k].log_softmax(dim=0)
                total -= weight * float(log_softmax[k if present else 5])
                weight_sum += weight
        assert float(losses["class"][s]) == pytest.approx(total / weight_sum, rel=1e-5)
    plain = criterion(output, labels)
    assert torch.equal(plain["focal"], losses["focal"]) and torch.equal(plain["dice"], losses["dice"])
    assert not torch.equal(plain["class"], losses["class"])
    present = torch.ones(2, 5, dtype=torch.bool)
    torch.testing.assert_close(  # torch's own cross entropy, where every query has its class
        class_losses(output.class_logits, present, 2 * weights.sum(), 0.1, class_weights=weights)[0],
        torch.nn.functional.cross_entropy(
            output.class_logits[0].flatten(0, 1), torch.arange(5).repeat(2), torch.cat([weights, torch.tensor([0.1])])
        ),
    )


def no_census() -> Census:
    raise AssertionError


def test_weights_by_name_by_list_and_balanced() -> None:
    spec = load_spec("camvid")
    assert resolve_class_weights((), spec, no_census) is None
    by_name = resolve_class_weights((f"{spec.classes[2]}=4", f"{spec.classes[0]}=0.5"), spec, no_census)
    assert by_name is not None and by_name.tolist() == [0.5, 1, 4] + [1] * (spec.num_classes - 3)
    numbers = [1 + k / 4 for k in range(spec.num_classes)]
    by_list = resolve_class_weights(tuple(map(str, numbers)), spec, no_census)
    assert by_list is not None and by_list.tolist() == numbers
    pixels = np.array([100, 300, 0, 600] + [0] * (spec.num_classes - 4))
    found = resolve_class_weights(("balanced",), spec, lambda: Census(pixels, pixels[None] > 0))
    assert found is not None and found.tolist()[:5] == pytest.approx([1000 / 300, 1000 / 900, 1, 1000 / 1800, 1])
    assert float((found * torch.from_numpy(pixels)).sum()) == pytest.approx(1000)


@pytest.mark.parametrize(
    "given, told",
    [
        (("1", "2"), r"2 numbers for the 11 classes of 'camvid'"),
        (("zebra=2",), r"no class 'zebra' but sky, building"),
        (("sky=2", "sky=3"), "'sky' has two weights"),
        (("sky=2", "3"), "give one kind"),
        (("sky=-1",), "sky=-1: a weight is a number above 0"),
        (("sky=many",), "a weight is a number above 0"),
        (("equal",) * 11, "a weight is a number above 0"),
    ],
)
def test_weights_that_cannot_be_meant_are_refused(given: tuple[str, ...], told: str) -> None:
    spec = load_spec("camvid")
    spec = spec if spec.classes[0] == "sky" else replace(spec, classes=("sky", "building", *spec.classes[2:]))
    with pytest.raises(UserError, match=told):
        resolve_class_weights(given, spec, no_census)


# Runs -----------------------------------------------------------------------------------------------------------------


def losses_of(config: TrainConfig) -> list[dict[str, float]]:
    return [record for record in run_records(config.output) if "loss" in record]


def test_a_run_takes_both(data: DataConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = tiny_run(tmp_path / "plain", data=data, steps=4, eval_every=9, batch_size=4)
    train(plain)
    weighted = replace(plain, loss=LossConfig(class_weights=("balanced",)), output=tmp_path / "weighted")
    capsys.readouterr()
    train(weighted)
    census = take_census(open_dataset(data, "train"))
    most = census.pixels.sum() / (4 * 8)
    assert f"class weights from {census.pixels.sum() / (4 * census.pixels.max()):.3g} (" in capsys.readouterr().out
    assert most > 300
    ours, theirs = losses_of(weighted)[0], losses_of(plain)[0]
    assert ours["class_1"] != theirs["class_1"]
    assert (ours["focal_1"], ours["dice_1"]) == (theirs["focal_1"], theirs["dice_1"])
    even = replace(plain, loss=LossConfig(class_weights=("1",) * 5), output=tmp_path / "even")
    train(even)
    assert losses_of(even) == losses_of(plain)
    rare = replace(plain, augment=replace(plain.augment, rare_class_probability=1.0), output=tmp_path / "rare")

    def stop(step: int, _: object) -> None:
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(rare, on_step=stop)
    train(rare, resume=True)
    assert "100 % of the crops show a class drawn by its rarity: cat 67 %" in capsys.readouterr().out
    again = replace(rare, output=tmp_path / "again")
    train(again)
    assert losses_of(again) == losses_of(rare) != losses_of(plain)


def test_a_probability_that_cannot_be_meant_is_refused() -> None:
    with pytest.raises(UserError, match=r"augment\.rare_class_probability is 1\.5"):
        TrainTransform(8, AugmentConfig(rare_class_probability=1.5), [0, 0, 0])

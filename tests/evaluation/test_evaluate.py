"""Evaluation: the same numbers from one process and from two, and what it prints, writes and draws."""

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from segvit.cli.flags import check_paths
from segvit.config import DataConfig, EvalConfig, ModelConfig
from segvit.data.dataset import Samples, open_dataset
from segvit.data.sample import Sample
from segvit.data.shapes.scenes import write_shapes
from segvit.data.spec import load_spec
from segvit.errors import UserError
from segvit.evaluation import files as report
from segvit.evaluation.evaluate import evaluate
from segvit.evaluation.metrics import ConfusionMatrix
from segvit.evaluation.result import EvalResult, ImageScore
from segvit.inference.protocol import image_labels
from segvit.models.create import create_model
from segvit.models.segvit import SegViT
from segvit.utils.threads import in_order, threads

SPEC = load_spec("shapes")
IMAGES = 5
"""Not divisible by two processes."""
UNLABELLED = 2
"""The image in which every pixel is ignored."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five scenes, one of them unlabelled, one larger than the others."""
    folder = tmp_path_factory.mktemp("scenes")
    write_shapes(folder, train=1, val=IMAGES, size=48)
    labels = sorted((folder / SPEC.splits["val"].labels).iterdir())
    Image.fromarray(np.full((48, 48), 255, dtype=np.uint8)).save(labels[UNLABELLED])
    for path in (labels[3], folder / SPEC.splits["val"].images / labels[3].name):
        with Image.open(path) as picture:
            enlarged = picture.resize((90, 70), Image.Resampling.NEAREST)
        enlarged.save(path)
    return folder


@pytest.fixture(scope="module")
def model() -> SegViT:
    """Random weights, large enough to see several classes."""
    torch.manual_seed(1)
    config = ModelConfig(
        backbone="vit_tiny_patch16_224", image_size=32, patch_size=8, embed_dim=32, depth=2, init_std=0.3
    )
    return create_model(config=config, num_classes=8, spec=SPEC, protocol=EvalConfig(stride=20)).eval()


@pytest.fixture(scope="module")
def dataset(root: Path) -> Samples:
    return open_dataset(DataConfig(spec="shapes", root=root), "val")


@pytest.fixture(scope="module")
def result(model: SegViT, dataset: Samples) -> EvalResult:
    return evaluate(model, dataset, workers=0)


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


# The numbers ----------------------------------------------------------------------------------------------------------


def test_the_scores_are_those_of_all_pixels_at_once(model: SegViT, dataset: Samples, result: EvalResult) -> None:
    whole = ConfusionMatrix(8)
    for index in range(IMAGES):
        image, labels, _ = dataset.read(index)
        whole.update(image_labels(model, image), labels.as_subclass(torch.Tensor))
    assert torch.equal(result.matrix.counts, whole.counts) and torch.equal(result.matrix.boundary, whole.boundary)
    assert result.metrics == whole.compute() and result.images == IMAGES
    assert len(whole.counts.sum(dim=0).nonzero()) > 1, "several classes are predicted, or these tests show little"
    for workers in (1, 2, 4):  # threads beside the model change nothing
        beside = evaluate(model, dataset, workers=workers)
        assert beside == result and beside.per_image == result.per_image
        assert torch.equal(beside.matrix.counts, whole.counts) and torch.equal(beside.matrix.boundary, whole.boundary)


def test_every_image_has_its_own_scores(model: SegViT, dataset: Samples, result: EvalResult) -> None:
    assert [score.index for score in result.per_image] == list(range(IMAGES))
    for score in result.per_image:
        image, labels, name = dataset.read(score.index)
        alone = ConfusionMatrix(8)
        alone.update(image_labels(model, image), labels.as_subclass(torch.Tensor))
        seen = alone.compute()
        assert score.name == name
        if score.index == UNLABELLED:
            assert score.miou is score.accuracy is score.boundary_iou is None
        else:
            assert (score.miou, score.accuracy) == (seen.miou, seen.overall_accuracy)
            assert score.boundary_iou == seen.mean_boundary_iou
    worst = [score.miou or 0.0 for score in result.worst()]
    assert len(worst) == IMAGES - 1 and worst == sorted(worst) and worst[0] < worst[-1]


@pytest.mark.slow
def test_two_processes_give_the_numbers_of_one(
    model: SegViT, root: Path, dataset: Samples, result: EvalResult, tmp_path: Path
) -> None:
    """Under torchrun the five images are shared out; one of the two processes prints and writes."""
    model.save(tmp_path / "model.safetensors")
    words = [
        "-m",
        "segvit.cli.main",
        "evaluate",
        "model.safetensors",
        "--data.spec",
        "shapes",
        "--data.root",
        str(root),
    ]
    words += ["--data.workers", "1", "--device", "cpu", "--json", "s.json", "--csv", "s.csv"]
    words += ["--pictures", "seen"]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    source = str(Path(__file__).resolve().parents[2])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": source, "COLUMNS": "100"}
    told = subprocess.run(
        [sys.executable, *launch, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240
    )
    assert told.returncode == 0, told.stderr
    seen = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))
    assert seen == {"model": "model.safetensors", "dataset": "shapes", "split": "val"} | plain(result.to_dict())
    counts = [[int(value) for value in list(row.values())[1:]] for row in read_table(tmp_path / "seen/confusion.csv")]
    assert counts == result.matrix.counts.tolist()
    labelled = [int((dataset.read(index).labels != 255).sum()) for index in range(IMAGES)]
    assert sum(map(sum, counts)) == sum(labelled) and labelled[UNLABELLED] == 0, "each image once"
    rows = read_table(tmp_path / "seen" / "images.csv")
    assert [row["image"] for row in rows[:-1]] == [score.name for score in result.worst()]
    assert [float(row["miou"]) for row in rows[:-1]] == [score.miou for score in result.worst()]
    assert [row["class"] for row in read_table(tmp_path / "s.csv")] == [*SPEC.classes, "mean", "all pixels"]
    assert told.stdout.count("per class") == 1 and told.stdout.splitlines()[-1] == f"mIoU {result.miou:.4f}"


def plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def test_processes_that_do_not_know_each_other_are_refused(
    model: SegViT, dataset: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(UserError, match=r"4 processes were started.*PartialState\(\)"):
        evaluate(model, dataset, workers=0)


# Beside the model -----------------------------------------------------------------------------------------------------


class Watched:
    """A dataset that does something at a read, and knows what was read."""

    def __init__(self, dataset: Samples, **at: Any) -> None:
        self.dataset = dataset
        self.spec = dataset.spec
        self.at = {int(key.removeprefix("read_")): action for key, action in at.items()}
        self.reads: list[int] = []

    def __len__(self) -> int:
        return 40

    def read(self, index: int) -> Sample:
        self.reads.append(index)
        self.at.get(index, lambda: None)()
        return self.dataset.read(index % IMAGES)

    def describe(self, index: int) -> str:
        return f"image {index} of 40"


def test_in_order_is_map_whoever_is_first_and_never_far_ahead() -> None:
    drawn: list[int] = []

    def items() -> Iterator[int]:
        for number in range(9):
            drawn.append(number)
            yield number

    def work(number: int) -> int:
        time.sleep(0.02 if number % 3 == 0 else 0)
        return -number

    with threads(3) as pool:
        for done, result in enumerate(in_order(pool, work, items(), ahead=2)):
            assert result == -done and len(drawn) <= done + 3
        assert done == 8
        assert list(in_order(pool, work, [], ahead=2)) == []
    with threads(0) as none:
        drawn.clear()
        assert none is None and next(in_order(none, work, items(), ahead=2)) == 0 and drawn == [0]


def test_the_next_is_read_and_the_last_counted_while_the_model_works(
    model: SegViT, dataset: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each waits until the other has begun, so that without an overlap they would wait in vain."""
    read = {number: threading.Event() for number in range(41)}
    watched = Watched(dataset, **{f"read_{number}": event.set for number, event in read.items()})
    begun = {number: threading.Event() for number in range(41)}
    counting = {number: threading.Event() for number in range(40)}
    update = ConfusionMatrix.update

    def count(matrix: ConfusionMatrix, predicted: torch.Tensor, labels: torch.Tensor) -> None:
        number = sum(event.is_set() for event in counting.values())
        counting[number].set()
        assert number == 39 or begun[number + 1].wait(20), "the model waited for the count"
        update(matrix, predicted, labels)

    labelled: list[int] = []

    def label(model: Any, image: torch.Tensor, config: EvalConfig) -> torch.Tensor:
        number = len(labelled)
        labelled.append(number)
        begun[number].set()
        assert number == 39 or read[number + 1].wait(20), "the next image was not read meanwhile"
        assert number == 0 or counting[number - 1].wait(20), "the last label map was not counted meanwhile"
        assert max(watched.reads) <= number + 3, "read too far ahead: memory"
        return torch.zeros(image.shape[1:], dtype=torch.int64)

    monkeypatch.setattr("segvit.evaluation.evaluate.image_labels", label)
    monkeypatch.setattr(ConfusionMatrix, "update", count)
    seen: list[tuple[int, int]] = []
    result = evaluate(model, watched, workers=2, progress=lambda *done: seen.append(done))
    assert [score.index for score in result.per_image] == list(range(40)) and sorted(watched.reads) == list(range(40))
    assert seen == [(done, 40) for done in range(1, 41)]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_damaged_image_is_named_in_its_turn(model: SegViT, dataset: Samples, workers: int) -> None:
    def damaged(index: int) -> Any:
        def fail() -> None:
            raise UserError(f"photo_{index}.jpg: cannot be read")

        return fail

    running = threading.active_count()
    watched = Watched(dataset, read_2=damaged(2), read_3=damaged(3))
    seen: list[int] = []
    with pytest.raises(UserError, match=r"^photo_2.jpg: cannot be read$"):
        evaluate(model, watched, workers=workers, progress=lambda done, _: seen.append(done))
    assert seen == list(range(1, len(seen) + 1)) and len(seen) <= 2
    assert len(watched.reads) < 8 and threading.active_count() == running, "it stopped there"


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_too_small_for_the_model_is_named(tmp_path: Path, workers: int) -> None:
    write_shapes(tmp_path, train=1, val=3, size=32)
    small = sorted((tmp_path / SPEC.splits["val"].images).iterdir())[1]
    for path in (small, tmp_path / SPEC.splits["val"].labels / small.name):
        with Image.open(path) as picture:
            picture.resize((32, 8), Image.Resampling.NEAREST).save(path)
    config = ModelConfig(
        backbone="vit_tiny_patch16_224", structure="shrunk", image_size=32, patch_size=8, embed_dim=32, depth=3
    )
    shrunk = create_model(config=config, num_classes=8, spec=SPEC, protocol=EvalConfig(mode="whole")).eval()
    with pytest.raises(UserError, match=rf"^{small} with .*: an image of 1 x 4 patches .* cannot be shrunk"):
        evaluate(shrunk, open_dataset(DataConfig(spec="shapes", root=tmp_path), "val"), workers=workers)


@pytest.mark.parametrize("stage", ["read", "image_labels", "update"])
@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_of_nobodys_wording_is_told_with_its_image(
    model: SegViT, dataset: Samples, monkeypatch: pytest.MonkeyPatch, workers: int, stage: str
) -> None:
    def fail(*_: Any) -> Any:
        raise MemoryError("no memory left")

    watched = Watched(dataset, **({"read_0": fail} if stage == "read" else {}))
    if stage == "image_labels":
        monkeypatch.setattr("segvit.evaluation.evaluate.image_labels", fail)
    elif stage == "update":
        monkeypatch.setattr(ConfusionMatrix, "update", fail)
    with pytest.raises(MemoryError, match="no memory left") as caught:
        evaluate(model, watched, workers=workers)
    assert caught.value.__notes__ == ["while evaluating image 0 of 40"]


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, also in a job in the background, which a shell starts deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("at", [0, 7])
def test_an_interrupt_ends_it_at_once(model: SegViT, dataset: Samples, at: int, interruptible: None) -> None:
    """Ctrl-C while the main thread waits for a slow read: what was planned after it is not worked off."""

    def interrupt() -> None:
        threading.Event().wait(0.5)  # until the main thread waits for this read
        os.kill(os.getpid(), signal.SIGINT)
        threading.Event().wait(1)

    before = set(threading.enumerate())
    watched = Watched(dataset, **{f"read_{at}": interrupt})
    with pytest.raises(KeyboardInterrupt):
        evaluate(model, watched, workers=1)
    assert watched.reads == list(range(at + 1))
    for thread in set(threading.enumerate()) - before:  # one that was just starting may end a moment later
        thread.join(20)
        assert not thread.is_alive()


# What is told ---------------------------------------------------------------------------------------------------------


def test_the_table_holds_every_score_and_the_protocol(result: EvalResult) -> None:
    console = Console(width=120, record=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    console.print(result.table())
    lines = console.export_text().splitlines()
    seen = result.metrics
    for k, name in enumerate(SPEC.classes):
        (line,) = [line for line in lines if line.split()[1:2] == [name]]
        scores = (seen.iou[k], seen.accuracy[k], seen.dice[k], seen.boundary_iou[k], seen.labelled[k])
        assert line.split()[3::2] == ["-" if score is None else f"{100 * score:.2f}" for score in scores]
    (means,) = [line.split()[3::2] for line in lines if line.split()[1:2] == ["mean"]]
    averages = (seen.miou, seen.mean_accuracy, seen.mean_dice, seen.mean_boundary_iou)
    assert means[:4] == [f"{100 * score:.2f}" for score in averages]
    text = " ".join(" ".join(lines).split())
    assert "5 images, mode slide, window 32, stride 20" in text and "band of 2 % of the diagonal" in text


def test_every_setting_of_the_protocol_is_told(result: EvalResult) -> None:
    protocol = {"mode": "slide", "window": None, "scales": [0.5, 1.0], "flip": True, "sharp": False}
    line = replace(result, protocol=protocol).protocol_line()
    assert "5 images, mode slide, scales 0.5 1.0, flip yes, sharp no; one confusion matrix" in line


def test_json_holds_what_is_printed(result: EvalResult) -> None:
    told = plain(result.to_dict())
    seen = result.metrics
    assert (told["miou"], told["mean_dice"], told["mean_boundary_iou"]) == (
        seen.miou,
        seen.mean_dice,
        seen.mean_boundary_iou,
    )
    assert told["boundary_iou"] == list(seen.boundary_iou) and told["dice"] == list(seen.dice)
    assert told["protocol"] == result.protocol and told["boundary_band"] == 0.02


def test_a_full_disk_is_told(result: EvalResult) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full on this system")
    with pytest.raises(UserError, match=r"/dev/full: cannot be written .*; give another file"):
        report.write_csv(result, full, about={})


def test_csv_is_one_row_per_class(result: EvalResult, tmp_path: Path) -> None:
    path = tmp_path / "new" / "scores.csv"
    odd = ("Straße, nass", 'the "sky"', *SPEC.classes[2:])
    report.write_csv(replace(result, classes=odd), path, about={"model": "m.safetensors", "split": "val"})
    rows, seen = read_table(path), result.metrics
    assert [row["class"] for row in rows] == [*odd, "mean", "all pixels"]
    for key in ("iou", "accuracy", "dice", "boundary_iou"):
        values = [None if row[key] == "" else float(row[key]) for row in rows[:8]]
        assert values == list(getattr(seen, key))
    assert [float(row["share"]) for row in rows[:8]] == list(seen.labelled)
    mean, overall = rows[8:]
    assert float(mean["iou"]) == seen.miou and float(mean["boundary_iou"]) == seen.mean_boundary_iou
    assert (overall["iou"], float(overall["accuracy"])) == ("", seen.overall_accuracy)
    setting = {"model": "m.safetensors", "split": "val", "images": "5", "mode": "slide", "window": "32", "stride": "20"}
    for row in rows:
        assert setting.items() <= row.items() and row["boundary_band"] == "0.02"
    assert path.read_bytes().startswith(b"\xef\xbb\xbf"), "the mark by which spreadsheets know UTF-8"


# Pictures -------------------------------------------------------------------------------------------------------------


def test_pictures(
    result: EvalResult, model: SegViT, dataset: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sheets = []
    worst_sheet = report.worst_sheet

    def keep(scores: list[ImageScore], **settings: Any) -> Image.Image:
        sheets.append([score.index for score in scores])
        return worst_sheet(scores, **settings)

    monkeypatch.setattr(report, "worst_sheet", keep)
    monkeypatch.setattr(report, "NUM_WORST", 3)
    report.write_pictures(result, tmp_path / "a", model=model, dataset=dataset, config=model.protocol)
    assert sheets == [[score.index for score in result.worst()[:3]]]
    names = {path.name for path in (tmp_path / "a").iterdir()}
    assert names == {"confusion.png", "confusion.csv", "images.csv", "worst.png"}
    rows = read_table(tmp_path / "a" / "images.csv")
    assert rows[-1] == {"image": result.per_image[UNLABELLED].name, "miou": "", "accuracy": "", "boundary_iou": ""}
    with Image.open(tmp_path / "a" / "worst.png") as sheet:
        assert sheet.width > 4 * 320 and sheet.height > 3 * 320


def test_the_sheet_shows_labels_prediction_and_errors(
    result: EvalResult, model: SegViT, dataset: Samples, tmp_path: Path
) -> None:
    score = result.per_image[0]
    sheet = np.asarray(report.worst_sheet([score], model=model, dataset=dataset, config=model.protocol))
    image, labels, _ = dataset.read(0)
    predicted = image_labels(model, image).numpy()
    truth = labels.numpy()
    factor = 7  # 48 px enlarged to 320 or more
    left, gap, top = 12, 12, 96
    for y, x in ((5, 5), (24, 30), (40, 12), (46, 46)):
        cells = [
            sheet[top + factor * y + 3, left + column * (48 * factor + gap) + factor * x + 3] for column in range(4)
        ]
        assert cells[0].tolist() == image[:, y, x].tolist()
        ignored = (235, 235, 235) if truth[y, x] == 255 else SPEC.palette[truth[y, x] % 255]
        assert tuple(cells[1].tolist()) == ignored
        assert tuple(cells[2].tolist()) == SPEC.palette[predicted[y, x]]
        is_red = int(cells[3][0]) > int(cells[3][1]) + 60
        assert is_red == (truth[y, x] not in (255, predicted[y, x]))


def test_all_ignored_draws_no_sheet(model: SegViT, dataset: Samples, tmp_path: Path) -> None:
    class Unlabelled:
        spec = dataset.spec

        def __len__(self) -> int:
            return 1

        def read(self, index: int) -> Any:
            return dataset.read(UNLABELLED)

        def describe(self, index: int) -> str:
            return dataset.describe(UNLABELLED)

    result = evaluate(model, Unlabelled(), workers=0)
    assert result.miou is None and result.worst() == []
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["miou"] is None
    report.write_pictures(result, tmp_path, model=model, dataset=Unlabelled(), config=model.protocol)
    assert not (tmp_path / "worst.png").exists() and (tmp_path / "confusion.png").exists()


def test_what_could_not_be_written_is_told_first(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=f"{tmp_path} is a folder: give a file in it"):
        check_paths(files=(tmp_path, None), folder=None)
    with pytest.raises(UserError, match="file is a file, so nothing can be written below it"):
        check_paths(files=(None, None), folder=tmp_path / "file")
    with pytest.raises(UserError, match="file is a file, so nothing can be written below it"):
        check_paths(files=(tmp_path / "file" / "deep" / "a.csv",), folder=None)
    check_paths(files=(tmp_path / "file", tmp_path / "new" / "a.csv"), folder=tmp_path / "more")


def test_scales_and_flip_override_the_protocol(model: SegViT, dataset: Samples) -> None:
    result = evaluate(model, dataset, scales=(0.5, 1.0), flip=True, workers=0)
    assert result.protocol["scales"] == [0.5, 1.0] and result.protocol["flip"] is True
    config = replace(model.protocol, scales=(0.5, 1.0), flip=True)
    assert result == evaluate(model, dataset, config=config, workers=0)
    assert result.protocol != evaluate(model, dataset, workers=0).protocol

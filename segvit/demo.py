"""`segvit demo`: the whole tour, as a user would live it, on scenes that segvit draws itself.

Scenes are written as files, checked, trained on from scratch, scored on scenes that nobody has seen, and painted.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console

from segvit.config import Device, TrainConfig
from segvit.data.check.report import check_splits
from segvit.data.shapes.scenes import ShapesDataset, write_shapes
from segvit.errors import UserError
from segvit.evaluation.evaluate import evaluate
from segvit.models.segvit import SegViT
from segvit.pictures import colorize, contact_sheet, curves, error_map, overlay, shares, with_legend
from segvit.prediction.predict import predict
from segvit.prediction.predict_files import predict_files
from segvit.reports.records import read_records
from segvit.training.train import train
from segvit.utils.device import resolve_device
from segvit.weights.load import load_model

TRAIN_SCENES, VAL_SCENES, TEST_SCENES = 3000, 50, 200
TEST_SEED = 2
"""Seed of scenes that are in neither the training nor the validation folder."""
MARKER = "made-by-segvit-demo.txt"
"""File by which the demo knows a folder of its own."""
SHOWN = 6
"""Unseen scenes that are painted."""
FAREWELL = """
Look at     {output}/comparison.png, {output}/predictions/, {output}/curves.png
The model   {model}

Your turn   segvit predict {model} photo.jpg --output seen        (it knows these scenes only)
            segvit check-data --data.images photos --data.labels masks --data.classes NAME NAME ...
            segvit train --config finetune --data.images photos --data.labels masks --data.classes NAME NAME ...
"""


def run_demo(*, output: Path, steps: int | None = None, device: Device = "auto") -> float:
    """Run the tour and write everything below `output`, in place of an earlier tour there.

    Args:
        output: folder of scenes, run and pictures.
        steps: training steps. Default: those of the recipe shapes/demo, about four minutes on two cores.
        device: where to run.

    Returns:
        mIoU on unseen scenes, 0..1.

    Raises:
        UserError: the folder holds files that no earlier tour made.
    """
    console = Console(highlight=False, soft_wrap=True)
    scenes, run_folder = output / "scenes", output / "run"
    _clear(output)

    with _chapter(console, 1, f"Drawing {TRAIN_SCENES} scenes to learn from into {scenes}"):
        config = TrainConfig.load("shapes/demo")
        size = config.model.image_size
        write_shapes(scenes, train=TRAIN_SCENES, val=VAL_SCENES, size=size)
        data = replace(config.data, root=scenes)

    with _chapter(console, 2, "Checking them, as you would your own (segvit check-data)"):
        survey = check_splits(data, ("train", "val"))
        console.print(survey.table())
        if survey.errors:
            raise UserError("\n".join(survey.errors))

    with _chapter(console, 3, "Training a small ViT with attention to mask, from scratch (segvit train)"):
        config = replace(config, data=data, output=run_folder, device=device, steps=steps or config.steps)
        run = train(config)

    with _chapter(console, 4, f"Scoring it on {TEST_SCENES} scenes that it has never seen (segvit evaluate)"):
        model = load_model(run.path, device=resolve_device(device))
        test = ShapesDataset(TEST_SCENES, size=size, seed=TEST_SEED)
        result = evaluate(model, test, workers=config.data.workers)
        console.print(result.table())
        (output / "scores.json").write_text(json.dumps(result.to_dict(), indent=1) + "\n")

    with _chapter(console, 5, f"Painting {SHOWN} of them (segvit predict)"):
        paint(model, test, output)
        curves(list(read_records(run_folder)), output / "curves.png")

    console.print(FAREWELL.format(output=output, model=run.path))
    console.print(f"mIoU {result.miou:.3f}")
    return result.miou


def _clear(output: Path) -> None:
    """Remove an earlier tour; refuse a folder that holds anything else.

    Raises:
        UserError: the folder is not empty and no tour made it.
    """
    marker = output / MARKER
    if output.exists() and any(output.iterdir()) and not marker.is_file():
        raise UserError(f"{output} holds files that are not an earlier demo's: choose another --output")
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    marker.write_text("Made by `segvit demo`, which replaces this folder when it runs again.\n")


def paint(model: SegViT, test: ShapesDataset, output: Path) -> None:
    """Predictions of the first scenes as files, and one sheet beside the truth."""
    photos = output / "photos"
    photos.mkdir(parents=True, exist_ok=True)
    rows, fractions = [], np.zeros(test.spec.num_classes)
    for index in range(SHOWN):
        sample = test.read(index)
        image, truth = sample.image.permute(1, 2, 0).numpy(), sample.labels.numpy()
        Image.fromarray(image).save(photos / f"scene_{index}.png")
        labels = predict(model, image).labels
        fractions += shares(labels, test.spec.num_classes) / SHOWN
        palette = test.spec.palette
        errors = error_map(image, labels, truth, num_classes=test.spec.num_classes)
        rows.append(
            [image, overlay(image, labels, palette), colorize(labels, palette), colorize(truth, palette), errors]
        )
    predict_files(model, [photos], output / "predictions")
    sheet = contact_sheet(rows, titles=("scene", "overlay", "prediction", "truth", "errors"))
    with_legend(sheet, test.spec.classes, test.spec.palette, fractions).save(output / "comparison.png")


@contextmanager
def _chapter(console: Console, number: int, title: str) -> Iterator[None]:
    """A headline before a part of the tour."""
    console.print(f"\n[bold]{number}/5  {title}[/bold]")
    yield

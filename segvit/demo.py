"""Run `segvit demo`: the whole workflow on scenes that segvit draws itself.

The demo writes scenes as files, checks them, trains a model from scratch, scores it on held-out scenes, and draws its
predictions.
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
"""Number of scenes of each split."""
TEST_SEED = 2
"""Seed of the held-out scenes, which are in neither the training nor the validation folder."""
MARKER = "made-by-segvit-demo.txt"
"""File that marks a folder written by the demo."""
SHOWN = 6
"""Number of held-out scenes whose predictions are drawn."""
FAREWELL = """
Results     {output}/comparison.png, {output}/predictions/, {output}/curves.png
Model       {model}

Your turn   segvit predict {model} photo.jpg --output seen        (it only knows such scenes)
            segvit check-data photos masks
            segvit train photos masks
"""


def run_demo(*, output: Path, steps: int | None = None, device: Device = "auto") -> float:
    """Run the demo and write everything into `output`, replacing the files of an earlier demo.

    Args:
        output: folder for scenes, run and pictures.
        steps: training steps. Default: those of the recipe shapes/demo, which take about four minutes on two cores.
        device: device to run on.

    Returns:
        mIoU on held-out scenes, 0..1.

    Raises:
        UserError: the folder holds files that are not from an earlier demo.
    """
    console = Console(highlight=False, soft_wrap=True)
    scenes, run_folder = output / "scenes", output / "run"
    _clear(output)

    with _chapter(console, 1, f"Drawing {TRAIN_SCENES} training scenes into {scenes}"):
        config = TrainConfig.load("shapes/demo")
        size = config.model.image_size
        write_shapes(scenes, train=TRAIN_SCENES, val=VAL_SCENES, size=size)
        data = replace(config.data, root=scenes)

    with _chapter(console, 2, "Checking the dataset (segvit check-data)"):
        survey = check_splits(data, ("train", "val"))
        console.print(survey.table())
        if survey.errors:
            raise UserError("\n".join(survey.errors))

    with _chapter(console, 3, "Training a small ViT with attention to mask, from scratch (segvit train)"):
        config = replace(config, data=data, output=run_folder, device=device, steps=steps or config.steps)
        run = train(config)

    with _chapter(console, 4, f"Scoring it on {TEST_SCENES} held-out scenes (segvit evaluate)"):
        model = load_model(run.path, device=resolve_device(device))
        test = ShapesDataset(TEST_SCENES, size=size, seed=TEST_SEED)
        result = evaluate(model, test, workers=config.data.workers)
        console.print(result.table())
        (output / "scores.json").write_text(json.dumps(result.to_dict(), indent=1) + "\n")

    with _chapter(console, 5, f"Predicting {SHOWN} of them (segvit predict)"):
        paint(model, test, output)
        curves(list(read_records(run_folder)), output / "curves.png")

    console.print(FAREWELL.format(output=output, model=run.path))
    assert result.miou is not None  # no pixel of a scene is ignored
    console.print(f"mIoU {result.miou:.3f}")
    return result.miou


def _clear(output: Path) -> None:
    """Remove an earlier demo, and create the folder.

    Raises:
        UserError: the folder is not empty and was not written by the demo.
    """
    marker = output / MARKER
    if output.exists() and any(output.iterdir()) and not marker.is_file():
        raise UserError(f"{output} holds files that are not from an earlier demo; choose another --output")
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    marker.write_text("Written by `segvit demo`, which replaces this folder when you run it again.\n")


def paint(model: SegViT, test: ShapesDataset, output: Path) -> None:
    """Write the predictions of the first scenes, and a sheet that compares them with the labels."""
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
    """Print a headline before a step of the demo."""
    console.print(f"\n[bold]{number}/5  {title}[/bold]")
    yield

"""Contents of report.json: the facts of a run's page that are neither in its config nor in its log.

facts = Facts(about=origin(model, "camvid: 367 images"), environment=environment(device, processes=1), validation=...)
load_facts(Path("runs/camvid/report.json"))
"""

import base64
import importlib.metadata
import io
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch

from segvit.data.palette import Color
from segvit.errors import UserError
from segvit.evaluation.examples import Shot
from segvit.evaluation.result import EvalResult, ImageScore
from segvit.models.segvit import SegViT
from segvit.pictures import save_index_png
from segvit.reports.html import jpeg_uri
from segvit.utils.device import device_name

NUM_EXTREMES = 3
"""Number of best and of worst images on the page."""
SHOWN_SIDE = 320
"""Longer side of a small picture on the page, in pixels."""
PACKAGES = ("segvit", "torch", "torchvision", "timm", "accelerate", "numpy", "pillow")
"""Packages whose versions are reported."""


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Results of a validation, in values that JSON can hold."""

    name: str
    """Name of the scored weights."""
    scores: dict[str, Any]
    """Scores from `EvalResult.to_dict`."""
    protocol: dict[str, str]
    """Test protocol: names and values of its settings."""
    palette: list[list[int]]
    """(K, 3) class colours."""
    confusion: list[list[int]]
    """(K, K) pixels; row = true class, column = predicted class."""
    best: list[dict[str, Any]]
    """Best images, best first: name, scores, small pictures, and maps for the viewer."""
    worst: list[dict[str, Any]]
    """Worst images, worst first, in the same form as `best`."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Facts of a run that are neither in its config nor in its log."""

    about: dict[str, str]
    """Dataset, starting weights and their licence."""
    environment: dict[str, str]
    """Device, number of processes, system, and package versions."""
    validation: Validation | None
    """Last validation; None if the run has none."""


def environment(device: torch.device, *, processes: int) -> dict[str, str]:
    """Describe where a run takes place: device, processes, system, package versions."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    system = f"{platform.system()} {platform.machine()}"
    place = f"{device.type}, {device_name(device)}"
    return {
        "device": place,
        "processes": str(processes),
        "system": system,
        "Python": platform.python_version(),
    } | versions


def origin(model: SegViT, dataset: str) -> dict[str, str]:
    """Describe the origin of a model: dataset, starting weights and their licence."""
    rows = {"started from": "starts_from", "licence of these weights": "licence"}
    return {"dataset": dataset} | {row: str(model.extra[key]) for row, key in rows.items() if model.extra.get(key)}


def extremes(result: EvalResult) -> tuple[list[ImageScore], list[ImageScore]]:
    """Return the best images, best first, and the worst images, worst first; no image is in both lists."""
    scored = result.worst()
    count = min(NUM_EXTREMES, (len(scored) + 1) // 2)
    return scored[::-1][: min(count, len(scored) - count)], scored[:count]


def describe_validation(
    name: str, result: EvalResult, *, palette: Sequence[Color], shots: Mapping[int, Shot]
) -> Validation:
    """Convert the result of a validation to values that JSON can hold.

    Args:
        name: name of the scored weights.
        result: scores of the validation.
        palette: class colours.
        shots: pictures of the `extremes`, by image index.
    """
    best, worst = ([_seen(score, shots[score.index], palette) for score in scores] for scores in extremes(result))
    return Validation(
        name=name,
        scores=result.to_dict(),
        protocol=result.protocol_values(),
        palette=[list(color) for color in palette],
        confusion=result.matrix.counts.tolist(),
        best=best,
        worst=worst,
    )


def _seen(score: ImageScore, shot: Shot, palette: Sequence[Color]) -> dict[str, Any]:
    """Return the name, scores, small pictures and viewer maps of an image."""
    pictures = []
    for picture in shot.pictures:
        small = picture.copy()
        small.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
        pictures.append(jpeg_uri(small))
    maps = {
        "photo": jpeg_uri(shot.maps.photo),
        "ratio": shot.maps.photo.width / shot.maps.photo.height,
        "prediction": _index_png(shot.maps.prediction, palette),
        "labels": _index_png(shot.maps.labels, palette),
    }
    return {
        "name": score.name,
        "miou": score.miou,
        "accuracy": score.accuracy,
        "pictures": pictures,
        "maps": maps,
    }


def _index_png(labels: npt.NDArray[np.int64], palette: Sequence[Color]) -> str:
    """Encode labels as an index PNG in base64."""
    file = io.BytesIO()
    save_index_png(labels, palette, cast(Path, file))  # Pillow also writes to open files
    return base64.b64encode(file.getvalue()).decode()


def load_facts(path: Path) -> Facts | None:
    """Load report.json; return None if there is no such file.

    Raises:
        UserError: the file cannot be read or has another content.
    """
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        validation = content["validation"] and Validation(**content["validation"])
        return Facts(about=content["about"], environment=content["environment"], validation=validation)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: not a report.json of segvit train ({error}); remove it, then run `segvit report {path.parent} "
            "--score`"
        ) from error

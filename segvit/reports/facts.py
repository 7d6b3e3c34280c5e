"""What a run knows besides its config and its log, in plain values: report.json, of which its page is made.

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
"""Best images, and worst, that are shown."""
SHOWN_SIDE = 320
"""Longer side in pixels of a small picture on the page."""
PACKAGES = ("segvit", "torch", "torchvision", "timm", "accelerate", "numpy", "pillow")


@dataclass(frozen=True, kw_only=True)
class Validation:
    """What a validation found, in plain values."""

    name: str
    """What was scored."""
    scores: dict[str, Any]
    """As `EvalResult.to_dict` gives them."""
    protocol: dict[str, str]
    """How it was scored, in words."""
    palette: list[list[int]]
    """(K, 3) of the classes."""
    confusion: list[list[int]]
    """(K, K) pixels; row = true class."""
    best: list[dict[str, Any]]
    """Name, scores, small pictures and maps for the viewer of the best images, the best first."""
    worst: list[dict[str, Any]]
    """The same of the worst, the worst first."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a run knows besides its config and its log."""

    about: dict[str, str]
    """What it started from, the licence of that, the dataset."""
    environment: dict[str, str]
    """Versions, device, processes."""
    validation: Validation | None


def environment(device: torch.device, *, processes: int) -> dict[str, str]:
    """Where a run goes on: versions, device, processes."""
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
    """What a model started from, the licence of that, and its data."""
    told = {"started from": "starts_from", "licence of that": "licence"}
    return {"dataset": dataset} | {row: str(model.extra[key]) for row, key in told.items() if model.extra.get(key)}


def extremes(result: EvalResult) -> tuple[list[ImageScore], list[ImageScore]]:
    """The best images, the best first, and the worst, the worst first; no image is both."""
    scored = result.worst()
    count = min(NUM_EXTREMES, (len(scored) + 1) // 2)
    return scored[::-1][: min(count, len(scored) - count)], scored[:count]


def describe_validation(
    name: str, result: EvalResult, *, palette: Sequence[Color], shots: Mapping[int, Shot]
) -> Validation:
    """A validation in plain values.

    Args:
        name: what was scored.
        result: its scores.
        palette: of the classes.
        shots: pictures of the `extremes`, by the number of the image.
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
    """An index PNG in base64."""
    file = io.BytesIO()
    save_index_png(labels, palette, cast(Path, file))  # Pillow writes to open files too
    return base64.b64encode(file.getvalue()).decode()


def load_facts(path: Path) -> Facts | None:
    """What a run wrote down; None where it did not.

    Raises:
        UserError: the file is something else.
    """
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        validation = content["validation"] and Validation(**content["validation"])
        return Facts(about=content["about"], environment=content["environment"], validation=validation)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not what segvit train wrote ({error}); remove it, and type --score") from error

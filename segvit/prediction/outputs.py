"""Write the files of a prediction so that a later run knows which images are done.

For `photo.jpg` these are photo.json (shares of the classes, and a fingerprint), photo.png (class indices),
photo_overlay.png, and photo_confidence.png if asked for. `predict.yaml` in the output folder records the settings that
all of them were made with.

Each file is written beside its place, flushed to the disk, and renamed. Old pictures are removed first, and then the
JSON is written before the new pictures. So all pictures that exist belong to its fingerprint, and an image that lacks
one is not done. Videos have other files (segvit/prediction/video_outputs.py).
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from segvit.data.spec import DatasetSpec
from segvit.inference.compiled import uncompiled
from segvit.inference.exported import ExportedModel
from segvit.inference.network import Network
from segvit.pictures.paint import save_index_png
from segvit.prediction.names import (
    CONFIDENCE,
    FACTS,
    LABELS,
    OVERLAY,
    PICTURES,
    SCENE_LABELS,
    SCENE_POLYGONS,
    aside,
    explaining,
    named,
    read_facts,
)
from segvit.prediction.photo import Prediction


def fingerprint(source: Path, settings: dict[str, Any]) -> str:
    """Return a digest of everything that the outputs of an image depend on: the file and the settings."""
    try:
        facts = source.stat()
    except OSError:  # removed since it was found; reading it will raise
        return ""
    said = json.dumps([str(source.absolute()), facts.st_size, facts.st_mtime_ns, settings], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()[:32]


def is_done(target: Path, expected: str, *, confidence: bool) -> bool:
    """True if all outputs of an image exist and have the expected fingerprint."""
    pictures = PICTURES if confidence else (LABELS, OVERLAY)
    return read_facts(named(target, FACTS)).get("fingerprint") == expected and all(
        named(target, ending).is_file() for ending in pictures
    )


def is_scene_done(target: Path, expected: str, *, polygons: bool) -> bool:
    """True if all outputs of a scene exist and have the expected fingerprint."""
    endings = (SCENE_LABELS, SCENE_POLYGONS) if polygons else (SCENE_LABELS,)
    return read_facts(named(target, FACTS)).get("fingerprint") == expected and all(
        named(target, ending).is_file() for ending in endings
    )


def write_outputs(
    result: Prediction,
    target: Path,
    *,
    source: Path,
    fingerprint: str,
    opacity: float,
    background: bool,
    raw_ids: Sequence[int] | None,
) -> Path:
    """Write all outputs of one image.

    Args:
        result: labels of the image.
        target: path of the outputs, without suffix.
        source: the image.
        fingerprint: see `fingerprint`, computed before the image was read.
        opacity: opacity of the overlay's colours.
        background: paint the background class in the overlay.
        raw_ids: (K,) grey values to write for the classes, in 8 bits, or in 16 if one is above 255. None writes class
            indices with a palette.

    Returns:
        The path of the label map.

    Raises:
        UserError: a file that cannot be written.
    """
    height, width = result.labels.shape
    facts = {"image": str(source.absolute()), "width": width, "height": height, "shares": result.shares()}
    facts["fingerprint"] = fingerprint
    overlay = result.overlay(opacity=opacity, background=background)
    with explaining(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        for ending in PICTURES:
            named(target, ending).unlink(missing_ok=True)
        with aside(named(target, FACTS)) as place:
            place.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        with aside(named(target, LABELS)) as place:
            save_labels(result, raw_ids, place)
        with aside(named(target, OVERLAY)) as place:
            overlay.save(place, format="PNG")
        if result.confidence is not None:
            grey = (result.confidence * 255).round().astype(np.uint8)
            with aside(named(target, CONFIDENCE)) as place:
                Image.fromarray(grey).save(place, format="PNG")
    return named(target, LABELS)


def save_labels(result: Prediction, raw_ids: Sequence[int] | None, path: Path) -> None:
    """Write a label map as PNG; see `write_outputs` for the values."""
    if raw_ids is None:
        save_index_png(result.labels, result.palette, path)
        return
    table = np.array(raw_ids)
    Image.fromarray(table.astype(np.uint8 if table.max() < 256 else np.uint16)[result.labels]).save(path, format="PNG")


def model_digest(model: Network) -> str:
    """Return a digest of the weights, structure and classes of a model, whatever its device and file name."""
    if isinstance(model, ExportedModel):
        digest = hashlib.sha256()
        for path in model.files:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()[:16]
    network = uncompiled(model)
    assert isinstance(network, nn.Module)
    spec: DatasetSpec | None = model.spec
    about = [None if model.config is None else asdict(model.config), None if spec is None else spec.to_dict()]
    digest = hashlib.sha256(json.dumps(about, default=str).encode())
    for name, tensor in network.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]

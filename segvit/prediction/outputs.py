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
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from torch import nn

from segvit.data.spec import DatasetSpec
from segvit.errors import UserError
from segvit.inference.compiled import uncompiled
from segvit.inference.network import Network
from segvit.inference.onnx_model import OnnxModel
from segvit.pictures.paint import save_index_png
from segvit.prediction.predict import Prediction
from segvit.utils.files import remove, whole_file, writing
from segvit.utils.yaml_text import load_yaml

RECORD = "predict.yaml"
"""Name of the record of settings in an output folder. No output has this ending."""
FACTS = ".json"
LABELS, OVERLAY, CONFIDENCE = PICTURES = (".png", "_overlay.png", "_confidence.png")
ENDINGS = (*PICTURES, FACTS)
"""Endings that turn the name of an image into those of its outputs."""
ASIDE = ".segvit-partial"
"""Ending of an unfinished file."""


def named(target: Path, ending: str) -> Path:
    """Return the path of an output; `target` is the path of all outputs of an image, without suffix."""
    return target.with_name(target.name + ending)


# --- one image -------------------------------------------------------------------------------------------------------


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


def write_outputs(
    result: Prediction,
    target: Path,
    *,
    source: Path,
    fingerprint: str,
    opacity: float,
    raw_ids: Sequence[int] | None,
) -> Path:
    """Write all outputs of one image.

    Args:
        result: labels of the image.
        target: path of the outputs, without suffix.
        source: the image.
        fingerprint: see `fingerprint`, computed before the image was read.
        opacity: opacity of the overlay's colours.
        raw_ids: (K,) grey values to write for the classes, in 8 bits, or in 16 if one is above 255. None writes class
            indices with a palette.

    Returns:
        The path of the label map.

    Raises:
        UserError: a file that cannot be written.
    """
    height, width = result.labels.shape
    facts = {"image": str(source), "width": width, "height": height, "shares": result.shares()}
    facts["fingerprint"] = fingerprint
    overlay = result.overlay(opacity=opacity)
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


def left_by_us(pictures: Sequence[Path]) -> set[Path]:
    """Return the pictures of a folder that are outputs of another picture in it."""
    there, ours = set(pictures), set()
    for path in pictures:
        target = path.with_suffix("")
        outputs = {named(target, ending) for ending in PICTURES} & there - {path}
        if outputs:
            facts = read_facts(named(target, FACTS))
            if "fingerprint" in facts and Path(facts["image"]).name == path.name:
                ours |= outputs
    return ours


def read_facts(path: Path) -> dict[str, Any]:
    """Return the facts in the JSON beside pictures, or nothing if the file is missing or is not one of ours."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


# --- the folder ------------------------------------------------------------------------------------------------------


def claim(output: Path, settings: dict[str, Any], files: Iterable[Path], *, overwrite: bool) -> None:
    """Record the settings in the output folder, and remove unfinished files of a killed run.

    Args:
        output: the folder.
        settings: how its files are made, as plain values.
        files: all files that may be written into it.
        overwrite: accept a folder with other settings or with files of unknown origin.

    Raises:
        UserError: a folder with other settings or with files of unknown origin, or that cannot be written to.
    """
    record = output / RECORD
    if not overwrite:
        _check_record(record, settings, files)
    with explaining(record):
        output.mkdir(parents=True, exist_ok=True)
        for path in list(output.rglob("*" + ASIDE)):
            remove(path)
        with aside(record) as place:
            text = "# Settings of the label maps in this folder; segvit predict only adds to it with the same ones.\n"
            place.write_text(text + yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")


def _check_record(record: Path, settings: dict[str, Any], files: Iterable[Path]) -> None:
    """Refuse a folder whose files were made with other or unknown settings."""
    advice = "give another --output, or --overwrite to compute everything again"
    if not record.exists():
        if taken := next((file for file in files if file.exists()), None):
            raise UserError(f"{taken} exists, and there is no {record} with its settings: {advice}")
        return
    try:
        there = load_yaml(record.read_text(encoding="utf-8"), source=str(record))
    except (OSError, ValueError, UserError) as error:
        raise UserError(f"{record} cannot be read ({error}): {advice}") from error
    if not isinstance(there, dict):
        raise UserError(f"{record} was not written by segvit predict: {advice}")
    differing = [
        f"{name} was {_word(there.get(name))} and is {_word(settings.get(name))}"
        for name in settings | there
        if there.get(name) != settings.get(name)
    ]
    if differing:
        raise UserError(f"{record.parent} holds label maps made with other settings: {'; '.join(differing)}: {advice}")


def model_digest(model: Network) -> str:
    """Return a digest of the weights, structure and classes of a model, whatever its device and file name."""
    if isinstance(model, OnnxModel):
        with model.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    network = uncompiled(model)
    assert isinstance(network, nn.Module)
    spec: DatasetSpec | None = model.spec
    about = [None if model.config is None else asdict(model.config), None if spec is None else spec.to_dict()]
    digest = hashlib.sha256(json.dumps(about, default=str).encode())
    for name, tensor in network.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def _word(value: object) -> str:
    """Return a setting in the words of the command line."""
    if value is None or isinstance(value, bool):
        return "on" if value else "off" if value is False else "not set"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


# --- the disk --------------------------------------------------------------------------------------------------------


def aside(path: Path) -> AbstractContextManager[Path]:
    """Give a path to write a file or folder to, which is renamed to `path` at the end of the block; see `whole_file`.

    Its name is unique, since a process that should have been killed may still be writing the same file.
    """
    return whole_file(path, ending=ASIDE)


def explaining(path: Path) -> AbstractContextManager[None]:
    """Turn the system's error about a file that cannot be written into a UserError."""
    return writing(path, "make room or give another --output, then run the same command again to resume")

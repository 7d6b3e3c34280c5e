"""The files of a prediction, and how a later run knows which are done.

Of `photo.jpg`: photo.json (shares of the classes, and a fingerprint), photo.png (class numbers), photo_overlay.png, and
photo_confidence.png where asked for. `predict.yaml` in the output folder says what all of them were made with.

Each file is written aside, put on the disk, and renamed. The JSON comes first, after former pictures are removed: so
the pictures that are there are those that its fingerprint speaks of, and an image that lacks one is not done. Videos
have other files (segvit/prediction/video_outputs.py).
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

RECORD = "predict.yaml"
"""What the files in a folder were made with; no output ends so."""
FACTS = ".json"
LABELS, OVERLAY, CONFIDENCE = PICTURES = (".png", "_overlay.png", "_confidence.png")
ENDINGS = (*PICTURES, FACTS)
"""What follows the name of an image in the names of its outputs."""
ASIDE = ".segvit-partial"
"""Ending of a file that is being written."""


def named(target: Path, ending: str) -> Path:
    """The output of an image; `target` is its place in the output folder, without suffix."""
    return target.with_name(target.name + ending)


# --- one image -------------------------------------------------------------------------------------------------------


def fingerprint(source: Path, settings: dict[str, Any]) -> str:
    """Of all that the outputs of an image depend on: the file as it is now, and what they are made with."""
    try:
        facts = source.stat()
    except OSError:  # gone since it was found; reading it will say so
        return ""
    said = json.dumps([str(source.absolute()), facts.st_size, facts.st_mtime_ns, settings], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()[:32]


def is_done(target: Path, expected: str, *, confidence: bool) -> bool:
    """Whether all outputs of an image are there, and are those of that fingerprint."""
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
    """Write everything about one image.

    Args:
        result: what the model sees in it.
        target: its place in the output folder, without suffix.
        source: the image.
        fingerprint: see `fingerprint`, from before the image was read.
        opacity: of the overlay's colours.
        raw_ids: (K,) values to write for the classes, as grey in 8 bits, or 16 where one is above 255; None: class
            numbers with a palette.

    Returns:
        The label map's path.

    Raises:
        UserError: the disk does not take them.
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
    """Write a label map as PNG: see `write_outputs`."""
    if raw_ids is None:
        save_index_png(result.labels, result.palette, path)
        return
    table = np.array(raw_ids)
    Image.fromarray(table.astype(np.uint8 if table.max() < 256 else np.uint16)[result.labels]).save(path, format="PNG")


def left_by_us(pictures: Sequence[Path]) -> set[Path]:
    """Those among the pictures of a folder that are outputs of another one, written beside it."""
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
    """What the JSON beside pictures says; nothing where there is none of ours."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


# --- the folder ------------------------------------------------------------------------------------------------------


def claim(output: Path, settings: dict[str, Any], files: Iterable[Path], *, overwrite: bool) -> None:
    """Make a folder's record say `settings`, and remove what a killed run has left half written.

    Args:
        output: the folder.
        settings: what its files are made with, plain values.
        files: all that may be written into it.
        overwrite: whatever is there.

    Raises:
        UserError: other settings, files of unknown origin at those places, or a folder that takes no files.
    """
    record = output / RECORD
    if not overwrite:
        _check_record(record, settings, files)
    with explaining(record):
        output.mkdir(parents=True, exist_ok=True)
        for path in list(output.rglob("*" + ASIDE)):
            remove(path)
        with aside(record) as place:
            text = "# What the label maps in this folder were made with: segvit predict goes on with the same only.\n"
            place.write_text(text + yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")


def _check_record(record: Path, settings: dict[str, Any], files: Iterable[Path]) -> None:
    """Refuse a folder whose files were made in another way, or nobody knows how."""
    advice = "give another --output, or --overwrite to compute all anew"
    if not record.exists():
        if taken := next((file for file in files if file.exists()), None):
            raise UserError(f"{taken} is there, and no {record} says what it was made with: {advice}")
        return
    try:
        there = yaml.safe_load(record.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{record} cannot be read ({error}): {advice}") from error
    if not isinstance(there, dict):
        raise UserError(f"{record} is no record of segvit predict: {advice}")
    differing = [
        f"{name} was {_word(there.get(name))} and is {_word(settings.get(name))}"
        for name in settings | there
        if there.get(name) != settings.get(name)
    ]
    if differing:
        raise UserError(f"{record.parent} holds label maps made with other settings: {'; '.join(differing)}: {advice}")


def model_digest(model: Network) -> str:
    """Of the weights, the structure and the classes of a model: the same on every device, and under any file name."""
    if isinstance(model, OnnxModel):
        with model.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    network = uncompiled(model)
    assert isinstance(network, nn.Module)
    spec: DatasetSpec | None = model.spec
    about = [asdict(model.config), None if spec is None else spec.to_dict()]
    digest = hashlib.sha256(json.dumps(about, default=str).encode())
    for name, tensor in network.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def _word(value: object) -> str:
    """A setting as one types it."""
    if value is None or isinstance(value, bool):
        return "on" if value else "off" if value is False else "not set"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


# --- the disk --------------------------------------------------------------------------------------------------------


def aside(path: Path) -> AbstractContextManager[Path]:
    """A path to write a file or a folder to, which becomes `path` at the end of the block: see `whole_file`.

    Its name is unique: a process that should have been killed may still be writing the same file.
    """
    return whole_file(path, ending=ASIDE)


def explaining(path: Path) -> AbstractContextManager[None]:
    """Turn the system's error for what cannot be written into a UserError."""
    return writing(path, "make room or give another --output, then run the same command again to resume")

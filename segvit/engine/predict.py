"""Label maps of a user's own images, and the files that show them.

    result = segvit.predict(model, "photo.jpg")
    result.labels                      # (H, W) int64, at the size as displayed
    result.overlay().save("seen.png")

Letters: K classes, H W image.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from segvit.config import EvalConfig
from segvit.data.files import IMAGE_SUFFIXES, as_rgb, read_image
from segvit.data.palette import Color, default_palette
from segvit.engine.infer import image_confidence, image_labels, resolve_protocol
from segvit.errors import UserError
from segvit.inference.network import Network
from segvit.visualize import overlay, save_index_png, shares, with_legend

ENDINGS = (".png", "_overlay.png", "_confidence.png", ".json")
"""What follows the name of an image in the names of its outputs."""

Source = str | Path | Image.Image | npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a model sees in one image."""

    image: npt.NDArray[np.uint8]
    """uint8 (H, W, 3), RGB, as displayed."""
    labels: npt.NDArray[np.int64]
    """(H, W), 0..K-1."""
    classes: tuple[str, ...]
    """Names (K,)."""
    palette: tuple[Color, ...]
    """Colours (K,)."""
    confidence: npt.NDArray[np.float32] | None
    """(H, W): share of the winning class in the scores of a pixel, 0..1; None unless asked for."""

    def shares(self) -> dict[str, float]:
        """Fraction of the pixels of each class present, by name, largest first."""
        fractions = shares(self.labels, len(self.classes))
        order = np.argsort(-fractions)
        return {self.classes[index]: float(fractions[index]) for index in order if fractions[index] > 0}

    def overlay(self, *, opacity: float = 0.6, legend: bool = True) -> Image.Image:
        """The image with the classes in colour over it, and a legend below."""
        picture = overlay(self.image, self.labels, self.palette, opacity=opacity)
        if not legend:
            return Image.fromarray(picture)
        return with_legend(picture, self.classes, self.palette, shares(self.labels, len(self.classes)))


def predict(
    model: Network, source: Source, *, config: EvalConfig | None = None, confidence: bool = False
) -> Prediction:
    """The label map of one image.

    Args:
        model: on the device where it shall run.
        source: a file, a PIL image, or an array uint8 (H, W, 3) or (H, W).
        config: how the image is cut. Default: as the model was trained to be tested.
        confidence: compute the confidence map too.

    Raises:
        UserError: the file cannot be read, or the array is not uint8 RGB.
    """
    image = _to_rgb(source)
    tensor = torch.from_numpy(image.transpose(2, 0, 1).copy())
    if confidence:
        labels, share = image_confidence(model, tensor, config)
        certainty = share.cpu().numpy()
    else:
        labels, certainty = image_labels(model, tensor, config), None
    classes = model.spec.classes if model.spec else tuple(f"class {index}" for index in range(model.num_classes))
    palette = model.spec.palette if model.spec else default_palette(model.num_classes)
    return Prediction(image=image, labels=labels.cpu().numpy(), classes=classes, palette=palette, confidence=certainty)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """An input that gave no label map, and why."""

    path: Path
    reason: str


def predict_files(
    model: Network,
    inputs: Sequence[str | Path],
    output: Path,
    *,
    config: EvalConfig | None = None,
    opacity: float = 0.6,
    confidence: bool = False,
    raw_ids: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Path], list[Failure]]:
    """Label maps, overlays and shares of files and folders, written below `output`.

    For `a/photo.jpg` in a folder input `a`: photo.png (class indices with a palette), photo_overlay.png, photo.json,
    and photo_confidence.png where asked for; subfolders are mirrored.

    Returns:
        The label maps written, and the inputs that could not be read.

    Raises:
        UserError: an input that does not exist or holds no image, or an output that would be written over an input or
            over another input's output.
    """
    resolve_protocol(model, config)
    if raw_ids and model.spec is None:
        raise UserError("--ids raw: this model carries no dataset spec, so its raw ids are unknown; leave it out")
    jobs = find_images(inputs, output)
    _check_outputs(jobs, output)
    written: list[Path] = []
    failures: list[Failure] = []
    for done, (path, stem) in enumerate(jobs, start=1):
        try:
            result = predict(model, path, config=config, confidence=confidence)
        except UserError as error:
            failures.append(Failure(path=path, reason=str(error)))
        else:
            written.append(_write(result, output / stem, path, model, opacity=opacity, raw_ids=raw_ids))
        if progress:
            progress(done, len(jobs))
    return written, failures


def find_images(inputs: Sequence[str | Path], output: Path) -> list[tuple[Path, Path]]:
    """The image files among files and folders, each with its place below an output folder, without suffix.

    Args:
        inputs: files and folders.
        output: where the outputs go; what an earlier run wrote into such a folder inside an input is no input.

    Raises:
        UserError: see `predict_files`.
    """
    jobs: dict[Path, Path] = {}
    for path, stem in _walk(inputs, output):
        if stem in jobs:
            raise UserError(
                f"{jobs[stem]} and {path} would both be written as {stem}.png: predict them into two --output folders"
            )
        jobs[stem] = path
    return [(path, stem) for stem, path in jobs.items()]


def _check_outputs(jobs: Sequence[tuple[Path, Path]], output: Path) -> None:
    """Refuse to write over a photo, or two pictures to one file (photo_overlay.jpg lies beside photo.jpg)."""
    sources = {path.resolve() for path, _ in jobs}
    taken: dict[Path, Path] = {}
    for path, stem in jobs:
        for ending in ENDINGS:
            target = output / stem.with_name(stem.name + ending)
            if target.resolve() in sources:
                raise UserError(f"{target} is one of the images and would be written over: give another --output")
            if target in taken:
                raise UserError(
                    f"{taken[target]} and {path} would both be written as {target}: predict them into two --output "
                    "folders, or rename one"
                )
            taken[target] = path


def _walk(inputs: Sequence[str | Path], output: Path) -> Iterator[tuple[Path, Path]]:
    """Every image below the inputs, sorted, with its name relative to its input."""
    for given in map(Path, inputs):
        if given.is_file():
            yield given, Path(given.stem)
            continue
        if not given.is_dir():
            raise UserError(f"no such file or folder: {given}")
        found = sorted(path for path in given.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
        found = [path for path in found if not any(part.startswith(".") for part in path.relative_to(given).parts)]
        if output.resolve() != given.resolve():
            found = [path for path in found if not path.resolve().is_relative_to(output.resolve())]
        if not found:
            raise UserError(f"{given} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
        for path in found:
            yield path, path.relative_to(given).with_suffix("")


def _write(result: Prediction, target: Path, source: Path, model: Network, *, opacity: float, raw_ids: bool) -> Path:
    """Everything about one image; the label map's path."""
    target.parent.mkdir(parents=True, exist_ok=True)
    path = target.with_name(target.name + ".png")
    if raw_ids:
        _save_raw(result.labels, model, path)
    else:
        save_index_png(result.labels, result.palette, path)
    result.overlay(opacity=opacity).save(target.with_name(target.name + "_overlay.png"))
    if result.confidence is not None:
        Image.fromarray((result.confidence * 255).round().astype(np.uint8)).save(
            target.with_name(target.name + "_confidence.png")
        )
    height, width = result.labels.shape
    facts = {"image": str(source), "width": width, "height": height, "shares": result.shares()}
    target.with_name(target.name + ".json").write_text(
        json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    return path


def _save_raw(labels: npt.NDArray[np.int64], model: Network, path: Path) -> None:
    """The label map in the dataset's own ids, 8-bit grey, or 16-bit where an id is above 255."""
    assert model.spec is not None
    table = np.array(model.spec.raw_ids)
    Image.fromarray(table.astype(np.uint8 if table.max() < 256 else np.uint16)[labels]).save(path)


def _to_rgb(source: Source) -> npt.NDArray[np.uint8]:
    """Any source as uint8 (H, W, 3)."""
    if isinstance(source, str | Path):
        return np.asarray(read_image(Path(source)))
    if isinstance(source, Image.Image):
        return np.asarray(as_rgb(source, name="the image given"))
    if source.dtype != np.uint8 or source.ndim not in (2, 3) or (source.ndim == 3 and source.shape[2] != 3):
        raise UserError(
            f"an array of {source.dtype} {source.shape}: expected uint8 (H, W, 3) RGB or (H, W) grey; "
            "for floats in 0..1 give (array * 255).astype('uint8')"
        )
    return np.stack([source] * 3, axis=2) if source.ndim == 2 else source

"""Messages between the page and its workers: plain values that can travel between processes. No torch here."""

import re
from dataclasses import dataclass
from pathlib import Path

from segvit.config import Device, PrecisionChoice


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Start settings of a worker."""

    models: tuple[str, ...]
    """Files, repositories of the Hub, or names from the zoo."""
    device: Device = "auto"
    precision: PrecisionChoice | None = None
    examples: Path | None = None
    """Folder of photos to offer, or of a run, to offer its validation set."""
    own_examples: bool = True
    """If `examples` is None, offer the validation set of the run that the first model belongs to."""


@dataclass(frozen=True, kw_only=True)
class About:
    """Description of a model for the page."""

    name: str
    """Short, unique name on the page."""
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    backbone: str
    structure: str
    dataset: str | None
    """Name of the dataset that the model learned on, if it has one."""
    miou: float | None
    """Mean IoU on the validation set, 0..1."""
    images: int | None
    """Number of images in the validation set."""
    licence: str | None
    place: str
    """Device and precision, in words."""


@dataclass(frozen=True, kw_only=True)
class Control:
    """A control of a labelling configuration of Label Studio, and the labels that it gives to classes."""

    kind: str
    """Type of its results: polygonlabels or brushlabels."""
    name: str
    to_name: str
    """Name of the image that it labels."""
    labels: dict[int, str]
    """Labels by class number."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A photo to label."""

    photo: Path
    name: str
    """Name of the photo; outputs are named after it."""
    models: tuple[str, ...]
    """Names of the models, as in `About`."""
    folder: Path
    """Output folder; each model gets a subfolder named by its number."""
    overlay: bool = True
    """Also write the overlay with its legend."""
    polygons: bool = True
    """Also write the outlines of the regions."""
    viewer: bool = False
    """Also write the viewer."""
    thumbnail: bool = False
    """Also write a small overlay."""
    model_in_names: bool = False
    """Add the name of the model to the names of the files, so that those of two models differ."""
    controls: tuple[Control, ...] = ()
    """Also write regions for these controls of Label Studio, with scores."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Result of one model for a photo."""

    model: str
    milliseconds: float
    """Time from the decoded photo to its label map."""
    shares: dict[str, float]
    """Share of each class present, largest first."""
    labels: Path
    """Index PNG, the same bytes as from `segvit predict`."""
    overlay: Path | None
    polygons: Path | None
    viewer: Path | None
    thumbnail: Path | None
    agreement: float | None
    """Share of the pixels with the same class as by the first model; None for the first, or if the classes differ."""
    regions: Path | None = None
    """Regions for the controls of a job, JSON."""
    score: float | None = None
    """Mean confidence of the pixels, 0..1, if the job has controls."""


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """A photo that is labelled."""

    name: str
    width: int
    height: int
    notes: list[str]
    seen: list[Seen]


@dataclass(frozen=True, kw_only=True)
class Ready:
    """Sent by a worker when its models are loaded."""

    models: list[About]
    examples: list[Path]
    note: str
    """Source of the examples, or the reason why there are none, printed in the terminal."""


@dataclass(frozen=True, kw_only=True)
class Failed:
    """Sent by a worker if it cannot load its models or label a photo."""

    text: str


def file_safe(name: str) -> str:
    """Return the name of a model as part of a file name."""
    return re.sub(r"[^\w.-]+", "-", name)

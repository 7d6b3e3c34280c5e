"""What pages and workers tell each other: plain values, which travel between processes. No torch here."""

from dataclasses import dataclass
from pathlib import Path

from segvit.config import Device, PrecisionChoice


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What a worker is started with."""

    models: tuple[str, ...]
    """Files, repositories of the Hub, or names of the zoo."""
    device: Device = "auto"
    precision: PrecisionChoice | None = None
    examples: Path | None = None
    """Folder of photos, or of a run (its validation set), to be offered."""
    own_examples: bool = True
    """Where there is no such folder: offer the validation set of the run in whose folder the first model lies."""


@dataclass(frozen=True, kw_only=True)
class About:
    """A model, as the page tells of it."""

    name: str
    """Short, and like no other's on the page."""
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    backbone: str
    structure: str
    dataset: str | None
    miou: float | None
    """Of its validation, 0..1."""
    images: int | None
    """That it was validated on."""
    licence: str | None
    place: str
    """Device and precision."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A photo to label."""

    photo: Path
    name: str
    """Of the photo, for people; outputs are named after it."""
    models: tuple[str, ...]
    """Names of `About`."""
    folder: Path
    """Where the outputs go: a folder of each model's number in it."""
    viewer: bool = True
    """Make the page of the viewer too."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What one model saw in a photo."""

    model: str
    milliseconds: float
    """From the decoded photo to its label map."""
    shares: dict[str, float]
    """Of the classes present, largest first."""
    labels: Path
    """Index PNG, to the byte that of `segvit predict`."""
    overlay: Path
    polygons: Path
    viewer: Path | None
    agreement: float | None
    """Share of the pixels with the same class as the first model says; None where it is the first, or has others."""


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
    """What a worker says when its models are loaded."""

    models: list[About]
    examples: list[Path]
    note: str
    """Where the examples are from, or why there are none, for the operator."""


@dataclass(frozen=True, kw_only=True)
class Failed:
    """What a worker says where it cannot do what it shall."""

    text: str

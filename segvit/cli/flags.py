"""What the verbs of the command line share: flags, a progress bar, JSON files, and whether they can be written."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from segvit.config import MULTI_SCALE, EvalConfig, EvalMode, Structure
from segvit.errors import UserError
from segvit.utils.files import writing

Flat = Parameter(name="*")
"""The settings' own names become the flags: --data.root, --optim.lr."""
JsonFile = Annotated[Path | None, Parameter(allow_leading_hyphen=True)]
"""A file for JSON; - is the terminal."""
TERMINAL = Path("-")


@Flat
@dataclass(frozen=True, kw_only=True)
class BackboneFlags:
    """What the name of a backbone leaves open."""

    num_classes: int | None = None
    """For a backbone: number of classes. Default: 150."""
    image_size: int | None = None
    """For a backbone: side of the training crop in pixels."""
    class_token: bool | None = None
    """For a backbone: keep its class token."""
    structure: Structure | None = None
    """For a backbone: plain, or one of those that shrink the tokens. Default: plain."""


@Flat
@dataclass(frozen=True, kw_only=True)
class ProtocolFlags:
    """Changes to the protocol that a model carries; what is not given stays as it is."""

    mode: EvalMode | None = None
    """slide: overlapping windows; whole: the image in one piece."""
    window: int | None = None
    """Side of a window in pixels."""
    stride: int | None = None
    """Step between windows in pixels."""
    resize_long: int | None = None
    """Longer side in pixels that the image is fitted into first."""
    resize_short: int | None = None
    """Shorter side in pixels of the same fit."""
    resize_short_min: int | None = None
    """Least shorter side in pixels, whatever the scale."""
    scales: tuple[float, ...] | None = None
    """Factors of that size at which the image is looked at, such as 0.5 1 1.5."""
    flip: bool | None = None
    """Look at each scale mirrored as well."""
    multi_scale: bool = False
    """The paper's multi-scale test: scales 0.5 to 1.75 in six steps, each mirrored as well."""
    batch_size: int | None = None
    """Windows, or whole frames of a video, that run through the model together."""

    def over(self, protocol: EvalConfig) -> EvalConfig:
        """The protocol with these changes.

        Raises:
            UserError: `multi_scale` beside `scales` or `flip`.
        """
        changes = {key: value for key, value in asdict(self).items() if value is not None}
        if changes.pop("multi_scale"):
            if self.scales is not None or self.flip is not None:
                raise UserError("--multi-scale says scales and flip itself: leave --scales and --flip out, or it")
            changes |= {"scales": MULTI_SCALE, "flip": True}
        return replace(protocol, **changes)


def check_json(json: Path | None) -> None:
    """Refuse a flag where the file of --json shall be.

    Raises:
        UserError: it is one.
    """
    if json and json.name.startswith("--"):
        raise UserError(f"--json {json}: give a file first, or - to print")


def check_paths(*, files: Sequence[Path | None], folder: Path | None = None) -> None:
    """Refuse, before long work, what could not be written after it.

    Raises:
        UserError: a folder where a file shall be, or a file where a folder shall be.
    """
    for file in files:
        if file and file.is_dir():
            raise UserError(f"{file} is a folder: name a file in it")
    for path in [file.parent for file in files if file] + ([folder] if folder else []):
        if in_the_way := next((part for part in (path, *path.parents) if part.exists() and not part.is_dir()), None):
            raise UserError(f"{in_the_way} is a file, so nothing can be written below it: name another place")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write plain values, making the folder.

    Raises:
        UserError: the file cannot be written.
    """
    with writing(path, "give another file"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(to_json(content) + "\n", encoding="utf-8")


def to_json(content: dict[str, Any]) -> str:
    """Plain values as JSON text."""
    import json

    return json.dumps(content, indent=1, ensure_ascii=False)


@contextmanager
def bar(name: str, *, shown: bool = True) -> Iterator[Callable[[int, int], None]]:
    """A progress bar to be called with (done, total)."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True, disable=not shown) as progress:
        task = progress.add_task(name, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)

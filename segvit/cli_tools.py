"""What the verbs of the command line share: flags, a progress bar, JSON files, and whether they can be written."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from segvit.config import Structure
from segvit.errors import UserError

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
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(to_json(content) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error}); give another file") from error


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

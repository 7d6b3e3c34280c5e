"""What the verbs of the command line share: a progress bar, and JSON files."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from segvit.errors import UserError


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

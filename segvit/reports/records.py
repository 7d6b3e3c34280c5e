"""Read and write the logs of a run: a line of JSON per training step and per validation.

    log = RecordLog(Path("runs/camvid"), start=0)
    log.write(1, {"loss": 3.2, "class_1": 1.0, ...})
    for record in read_records(Path("runs/camvid")): record["step"], record["loss"]

In metrics.jsonl, the record of a step holds the loss, its terms, the learning rate and the gradient norm. The record of
a validation holds its scores. A resumed run writes the same records as one that was never interrupted. timing.jsonl
holds what differs between them: the seconds of each step and validation.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from segvit.errors import UserError
from segvit.utils.files import whole_file

LOG = "metrics.jsonl"
"""Name of the log in the folder of a run."""
TIMES = "timing.jsonl"
"""Name of the log of durations."""
OWN_KEYS = ("step", "loss", "lr", "gradient_norm", "miou", "overall_accuracy", "iou")
"""Keys of a record that are not terms of the loss."""


class RecordLog:
    """Open log of a run; every line is flushed.

    Args:
        folder: folder of the run.
        start: number of completed steps. Records of later steps are dropped, since the resumed run logs them again.
        name: name of the file.

    Raises:
        UserError: the log of a resumed run cannot be read.
        OSError: the log cannot be written.
    """

    def __init__(self, folder: Path, *, start: int, name: str = LOG) -> None:
        path = folder / name
        if start and path.exists():
            kept = [json.dumps(record) + "\n" for record in read_records(folder, name) if record["step"] <= start]
            with whole_file(path) as aside:
                aside.write_text("".join(kept), encoding="utf-8")
        self.file = path.open("a" if start else "w", buffering=1, encoding="utf-8")

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Append a record."""
        try:
            self.file.write(json.dumps({"step": step, **values}) + "\n")
        except OSError:
            with suppress(OSError):  # closing retries the rest of the line
                self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def read_records(folder: Path, name: str = LOG) -> Iterator[dict[str, Any]]:
    """Yield the records of one of a run's logs. An unfinished last line, which a killed run leaves, is skipped.

    Raises:
        UserError: the log cannot be read, or another line is broken.
    """
    path = folder / name
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); name the folder of a run of segvit train") from error
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            record["step"] + 0
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines) and not line.endswith("\n"):
                return
            raise UserError(f"{path}: line {number} is not a record of a step; remove the line") from error
        yield record


def read_times(folder: Path) -> list[dict[str, Any]]:
    """Return the records of timing.jsonl, or none for a run without that file.

    Raises:
        UserError: the log cannot be read, or a line is broken.
    """
    return list(read_records(folder, TIMES)) if (folder / TIMES).is_file() else []


def loss_terms(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the terms of the loss in a record by name, each summed over the supervised outputs: class, focal, ..."""
    terms: dict[str, float] = {}
    for key, value in record.items():
        if key not in OWN_KEYS:
            name, _, output = key.rpartition("_")
            name = name if name and output.isdigit() else key
            terms[name] = terms.get(name, 0) + value
    return terms

"""The work behind the page and its API, without Gradio: from an uploaded photo to results in the store.

service = Service(pool, store, limits)
result = service.label("uploads/.../photo.jpg", ["camvid"])
"""

import csv
import io
import threading
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from segvit.app.file_store import FULL, FileStore
from segvit.app.limits import Limits
from segvit.app.messages import About, Control, Job, Labelled, file_safe
from segvit.app.serving.refusals import Full, WrongRequest
from segvit.app.worker_pool import WorkerPool
from segvit.errors import UserError

ARCHIVE = "labels"
"""Name of the archive of a batch, before its suffix."""
TABLE = "shares.csv"


@dataclass(frozen=True, kw_only=True)
class Result:
    """A labelled photo, and the folder of its files in the store."""

    folder: Path
    labelled: Labelled


@dataclass(frozen=True, kw_only=True)
class Row:
    """One photo of a batch."""

    name: str
    """Name of the uploaded file; the files in the archive get the same name, with a number if two are equal."""
    result: Result | None = None
    """The result; its folder holds the viewer and the thumbnail."""
    error: str | None = None
    """Reason why there is no result."""


@dataclass(kw_only=True)
class Batch:
    """The state of a batch."""

    total: int
    rows: list[Row] = field(default_factory=list)
    archive: Path | None = None
    """The results as one file, at the end, if any photo was labelled."""


class Service:
    """Labels photos; any thread may call it.

    Args:
        pool: the workers.
        store: the store of uploads and results.
        limits: limits of a batch.

    Attributes:
        models: the models.
        limits: limits of a batch.
        pool: the workers.
        running: number of photos and batches that are worked on or wait for a worker.
    """

    def __init__(self, pool: WorkerPool, store: FileStore, limits: Limits) -> None:
        self.models: list[About] = pool.ready.models
        self.limits, self.pool = limits, pool
        self.running = 0
        self._lock = threading.Lock()
        """Held while `running` changes."""
        self._store = store

    def label(
        self,
        photo: str,
        models: Sequence[str],
        *,
        overlay: bool = True,
        polygons: bool = True,
        viewer: bool = False,
        thumbnail: bool = False,
        named: bool = False,
        controls: Sequence[Control] = (),
    ) -> Result:
        """Label an uploaded photo.

        Args:
            photo: path of the upload.
            models: names of the models to run.
            overlay: also write the overlay with its legend.
            polygons: also write the outlines of the regions.
            viewer: also write the viewer.
            thumbnail: also write a small overlay.
            named: if the page has several models, add the name of the model to the names of the files.
            controls: also write regions for these controls of Label Studio.

        Raises:
            WrongRequest: no such model.
            UserError: no such upload, a photo that is not taken or cannot be read, no room, or no time left.
        """
        self.check(models)
        if not self._store.use(photo):
            raise UserError("this photo has been deleted or was never sent: send it again")
        if self._store.room() < 0:  # results count too, and a photo may be asked for again and again
            raise Full(FULL)
        path, folder = Path(photo), self._store.open()
        job = Job(
            photo=path,
            name=path.name,
            models=tuple(models),
            folder=folder,
            overlay=overlay,
            polygons=polygons,
            viewer=viewer,
            thumbnail=thumbnail,
            model_in_names=named and len(self.models) > 1,
            controls=tuple(controls),
        )
        try:
            with self._counted(), self._store.holding(path, folder):  # it may take long until a worker is free
                return Result(folder=folder, labelled=self.pool.ask(job))
        except BaseException:
            self._store.remove(folder)
            raise

    def batch(self, photos: Sequence[str], model: str) -> Iterator[Batch]:
        """Label many uploaded photos. If one fails, its error is listed, and the others are still labelled.

        Raises:
            UserError: there are no photos, or more than a batch may have.
        """
        self.check([model])
        if not 1 <= len(photos) <= self.limits.batch_files:
            raise UserError(f"{len(photos)} photos: give 1 to {self.limits.batch_files}")
        batch = Batch(total=len(photos))
        yield batch
        folder = self._store.open()
        packed = folder / f"{ARCHIVE}{f'_{file_safe(model)}' if len(self.models) > 1 else ''}.zip"
        with ExitStack() as held:  # a batch may take longer than `keep_minutes`
            held.enter_context(self._counted())
            waiting = [Path(photo) for photo in photos if self._store.use(photo)]
            held.enter_context(self._store.holding(folder, *waiting))
            archive = held.enter_context(zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED))  # pictures are compressed
            taken: set[str] = set()
            for photo in photos:
                name = Path(photo).name
                try:
                    result = self.label(photo, [model], viewer=True, thumbnail=True)
                except UserError as error:
                    batch.rows.append(Row(name=name, error=str(error)))
                else:
                    held.enter_context(self._store.holding(result.folder))
                    batch.rows.append(Row(name=name, result=result))
                    _pack(archive, result, taken)
                yield batch
            archive.writestr(TABLE, _csv(batch.rows, next(about for about in self.models if about.name == model)))
        if taken:
            batch.archive = packed
        else:
            self._store.remove(folder)
        yield batch

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Count in `running` while the block runs."""
        with self._lock:
            self.running += 1
        try:
            yield
        finally:
            with self._lock:
                self.running -= 1

    def check(self, models: Sequence[str]) -> None:
        """Refuse names of models that do not exist.

        Raises:
            WrongRequest: a name is unknown, or there is none.
        """
        names = [about.name for about in self.models]
        if not models or any(model not in names for model in models):  # programs may send any value as a name
            raise WrongRequest(f"model {', '.join(map(str, models)) or 'none'}: choose from {', '.join(names)}")


def _pack(archive: zipfile.ZipFile, result: Result, taken: set[str]) -> None:
    """Move the downloads of a photo into an archive, under names that are not in `taken`, and add the names to it."""
    (seen,) = result.labelled.seen
    files = [file for file in (seen.labels, seen.overlay, seen.polygons) if file is not None]
    stem, number = seen.labels.stem, 1
    names = [file.name for file in files]
    while taken.intersection(names):
        number += 1
        names = [f"{stem}-{number}{file.name.removeprefix(stem)}" for file in files]
    taken.update(names)
    for file, name in zip(files, names, strict=True):
        archive.write(file, name)
        file.unlink()


def _csv(rows: Sequence[Row], about: About) -> str:
    """Return the shares of all classes in all photos as CSV."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["photo", "width", "height", "milliseconds", *about.classes, "error"])
    for row in rows:
        if row.result is None:
            writer.writerow([row.name, *[""] * (3 + len(about.classes)), row.error])
        else:
            (seen,) = row.result.labelled.seen
            shares = [f"{seen.shares.get(name, 0):.6f}" for name in about.classes]
            size = [row.result.labelled.width, row.result.labelled.height]
            writer.writerow([row.name, *size, f"{seen.milliseconds:.0f}", *shares, ""])
    return text.getvalue()

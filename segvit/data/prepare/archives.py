"""Archives unpacked so that no harm is done: nothing outside the folder, nothing half written, nothing twice.

    unpack(Path("set.zip"), Path("set"), below=("images", "annotations"))

Every name is looked at before the first file is written. A file is written aside and renamed; one that is there with
the right size is kept, so a run that was stopped goes on where it was.
"""

import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from segvit.errors import UserError
from segvit.utils.files import whole_file
from segvit.utils.progress import Progress


class Member(NamedTuple):
    """A file in an archive."""

    path: PurePosixPath
    size: int
    """Bytes."""
    open: Callable[[], IO[bytes] | None]


class Unpacked(NamedTuple):
    """What was done with an archive."""

    written: int
    kept: int
    """Files that were there already."""


def unpack(archive: Path, folder: Path, *, below: Sequence[str] = (), progress: Progress | None = None) -> Unpacked:
    """Write the files of a .zip, .tar or .tar.gz below `folder`.

    Args:
        archive: the file.
        folder: where to; it is made.
        below: leading folders whose files are wanted, such as `images`; empty: all.
        progress: called after each file.

    Raises:
        UserError: the archive cannot be read, or holds a path that leads out of it, a link or a device; or the disk is
            full. Nothing is written then, but for a damaged file found half way.
    """
    with _reading(archive), _members(archive) as members:
        wanted = [member for member in members if not below or member.path.parts[0] in below]
        missing = [member for member in wanted if not _is_there(folder / member.path, member.size)]
        _check_space(folder, sum(member.size for member in missing), archive)
        kept = len(wanted) - len(missing)
        for done, member in enumerate(missing, start=kept + 1):
            _write(member, folder / member.path)
            if progress:
                progress(done, len(wanted))
    return Unpacked(written=len(missing), kept=kept)


@contextmanager
def _members(archive: Path) -> Iterator[list[Member]]:
    """The files of an archive, all of them safe."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            yield list(_zip_members(opened, archive))
    elif tarfile.is_tarfile(archive):
        with tarfile.open(archive) as opened_tar:
            yield list(_tar_members(opened_tar, archive))
    else:
        raise UserError(f"{archive}: neither a zip nor a tar archive, or damaged; fetch it again")


def _zip_members(opened: zipfile.ZipFile, archive: Path) -> Iterator[Member]:
    for info in opened.infolist():
        path = _safe_path(info.filename, archive)
        mode = info.external_attr >> 16
        if stat.S_ISLNK(mode):
            raise _refuse(archive, info.filename, "is a link")
        if not info.is_dir() and not _is_clutter(path):
            yield Member(path, info.file_size, lambda info=info: opened.open(info))  # type: ignore[misc]


def _tar_members(opened: tarfile.TarFile, archive: Path) -> Iterator[Member]:
    for info in opened:
        path = _safe_path(info.name, archive)
        if info.issym() or info.islnk():
            raise _refuse(archive, info.name, "is a link")
        if not info.isfile() and not info.isdir():
            raise _refuse(archive, info.name, "is no file")
        if info.isfile() and not _is_clutter(path):
            yield Member(path, info.size, lambda info=info: opened.extractfile(info))  # type: ignore[misc]


def _safe_path(name: str, archive: Path) -> PurePosixPath:
    """The path of a member, below the folder.

    Raises:
        UserError: it is absolute, leads upwards, or is Windows' own.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or ":" in (path.parts or ("",))[0]:
        raise _refuse(archive, name, "leads out of the folder")
    return path


def _is_clutter(path: PurePosixPath) -> bool:
    """What macOS leaves in archives."""
    return path.name.startswith(("._", ".DS_Store")) or path.parts[0] == "__MACOSX"


def _is_there(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _write(member: Member, path: Path) -> None:
    """Write a file aside and rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    source = member.open()
    assert source is not None  # None is for what is no file
    with source, whole_file(path, flush=False) as aside:  # of tens of thousands; one of another size is written again
        with aside.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        if aside.stat().st_size != member.size:
            raise EOFError(f"{member.path} is cut short")


def _check_space(folder: Path, needed: int, archive: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{archive}: needs {needed / 1e9:.1f} GB more in {folder}, where {free / 1e9:.1f} GB are free; "
            "make room, or give another --root"
        )


@contextmanager
def _reading(archive: Path) -> Iterator[None]:
    """Turn what a damaged archive or a full disk raises into a UserError that names it."""
    try:
        yield
    except UserError:
        raise
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise UserError(f"{archive}: damaged, or not fetched in full ({error}); fetch it again") from error
    except OSError as error:
        raise UserError(f"{archive}: cannot be unpacked ({error}); mend that and type the same again") from error


def _refuse(archive: Path, name: str, why: str) -> UserError:
    return UserError(
        f"{archive}: {name!r} {why}: this is not the official archive, nothing was unpacked; fetch it again"
    )

"""Unpack archives safely: nothing outside the folder, nothing half written, nothing twice.

    unpack(Path("set.zip"), Path("set"), below=("images", "annotations"))

Every name is checked before the first file is written. A file is written under another name and then renamed. An
existing file of the right size is kept, so that a run that was stopped can be resumed.
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
    """Size in bytes."""
    open: Callable[[], IO[bytes] | None]


class Unpacked(NamedTuple):
    """The result of unpacking one archive."""

    written: int
    """Number of files written."""
    kept: int
    """Number of files that existed already."""


def unpack(archive: Path, folder: Path, *, below: Sequence[str] = (), progress: Progress | None = None) -> Unpacked:
    """Write the files of a .zip, .tar or .tar.gz below `folder`.

    Args:
        archive: the file.
        folder: target folder, which is created.
        below: top folders to unpack, such as `images`. Empty unpacks all.
        progress: called after each file.

    Raises:
        UserError: the archive cannot be read, it holds a path outside the folder, a link or a device, or the disk is
            full. Nothing is written in these cases, unless the archive turns out to be damaged half way.
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
    """Yield the files of an archive, after checking that all of them are safe."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            yield list(_zip_members(opened, archive))
    elif tarfile.is_tarfile(archive):
        with tarfile.open(archive) as opened_tar:
            yield list(_tar_members(opened_tar, archive))
    else:
        raise UserError(f"{archive}: not a zip or tar archive, or damaged; download it again")


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
            raise _refuse(archive, info.name, "is not a file")
        if info.isfile() and not _is_clutter(path):
            yield Member(path, info.size, lambda info=info: opened.extractfile(info))  # type: ignore[misc]


def _safe_path(name: str, archive: Path) -> PurePosixPath:
    """Return the path of a member below the folder.

    Raises:
        UserError: the path is absolute, leads upwards, or has a drive or backslashes.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or ":" in (path.parts or ("",))[0]:
        raise _refuse(archive, name, "leads out of the folder")
    return path


def _is_clutter(path: PurePosixPath) -> bool:
    """True for the files that macOS adds to archives."""
    return path.name.startswith(("._", ".DS_Store")) or path.parts[0] == "__MACOSX"


def _is_there(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _write(member: Member, path: Path) -> None:
    """Write a file under another name and rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    source = member.open()
    assert source is not None  # None is for members that are not files
    with source, whole_file(path, flush=False) as aside:  # a cut file has another size, so it is written again
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
            "free some space, or give another --root"
        )


@contextmanager
def _reading(archive: Path) -> Iterator[None]:
    """Turn the errors of a damaged archive or a full disk into a UserError that names the archive."""
    try:
        yield
    except UserError:
        raise
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise UserError(f"{archive}: damaged, or not downloaded in full ({error}); download it again") from error
    except OSError as error:
        raise UserError(f"{archive}: cannot be unpacked ({error}); fix that and run the same command again") from error


def _refuse(archive: Path, name: str, why: str) -> UserError:
    return UserError(
        f"{archive}: {name!r} {why}: this is not the official archive, and nothing was unpacked; download it again"
    )

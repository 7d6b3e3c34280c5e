"""Find onnxruntime-web, Microsoft's ONNX Runtime in WebAssembly (MIT licence), or fetch it with npm.

files = runtime_files()                                         # name -> bytes
files = runtime_files(Path("onnxruntime-web-1.30.0.tgz"))       # as `npm pack` saves it, or an unpacked folder

One version is pinned, and the SHA-256 of each file is checked. Nothing of the package is run here.
"""

import hashlib
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from segvit.errors import UserError
from segvit.utils.files import cache_folder, expanded, whole_file, writing

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
"""Package of npm and its version."""
DIGESTS = {
    "ort.wasm.bundle.min.mjs": "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
"""SHA-256 of the files that are needed, by their names in the folder `dist` of the package."""
MOST_BYTES = 64 * 2**20
"""Largest size of a file that is read from a package, in bytes."""
NPM_SECONDS = 900
"""Time for npm to fetch the package (33 MB), in seconds."""
REMEDY = f"type `npm pack {PACKAGE}@{VERSION}`, and add --web-runtime {PACKAGE}-{VERSION}.tgz"
"""Command that gets the package, as error messages end."""


def runtime_files(given: Path | None = None) -> dict[str, bytes]:
    """Return the files of `DIGESTS`.

    They come from the package that is given, from the cache, from `node_modules` in the working directory, or from npm,
    whichever is first. What npm fetches is kept in the cache.

    Args:
        given: package as an archive (.tgz) or an unpacked folder.

    Raises:
        UserError: there is no package and no npm, npm fails, or the package is not whole or has another version.
    """
    if given is not None:
        return _checked(_read_package(Path(expanded(given))), str(given))
    cached = runtime_folder()
    if all((cached / name).is_file() for name in DIGESTS):
        return _checked({name: _content(cached / name) for name in DIGESTS}, str(cached))
    installed = Path("node_modules") / PACKAGE
    if all((installed / "dist" / name).is_file() for name in DIGESTS):
        return _checked(_read_package(installed), str(installed))
    return fetch()


def runtime_folder() -> Path:
    """Return the folder in segvit's cache for the files of this version."""
    return cache_folder() / f"{PACKAGE}-{VERSION}"


def fetch() -> dict[str, bytes]:
    """Fetch the package with npm, keep its files in the cache, and return them.

    Raises:
        UserError: there is no npm, or it fails, or what it fetches is another package.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise UserError(
            f"pages need {PACKAGE} {VERSION}, and npm, which fetches it, is not installed. On a computer with npm, "
            f"{REMEDY}"
        )
    print(f"fetching {PACKAGE} {VERSION} (33 MB) with npm", flush=True)
    with TemporaryDirectory() as folder:
        command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--ignore-scripts", "--loglevel", "error"]
        try:
            done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True, timeout=NPM_SECONDS)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UserError(f"npm could not fetch {PACKAGE} {VERSION} ({error}); {REMEDY}") from error
        archives = list(Path(folder).glob("*.tgz"))
        if done.returncode or not archives:
            reason = (done.stderr or done.stdout).strip().splitlines()
            raise UserError(
                f"npm could not fetch {PACKAGE} {VERSION} ({reason[0] if reason else 'no reason given'}); {REMEDY}"
            )
        files = _checked(_read_package(archives[0]), "what npm fetched")
    cache = runtime_folder()
    with writing(cache, "set SEGVIT_CACHE to another folder"):
        cache.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            with whole_file(cache / name, ending=".partial") as aside:
                aside.write_bytes(content)
    return files


def _read_package(path: Path) -> dict[str, bytes]:
    """Read the needed files of a package: an archive of npm, or an unpacked folder.

    Raises:
        UserError: there is no such package, or a file is missing or too large.
    """
    if path.is_dir():
        inside = next((folder for folder in (path / "dist", path / "package" / "dist") if folder.is_dir()), path)
        return _each(lambda name: _content(inside / name), path)
    if not path.is_file():
        raise UserError(f"{path}: no such file or folder; {REMEDY}")
    try:
        with tarfile.open(path) as archive:
            return _each(lambda name: _member(archive, f"package/dist/{name}"), path)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UserError(f"{path}: not a whole archive of npm ({error}); {REMEDY}") from error


def _each(read: Callable[[str], bytes], path: Path) -> dict[str, bytes]:
    """Read every needed file.

    Raises:
        UserError: one is missing or too large.
    """
    files = {}
    for name in DIGESTS:
        try:
            files[name] = read(name)
        except (FileNotFoundError, KeyError):
            raise UserError(f"{path}: not {PACKAGE} {VERSION} (no file dist/{name}); {REMEDY}") from None
    return files


def _content(path: Path) -> bytes:
    """Read a file of limited size."""
    with path.open("rb") as file:
        return file.read(MOST_BYTES)


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    """Read a file of limited size from an archive. Nothing is unpacked.

    Raises:
        KeyError: there is no such file.
    """
    file = archive.extractfile(name)
    if file is None:
        raise KeyError(name)
    return file.read(MOST_BYTES)


def _checked(files: Mapping[str, bytes], source: str) -> dict[str, bytes]:
    """Check the digest of each file.

    Raises:
        UserError: a file differs from the one of the pinned version.
    """
    for name, content in files.items():
        if hashlib.sha256(content).hexdigest() != DIGESTS[name]:
            raise UserError(f"{source}: {name} is not the file of {PACKAGE} {VERSION}, which pages need; {REMEDY}")
    return dict(files)

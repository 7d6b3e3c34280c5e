"""Get the image of a task of Label Studio: from its text, or from that one Label Studio, and from nowhere else.

    source = LabelStudio(url="http://127.0.0.1:8080", token="...")
    fetch(task_image, source, path, limits)

A task is written by others, so its addresses are never trusted. Only the address that was given at the start is asked,
only below the folders where Label Studio keeps files, and redirects are not followed.
"""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from segvit.app.labelling.encoded import decoded
from segvit.app.limits import Limits
from segvit.app.serving.asgi import is_loopback
from segvit.app.serving.refusals import Unreachable, WrongRequest
from segvit.errors import UserError

TOKEN = "LABEL_STUDIO_API_KEY"
"""Environment variable of the token, the same as in Label Studio's own tools."""
FOLDERS = ("data/", "tasks/", "storage-data/")
"""Folders of Label Studio's addresses below which it keeps files."""
DATA = re.compile(r"data:[\w.+-]+/[\w.+-]+(?:;[\w=.-]+)*;base64,", re.ASCII)
"""Begin of an image that is sent as text."""
SECONDS = 30
"""Time in seconds for one step of a download."""
LONGEST = 120
"""Time in seconds for a whole download."""
NAME = "image"


@dataclass(frozen=True, kw_only=True)
class LabelStudio:
    """A Label Studio that images may be fetched from.

    Raises:
        UserError: its address is no http address, or the token cannot be sent in a header.
    """

    url: str
    """Address, such as http://127.0.0.1:8080."""
    token: str | None = field(default=None, repr=False)
    """Access token of a user, of either kind."""

    def __post_init__(self) -> None:
        if not _is_plain(self.url):
            given = "the address" if "@" in self.url else self.url  # a password is not printed
            raise UserError(
                f"--label-studio-url {given}: give an address without a password, such as http://127.0.0.1:8080"
            )
        if self.token is not None and re.fullmatch(r"[!-~]+", self.token) is None:
            raise UserError(f"the token of Label Studio ({TOKEN}) is empty or has spaces: copy it again")

    @property
    def root(self) -> str:
        """Address with a slash at its end."""
        return self.url.rstrip("/") + "/"

    @property
    def is_here(self) -> bool:
        """True if it runs on this machine."""
        return is_loopback(urlsplit(self.url).hostname or "")

    def address_of(self, text: str) -> str:
        """Return the full address of a file that a task names.

        Args:
            text: path on Label Studio, such as /data/upload/1/a.jpg, or its whole address.

        Raises:
            WrongRequest: it is at another place.
        """
        own, given = urlsplit(self.root), _parts(text)
        elsewhere = _origin(given) != _origin(own) or "@" in given.netloc
        if (given.scheme or given.netloc) and elsewhere:
            raise WrongRequest(
                f"the image is at {given.scheme}://{given.hostname or ''}: only {self.url} is asked for images. In "
                "Label Studio, upload the images, or let it pass on those of a storage"
            )
        path = given.path.removeprefix(own.path) if given.path.startswith(own.path) else given.path.lstrip("/")
        steps = unquote(path).replace("\\", "/").split("/")
        if not path.startswith(FOLDERS) or ".." in steps or "." in steps:
            raise WrongRequest(
                f"the image is at {given.path[:100]}: only files below /{', /'.join(FOLDERS)} of Label Studio are "
                "fetched"
            )
        return f"{self.root}{path}" + (f"?{given.query}" if given.query else "")


def _is_plain(url: str) -> bool:
    """True for an http address of a server, without user, query and fragment."""
    try:
        parts = urlsplit(url)
        return bool(
            parts.scheme in ("http", "https")
            and parts.hostname
            and parts.port != 0
            and not ("@" in parts.netloc or parts.query or parts.fragment)
        )
    except ValueError:  # the host is no IPv6 address, or the port is no number
        return False


def _parts(text: str) -> SplitResult:
    """Return the parts of an address in a task.

    Raises:
        WrongRequest: the host is no IPv6 address, the port is no number, or it has half of a surrogate pair.
    """
    try:
        text.encode()
        parts = urlsplit(text)
        _ = parts.port
    except ValueError as error:
        raise WrongRequest(f"the image is at an address that is no address ({error}): correct the task") from error
    return parts


def _origin(parts: SplitResult) -> tuple[str, str | None, int | None]:
    """Return scheme, host and port of an address."""
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def fetch(data: object, key: str, source: LabelStudio | None, folder: Path, limits: Limits) -> Path:
    """Write the image of a task into a folder, and return its path.

    Args:
        data: data of the task, which should be a mapping.
        key: key of the image in it.
        source: the Label Studio that may be asked, or None.
        folder: to write to.
        limits: largest size of a file.

    Raises:
        UserError: the task has no such image, it is at another place, cannot be fetched, or is too large.
    """
    text = data.get(key) if isinstance(data, Mapping) else None
    if not isinstance(text, str) or not text.strip():
        raise WrongRequest(f"the data of the task has no image under {key!r}: send {{'data': {{'{key}': 'ADDRESS'}}}}")
    text = text.strip()
    if text.startswith("data:"):
        path = folder / NAME
        path.write_bytes(_from_text(text, limits))
        return path
    if source is None:
        raise WrongRequest(
            f"the image is at {text[:100]}: start the server with --label-studio-url ADDRESS of Label Studio, and its "
            f"token in the environment variable {TOKEN}"
        )
    address = source.address_of(text)
    path = folder / (
        re.sub(r"[^\w.-]", "_", unquote(urlsplit(address).path).rpartition("/")[2])[-60:].strip(".") or NAME
    )
    _download(address, source, path, limits)
    return path


def _from_text(text: str, limits: Limits) -> bytes:
    """Return the bytes of an image that is sent as text.

    Raises:
        WrongRequest: it is no base64, or too large.
    """
    head = DATA.match(text)
    if head is None:
        raise WrongRequest("the image is text without base64: send data:image/png;base64,...")
    return decoded(text[head.end() :], limits)


def _download(address: str, source: LabelStudio, path: Path, limits: Limits) -> None:
    """Write the file at an address of Label Studio to a path.

    Raises:
        Unreachable: it cannot be fetched.
        WrongRequest: it is too large.
    """
    import httpx  # comes with Gradio

    came, end = 0, time.monotonic() + LONGEST
    proxied = not source.is_here  # a proxy of the environment would get the token, and cannot reach this machine
    try:
        with httpx.Client(timeout=SECONDS, follow_redirects=False, trust_env=proxied) as client:
            headers = _authorization(client, source)
            with client.stream("GET", address, headers=headers) as response, path.open("wb") as file:
                if response.status_code != 200:
                    raise Unreachable(_reason(response.status_code, address))
                for piece in response.iter_bytes():
                    came += len(piece)
                    if came > limits.bytes:
                        raise WrongRequest(f"{path.name} is too large: the limit is {limits.max_megabytes:g} MB")
                    if time.monotonic() > end:
                        raise Unreachable(f"Label Studio needs more than {LONGEST} s for {path.name}: try again later")
                    file.write(piece)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Unreachable(
            f"Label Studio at {source.url} cannot be reached ({type(error).__name__}): check --label-studio-url"
        ) from error


def _authorization(client: Any, source: LabelStudio) -> dict[str, str]:
    """Return the header that lets us in. A personal access token is exchanged for one that is valid for minutes.

    Raises:
        Unreachable: Label Studio does not accept the token.
    """
    if source.token is None:
        return {}
    if source.token.count(".") != 2:
        return {"Authorization": f"Token {source.token}"}
    response = client.post(f"{source.root}api/token/refresh", json={"refresh": source.token})
    try:
        access = response.json()["access"]
    except (ValueError, KeyError, TypeError):
        access = None
    if response.status_code != 200 or not isinstance(access, str):
        raise Unreachable(f"Label Studio refuses the token ({response.status_code}): put a valid one into {TOKEN}")
    return {"Authorization": f"Bearer {access}"}


def _reason(status: int, address: str) -> str:
    """Return the reason why an address gives no file."""
    place = urlsplit(address).path
    if status in (401, 403):
        return f"Label Studio refuses {place} ({status}): put the token of a user of the project into {TOKEN}"
    if 300 <= status < 400:
        return (
            f"Label Studio redirects {place} to another server, which is not asked: in the settings of the storage, "
            "turn off pre-signed URLs"
        )
    return f"Label Studio answers {status} for {place}: check that the image exists"

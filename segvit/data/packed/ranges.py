"""Read parts of a file on a web server by Range requests, and try again a few times.

size, tag = measure("https://host/train-000000.tar")
content = fetch_range("https://host/train-000000.tar", 512, 1024, total=size)
"""

import http.client
import time
import urllib.error
import urllib.request
from urllib.parse import urlsplit, urlunsplit

from segvit.data.images import Unreadable

ATTEMPTS = 4
"""Number of times that a request is sent."""
FIRST_WAIT = 0.5
"""Seconds before the second attempt. Each further wait is twice as long."""
TIMEOUT = 30.0
"""Seconds without an answer after which an attempt fails."""
PASSING = (408, 425, 429, 500, 502, 503, 504)
"""HTTP statuses that may pass."""


def is_url(place: str) -> bool:
    """True for http and https addresses."""
    return place.startswith(("http://", "https://"))


def measure(url: str) -> tuple[int, str]:
    """Return the bytes of a file, and its ETag or date, which are empty if the server sends neither.

    Raises:
        Unreadable: the server has no such file, does not answer, or does not answer Range requests.
    """
    _, total, tag = _request(url, 0, 1)
    return total, tag


def fetch_range(url: str, offset: int, size: int, *, total: int) -> bytes:
    """Return `size` bytes from `offset`.

    Args:
        url: address of the file.
        offset: first byte.
        size: number of bytes.
        total: bytes of the whole file, which must not have changed.

    Raises:
        Unreadable: as `measure`, or the file has another size now.
    """
    if size == 0:
        return b""
    content, now, _ = _request(url, offset, size)
    if now != total:
        raise Unreadable(f"{shown(url)}: had {total} bytes and has {now} now; run the command again to read it anew")
    return content


def shown(url: str) -> str:
    """Return an address without password and query, which may hold secrets."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _request(url: str, offset: int, size: int) -> tuple[bytes, int, str]:
    """Return a part of a file, the bytes of the whole file and its tag, after a few attempts at most."""
    reason = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(FIRST_WAIT * 2 ** (attempt - 1))
        try:
            return _try(url, offset, size)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code not in PASSING:
                raise Unreadable(
                    f"{shown(url)}: HTTP status {error.code} ({error.reason}); check the address"
                ) from error
            reason = f"HTTP status {error.code}"
        except (OSError, http.client.HTTPException) as error:  # URLError and timeouts are OSErrors
            reason = str(getattr(error, "reason", "") or error or type(error).__name__)
    raise Unreadable(f"{shown(url)}: no answer in {ATTEMPTS} attempts ({reason}); check the network and the address")


def _try(url: str, offset: int, size: int) -> tuple[bytes, int, str]:
    """Send one request."""
    wanted = f"bytes={offset}-{offset + size - 1}"
    request = urllib.request.Request(url, headers={"Range": wanted, "Accept-Encoding": "identity"})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        total = answer.headers.get("Content-Range", "").rpartition("/")[2]
        if answer.status != 206 or not total.isdecimal():
            raise Unreadable(
                f"{shown(url)}: the server does not answer Range requests (status {answer.status}); download the shard"
            )
        content = answer.read(size)
        tag = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
    if len(content) < size:
        raise http.client.IncompleteRead(content, size - len(content))
    return content, int(total), tag

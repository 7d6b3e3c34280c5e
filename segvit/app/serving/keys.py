"""API keys: who may use the server, if any keys are given.

    keys = read_keys(["..."], file=None, environment=os.environ)
    keys.accept(request_headers)

A key comes in `Authorization: Bearer KEY`, in `X-API-Key: KEY`, or as the password of `Authorization: Basic`, which
browsers and Label Studio send. Only digests are kept, so no trace or log can show a key.
"""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from pathlib import Path

from segvit.app.serving.asgi import Headers
from segvit.errors import UserError
from segvit.utils.files import expanded

VARIABLE = "SEGVIT_API_KEYS"
"""Environment variable that holds keys, with spaces or commas between them."""
FEWEST = 16
"""Smallest number of characters of a key: shorter ones can be guessed."""
KEY = re.compile(r"[!-~]+")
"""A key: printable characters of ASCII, which every HTTP client can send."""
MAKE_ONE = 'python -c "import secrets; print(secrets.token_urlsafe(32))"'
REFUSED = (
    "this server needs a key: send the header `Authorization: Bearer KEY` or `X-API-Key: KEY`; in a browser, any user "
    "name with the key as the password"
)
"""Answer to a request without a valid key."""
CHALLENGES = (
    (b"www-authenticate", b'Basic realm="segvit", charset="UTF-8"'),
    (b"www-authenticate", b'Bearer realm="segvit"'),
)
"""Headers of that answer. The first makes a browser ask for a name and a password."""


class ApiKeys:
    """The keys that a server accepts. Without keys, it accepts every request.

    Args:
        keys: the keys.
    """

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._digests = tuple({_digest(key.encode()) for key in keys})

    def __len__(self) -> int:
        return len(self._digests)

    def accept(self, headers: Headers) -> bool:
        """Return True if a request has a valid key, or if no keys are needed.

        Each comparison takes the same time for every wrong key, and no comparison is skipped.
        """
        if not self._digests:
            return True
        found = False
        for given in _keys_in(headers):
            digest = _digest(given)
            for known in self._digests:
                found |= hmac.compare_digest(digest, known)
        return found


def read_keys(given: Sequence[str], *, file: Path | None, environment: MutableMapping[str, str]) -> ApiKeys:
    """Return the keys of flags, a file, and the environment, from which they are removed.

    Args:
        given: keys of `--api-key`.
        file: text file with a key in each line; empty lines and lines that begin with # are skipped.
        environment: may hold VARIABLE. Workers, which inherit the environment, do not need it.

    Raises:
        UserError: the file cannot be read or holds no key, or a key is too short or has other characters. The error
            names the place of a key, never the key.
    """
    found = [("--api-key", key) for key in given]
    if file is not None:
        found += _keys_of(file)
    variable = environment.pop(VARIABLE, None)
    if variable is not None:
        words = re.split(r"[\s,]+", variable.strip())
        found += [(f"{VARIABLE}, key {number}", word) for number, word in enumerate(words, start=1)]
    for place, key in found:
        if KEY.fullmatch(key) is None or len(key) < FEWEST:
            raise UserError(
                f"{place} has {len(key)} characters: a key has at least {FEWEST}, without spaces and accents; make one "
                f"with: {MAKE_ONE}"
            )
    return ApiKeys(key for _, key in found)


def _keys_of(file: Path) -> list[tuple[str, str]]:
    """Return the keys in a file, each with its place.

    Raises:
        UserError: the file cannot be read or holds no key.
    """
    try:
        lines = Path(expanded(file)).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise UserError(
            f"--api-keys-file {file}: cannot be read ({reason}); give a text file with a key in each line"
        ) from None  # the error of decoding would show bytes of keys
    keys = [
        (f"{file}, line {number}", line.strip())
        for number, line in enumerate(lines, start=1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if not keys:
        raise UserError(f"--api-keys-file {file}: holds no key; write one in each line, made with: {MAKE_ONE}")
    return keys


def _keys_in(headers: Headers) -> Iterator[bytes]:
    """Yield what a request gives as a key."""
    for name, value in headers:
        if name.lower() == b"x-api-key":
            yield value.strip()
        elif name.lower() == b"authorization":
            scheme, _, rest = value.partition(b" ")
            if scheme.lower() == b"bearer":
                yield rest.strip()
            elif scheme.lower() == b"basic":
                try:
                    yield base64.b64decode(rest.strip(), validate=True).partition(b":")[2]
                except binascii.Error:
                    continue


def _digest(key: bytes) -> bytes:
    """Return the digest of a key, which has the same length for every key."""
    return hashlib.sha256(key).digest()

"""What people hand over in place of weights, told by the first bytes of the file."""

from pathlib import Path

AGAIN = "fetch it again"
PAGE = (b"<!doctype", b"<html", b"<?xml", b"<head", b"<!--")
"""How web pages begin, in small letters."""
PICKLE = b"\x80"
"""First byte of a pickle of protocol 2 or above, and so of a file of torch before 1.6."""
ZIP = b"PK"
"""First bytes of a zip file, and so of a file of torch."""


def first_bytes(path: Path) -> bytes:
    """Enough of a file to tell what it is."""
    with path.open("rb") as file:
        return file.read(512)


def no_weights(path: Path) -> str | None:
    """What a file is that holds no weights of any kind, and what to do; None: it is none of the usual ones."""
    head = first_bytes(path)
    if not head:
        return f"an empty file (0 bytes), the download has not begun: {AGAIN}"
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(PAGE):  # a byte order mark may come first
        return f"a web page instead of weights: take the address of the download itself and {AGAIN}"
    if head.startswith(b"version https://git-lfs"):
        return "a pointer of git lfs instead of weights: type `git lfs pull` where it comes from"
    return None

"""Recognise files that are not weights by their first bytes."""

from pathlib import Path

AGAIN = "fetch it again"
PAGE = (b"<!doctype", b"<html", b"<?xml", b"<head", b"<!--")
"""First bytes of web pages, in lower case."""
PICKLE = b"\x80"
"""First byte of a pickle of protocol 2 or above, and so of a file that torch.save wrote before torch 1.6."""
OPENVINO = b"<net "
"""First element of an OpenVINO file, which is XML as some web pages are."""
ZIP = b"PK"
"""First bytes of a zip file, and so of a file of torch.save."""


def first_bytes(path: Path) -> bytes:
    """Return enough bytes of a file to recognise its format."""
    with path.open("rb") as file:
        return file.read(512)


def no_weights(path: Path) -> str | None:
    """Say what a file without weights is and what to do, or return None if it is not recognised."""
    head = first_bytes(path)
    if not head:
        return f"an empty file (0 bytes); the download has not begun: {AGAIN}"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()  # a byte order mark may come first
    if text.startswith(PAGE) and OPENVINO not in text:
        return f"a web page instead of weights: use the address of the download itself and {AGAIN}"
    if head.startswith(b"version https://git-lfs"):
        return "a pointer of git lfs instead of weights: run `git lfs pull` in its repository"
    return None

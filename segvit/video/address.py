"""Inputs that are no files: a webcam (`webcam:0`), or a stream (`rtsp://camera/live`, `https://host/clip.mp4`).

address = parse_address("webcam:0")      # None for a file
"""

import platform
import re
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from segvit.errors import UserError

WEBCAM = "webcam:"
"""What an input begins with that is a camera of this computer."""


class Address(NamedTuple):
    """Where a webcam or a stream is."""

    url: str
    """What FFmpeg opens."""
    format: str | None
    """FFmpeg's name of the device's kind; None: it finds out."""
    options: dict[str, str]
    """To open it with."""
    name: str
    """To show and to keep: without user, password and query."""

    @property
    def stem(self) -> str:
        """A file name, without suffix."""
        return re.sub(r"[^\w.-]+", "_", self.name.split("://")[-1]).strip("_.") or "stream"


def parse_address(source: str | Path) -> Address | None:
    """The address that an input is, or None for a file.

    Raises:
        UserError: a webcam without a number or name.
    """
    text = str(source)
    if text.startswith(WEBCAM):
        return _webcam(text.removeprefix(WEBCAM), text)
    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text):
        return None
    parts = urlsplit(text)
    place = parts.netloc.rpartition("@")[2]
    options = {"rtsp_transport": "tcp"} if parts.scheme.startswith("rtsp") else {}  # UDP loses parts of pictures
    return Address(text, None, options, f"{parts.scheme}://{place}{parts.path}")


def _webcam(camera: str, text: str) -> Address:
    """A camera of this computer, by its number or, where the system gives none, its name."""
    system = platform.system()
    if not camera or (system == "Windows" and camera.isdigit()):
        example = "webcam:Integrated Camera, its name in the Device Manager" if system == "Windows" else "webcam:0"
        raise UserError(f"{text}: which camera? Type {example}")
    if system == "Windows":
        return Address(f"video={camera}", "dshow", {}, text)
    if system == "Darwin":
        return Address(camera, "avfoundation", {"framerate": "30"}, text)
    return Address(f"/dev/video{camera}" if camera.isdigit() else camera, "v4l2", {}, text)

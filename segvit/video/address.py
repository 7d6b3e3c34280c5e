"""Addresses of webcams (`webcam:0`) and streams (`rtsp://camera/live`, `https://host/clip.mp4`).

address = parse_address("webcam:0")      # None for a file
"""

import platform
import re
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from segvit.errors import UserError

WEBCAM = "webcam:"
"""Prefix of an input that is a camera of this computer."""


class Address(NamedTuple):
    """Address of a webcam or stream."""

    url: str
    """URL for FFmpeg to open."""
    format: str | None
    """FFmpeg's name of the input format, or None to detect it."""
    options: dict[str, str]
    """FFmpeg's options for opening it."""
    name: str
    """Name to print and to store, without user, password and query."""

    @property
    def stem(self) -> str:
        """File name for recordings, without suffix."""
        return re.sub(r"[^\w.-]+", "_", self.name.split("://")[-1]).strip("_.") or "stream"


def parse_address(source: str | Path) -> Address | None:
    """Parse the address of a webcam or stream; return None for a file.

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
    """Return the address of a camera by its number, or by its name on Windows, which has no numbers."""
    system = platform.system()
    if not camera or (system == "Windows" and camera.isdigit()):
        named = "webcam: and the name in the Device Manager, such as webcam:Integrated Camera"
        raise UserError(f"{text}: no camera given; type {named if system == 'Windows' else 'webcam:0'}")
    if system == "Windows":
        return Address(f"video={camera}", "dshow", {}, text)
    if system == "Darwin":
        return Address(camera, "avfoundation", {"framerate": "30"}, text)
    return Address(f"/dev/video{camera}" if camera.isdigit() else camera, "v4l2", {}, text)

"""Videos for the tests of `segvit predict`: made with PyAV, broken on purpose, sent by a server, read with OpenCV."""

import io
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]

TURNS = {
    "as it is": (1, 0, 0, 1),
    "clockwise": (0, 1, -1, 0),
    "upside down": (-1, 0, 0, -1),
    "anticlockwise": (0, -1, 1, 0),
    "mirrored": (-1, 0, 0, 1),
    "mirrored, clockwise": (0, 1, 1, 0),
}
"""Display matrices (a, b, c, d) of an .mp4: a stored pixel (x, y) is shown at (ax + cy, bx + dy)."""


def write_film(
    path: Path,
    pictures: Sequence[Pixels],
    *,
    times: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, 1000),
    rate: int = 10,
    codec: str = "libx264",
    aspect: Fraction | None = None,
    preset: str = "ultrafast",
    **container: Any,
) -> Path:
    """Pictures (H, W, 3) as a video, the k-th shown from times[k] on, or `rate` of them per second."""
    with av.open(str(path), "w", **container) as file:
        stream = file.add_stream(codec, rate=rate)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv444p" if codec == "libx264" else "yuv420p"  # the first takes odd sides
        stream.codec_context.time_base = time_base
        if codec == "libx264":
            stream.options = {"preset": preset, "crf": "12"}
        else:
            stream.bit_rate = 2_000_000
        if aspect is not None:
            stream.sample_aspect_ratio = aspect
        for index, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts = times[index] if times else round(index / rate / time_base)
            frame.time_base = time_base
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def moving_crop(photo: Pixels, count: int, size: tuple[int, int]) -> list[Pixels]:
    """`count` windows (h, w) of a photo, each a pixel further to the lower right, and back."""
    room = min(photo.shape[0] - size[0], photo.shape[1] - size[1])
    places = [room - abs(room - index % (2 * room)) for index in range(count)]
    return [photo[place : place + size[0], place : place + size[1]] for place in places]


def turn_film(path: Path, matrix: tuple[int, int, int, int]) -> None:
    """Write a display matrix into an .mp4, as phones do: in place of the one in its track header."""
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 4 + 4 + 20 + 16  # version 0: times and number, then layer, group, volume
    a, b, c, d = (value << 16 for value in matrix)
    content[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)


def decoded(path: Path) -> list[Pixels]:
    """The frames of a file as stored, (H, W, 3), by PyAV's own conversion."""
    with av.open(str(path)) as file:
        return [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]


def seen_by_opencv(path: Path) -> tuple[list[Pixels], list[float]]:
    """The frames of a file as another reader gives them, (H, W, 3), and their times in seconds."""
    capture = cv2.VideoCapture(str(path))
    pictures, times = [], []
    while True:
        there, picture = capture.read()
        if not there:
            return pictures, times
        pictures.append(picture[:, :, ::-1])
        times.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)


@contextmanager
def camera(picture: Pixels, *, rate: float = 30, frames: int = 10_000) -> Iterator[str]:
    """The address of a server that sends JPEGs one after the other, as many cameras do, and then hangs up.

    The left upper corner tells the number of the frame, up to 63: it is four times as bright.
    """

    class Camera(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            for number in range(frames):
                shown = picture.copy()
                shown[:16, :16] = 4 * number % 256
                file = io.BytesIO()
                Image.fromarray(shown).save(file, "JPEG", quality=95)
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {file.tell()}\r\n\r\n"
                try:
                    self.wfile.write(head.encode() + file.getvalue() + b"\r\n")
                except OSError:
                    return
                time.sleep(1 / rate)

        def log_message(self, *_: Any) -> None:
            """Nothing on the terminal."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://me:secret@127.0.0.1:{server.server_port}/door?key=secret"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

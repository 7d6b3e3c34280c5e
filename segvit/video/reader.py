"""Read videos, webcams and streams as upright RGB frames with their times (PyAV, the extra `video`).

    with open_video("clip.mp4", resize=1280) as video:
        for frame in video.frames(every=5):
            frame.number, frame.seconds, frame.image        # (H, W, 3) uint8, at `video.size`

A file that breaks off gives the frames before the break, and `video.broken` gives the reason. Memory does not grow with
the length.
"""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from segvit.data.images import Unreadable
from segvit.errors import UserError
from segvit.utils.optional import need
from segvit.utils.sizes import fit_size, scaled
from segvit.video.address import Address, parse_address

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.video.stream import VideoStream

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".mts", ".m2ts", ".wmv", ".3gp")
TIMEOUT = 10.0
"""Longest silence of a camera or server, in seconds."""
LIVE_TICK = Fraction(1, 1000)
"""Seconds per tick of a live source, whose frames are timed when they arrive."""
USUAL_RATE = Fraction(25)
"""Frames per second if the video does not say."""
SHORT = (0.5, 0.02)
"""Seconds, and share of the duration, by which a complete file may be shorter than its header says."""
UNREAD = "download it again, or convert it to .mp4; a recording that was cut off has no index and cannot be read"

Pixels = npt.NDArray[np.uint8]


class Frame(NamedTuple):
    """A picture of a video."""

    number: int
    """Position among all frames of the video, from 0."""
    ticks: int
    """Time since the first frame in units of `Video.time_base`. It always grows from frame to frame."""
    seconds: float
    """Time since the first frame in seconds."""
    image: Pixels
    """(H, W, 3) RGB, upright."""


class Orientation(NamedTuple):
    """Turn of the stored pixels: rows and columns are swapped first, then mirrored."""

    transposed: bool = False
    mirrored: bool = False
    """Left and right are swapped."""
    upended: bool = False
    """Top and bottom are swapped."""

    def apply(self, image: Pixels) -> Pixels:
        """Turn an image upright: (H, W, 3) as stored -> (H', W', 3) as displayed."""
        if self.transposed:
            image = image.swapaxes(0, 1)
        return np.ascontiguousarray(image[:: -1 if self.upended else 1, :: -1 if self.mirrored else 1])


@contextmanager
def open_video(source: str | Path, *, resize: int | None = None) -> Iterator["Video"]:
    """Open a video for the length of the block, and decode its first frame.

    Args:
        source: a file, or an address (segvit/video/address.py).
        resize: longest side of the frames in pixels; larger ones are scaled down.

    Raises:
        UserError: PyAV is missing, or the source cannot be opened or holds no picture that can be decoded.
    """
    need("av", f"{source}: videos", extra="video")
    import av

    address = parse_address(source)
    name = address.name if address else str(source)
    try:
        if address:
            container = av.open(
                address.url, format=address.format, options=address.options, timeout=TIMEOUT, metadata_errors="replace"
            )
        else:  # an absolute path cannot hide a protocol, and the whitelist keeps the content from naming other places
            container = av.open(
                f"file:{Path(source).absolute()}", options={"protocol_whitelist": "file"}, metadata_errors="replace"
            )
    except av.error.FFmpegError as error:
        remedy = "check the address, and that the camera or server is on" if address else UNREAD
        raise Unreadable(f"{name}: cannot be opened as a video ({_reason(error)}); {remedy}") from error
    except ValueError as error:  # no such format
        raise UserError(f"{name}: this build of PyAV cannot read cameras ({error}); give a stream's address") from error
    video = None
    try:
        video = Video(container, name=name, address=address, resize=resize)
        yield video
    finally:
        if video is None or not video.abandoned:
            container.close()


def _reason(error: "av.error.FFmpegError") -> str:
    """Return FFmpeg's message without the address, which may hold a password."""
    return error.strerror or type(error).__name__


class Video:
    """An open video; `open_video` makes it.

    Attributes:
        name: name to print.
        is_file: True if it is a file, which can be read again.
        live: True if it runs by itself and has no known end.
        size: (H, W) of its frames in pixels: upright, with square pixels, and scaled down.
        time_base: seconds per tick.
        rate: average frames per second.
        num_frames: number of frames according to the header, or None.
        count: number of frames decoded so far.
        damaged: number of frames that the decoder had to repair, and the number of the first.
        dropped: number of wanted frames of a live video that were not taken in time.
        broken: place and cause if it ended too early, or None.
        abandoned: True if a thread still reads from it, so that it must not be closed.
    """

    def __init__(
        self, container: "InputContainer", *, name: str, address: Address | None, resize: int | None = None
    ) -> None:
        self.name, self.is_file = name, address is None
        self.count = 0
        self.damaged: tuple[int, int | None] = (0, None)
        self.dropped = 0
        self.broken: str | None = None
        self.abandoned = False
        self._container, self._stream = container, _picture_stream(container, name)
        self._reached: int | None = None  # end of the last packet
        self._sent: list[int] = []  # times of packets whose frames are not decoded yet
        self.live = address is not None and container.duration is None and self._stream.duration is None
        self._stream.thread_type = "SLICE" if self.live else "AUTO"  # threads over frames would delay the first
        self.time_base = LIVE_TICK if self.live else self._stream.time_base or Fraction(1, 90_000)
        self.rate = self._stream.average_rate or self._stream.guessed_rate or USUAL_RATE
        self._decoded = self._decode()
        first = next(self._decoded, None)
        if first is None:
            why = self.broken or "no frames"
            raise Unreadable(f"{name}: holds no picture that can be decoded ({why}); convert it to .mp4")
        self._first, self._zero = first, first.pts
        self._clock = time.monotonic()
        self._last_ticks = -1
        self._ended = False
        self._orientation = _orientation(first)
        self._stored, self.size = _sizes(first, self._stream, self._orientation, resize)
        self.num_frames = None if self.live else self._count_from_header()

    def frames(
        self, *, every: int = 1, seconds: float | None = None, closing: threading.Event | None = None
    ) -> Iterator[Frame]:
        """Yield the frames from the first one on. Call this once.

        Args:
            every: yield only the frames whose number is a multiple of it; the others are decoded and left out.
            seconds: stop after this time of the video, or of the clock for a live source.
            closing: event that ends the frames once it is set.
        """
        while self.count == 0 or (frame := next(self._decoded, None)) is not None:
            if self.count == 0:
                frame = self._first
                del self._first
            assert frame is not None
            if closing is not None and closing.is_set():
                return
            ticks, number = self._ticks(frame), self.count
            moment = float(ticks * self.time_base)
            if seconds is not None and moment >= seconds:
                return
            self.count += 1
            if frame.is_corrupt and not self.live:
                amount, first = self.damaged
                self.damaged = (amount + 1, number if first is None else first)
            if number % every == 0:
                yield Frame(number, ticks, moment, self._image(frame))
        self._ended = True
        if not self.live and self.broken is None:
            self.broken = self._cut_short()

    @property
    def end(self) -> int | None:
        """End of the last frame in ticks since the first, or None if it is unknown or not reached yet."""
        if self.live or not self._ended or self._reached is None or self._zero is None:
            return None
        return self._reached - self._zero

    def _decode(self) -> Iterator["av.VideoFrame"]:
        """Yield the frames as stored, until the end or the first error."""
        import av

        try:
            for packet in self._container.demux(self._stream):
                if packet.pts is not None:
                    self._sent.append(packet.pts)
                    self._reached = max(self._reached or 0, packet.pts + (packet.duration or 0))
                for frame in packet.decode():
                    self._sent = [pts for pts in self._sent if frame.pts is None or pts > frame.pts]
                    yield frame
        except av.error.EOFError:
            return
        except av.error.FFmpegError as error:
            yield from self._still_decoded()
            self.broken = f"broke at {self._place()}: {_reason(error)}"

    def _still_decoded(self) -> Iterator["av.VideoFrame"]:
        """Yield the frames from before an error that the decoder's threads still hold."""
        import av

        try:
            for frame in self._stream.decode(None):
                if frame.is_corrupt or frame.pts is None or frame.pts != min(self._sent, default=None):
                    return
                self._sent.remove(frame.pts)
                yield frame
        except av.error.FFmpegError:
            return

    def _place(self) -> str:
        """Describe the place of the next frame."""
        if self.count == 0:
            return "its first frame"
        return f"frame {self.count}, after {self._last_ticks * float(self.time_base):.2f} s"

    def _ticks(self, frame: "av.VideoFrame") -> int:
        """Return the time of a frame since the first; if it has none of its own, the rate decides."""
        if self.live:
            ticks = int((time.monotonic() - self._clock) / self.time_base) if self.count else 0
        elif frame.pts is None or self._zero is None:
            ticks = round(self.count / self.rate / self.time_base)
        else:
            ticks = frame.pts - self._zero
        self._last_ticks = max(ticks, self._last_ticks + 1)
        return self._last_ticks

    def _image(self, frame: "av.VideoFrame") -> Pixels:
        """Return a frame as displayed, (H, W, 3), scaled to the size of the first frame."""
        height, width = self._stored
        if (frame.height, frame.width) == self._stored:
            picture = frame.reformat(format="rgb24")
        else:
            picture = frame.reformat(format="rgb24", width=width, height=height, interpolation="AREA")
        pixels: Any = picture.to_ndarray()
        return self._orientation.apply(pixels)

    def _count_from_header(self) -> int | None:
        if self._stream.frames:
            return self._stream.frames
        duration = self._duration()
        return None if duration is None else max(1, round(duration * self.rate))

    def _duration(self) -> float | None:
        """Return the duration in seconds according to the header, or None."""
        stream = self._stream
        if self._container.format.name == "avi" and stream.frames:  # FFmpeg measures the data, not the header
            return float(stream.frames / self.rate)
        if stream.duration is not None and stream.time_base is not None:
            return float(stream.duration * stream.time_base)
        told = re.fullmatch(r"(\d+):(\d+):(\d+\.\d+)", stream.metadata.get("DURATION", ""))  # Matroska
        if told is None:
            return None
        hours, minutes, seconds = map(float, told.groups())
        return 3600 * hours + 60 * minutes + seconds

    def _cut_short(self) -> str | None:
        """Describe the break of a file that ended before the duration in its header, or return None."""
        expected, end = self._duration(), self.end
        if expected is None or end is None:
            return None
        reached = float(end * self.time_base)
        if expected - reached <= max(SHORT[0], SHORT[1] * expected):
            return None
        return f"broke at frame {self.count}: it ends after {reached:.2f} s of {expected:.2f} s"


def _picture_stream(container: "InputContainer", name: str) -> "VideoStream":
    """Return the first video stream that is not cover art."""
    from av.stream import Disposition

    streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not streams:
        kinds = ", ".join(sorted({stream.type for stream in container.streams}))
        found = f"holds only {kinds} and no pictures; give a video" if kinds else f"holds nothing readable; {UNREAD}"
        raise Unreadable(f"{name}: {found}")
    if getattr(streams[0], "codec_context", None) is None:
        raise Unreadable(f"{name}: PyAV does not know the codec of its pictures; convert it to .mp4")
    return streams[0]


def _orientation(frame: "av.VideoFrame") -> Orientation:
    """Return the turn in a frame's display matrix, which phones write, to the nearest quarter."""
    found: Any = frame.side_data.get("DISPLAYMATRIX")
    if found is None:
        return Orientation()
    a, b, _, c, d = (int(value) for value in np.frombuffer(bytes(found), dtype=np.int32)[:5])  # x' = ax + cy
    if abs(b) > abs(a):
        return Orientation(transposed=True, mirrored=c < 0, upended=b < 0)
    return Orientation(mirrored=a < 0, upended=d < 0)


def _sizes(
    frame: "av.VideoFrame", stream: "VideoStream", orientation: Orientation, resize: int | None
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return (H, W) of the frames as stored and as displayed, with square pixels and scaled down."""
    height, width = frame.height, frame.width
    width = scaled(width, float(stream.sample_aspect_ratio or 1))
    if resize is not None and max(height, width) > resize:
        height, width = fit_size(height, width, long=resize, short=None)
    return (height, width), ((width, height) if orientation.transposed else (height, width))

"""Videos, webcams and streams as upright RGB frames with their times (the extra `video`: PyAV).

    with open_video("clip.mp4", resize=1280) as video:
        for frame in video.frames(every=5):
            frame.number, frame.seconds, frame.image        # (H, W, 3) uint8, at `video.size`

A file that breaks off gives the frames before that, and `video.broken` says why. Memory does not grow with the length.
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
from segvit.video.address import Address, parse_address

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.video.stream import VideoStream

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".mts", ".m2ts", ".wmv", ".3gp")
TIMEOUT = 10.0
"""Seconds that a camera or a server may be silent."""
LIVE_TICK = Fraction(1, 1000)
"""Seconds; frames of live sources are told apart by when they came."""
USUAL_RATE = Fraction(25)
"""Frames per second where nothing says it."""
SHORT = (0.5, 0.02)
"""Seconds, and share of the duration, by which a whole file may end before its header says."""
UNREAD = "fetch it again, or convert it to .mp4; a recording that was not ended has no index and cannot be read"

Pixels = npt.NDArray[np.uint8]


class Frame(NamedTuple):
    """A picture of a video."""

    number: int
    """Among all frames of the video, from 0."""
    ticks: int
    """Since the first frame, in units of `Video.time_base`; later than that of the frame before."""
    seconds: float
    """The same in seconds."""
    image: Pixels
    """(H, W, 3) RGB, upright."""


class Orientation(NamedTuple):
    """How stored pixels become upright: first rows and columns change places, then they are mirrored."""

    transposed: bool = False
    mirrored: bool = False
    """Left for right."""
    upended: bool = False
    """Top for bottom."""

    def apply(self, image: Pixels) -> Pixels:
        """(H, W, 3) as stored -> as displayed."""
        if self.transposed:
            image = image.swapaxes(0, 1)
        return np.ascontiguousarray(image[:: -1 if self.upended else 1, :: -1 if self.mirrored else 1])


@contextmanager
def open_video(source: str | Path, *, resize: int | None = None) -> Iterator["Video"]:
    """A video for the length of the block, with its first frame decoded.

    Args:
        source: a file, or an address (segvit/video/address.py).
        resize: longer side in pixels that larger frames are scaled down to.

    Raises:
        UserError: PyAV is missing, or nothing is there, or it holds no picture that can be decoded.
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
        else:  # by its full path, which no protocol can hide in; nor may its content name other places
            container = av.open(
                f"file:{Path(source).absolute()}", options={"protocol_whitelist": "file"}, metadata_errors="replace"
            )
    except av.error.FFmpegError as error:
        remedy = "is it switched on, and the address right?" if address else UNREAD
        raise Unreadable(f"{name}: cannot be opened as a video ({_reason(error)}); {remedy}") from error
    except ValueError as error:  # no such format
        raise UserError(f"{name}: this build of PyAV reads no cameras ({error}); give a stream's address") from error
    video = None
    try:
        video = Video(container, name=name, address=address, resize=resize)
        yield video
    finally:
        if video is None or not video.abandoned:
            container.close()


def _reason(error: "av.error.FFmpegError") -> str:
    """What FFmpeg says, without the address, which may hold a password."""
    return error.strerror or type(error).__name__


class Video:
    """An open video, as `open_video` gives it.

    Attributes:
        name: to show.
        is_file: whether it is a file, which is there to be read again.
        live: whether it goes on by itself, and without an end that is known.
        size: (H, W) of its frames in pixels: upright, pixels square, scaled down as asked for.
        time_base: seconds of one tick.
        rate: frames per second, on average.
        num_frames: how many it says it has; None: unknown.
        count: how many have been decoded so far.
        damaged: how many of them the decoder has patched up, and the number of the first.
        dropped: of a live one, how many wanted frames nobody took in time.
        broken: where and why it ended before its end; None: it did not, so far.
        abandoned: a thread still reads from it, so it must not be closed.
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
        self._reached: int | None = None  # where the last packet ends
        self._sent: list[int] = []  # times of packets whose frames have not come out yet
        self.live = address is not None and container.duration is None and self._stream.duration is None
        self._stream.thread_type = "SLICE" if self.live else "AUTO"  # threads over frames take time to give the first
        self.time_base = LIVE_TICK if self.live else self._stream.time_base or Fraction(1, 90_000)
        self.rate = self._stream.average_rate or self._stream.guessed_rate or USUAL_RATE
        self._decoded = self._decode()
        first = next(self._decoded, None)
        if first is None:
            raise Unreadable(f"{name}: holds no picture that can be decoded ({self.broken or 'no frames'}); convert it")
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
        """The frames from the first one on; to be called once.

        Args:
            every: give each frame whose number is a multiple of it; the others are decoded only.
            seconds: how much of the video, by its own clock; of a live source by ours.
            closing: ends the frames once it is set.
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
        """Until when the last frame is shown, in ticks since the first; None: unknown, or not yet reached."""
        if self.live or not self._ended or self._reached is None or self._zero is None:
            return None
        return self._reached - self._zero

    def _decode(self) -> Iterator["av.VideoFrame"]:
        """Frames as stored, until the end or what breaks them off."""
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
        """What decoder threads hold of the time before an error."""
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
        """Where the frame lies that should come next."""
        if self.count == 0:
            return "its first frame"
        return f"frame {self.count}, after {self._last_ticks * float(self.time_base):.2f} s"

    def _ticks(self, frame: "av.VideoFrame") -> int:
        """When a frame is shown, since the first one. Without a time of its own: as the rate has it."""
        if self.live:
            ticks = int((time.monotonic() - self._clock) / self.time_base) if self.count else 0
        elif frame.pts is None or self._zero is None:
            ticks = round(self.count / self.rate / self.time_base)
        else:
            ticks = frame.pts - self._zero
        self._last_ticks = max(ticks, self._last_ticks + 1)
        return self._last_ticks

    def _image(self, frame: "av.VideoFrame") -> Pixels:
        """A frame as displayed, (H, W, 3); one that differs in size from the first is scaled to it."""
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
        """Seconds that the header says."""
        stream = self._stream
        if self._container.format.name == "avi" and stream.frames:  # FFmpeg gives what is there, not what should be
            return float(stream.frames / self.rate)
        if stream.duration is not None and stream.time_base is not None:
            return float(stream.duration * stream.time_base)
        told = re.fullmatch(r"(\d+):(\d+):(\d+\.\d+)", stream.metadata.get("DURATION", ""))  # Matroska
        if told is None:
            return None
        hours, minutes, seconds = map(float, told.groups())
        return 3600 * hours + 60 * minutes + seconds

    def _cut_short(self) -> str | None:
        """What to say where a file ended before its header says."""
        expected, end = self._duration(), self.end
        if expected is None or end is None:
            return None
        reached = float(end * self.time_base)
        if expected - reached <= max(SHORT[0], SHORT[1] * expected):
            return None
        return f"broke at frame {self.count}: it ends after {reached:.2f} s of {expected:.2f} s"


def _picture_stream(container: "InputContainer", name: str) -> "VideoStream":
    """The first video stream that is no cover of a record."""
    from av.stream import Disposition

    streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not streams:
        kinds = ", ".join(sorted({stream.type for stream in container.streams}))
        told = f"holds no pictures, but {kinds}; give a video" if kinds else f"holds nothing that can be read; {UNREAD}"
        raise Unreadable(f"{name}: {told}")
    if getattr(streams[0], "codec_context", None) is None:
        raise Unreadable(f"{name}: its pictures are in a codec that PyAV does not know; convert it to .mp4")
    return streams[0]


def _orientation(frame: "av.VideoFrame") -> Orientation:
    """What a frame's display matrix says, to the quarter turn; such are written by phones."""
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
    """(H, W) of the frames as stored, and as displayed: with square pixels, and scaled down."""
    height, width = frame.height, frame.width
    width = max(1, round(width * (stream.sample_aspect_ratio or 1)))
    if resize is not None and (longer := max(height, width)) > resize:
        height, width = (max(1, round(side * resize / longer)) for side in (height, width))
    return (height, width), ((width, height) if orientation.transposed else (height, width))

"""Write pictures as a video that every player plays: H.264, 4:2:0, in an .mp4 whose index comes first.

with VideoWriter(path, size=(480, 640), time_base=Fraction(1, 1000), rate=25) as writer:
    writer.write(picture, ticks)       # (480, 640, 3) uint8, shown `ticks` thousandths of a second after the start
"""

from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from segvit.errors import UserError

if TYPE_CHECKING:
    from av.container import OutputContainer

ENCODER: Final = "libx264"
QUALITY = {"crf": "20", "preset": "veryfast"}
"""Settings of x264: hardly any visible loss, and fast enough for a camera."""
KEY_FRAME_SECONDS = 5.0
"""Seconds between pictures that a player can jump to."""
BT709 = 1
"""Number in H.264 of the colour space of high-definition video, written into the file for players."""
NARROW_RANGE = 1
"""Number in H.264 of the luma range 16 to 235, which every player expects."""


class VideoWriter:
    """An open .mp4 file, which is complete once it is closed.

    It has no B-frames. So the times in the file are those given, and memory holds only a few pictures.
    """

    def __init__(self, path: Path, *, size: tuple[int, int], time_base: Fraction, rate: Fraction) -> None:
        """Open a file.

        Args:
            path: file of any suffix.
            size: (H, W) of the pictures in pixels. An odd side repeats its last line, since 4:2:0 needs even sides.
            time_base: seconds per tick.
            rate: approximate pictures per second, for the spacing of key frames.

        Raises:
            UserError: PyAV has no encoder for H.264.
            OSError: a file that cannot be written.
        """
        import av

        self.size = size
        self._time_base, self._rate = time_base, rate
        self._times: list[int] = []  # times of the last two pictures
        container = av.open(f"file:{path.absolute()}", "w", format="mp4", options={"movflags": "+faststart"})
        self._container: OutputContainer | None = container
        try:
            self._stream = container.add_stream(ENCODER, rate=rate, options=dict(QUALITY))
        except ValueError as error:  # no codec of that name
            container.close()
            raise UserError(
                f"PyAV {av.__version__} has no H.264 encoder ({error}); run `pip install --force-reinstall av` to get "
                "one"
            ) from error
        self._stream.height, self._stream.width = (side + side % 2 for side in size)
        self._stream.pix_fmt = "yuv420p"
        context = self._stream.codec_context
        context.time_base = time_base
        context.max_b_frames = 0
        context.gop_size = max(1, round(KEY_FRAME_SECONDS * rate))
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = NARROW_RANGE

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()

    def write(self, picture: npt.NDArray[np.uint8], ticks: int) -> None:
        """Add a picture (H, W, 3) in RGB, or (H, W) in grey, shown from `ticks` on.

        Raises:
            UserError: a picture that is too large for H.264.
            OSError: a file that cannot be written.
        """
        import av
        from av.video.reformatter import Colorspace

        assert self._container is not None and picture.shape[:2] == self.size, (picture.shape, self.size)
        height, width = self.size
        if height % 2 or width % 2:
            edges = ((0, height % 2), (0, width % 2), (0, 0))
            picture = np.pad(picture, edges[: picture.ndim], mode="edge")
        layout = "rgb24" if picture.ndim == 3 else "gray"
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format=layout)
        frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)
        frame.pts, frame.time_base = ticks, self._time_base
        self._times = [*self._times[-1:], ticks]
        try:
            for packet in self._stream.encode(frame):
                self._container.mux(packet)
        except OSError:
            raise
        except av.error.FFmpegError as error:
            raise UserError(
                f"H.264 cannot encode pictures of {width} x {height} ({error.strerror}); scale them down, such as with "
                "--resize 1920"
            ) from error

    def close(self, *, end: int | None = None) -> None:
        """Write the remaining pictures and the index.

        Args:
            end: end of the last picture in ticks. Default: it is shown as long as the one before.

        Raises:
            OSError: a file that cannot be written.
        """
        container, self._container = self._container, None
        if container is None:
            return
        try:
            if self._times:
                *packets, last = self._stream.encode(None)  # x264 looks ahead, so there is at least one
                last.duration = self._last_duration(end)
                for packet in (*packets, last):
                    container.mux(packet)
        finally:
            container.close()

    def abandon(self) -> None:
        """Close a file that is not wanted any more."""
        container, self._container = self._container, None
        if container is not None:
            with suppress(OSError):  # the error that led here is raised already
                container.close()

    def _last_duration(self, end: int | None) -> int:
        """Return how long the last picture is shown, in ticks."""
        last = self._times[-1]
        if end is not None and end > last:
            return end - last
        return last - self._times[0] if len(self._times) > 1 else max(1, round(1 / self._rate / self._time_base))

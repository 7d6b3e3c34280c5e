"""Remarks on images that were read in another way than the user may expect.

for text in remarks(pixels, reading): print(f"{path}: {text}")
"""

import math

from segvit.data.bands.names import COLORS
from segvit.data.bands.reading import Pixels, Reading
from segvit.utils.text import counted, plain_number

DARK = 1 / 4
"""Share of the range of 16 bits below which a picture is taken for 10 to 14 bits in 16."""


def likely_white(peak: float) -> int:
    """Return the largest value of the bit depth that values up to `peak` probably have."""
    return int(2 ** max(math.ceil(math.log2(peak + 1)), 1) - 1)


def is_dark(pixels: Pixels, reading: Reading) -> bool:
    """True if a file of 16 bits probably holds fewer: its values end in the lowest quarter of the range."""
    if reading.white is not None or pixels.peak is None or pixels.full is None:
        return False
    return 0 < pixels.peak <= pixels.full * DARK


def remarks(pixels: Pixels, reading: Reading) -> list[str]:
    """Return what was read in another way than the user may expect, in sentences without the file's name."""
    found = []
    if is_dark(pixels, reading):
        assert pixels.peak is not None
        found.append(
            f"the largest value is {plain_number(pixels.peak)} of {pixels.full}, so the picture is almost black; if "
            f"its white is another value, train with it: --data.white {likely_white(pixels.peak)}"
        )
    if reading.white is not None and pixels.peak is not None and pixels.peak > reading.white:
        peak, white = plain_number(pixels.peak), plain_number(reading.white)
        found.append(f"values reach {peak}, above data.white {white}, and are cut to it")
    if pixels.dropped:
        found.append(
            f"{counted(pixels.dropped, 'band')} beyond red, green, blue left out; to use them, train with "
            f"--model.bands {COLORS + pixels.dropped}"
        )
    if pixels.alpha:
        found.append(f"{left_out_alpha(pixels.alpha)}, train with {alpha_setting(pixels.alpha)}")
    return found


def left_out_alpha(channel: int) -> str:
    """Describe a channel of TIFF files, counted from 1, that was taken for transparency."""
    return (
        f"band {channel} is marked as transparency and was left out, and pixels where it is 0 have no data; if it is a "
        "band, such as near infrared"
    )


def alpha_setting(channels: int) -> str:
    """Return the setting that reads that many channels as bands, transparency included."""
    return "--data.bands red green blue nir" if channels == COLORS + 1 else f"--model.bands {channels}"

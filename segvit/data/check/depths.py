"""Report images whose bit depth or bands would be read in another way than the user expects."""

from collections.abc import Iterator, Mapping

from segvit.data.bands.names import COLORS
from segvit.data.bands.remarks import alpha_setting, left_out_alpha, likely_white
from segvit.data.check.finding import Finding
from segvit.data.check.scan import Depth
from segvit.data.pairs import first
from segvit.utils.text import counted, plain_number


def judge_white(unscaled: Mapping[str, float]) -> Iterator[Finding]:
    """Yield an error if images need a value of white that is not given.

    Args:
        unscaled: largest value of each such image, by its file.
    """
    if not unscaled:
        return
    peak = plain_number(max(unscaled.values()))
    text = (
        f"{counted(len(unscaled), 'image')} of floats, or of more than 16 bits, with values up to {peak}: give "
        f"the value that is white, --data.white {peak} ({first(list(unscaled))})"
    )
    yield Finding(kind="white", level="error", text=text, count=len(unscaled))


def judge_depths(depths: Mapping[str, Depth]) -> Iterator[Finding]:
    """Yield warnings on 10 to 14 bits in 16, values above white, and bands left out.

    Args:
        depths: of each image that is no 8-bit photo, by its file.
    """
    deep = [depth for depth in depths.values() if depth.peak is not None]
    dark = [name for name, depth in depths.items() if depth.dark]
    if dark and all(depth.dark for depth in deep):  # one bright image shows that white is right
        peak, full = max(depth.peak or 0 for depth in deep), max(depth.full or 0 for depth in deep)
        text = (
            f"{counted(len(dark), 'image')} with no value above {plain_number(peak)} of {full}: almost black; "
            f"give the value of white, which the model keeps: --data.white {likely_white(peak)} ({first(dark)})"
        )
        yield Finding(kind="dark", level="warning", text=text, count=len(dark))
    if cut := [name for name, depth in depths.items() if depth.cut]:
        peak = max(depths[name].peak or 0 for name in cut)
        text = (
            f"{counted(len(cut), 'image')} with values above data.white, up to {plain_number(peak)}, which are cut to "
            f"white: if they matter, give --data.white {plain_number(peak)} ({first(cut)})"
        )
        yield Finding(kind="above-white", level="warning", text=text, count=len(cut))
    if more := [name for name, depth in depths.items() if depth.dropped]:
        bands = COLORS + max(depths[name].dropped for name in more)
        names = " ".join(["red", "green", "blue", *(f"band{number}" for number in range(4, bands + 1))])
        text = (
            f"{counted(len(more), 'image')} with {bands} bands: the first three are read as red, green, blue; "
            f"to use all, name them: --data.bands {names} ({first(more)})"
        )
        yield Finding(kind="bands", level="warning", text=text, count=len(more))
    if marked := [name for name, depth in depths.items() if depth.alpha]:
        channels = max(depths[name].alpha for name in marked)
        text = (
            f"{counted(len(marked), 'image')}: {left_out_alpha(channels)}, give {alpha_setting(channels)} "
            f"({first(marked)})"
        )
        yield Finding(kind="alpha", level="warning", text=text, count=len(marked))

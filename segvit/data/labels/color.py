"""Read label maps that are painted in the colours of the classes.

Letters: H, W size of a label map, N colours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
from PIL import ImageOps

from segvit.data.frames import check_labels
from segvit.data.images import LOSSLESS_SUFFIXES, open_picture
from segvit.data.labels.format import (
    FOLDERS,
    IGNORED,
    OTHERS,
    Classes,
    Guess,
    LabelFormat,
    check_class_or_ignored,
    check_ignored_value,
)
from segvit.data.labels.memory import LabelMemory
from segvit.data.member import File
from segvit.data.pairs import Pair
from segvit.data.palette import Color
from segvit.data.yaml_values import check_color, check_keys, doubled, read_color
from segvit.errors import UserError
from segvit.utils.text import counted

MANY_COLORS = 20
"""Number of unknown colours in one file above which they are taken for traces of compression or of smooth edges."""
NEAREST = "nearest"
"""Word for the option `others`: an unknown colour counts as the nearest known one."""


@dataclass(frozen=True, kw_only=True)
class ColorLabels(LabelFormat):
    """Pictures painted in the colours of the classes."""

    name: ClassVar[str] = "color"
    suffixes: ClassVar[Sequence[str]] = LOSSLESS_SUFFIXES
    class_keys: ClassVar[Mapping[str, str]] = {"color": "in the format color, the label files identify the class by it"}

    ignore: tuple[Color, ...] = ()
    """Colours that are ignored."""
    merge: Mapping[str, tuple[Color, ...]] = field(default_factory=dict)
    """Further colours of a class, by its name."""
    others: Literal["nearest"] | None = None
    """Treatment of any other colour: it counts as the nearest known one. None leaves it to the `others` of the spec."""

    @classmethod
    def parse(cls, options: Mapping[str, Any], where: str) -> Self:
        """Read `ignore`, `merge` and `others`.

        Raises:
            UserError: an option is unknown or of the wrong type.
        """
        check_keys(options, {"ignore": False, "merge": False, "others": False}, where)
        merge = options.get("merge", {})
        if not isinstance(merge, Mapping):
            raise UserError(
                f"{where}: `merge` is {merge!r}; give further colours by class, such as {{car: [[0, 0, 9]]}}"
            )
        others = options.get("others")
        if others not in (None, NEAREST):
            raise UserError(
                f"{where}: `others` is {others!r}; give {NEAREST}, or write `others: {others}` outside of `labels`"
            )
        return cls(
            others=others,
            ignore=_read_list(options.get("ignore", []), "ignore", where),
            merge={str(key): _read_list(value, f"merge: {key}", where) for key, value in merge.items()},
        )

    def check(self, classes: Classes, where: str) -> None:
        """Check that no colour has two meanings, and that `merge` names classes.

        Raises:
            UserError: a colour has two meanings or is none, or `merge` names no class.
        """
        colors = dict(zip(classes.palette, classes.classes, strict=True))
        if len(colors) < len(classes.classes):
            color = doubled(classes.palette)[0]
            raise UserError(f"{where}: two classes have the colour {list(color)}; in painted labels each needs its own")
        further = [(name, color) for name, more in self.merge.items() for color in more]
        for name, color in [*further, *((IGNORED, color) for color in self.ignore)]:
            check_class_or_ignored(name, classes, "labels: merge", where)
            check_color(color, repr(name), where)
            if color in colors:
                raise UserError(f"{where}: the colour {list(color)} stands for {colors[color]!r} and for {name!r}")
            colors[color] = name
        if self.others is not None and classes.others is not None:
            raise UserError(
                f"{where}: `others` is {classes.others!r}, and in `labels` it is {self.others!r}; keep one of them"
            )
        if self.ignore or classes.others == IGNORED:
            check_ignored_value("ignore" if self.ignore else "others", classes, where)

    def read(self, pair: Pair, classes: Classes, memory: LabelMemory) -> npt.NDArray[np.uint16]:
        """Read a painted picture, (H, W)."""
        return self._table(classes, memory).read(pair.labels)

    def guessed(self, pair: Pair, classes: Classes, memory: LabelMemory) -> Guess | None:
        """Count the pixels that `read` gives the nearest known colour. None if there are none."""
        return self._table(classes, memory).guessed(pair.labels) if self.others == NEAREST else None

    def _table(self, classes: Classes, memory: LabelMemory) -> "ColorTable":
        return memory.once("colors", lambda: ColorTable(classes, self))


class ColorTable:
    """A table from the colours of a spec to its raw values."""

    def __init__(self, spec: Classes, label_format: ColorLabels) -> None:
        names = dict(zip(spec.palette, spec.classes, strict=True))
        names |= {color: name for name, colors in label_format.merge.items() for color in colors}
        names |= dict.fromkeys(label_format.ignore, IGNORED)
        self.colors = np.array(sorted(names), dtype=np.int64)  # (N, 3)
        self.names = [names[color] for color in sorted(names)]
        self._codes = _pack(self.colors)  # ascending, as the colours are
        self._raws = np.array([spec.raw_of(name) for name in self.names], dtype=np.uint16)
        self._rest = None if spec.others is None else spec.raw_of(spec.others)
        self._nearest = label_format.others == NEAREST
        self._dataset = spec.name

    def read(self, path: File) -> npt.NDArray[np.uint16]:
        """Return the raw values (H, W) of the colours in a picture, with its EXIF orientation applied.

        Raises:
            UserError: the file does not exist, is not a picture, is damaged or transparent, or has an unknown colour.
        """
        codes, places, unknown = self._look_up(path)
        raws: npt.NDArray[np.uint16] = self._raws[places]
        if unknown.any():
            if self._nearest:
                found, which = np.unique(codes[unknown], return_inverse=True)
                raws[unknown] = self._raws[self._nearest_to(_unpack(found))][which]
            elif self._rest is None:
                raise UserError(f"{path}: {self._explain(codes[unknown])}")
            else:
                raws[unknown] = self._rest
        return raws

    def guessed(self, path: File) -> Guess | None:
        """Count the pixels of a picture whose colour is unknown. None if there are none.

        Raises:
            UserError: as `read`.
        """
        codes, _, unknown = self._look_up(path)
        if not unknown.any():
            return None
        found, counts = np.unique(codes[unknown], return_counts=True)
        color = _unpack(found[[counts.argmax()]])
        name = self.names[int(self._nearest_to(color)[0])]
        red, green, blue = color[0].tolist()
        return Guess(int(counts.sum()), (red, green, blue), int(counts.max()), name)

    def _look_up(self, path: File) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Return the packed colours (H, W), their positions in the table, and which of them are unknown."""
        codes = _pack(_read_colors(path))
        places = np.searchsorted(self._codes, codes).clip(max=len(self._codes) - 1)
        return codes, places, self._codes[places] != codes

    def _nearest_to(self, colors: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the position in the table of the nearest known colour for each of `colors` (M, 3). The first wins."""
        nearest = np.zeros(len(colors), dtype=np.int64)
        least = np.full(len(colors), np.iinfo(np.int64).max)
        for place, known in enumerate(self.colors):  # one at a time: (M, N, 3) of a photo would take gigabytes
            distance = np.square(colors - known).sum(axis=1)
            nearest[distance < least] = place
            least = np.minimum(least, distance)
        return nearest

    def _explain(self, codes: npt.NDArray[np.int64]) -> str:
        """Return the error text for packed colours that are unknown."""
        values, counts = np.unique(codes, return_counts=True)
        worst = int(values[counts.argmax()])
        color = _unpack(np.array([worst]))
        nearest = int(self._nearest_to(color)[0])
        more = f", and {counted(len(values) - 1, 'other such colour')} in {counted(len(codes) - counts.max(), 'pixel')}"
        more *= len(values) > 1
        text = (
            f"the colour {color[0].tolist()}, in {counted(counts.max(), 'pixel')}, is not a class of {self._dataset!r} "
            f"and not ignored{more}; the nearest known one is {self.colors[nearest].tolist()} ({self.names[nearest]}); "
        )
        if self._dataset == FOLDERS:
            cause = "so many colours come from smooth edges, resizing or an earlier JPEG: " * (
                len(values) > MANY_COLORS
            )
            red, green, blue = color[0].tolist()
            return (
                f"{text}{cause}add `{OTHERS}={NEAREST}` to --data.classes to give each pixel the nearest known colour, "
                f"`{OTHERS}={IGNORED}` to leave out such pixels, or a class, `NAME=#{red:02x}{green:02x}{blue:02x}`"
            )
        if len(values) > MANY_COLORS:
            return text + (
                "so many colours come from smooth edges, resizing or an earlier JPEG: write "
                f"`labels: {{format: color, others: {NEAREST}}}` in the spec, "
                "which gives each pixel the nearest known colour, or leave such pixels out with `others: ignore`"
            )
        return text + (
            "in the spec, give it to a class, as its `color` or in `labels: {format: color, merge: {CLASS: [COLOR]}}`, "
            "or drop it with `labels: {format: color, ignore: [COLOR]}` or `others: ignore`"
        )


def _read_colors(path: File) -> npt.NDArray[np.uint8]:
    """Read the colours (H, W, 3) of a picture."""
    with open_picture(path, "a painted label map") as opened:
        check_labels(opened, path)
        opened.load()
        picture = ImageOps.exif_transpose(opened)
        if picture.has_transparency_data:
            picture = picture.convert("RGBA")
            if picture.getchannel("A").getextrema() != (255, 255):
                raise UserError(f"{path}: the painted label map is partly transparent; save it without transparency")
        if picture.mode not in ("RGB", "RGBA", "P", "L", "1"):
            raise UserError(
                f"{path}: the painted label map is of mode {picture.mode}; save it as RGB, 8 bits a channel"
            )
        return np.asarray(picture.convert("RGB"))


def _pack(colors: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return colours (..., 3) as one number each."""
    wide = colors.astype(np.int64)
    return wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]


def _unpack(codes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return packed colours (M,) as red, green and blue (M, 3)."""
    return np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=1)


def _read_list(value: Any, key: str, where: str) -> tuple[Color, ...]:
    """Return a list of colours from YAML."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise UserError(f"{where}: `{key}` is {value!r}; give a list of colours, such as [[0, 0, 0]]")
    return tuple(read_color(color, key, where) for color in value)

"""Find the images and videos among the inputs, each with the path of its outputs.

    found = find_inputs(["photos", "clip.mp4", "more/*.jpg"], [Path("seen")])
    for path, stem, video in found.items: ...
    found.left_out                          # {".txt": 2}: other files in the folders

Folders and their subfolders are searched by suffix. Hidden files and the outputs of an earlier run are left out.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from segvit.data.bands.deep import has_rasterio
from segvit.data.bands.header import TIFF_SUFFIXES, read_header
from segvit.data.images import IMAGE_SUFFIXES, lacking
from segvit.errors import UserError
from segvit.prediction.names import (
    ANNOTATIONS,
    ENDINGS,
    OUR_SUFFIXES,
    SCENE_ENDINGS,
    VIDEO_ENDINGS,
    left_by_our_videos,
    left_by_us,
    named,
)
from segvit.utils.files import files_below
from segvit.video.reader import VIDEO_SUFFIXES

WILD = re.compile(r"[*?\[]|\{[^{}]*,[^{}]*\}")
"""The parts of a glob that are not literal."""
BRACES = re.compile(r"\{([^{}]*,[^{}]*)\}")
"""Choices in a glob, such as {jpg,png}."""


class Taken(UserError):
    """An output folder to which results cannot be added, because of the files that it holds."""


class Input(NamedTuple):
    """An image or video to label."""

    path: Path
    stem: Path
    """Path of its outputs relative to the output folder, without suffix."""
    video: bool
    scene: bool = False
    """True for a GeoTIFF or another raster that is labelled window by window."""

    def outputs(self, output: Path) -> list[Path]:
        """Return every file that may be written for it into an output folder."""
        endings = VIDEO_ENDINGS if self.video else SCENE_ENDINGS if self.scene else ENDINGS
        return [named(output / self.stem, ending) for ending in endings]


class Found(NamedTuple):
    """The inputs of a prediction."""

    items: list[Input]
    left_out: Mapping[str, int]
    """Number of other files in the folders, by suffix."""


def find_inputs(inputs: Sequence[str | Path], outputs: Sequence[Path]) -> Found:
    """Find the image and video files among files, folders and globs.

    Args:
        inputs: files, folders, and globs such as `photos/*.jpg`.
        outputs: folders of outputs. If one is inside an input, the outputs of an earlier run are left out.

    Raises:
        UserError: an input that does not exist or holds no image or video, or two inputs with the same outputs.
    """
    left_out: Counter[str] = Counter()
    items = _distinct(_walk(inputs, outputs, IMAGE_SUFFIXES + VIDEO_SUFFIXES, left_out))
    return Found(items, left_out)


def find_images(inputs: Sequence[str | Path], output: Path) -> list[tuple[Path, Path]]:
    """Find the image files among files, folders and globs, each with the relative path of its outputs, without suffix.

    Raises:
        UserError: see `find_inputs`.
    """
    return [(path, stem) for path, stem, *_ in _distinct(_walk(inputs, [output], IMAGE_SUFFIXES, Counter()))]


def check_outputs(found: Sequence[Input], output: Path) -> None:
    """Refuse outputs that would replace an input or each other, as those of photo.jpg and photo_overlay.jpg.

    Raises:
        UserError: such an output.
    """
    sources = {item.path.resolve() for item in found}
    taken: dict[Path, Path] = {}
    for item in found:
        for target in item.outputs(output):
            if target.resolve() in sources:
                raise Taken(f"{target} is an input and an output would replace it: give another --output")
            if target in taken:
                raise UserError(_clash(taken[target], item.path, target))
            taken[target] = item.path


def _distinct(found: Iterator[Input]) -> list[Input]:
    """Return all inputs, and refuse two images or two videos with the same outputs."""
    places: dict[tuple[Path, bool], Input] = {}
    for item in found:
        if (earlier := places.get((item.stem, item.video))) is not None:
            ending = VIDEO_ENDINGS[0] if item.video else ENDINGS[0]
            raise UserError(_clash(earlier.path, item.path, named(item.stem, ending)))
        places[item.stem, item.video] = item
    return list(places.values())


def _clash(one: Path, other: Path, target: Path) -> str:
    """Describe two inputs with the same output, and the remedy."""
    remedy = "give them to two commands with different --output, or rename one"
    if one.parent == other.parent:
        remedy = "rename one of them, or move it to another folder"
    return f"{one} and {other} would both be written as {target}: {remedy}"


def _is_annotation(path: Path) -> bool:
    """True for a path in an output folder that `--write` may have written."""
    return path.parts[0] == ANNOTATIONS and path.suffix.lower() in (".json", ".txt", ".xml", ".yaml", ".geojson")


def _walk(
    inputs: Sequence[str | Path], outputs: Sequence[Path], suffixes: Collection[str], left_out: Counter[str]
) -> Iterator[Input]:
    """Yield every file with one of the suffixes below the inputs, sorted within each input, and count the others."""
    outputs = [output.resolve() for output in outputs if output.is_dir()]
    for given in map(Path, inputs):
        if given.is_file():
            yield _input(given, Path(given.stem))
            continue
        if given.is_dir():
            base, files = given, list(files_below(given, follow=False))
        else:
            base, files = _matching(given)
        own = given.resolve() in outputs
        files = [path for path in files if own or not _is_inside(path, outputs)]
        if own:  # by the files of `--write` there, nothing is left out
            files = [path for path in files if not _is_annotation(path.relative_to(base))]
        readable = [path for path in files if path.suffix.lower() in suffixes and not lacking(path.suffix)]
        ours = left_by_us(readable) | left_by_our_videos(readable) if own else set()
        others = Counter(path.suffix.lower() for path in set(files) - set(readable))
        found = sorted(path for path in readable if path not in ours)
        if not found:
            raise UserError(f"{given} holds no {_kinds(suffixes)} ({', '.join(sorted(suffixes))}){_seen(others)}")
        left_out.update({suffix: count for suffix, count in others.items() if not (own and suffix in OUR_SUFFIXES)})
        for path in found:
            yield _input(path, path.relative_to(base).with_suffix(""))


def _matching(pattern: Path) -> tuple[Path, list[Path]]:
    """Return the folder above the wildcards of a glob that the shell did not expand, and the files that match it.

    Raises:
        UserError: nothing matches, or it is no glob.
    """
    if not WILD.search(str(pattern)):
        raise UserError(f"no such file or folder: {pattern}")
    fixed = next(at for at, part in enumerate(pattern.parts) if WILD.search(part))
    folder = Path(*pattern.parts[:fixed])
    below = [each for glob in _without_braces(str(Path(*pattern.parts[fixed:]))) for each in folder.glob(glob)]
    matches = [path for path in below if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    if not matches:
        raise UserError(f"no file or folder matches {pattern}")
    files = {path for path in matches if path.is_file()}
    files |= {path for match in matches if match.is_dir() for path in files_below(match, follow=False)}
    return folder, list(files)


def _without_braces(pattern: str) -> list[str]:
    """Return the globs that the choices in braces stand for: `a.{jpg,png}` gives `a.jpg` and `a.png`."""
    match = BRACES.search(pattern)
    if match is None:
        return [pattern]
    before, after = pattern[: match.start()], pattern[match.end() :]
    return [each for choice in match[1].split(",") for each in _without_braces(f"{before}{choice}{after}")]


def _is_inside(path: Path, folders: Sequence[Path]) -> bool:
    """True if a file is in one of the folders, which are resolved."""
    return bool(folders) and any(path.resolve().is_relative_to(folder) for folder in folders)


def _input(path: Path, stem: Path) -> Input:
    """Return an input with its kind."""
    return Input(path, stem, _is_video(path), _is_scene(path))


def _is_scene(path: Path) -> bool:
    """True for a GeoTIFF, and for a TIFF file too large for memory. Without rasterio a small GeoTIFF is a photo."""
    if path.suffix.lower() not in TIFF_SUFFIXES:
        return False
    header = read_header(path)
    return header is not None and header.is_scene and (has_rasterio() or not header.georeferenced or header.is_large)


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES


def _kinds(suffixes: Collection[str]) -> str:
    return "image or video" if set(VIDEO_SUFFIXES) & set(suffixes) else "image"


def _seen(others: Mapping[str, int]) -> str:
    """Describe what a folder holds instead of images, or return an empty text."""
    if not others:
        return ""
    missing = {text for suffix in others if (text := lacking(suffix))}
    return "; ".join([f"; it holds {list_kinds(others)}", *sorted(missing)])


def list_kinds(counts: Mapping[str, int]) -> str:
    """Return numbers of files by suffix as text, such as "3 .txt, 1 .dcm"."""
    ordered = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    return ", ".join(f"{count} {suffix or 'without a suffix'}" for suffix, count in ordered)

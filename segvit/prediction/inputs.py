"""Find the images and videos among the inputs, each with the path of its outputs.

    for path, stem, video in find_inputs(["photos", "clip.mp4"], Path("seen")):
        ...

Folders and their subfolders are searched by suffix. Hidden files and the outputs of an earlier run are left out.
"""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from segvit.data.images import IMAGE_SUFFIXES
from segvit.errors import UserError
from segvit.prediction.outputs import ENDINGS, left_by_us, named
from segvit.prediction.video_outputs import ENDINGS as VIDEO_ENDINGS, left_by_our_videos
from segvit.video.reader import VIDEO_SUFFIXES


class Input(NamedTuple):
    """An image or video to label."""

    path: Path
    stem: Path
    """Path of its outputs relative to the output folder, without suffix."""
    video: bool

    def outputs(self, output: Path) -> list[Path]:
        """Return every file that may be written for it into an output folder."""
        return [named(output / self.stem, ending) for ending in (VIDEO_ENDINGS if self.video else ENDINGS)]


def find_inputs(inputs: Sequence[str | Path], output: Path) -> list[Input]:
    """Find the image and video files among files and folders.

    Args:
        inputs: files and folders.
        output: folder of the outputs. If it is inside an input, the outputs of an earlier run are left out.

    Raises:
        UserError: an input that does not exist or holds no image or video, or two inputs with the same outputs.
    """
    return _distinct(_walk(inputs, output, IMAGE_SUFFIXES + VIDEO_SUFFIXES))


def find_images(inputs: Sequence[str | Path], output: Path) -> list[tuple[Path, Path]]:
    """Find the image files among files and folders, each with the relative path of its outputs, without suffix.

    Raises:
        UserError: see `find_inputs`.
    """
    return [(path, stem) for path, stem, _ in _distinct(_walk(inputs, output, IMAGE_SUFFIXES))]


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
                raise UserError(f"{target} is an input and an output would replace it: give another --output")
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


def _walk(inputs: Sequence[str | Path], output: Path, suffixes: Collection[str]) -> Iterator[Input]:
    """Yield every file with one of the suffixes below the inputs, sorted within each input."""
    for given in map(Path, inputs):
        if given.is_file():
            yield Input(given, Path(given.stem), _is_video(given))
            continue
        if not given.is_dir():
            raise UserError(f"no such file or folder: {given}")
        found = sorted(path for path in given.rglob("*") if path.suffix.lower() in suffixes and path.is_file())
        found = [path for path in found if not any(part.startswith(".") for part in path.relative_to(given).parts)]
        if output.resolve() == given.resolve():
            ours = left_by_us(found) | left_by_our_videos(found)
            found = [path for path in found if path not in ours]
        else:
            found = [path for path in found if not path.resolve().is_relative_to(output.resolve())]
        if not found:
            raise UserError(f"{given} holds no {_kinds(suffixes)} ({', '.join(sorted(suffixes))})")
        for path in found:
            yield Input(path, path.relative_to(given).with_suffix(""), _is_video(path))


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES


def _kinds(suffixes: Collection[str]) -> str:
    return "image or video" if set(VIDEO_SUFFIXES) & set(suffixes) else "image"

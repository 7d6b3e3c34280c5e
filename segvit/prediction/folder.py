"""The output folder of a prediction: the record of its settings, and what it refuses. Nothing here needs torch.

A folder holds the results of one model with one set of settings, and of one photo or video for each name.
"""

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from segvit.errors import UserError
from segvit.prediction.inputs import Found, Input, Taken, check_outputs, find_inputs
from segvit.prediction.names import (
    ASIDE,
    FACTS,
    LABELS,
    RECORD,
    SCENE_LABELS,
    VIDEO_FACTS,
    VIDEO_OVERLAY,
    aside,
    explaining,
    named,
    read_facts,
    source_in,
)
from segvit.prediction.video_options import VideoOptions
from segvit.utils.files import remove
from segvit.utils.launcher import started_processes
from segvit.utils.yaml_text import load_yaml
from segvit.video.address import Address, parse_address

T = TypeVar("T")

DEFAULT = Path("runs/predict")
"""Output folder if none is given; the next ones are runs/predict-2, runs/predict-3, ..."""
PHOTO_ONLY = ("confidence", "opacity", "background")
"""Settings of the pictures of photos and videos, which scenes do not get."""
ADVICE = "give another --output, or --overwrite to compute everything again"


def find_and_check(
    inputs: Sequence[str | Path],
    output: Path | None,
    *,
    ids: str,
    video: VideoOptions,
    overwrite: bool,
    settings: dict[str, Any] | None = None,
) -> tuple[Path, Found]:
    """Find the inputs and the output folder, and refuse a request that cannot be met.

    Args:
        inputs: files, folders and globs, or one webcam or stream.
        output: folder to write to. Default: the first of `default_folders` that accepts the results.
        ids: values of the label maps: index or raw.
        video: how videos are labelled.
        overwrite: accept a given folder with other settings or with files of unknown origin.
        settings: how the files are made, as plain values. Default: not known yet, so not compared.

    Raises:
        Taken: a given folder with other settings, or with files of unknown origin or of other inputs.
        UserError: an input that does not exist or holds no image or video, an output that would replace an input or
            another output, or an option that fits none of the inputs.
    """
    address = only_address(inputs)

    def check(folder: Path) -> Found:
        excluded = [folder] if output else [path for path in DEFAULT.parent.glob(f"{DEFAULT.name}*") if path.is_dir()]
        found = Found([], {}) if address else find_inputs(inputs, excluded)
        check_outputs(found.items, folder)
        if output is None or not overwrite:
            check_sources(found.items, folder)
            files = (file for item in found.items for file in item.outputs(folder))
            only_scenes = bool(found.items) and all(item.scene for item in found.items)
            check_record(folder, settings, files, left_open=PHOTO_ONLY if only_scenes else ())
        return found

    folder, found = (output, check(output)) if output else _first_free(check)
    _check_options(found.items, address, ids, video)
    return folder, found


def claim(output: Path, settings: dict[str, Any], *, left_open: Collection[str] = ()) -> None:
    """Record the settings in the output folder, and remove unfinished files of a killed run.

    Args:
        output: the folder.
        settings: how its files are made.
        left_open: settings that none of the files depends on. The record keeps what it has of them.

    Raises:
        UserError: the folder cannot be written to.
    """
    record = output / RECORD
    with explaining(record):
        output.mkdir(parents=True, exist_ok=True)
        for path in list(output.rglob("*" + ASIDE)):
            remove(path)
        kept = {name: value for name, value in _recorded(record).items() if name in left_open}
        settings = {name: value for name, value in settings.items() if name not in left_open} | kept
        with aside(record) as place:
            text = "# Settings of the label maps in this folder; segvit predict only adds to it with the same ones.\n"
            place.write_text(text + yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")


def check_record(
    output: Path, settings: dict[str, Any] | None, files: Iterable[Path], *, left_open: Collection[str] = ()
) -> None:
    """Refuse a folder whose files were made with other or unknown settings.

    Args:
        output: the folder.
        settings: how its files are to be made. None: not known yet, so not compared.
        files: all files that may be written into it.
        left_open: settings that none of the files depends on.

    Raises:
        Taken: such a folder.
    """
    record = output / RECORD
    if not record.exists():
        if taken := next((file for file in files if file.exists()), None):
            raise Taken(f"{taken} exists, and there is no {record} with its settings: {ADVICE}")
        return
    if settings is None:
        return
    try:
        there = load_yaml(record.read_text(encoding="utf-8"), source=str(record))
    except (OSError, ValueError, UserError) as error:
        raise Taken(f"{record} cannot be read ({error}): {ADVICE}") from error
    if not isinstance(there, dict):
        raise Taken(f"{record} was not written by segvit predict: {ADVICE}")
    if not there.keys() & set(PHOTO_ONLY):  # the folder holds scenes alone so far
        left_open = PHOTO_ONLY
    differing = [
        f"{name} was {_word(there.get(name))} and is {_word(settings.get(name))}"
        for name in settings | there
        if there.get(name) != settings.get(name) and name not in left_open
    ]
    if differing:
        raise Taken(f"{record.parent} holds label maps made with other settings: {'; '.join(differing)}: {ADVICE}")


def _recorded(record: Path) -> dict[str, Any]:
    """Return the settings in a record, none if it does not exist or cannot be read."""
    try:
        there = load_yaml(record.read_text(encoding="utf-8"), source=str(record)) if record.exists() else {}
    except (OSError, ValueError, UserError):
        return {}
    return there if isinstance(there, dict) else {}


def check_sources(found: Iterable[Input], output: Path) -> None:
    """Refuse outputs that belong to another photo or video of the same name.

    Raises:
        Taken: there is such an output.
    """
    if not output.exists():
        return
    for item in found:
        record = named(output / item.stem, VIDEO_FACTS if item.video else FACTS)
        if not (facts := read_facts(record)):
            continue
        ending = VIDEO_OVERLAY if item.video else SCENE_LABELS if item.scene else LABELS
        target, source = named(output / item.stem, ending), source_in(facts)
        if source is None:
            raise Taken(f"{record} exists and was not written by segvit predict: {ADVICE}")
        if Path(source).resolve() != item.path.resolve():
            raise Taken(
                f"{target} holds the labels of {source}, and those of {item.path} would replace them: give another "
                "--output, or --overwrite to replace them"
            )


def _first_free(check: Callable[[Path], T]) -> tuple[Path, T]:
    """Return the first of `default_folders` that a check does not refuse as `Taken`, with its result."""
    for folder in default_folders():
        try:
            return folder, check(folder)
        except Taken:
            continue
    raise AssertionError("the folders never end")


def default_folders() -> Iterator[Path]:
    """Yield runs/predict, runs/predict-2, runs/predict-3, ..."""
    return (DEFAULT if number == 1 else DEFAULT.with_name(f"{DEFAULT.name}-{number}") for number in itertools.count(1))


def only_address(inputs: Sequence[str | Path]) -> Address | None:
    """Return the webcam or stream if it is the input, else None.

    Raises:
        UserError: there are other inputs, or several processes.
    """
    addresses = [address for given in inputs if (address := parse_address(given))]
    if not addresses:
        return None
    if len(inputs) > 1 or started_processes() > 1:
        raise UserError(
            f"{addresses[0].name}: a webcam or stream must be the only input, and runs in one process; start a second "
            "command for the other inputs"
        )
    return addresses[0]


def _check_options(found: Sequence[Input], address: Address | None, ids: str, video: VideoOptions) -> None:
    """Refuse options that fit none of the inputs."""
    if not address and not any(item.video for item in found):
        chosen = video.settings | ({} if video.seconds is None else {"seconds": video.seconds})
        if chosen:
            raise UserError(f"{_flags(chosen)}: only for videos, and the inputs hold no video; leave it out")
    if ids == "raw" and not video.frames and all(item.video for item in found):
        raise UserError("--ids raw: videos get label maps only with --frames; add --frames, or leave --ids out")


def _flags(chosen: dict[str, Any]) -> str:
    """Return options in the form of command-line flags."""
    words = {True: "--{}", False: "--no-{}"}
    return ", ".join(
        (words[value] if isinstance(value, bool) else "--{} {}").format(name, value) for name, value in chosen.items()
    )


def _word(value: object) -> str:
    """Return a setting in the words of the command line."""
    if value is None or isinstance(value, bool):
        return "on" if value else "off" if value is False else "not set"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)

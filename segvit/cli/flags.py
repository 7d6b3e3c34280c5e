"""Flags, progress bar and JSON files that several commands share."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from segvit.cli.config_file import GIVEN
from segvit.cli.help.panels import SECTIONS, panel
from segvit.config import MULTI_SCALE, Blend, DataConfig, EvalConfig, EvalMode, Structure, TrainConfig, Upsampling
from segvit.errors import UserError
from segvit.utils.files import check_writable, writing
from segvit.utils.launcher import first_process

Flat = Parameter(name="*")
"""The names of the settings become the flags: --data.root, --optim.lr."""
Given = Annotated[tuple[str, ...], Parameter(name=GIVEN, show=False, negative=())]
"""Names of the settings that flags give; the parser fills them in."""
JsonFile = Annotated[Path | None, Parameter(allow_leading_hyphen=True)]
"""File for JSON, or - for the terminal."""
TERMINAL = Path("-")
FOLDER_SETTINGS = ("data.images", "data.labels")
"""Settings that two folders behind the command give."""


@Parameter(name="*", group=panel("For a backbone"))
@dataclass(frozen=True, kw_only=True)
class BackboneFlags:
    """Settings that the name of a backbone leaves open."""

    num_classes: int | None = None
    """For a backbone: number of classes. Default: 150."""
    image_size: int | None = None
    """For a backbone: side of the training crop in pixels."""
    class_token: bool | None = None
    """For a backbone: keep its class token."""
    structure: Structure | None = None
    """For a backbone: plain, or a structure that shrinks the tokens. Default: plain."""
    upsampling: Upsampling | None = None
    """For a backbone: way in which the structure shrunk restores the grid. Default: tap."""


@Parameter(name="*", group=SECTIONS["eval"])
@dataclass(frozen=True, kw_only=True)
class ProtocolFlags:
    """Changes to the model's own test protocol; settings that are not given stay the same."""

    mode: EvalMode | None = None
    """Overlapping windows (slide) or the image in one piece (whole)."""
    window: int | None = None
    """Side of a window in pixels."""
    stride: int | None = None
    """Step between windows in pixels."""
    blend: Blend | None = None
    """Weights of windows that overlap: the same for all (mean), or less towards the border of a window (gaussian)."""
    resize_long: int | None = None
    """Longer side in pixels to which the image is resized first."""
    resize_short: int | None = None
    """Shorter side in pixels of that resizing."""
    resize_short_min: int | None = None
    """Smallest shorter side in pixels, at any scale."""
    scales: tuple[float, ...] | None = None
    """Factors of that size at which the image is scored, such as 0.5 1 1.5."""
    flip: bool | None = None
    """Also score each scale mirrored."""
    multi_scale: bool = False
    """Use the paper's multi-scale test: six scales from 0.5 to 1.75, each also mirrored."""
    batch_size: int | None = None
    """Number of windows, or of whole video frames, that run through the model together."""

    def check(self) -> None:
        """Refuse changes that contradict each other.

        Raises:
            UserError: `multi_scale` is combined with `scales` or `flip`, or the mode whole with windows.
        """
        windows = {"window": self.window, "stride": self.stride, "blend": self.blend}
        typed = [name for name, value in windows.items() if value is not None]
        if self.mode == "whole" and typed:
            raise UserError(
                f"--{typed[0]} {windows[typed[0]]} is for windows, and --mode whole has none: leave one of them out"
            )
        if self.multi_scale and (self.scales is not None or self.flip is not None):
            raise UserError(
                "--multi-scale sets scales and flip itself: leave --scales and --flip out, or --multi-scale"
            )

    def over(self, protocol: EvalConfig) -> EvalConfig:
        """Return the protocol with these changes, which `check` must accept.

        Raises:
            UserError: it does not.
        """
        self.check()
        changes = {key: value for key, value in asdict(self).items() if value is not None}
        if changes.pop("multi_scale"):
            changes |= {"scales": MULTI_SCALE, "flip": True}
        return replace(protocol, **changes)


def with_folders(
    data: DataConfig, photos: Path | None, masks: Path | None, *, verb: str, given: Sequence[str]
) -> DataConfig:
    """Return the settings of the data with the two folders that follow the command, if there are any.

    Args:
        data: as parsed.
        photos: first folder.
        masks: second folder.
        verb: command, for error texts.
        given: names of the settings that flags give.

    Raises:
        UserError: one of the two is missing, is not a folder, or is also given as a flag, or they are swapped.
    """
    if photos is None:
        return data
    from segvit.data.two_folders import check_folders, is_folder_of_both

    if twice := [name for name in FOLDER_SETTINGS if name in given]:
        raise UserError(f"{photos} and --{twice[0]} {getattr(data, twice[0][5:])} both name a folder: leave one out")
    if masks is None and is_folder_of_both(photos):
        masks = photos
    check_folders(photos, masks, verb=verb)
    return replace(data, images=photos, labels=masks)


def with_recipe(settings: TrainConfig, given: Sequence[str]) -> TrainConfig:
    """Return the settings that flags give, with all others chosen for this machine and the data, and print why.

    Args:
        settings: as parsed.
        given: names of those that flags give.
    """
    from segvit.recipes.choose import choose_for
    from segvit.training.settings import flat

    values = dict(flat(settings.to_dict()))
    sections = tuple(f"{name}." for name in given)  # a whole section may be given, as JSON
    chosen = choose_for({name: values[name] for name in values if name in given or name.startswith(sections)})
    if first_process():  # several choose the same
        print(chosen.text, flush=True)
    return chosen.config


def check_json(json: Path | None) -> None:
    """Refuse a flag in the place of the file of --json.

    Raises:
        UserError: it is one.
    """
    if json and json.name.startswith("--"):
        raise UserError(f"--json {json}: that is a flag; give a file, or - to print")


def check_paths(*, files: Sequence[Path | None], folder: Path | None = None, flag: str = "path") -> None:
    """Check before long work that its results can be written.

    Args:
        files: files to write.
        folder: folder to write to.
        flag: name of the flag that gives the folder.

    Raises:
        UserError: a path of a file is a folder, a path of a folder is a file, or the system refuses to create one.
    """
    given = [file for file in files if file]
    for file in given:
        if file.is_dir():
            raise UserError(f"{file} is a folder: give a file in it")
    for path in [file.parent for file in given] + ([folder] if folder else []):
        if in_the_way := next((part for part in (path, *path.parents) if part.exists() and not part.is_dir()), None):
            raise UserError(f"{in_the_way} is a file, so nothing can be written below it: give another path")
    if not first_process():  # the others would try the same at the same time
        return
    for file in given:
        check_writable(file, folder=False, remedy="give another file")
    if folder:
        check_writable(folder, folder=True, remedy=f"give another {flag}")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write plain values as JSON; the folder is created if it is missing.

    Raises:
        UserError: the file cannot be written.
    """
    with writing(path, "give another file"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(to_json(content) + "\n", encoding="utf-8")


def to_json(content: dict[str, Any]) -> str:
    """Return plain values as JSON text."""
    import json

    return json.dumps(content, indent=1, ensure_ascii=False)


@contextmanager
def bar(name: str, *, shown: bool = True) -> Iterator[Callable[[int, int], None]]:
    """Yield a function that updates a progress bar when called with (done, total)."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True, disable=not shown) as progress:
        task = progress.add_task(name, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)

"""The verb that looks inside a model: `segvit look`."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from segvit.cli.flags import check_paths
from segvit.config import Device
from segvit.errors import UserError
from segvit.pictures.formats import FigureFormat

NAMES_SHOWN = 40
"""Class names that are told."""


def look(
    model: Path,
    photos: Annotated[list[Path], Parameter(negative=())],
    *,
    output: Path,
    classes: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    format: FigureFormat = "png",
    size: int | None = None,
    device: Device = "auto",
) -> None:
    """Draw what happens inside a model: what class tokens see, the cascade of masks, the tokens that Shrunk keeps.

    A folder for each photo, and in it: labels, tokens, queries (the structure shrunk alone), and for each class
    attention, heads and cascade. docs/method.md says what is seen.

    Parameters
    ----------
    model
        A model file of segvit (.safetensors), a repository of the Hugging Face Hub (user/repo), or a name of the zoo.
    photos
        Images.
    output
        Folder to write to; figures of the same names are replaced.
    classes
        Names or numbers (from 0) of the classes that are looked at. Default: the three that cover most of a photo.
    format
        Of the figures: png, or pdf and svg, whose text and lines are sharp at any size.
    size
        Shorter side in pixels at which the model looks at a photo, in one piece. Default: as its test protocol says;
        where that cuts windows, the training crop's.
    device
        Where to run.
    """
    if model.suffix.lower() == ".onnx":
        raise UserError(
            f"{model} is an exported model: it gives its result and does not show its inside; give the .safetensors "
            "file that it was exported from"
        )
    check_paths(files=(), folder=output)
    if missing := next((photo for photo in photos if not photo.exists()), None):
        raise UserError(f"{missing}: no such file; nothing is drawn yet")
    folders = [output / name for name in folder_names(photos)]
    from segvit.pictures.inside.files import save_inside
    from segvit.pictures.inside.look import look as look_inside
    from segvit.utils.device import resolve_device
    from segvit.weights.load import load_model

    network = load_model(model, device=resolve_device(device))
    for photo, folder in zip(photos, folders, strict=True):
        inside = look_inside(network, photo, classes=classes or None, size=size)
        written = save_inside(inside, folder, format=format)
        seen = ", ".join(inside.names[k] for k in inside.classes[:NAMES_SHOWN])
        print(f"{photo} at {inside.size[0]} x {inside.size[1]} pixels, {seen}: {len(written)} figures in {folder}")


def folder_names(photos: Sequence[Path]) -> list[str]:
    """A folder's name for each photo: the file's without its ending, or with it where two would be the same.

    Raises:
        UserError: a folder among the photos, or two files of one name.
    """
    for photo in photos:
        if photo.is_dir():
            raise UserError(f"{photo} is a folder: name photos in it, such as {photo}/*.jpg")
    stems = Counter(photo.stem for photo in photos)
    names = [photo.stem if stems[photo.stem] == 1 else photo.name for photo in photos]
    for name, count in Counter(names).items():
        if count > 1:
            raise UserError(
                f"{count} photos are called {name}, and their figures would have one folder: type a command for each"
            )
    return names

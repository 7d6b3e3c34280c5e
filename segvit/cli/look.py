"""The command `segvit look`."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from segvit.cli.flags import check_paths
from segvit.config import Device
from segvit.errors import UserError
from segvit.pictures.formats import FigureFormat
from segvit.utils.text import counted

NAMES_SHOWN = 40
"""Number of class names printed."""


def look(
    model: Path,
    photos: Annotated[list[Path], Parameter(negative=())],
    *,
    output: Path,
    classes: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    format: FigureFormat = "png",
    size: int | None = None,
    group: int = 0,
    background: bool = True,
    device: Device = "auto",
) -> None:
    """Draw the inside of a model: attention of the class tokens, the cascade of masks, the tokens that Shrunk keeps.

    Each photo gets a folder with labels, tokens, queries (only with the up-sampling paper), and for each class
    attention, heads and cascade. docs/method.md explains the figures.

    Parameters
    ----------
    model
        Model file (.safetensors), repository of the Hugging Face Hub (user/repo), or a name from the zoo.
    photos
        Images.
    output
        Folder to write to; figures of the same names are replaced.
    classes
        Names or numbers (from 0) of the classes to draw. Default: the three that cover most of a photo.
    format
        Format of the figures: png, or pdf and svg, whose text and lines are sharp at any size.
    size
        Shorter side in pixels to which a photo is resized; it is processed in one piece. Default: that of the test
        protocol, or of the training crop if the protocol uses windows.
    group
        Number of the group of classes to draw, if classes were added to the model: `segvit info` lists the groups.
    background
        --no-background leaves the class called background unpainted in label maps.
    device
        Device to run on.
    """
    from segvit.weights.names import check_model_name, is_exported

    if is_exported(model):
        raise UserError(
            f"{model} is an exported model, whose inside cannot be read; give the .safetensors file that it was "
            "exported from"
        )
    check_model_name(model)
    check_paths(files=(), folder=output, flag="--output")
    if missing := next((photo for photo in photos if not photo.exists()), None):
        raise UserError(f"{missing}: no such file; nothing was drawn")
    folders = [output / name for name in folder_names(photos)]
    from segvit.pictures.inside.files import save_inside
    from segvit.pictures.inside.look import look as look_inside
    from segvit.pictures.paint import without_background
    from segvit.utils.device import resolve_device
    from segvit.weights.load import load_model

    network = load_model(model, device=resolve_device(device))
    for photo, folder in zip(photos, folders, strict=True):
        inside = look_inside(network, photo, classes=classes or None, size=size, group=group)
        if not background:
            inside = replace(inside, palette=without_background(inside.names, inside.palette))
        written = save_inside(inside, folder, format=format)
        seen = ", ".join(inside.names[k] for k in inside.classes[:NAMES_SHOWN])
        figures = counted(len(written), "figure")
        print(f"{photo} at {inside.size[0]} x {inside.size[1]} pixels, {seen}: {figures} in {folder}")


def folder_names(photos: Sequence[Path]) -> list[str]:
    """Return a folder name for each photo: the file name without its suffix, or with it if two would be equal.

    Raises:
        UserError: one of the photos is a folder, or two files have the same name.
    """
    for photo in photos:
        if photo.is_dir():
            raise UserError(f"{photo} is a folder: name photos in it, such as {photo}/*.jpg")
    stems = Counter(photo.stem for photo in photos)
    names = [photo.stem if stems[photo.stem] == 1 else photo.name for photo in photos]
    for name, count in Counter(names).items():
        if count > 1:
            raise UserError(
                f"{count} photos are called {name}, so their figures would share a folder: run one command per photo"
            )
    return names

"""The command `segvit lr-find`."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from segvit.cli.flags import FOLDER_SETTINGS, Flat, Given, bar, check_paths, with_folders, with_recipe
from segvit.config import TrainConfig


def lr_find(
    photos: Path | None = None,
    masks: Path | None = None,
    /,
    *,
    config: Path | None = None,
    start: float = 1e-7,
    end: float = 1.0,
    num_steps: int = 100,
    plot: Path = Path("lr-find.png"),
    settings: Annotated[TrainConfig, Flat] = TrainConfig(),
    given: Given = (),
) -> None:
    """Suggest a learning rate (optim.lr): train some steps while the rate grows, and watch the loss.

    Only the plot is written. Without --config, the other settings are those that `segvit train` chooses.

    Parameters
    ----------
    photos
        Folder of photos; the same as --data.images.
    masks
        Folder of masks with the photos' names; the same as --data.labels.
    config
        YAML file of settings, or a shipped recipe. Flags override it.
    start
        First learning rate.
    end
        Last learning rate. The sweep stops earlier if the loss doubles.
    num_steps
        Number of steps from the first to the last rate.
    plot
        File for the plot of the loss over the rate: .png, .pdf or .svg.
    """
    from segvit.data.folder_spec import check_places
    from segvit.pictures.formats import check_figure_path
    from segvit.weights.names import check_weights_file

    check_figure_path(plot, "--plot")
    check_paths(files=(plot,))
    data = with_folders(settings.data, photos, masks, verb="lr-find", given=given)
    settings, given = replace(settings, data=data), (*given, *(FOLDER_SETTINGS if photos else ()))
    check_places(settings.data)
    check_weights_file(settings.model)
    from rich import print as rich_print

    from segvit.pictures import learning_rates
    from segvit.training.lr_find import find_learning_rate

    if not config:
        settings = with_recipe(settings, given)
    with bar("sweeping") as progress:
        found = find_learning_rate(settings, start=start, end=end, num_steps=num_steps, progress=progress)
    rich_print(found.table())
    plot.parent.mkdir(parents=True, exist_ok=True)
    learning_rates(found.rates, found.losses, found.smoothed, plot, suggested=found.suggested)
    ended = "the loss doubled" if found.diverged else "the loss never doubled: a higher --end would show more"
    print(f"{len(found.rates)} of {num_steps} steps: {ended}; plot {plot}")
    print(f"loss lowest at {found.rates[found.lowest]:.1e}, falling fastest at {found.suggested:.1e}")
    print(f"suggested: --optim.lr {found.suggested:.1e}")

"""Write the inside of a model on one photo as figures, one file per view.

save_inside(look(model, "photo.jpg", classes=["sky"]), Path("seen"), format="pdf")
"""

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from segvit.pictures.figure_style import save
from segvit.pictures.formats import FigureFormat
from segvit.pictures.inside.grids import queries_figure, tokens_figure
from segvit.pictures.inside.record import Inside
from segvit.pictures.inside.stages import attention_figure, cascade_figure, heads_figure, labels_figure
from segvit.utils.files import writing

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_inside(inside: Inside, folder: Path, *, format: FigureFormat = "png") -> list[Path]:
    """Write all figures of a recording made by `look`; equal recordings give equal bytes.

    The files are `labels` (label map with a legend), `tokens` (token grid, and what QD and the up-sampling do to it)
    and, with the up-sampling `paper`, `queries` (attention of QU's tokens). Each class adds `attention_K_NAME`,
    `heads_K_NAME` and `cascade_K_NAME`.

    Args:
        inside: recording made by `look`.
        folder: output folder, created if missing. Files of the same names are replaced.
        format: png (300 dots per inch), pdf or svg.

    Returns:
        Paths of the files.

    Raises:
        UserError: the format is not supported, or the folder cannot be written to.
    """
    with writing(folder, "give another folder"):
        folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, figure in _figures(inside):
        written.append(folder / f"{name}.{format}")
        save(figure(), written[-1])
    return written


def _figures(inside: Inside) -> "Iterator[tuple[str, Callable[[], Figure]]]":
    """Yield the name of each figure and the function that draws it."""
    yield "labels", partial(labels_figure, inside)
    yield "tokens", partial(tokens_figure, inside)
    if inside.gazes:
        yield "queries", partial(queries_figure, inside)
    for k in inside.classes:
        ending = f"{k}_{file_word(inside.names[k])}".rstrip("_")
        yield f"attention_{ending}", partial(attention_figure, inside, k)
        yield f"heads_{ending}", partial(heads_figure, inside, k)
        yield f"cascade_{ending}", partial(cascade_figure, inside, k)


def file_word(name: str) -> str:
    """Return the letters and digits of a class name for a file name. The class number before it keeps files apart."""
    return re.sub(r"[\W_]+", "-", name).strip("-")[:40].lower()

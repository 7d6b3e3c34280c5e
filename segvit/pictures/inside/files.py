"""The inside of a model on one photo as files: a figure for each thing there is to see.

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
    """Write every figure of what happened inside a model; the same inside gives the same bytes.

    labels (the label map, with a legend), tokens (the grid, and what QD and QU do to it), queries (where QU's tokens
    look, in the structure shrunk), and for each class `attention_K_NAME`, `heads_K_NAME` and `cascade_K_NAME`.

    Args:
        inside: of `look`.
        folder: made where it is missing; files of these names are replaced.
        format: png (300 dots per inch), pdf or svg.

    Returns:
        The files.

    Raises:
        UserError: a format that is none of these, or a folder that cannot be written to.
    """
    with writing(folder, "give another folder"):
        folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, figure in _figures(inside):
        written.append(folder / f"{name}.{format}")
        save(figure(), written[-1])
    return written


def _figures(inside: Inside) -> "Iterator[tuple[str, Callable[[], Figure]]]":
    """Names, and what draws them."""
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
    """The letters and digits of a name, as part of a file's; the number before it tells classes apart."""
    return re.sub(r"[\W_]+", "-", name).strip("-")[:40].lower()

"""Pictures of label maps, of runs, and of the inside of a model, from one place.

    from segvit.pictures import curves, error_map, look, overlay, save_inside, side_by_side, with_legend

`paint.py` paints label maps, `legend.py` and `table.py` put them together, `plots.py` and `timing.py` draw charts.
`inside/` runs a model, keeps what happens inside and draws it. Names are resolved on first use: label maps are painted
without torch, and matplotlib is imported where it draws.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segvit.pictures.figure_style import save
    from segvit.pictures.inside.files import save_inside
    from segvit.pictures.inside.grids import queries_figure, tokens_figure
    from segvit.pictures.inside.look import look
    from segvit.pictures.inside.record import Gaze, Inside, Tokens
    from segvit.pictures.inside.stages import attention_figure, cascade_figure, heads_figure, labels_figure
    from segvit.pictures.legend import with_legend
    from segvit.pictures.paint import IGNORED, colorize, error_map, overlay, save_index_png, shares
    from segvit.pictures.plots import confusion_matrix, curves, learning_rates
    from segvit.pictures.table import contact_sheet, side_by_side
    from segvit.pictures.timing import speeds

_HOMES = {
    "inside.files": ("save_inside",),
    "inside.grids": ("queries_figure", "tokens_figure"),
    "inside.record": ("Gaze", "Inside", "Tokens"),
    "paint": ("IGNORED", "colorize", "error_map", "overlay", "save_index_png", "shares"),
    "legend": ("with_legend",),
    "inside.look": ("look",),
    "figure_style": ("save",),
    "plots": ("confusion_matrix", "curves", "learning_rates"),
    "inside.stages": ("attention_figure", "cascade_figure", "heads_figure", "labels_figure"),
    "table": ("contact_sheet", "side_by_side"),
    "timing": ("speeds",),
}

__all__ = [
    "IGNORED",
    "Gaze",
    "Inside",
    "Tokens",
    "attention_figure",
    "cascade_figure",
    "colorize",
    "confusion_matrix",
    "contact_sheet",
    "curves",
    "error_map",
    "heads_figure",
    "labels_figure",
    "learning_rates",
    "look",
    "overlay",
    "queries_figure",
    "save",
    "save_index_png",
    "save_inside",
    "shares",
    "side_by_side",
    "speeds",
    "tokens_figure",
    "with_legend",
]


def __getattr__(name: str) -> Any:
    """Import the module of a public name when the name is first used."""
    for home, names in _HOMES.items():
        if name in names:
            value = getattr(import_module(f"{__name__}.{home}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

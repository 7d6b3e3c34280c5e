"""Pictures of label maps, of training runs, and of the inside of a model.

    from segvit.pictures import curves, error_map, look, overlay, save_inside, side_by_side, with_legend

`paint.py` paints label maps. `legend.py` and `table.py` arrange pictures. `plots.py` and `timing.py` draw charts.
`inside/` runs a model, records its attention and tokens, and draws them. Public names are imported on first use, so
painting a label map needs no torch, and matplotlib is loaded only for figures.
"""

from typing import TYPE_CHECKING

from segvit.utils.lazy import lazy_names

if TYPE_CHECKING:
    from segvit.pictures.figure_style import save as save
    from segvit.pictures.inside.files import save_inside as save_inside
    from segvit.pictures.inside.grids import queries_figure as queries_figure, tokens_figure as tokens_figure
    from segvit.pictures.inside.look import look as look
    from segvit.pictures.inside.record import Gaze as Gaze, Inside as Inside, Tokens as Tokens
    from segvit.pictures.inside.stages import (
        attention_figure as attention_figure,
        cascade_figure as cascade_figure,
        heads_figure as heads_figure,
        labels_figure as labels_figure,
    )
    from segvit.pictures.legend import with_legend as with_legend
    from segvit.pictures.paint import (
        IGNORED as IGNORED,
        colorize as colorize,
        error_map as error_map,
        overlay as overlay,
        save_index_png as save_index_png,
        shares as shares,
    )
    from segvit.pictures.plots import (
        confusion_matrix as confusion_matrix,
        curves as curves,
        learning_rates as learning_rates,
    )
    from segvit.pictures.table import contact_sheet as contact_sheet, side_by_side as side_by_side
    from segvit.pictures.timing import speeds as speeds
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)

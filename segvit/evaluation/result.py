"""The result of an evaluation: scores of the dataset, of each class and each image, and how they were measured.

result.miou, result.metrics.iou         # 0..1
rich.print(result.table())
"""

from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from segvit.evaluation.boundary import BAND
from segvit.evaluation.metrics import ConfusionMatrix, Metrics
from segvit.utils.text import counted, percent_cell, percentage

if TYPE_CHECKING:
    from rich.table import Table

    from segvit.utils.tables import Fitted

COLUMNS = ("IoU", "accuracy", "Dice", "boundary IoU", "share")
"""Columns of the table beside the names."""
NARROWER: tuple[tuple[str, ...], ...] = ((), ("Dice", "boundary IoU"), ("Dice", "boundary IoU", "share"))
"""Columns that the table leaves out, by level."""


@dataclass(frozen=True, kw_only=True)
class ImageScore:
    """Scores of one image. A score is None if the image has no labelled pixel, or no boundary."""

    index: int
    """Position in the dataset."""
    name: str
    """Relative path without suffix."""
    miou: float | None
    """Mean intersection over union of the classes in its labels or its prediction, 0..1."""
    accuracy: float | None
    """Share of its labelled pixels that were predicted right."""
    boundary_iou: float | None
    """Mean boundary IoU of the classes with a boundary in its labels or its prediction, 0..1."""


@dataclass(frozen=True, kw_only=True)
class EvalResult:
    """Scores of a model on a dataset, and the protocol that they were measured under."""

    metrics: Metrics
    classes: tuple[str, ...]
    """Names, in the order of the per-class scores."""
    protocol: dict[str, object]
    """Mode, resize, window and stride in pixels, scales, flip, precision and a note on it (or None). If the model was
    compiled, `compiled` too."""
    images: int
    """Number of evaluated images."""
    unreadable: tuple[str, ...] = ()
    """Messages about images that could not be read and were left out."""
    matrix: ConfusionMatrix = field(repr=False, compare=False)
    """Counts that the scores are computed from."""
    per_image: tuple[ImageScore, ...] = ()
    """Scores of every image, in the order of the dataset."""

    @property
    def miou(self) -> float | None:
        """Mean intersection over union, 0..1; None if every pixel is ignored."""
        return self.metrics.miou

    @property
    def fewer_classes(self) -> str:
        """Text that follows an mIoU of fewer classes than the model has, such as " of 1 of 2 classes". Else empty."""
        scored = len(self.classes) - len(self.metrics.absent)
        return f" of {scored} of {len(self.classes)} classes" if 0 < scored < len(self.classes) else ""

    def worst(self) -> list[ImageScore]:
        """Return the images that have a score, the lowest mIoU first."""
        scored = [(score.miou, score.index, score) for score in self.per_image if score.miou is not None]
        return [score for _, _, score in sorted(scored)]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            **asdict(self.metrics),
            "absent": [self.classes[index] for index in self.metrics.absent],
            "classes": list(self.classes),
            "protocol": self.protocol,
            "boundary_band": BAND,
            "images": self.images,
            "unreadable": list(self.unreadable),
        }

    def protocol_values(self) -> dict[str, str]:
        """Return the settings of the protocol as text."""
        values = {key: _word(value) for key, value in self.protocol.items() if value is not None}
        if note := values.pop("precision_note", None):
            values["precision"] += f" ({note})"
        return values

    def protocol_line(self) -> str:
        """Return the protocol in one line."""
        settings = ", ".join(f"{key} {value}" for key, value in self.protocol_values().items())
        left_out = f" ({len(self.unreadable)} that cannot be read left out)" if self.unreadable else ""
        return (
            f"{counted(self.images, 'image')}{left_out}, {settings}; one confusion matrix over the set, ignored pixels "
            f"left out; boundary IoU in a band of {percentage(BAND, 'g')} of the diagonal"
        )

    def rows(self) -> list[tuple[str, tuple[float | None, ...]]]:
        """Return name, and IoU, accuracy, Dice, boundary IoU and share of every class."""
        seen = self.metrics
        columns = (seen.iou, seen.accuracy, seen.dice, seen.boundary_iou, seen.labelled)
        return list(zip(self.classes, zip(*columns, strict=True), strict=True))

    def mean_row(self) -> tuple[float | None, ...]:
        """Return IoU, accuracy, Dice and boundary IoU, each the mean over the classes that have one."""
        seen = self.metrics
        return (seen.miou, seen.mean_accuracy, seen.mean_dice, seen.mean_boundary_iou)

    def table(self, *, title: str = "per class") -> "Fitted":
        """Return scores and share of every class as a table for a terminal. A narrow one gets fewer scores."""
        from segvit.utils.tables import Fitted

        return Fitted(partial(self._draw, title=title), levels=len(NARROWER))

    def _draw(self, level: int, *, title: str, ascii: bool) -> "Table":
        """Draw the table without the columns that `NARROWER` names for a level."""
        from rich.table import Table
        from rich.text import Text

        left_out = NARROWER[level]
        kept = [at for at, column in enumerate(COLUMNS) if column not in left_out]
        narrow = f"too narrow for {', '.join(left_out)}; " if left_out else ""
        table = Table(title=title, caption=narrow + self.protocol_line())
        table.add_column("class", overflow="fold")
        for at in kept:
            table.add_column(COLUMNS[at], justify="right", no_wrap=True)

        for name, values in self.rows():
            table.add_row(Text(name), *(percent_cell(values[at], missing="-") for at in kept))
        table.add_section()
        means = [percent_cell(value, missing="-") for value in self.mean_row()] + [""]
        table.add_row("mean", *(means[at] for at in kept))
        overall = ["", percent_cell(self.metrics.overall_accuracy, missing="-"), "", "", ""]
        table.add_row("all pixels", *(overall[at] for at in kept))
        return table


def _word(value: object) -> str:
    """Return a setting as text: yes, no, or its values separated by blanks, as on the command line."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)

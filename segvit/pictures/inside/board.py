"""Canvas for explanatory figures: panels, arrows, operators and boxes, placed in inches.

board = Board(7.0, 2.5)
board.panel(0.1, 0.5, 1.4).imshow(photo)
board.arrow((1.5, 1.2), (2.0, 1.2))
save(board.figure, Path("figure.pdf"))
"""

from typing import TYPE_CHECKING, Any

from segvit.pictures.figure_style import BLUE, DPI, INK, TEXT, bare

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Board:
    """Figure whose parts are placed in inches from its lower left corner."""

    def __init__(self, width: float, height: float) -> None:
        from matplotlib.figure import Figure

        self.figure = Figure(figsize=(width, height), dpi=DPI)
        self.size = (width, height)
        self.ground = self.figure.add_axes((0, 0, 1, 1))
        self.ground.set_xlim(0, width)
        self.ground.set_ylim(0, height)
        self.ground.set_axis_off()

    def panel(self, x: float, y: float, width: float, height: float | None = None) -> "Axes":
        """Add axes without ticks. They are square unless you give a height."""
        wide, high = self.size
        return bare(self.figure.add_axes((x / wide, y / high, width / wide, (height or width) / high)))

    def text(self, x: float, y: float, text: str, *, size: float = TEXT, color: str = INK, **more: Any) -> None:
        """Write a line of text centred on (x, y)."""
        self.ground.text(x, y, text, fontsize=size, color=color, **{"ha": "center", "va": "center", **more})

    def arrow(self, *points: tuple[float, float], color: str = INK) -> None:
        """Draw a line through points, with an arrowhead at the last one."""
        *way, last = points
        xs, ys = zip(*points)
        self.ground.plot(xs[:-1], ys[:-1], color=color, linewidth=1.1, solid_joinstyle="round", solid_capstyle="butt")
        self.ground.annotate(
            "",
            xy=last,
            xytext=way[-1],
            arrowprops={"arrowstyle": "-|>,head_width=0.22,head_length=0.42", "color": color, "linewidth": 1.1,
                        "shrinkA": 0, "shrinkB": 0},
        )  # fmt: skip

    def sign(self, x: float, y: float, text: str) -> None:
        """Draw an operator, such as +, in a circle."""
        from matplotlib.patches import Circle

        self.ground.add_patch(Circle((x, y), 0.095, facecolor="white", edgecolor=INK, linewidth=0.9, zorder=5))
        self.text(x, y - 0.004, text, size=TEXT, zorder=6)

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        text: str,
        *,
        color: str = BLUE,
        ground: str = "#eef3f7",
        **more: Any,
    ) -> None:
        """Draw a named part of the model as a box centred on (x, y)."""
        from matplotlib.patches import FancyBboxPatch

        corner = (x - width / 2, y - height / 2)
        shape = FancyBboxPatch(
            corner, width, height, boxstyle="round,pad=0,rounding_size=0.05", facecolor=ground, edgecolor=color,
            linewidth=0.9, zorder=4,
        )  # fmt: skip
        self.ground.add_patch(shape)
        self.text(x, y, text, **{"zorder": 5, "linespacing": 1.3, **more})

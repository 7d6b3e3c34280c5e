"""Results of `segvit bench`: seconds and bytes of each case, as a table and as plain values."""

import statistics
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from segvit.config import PrecisionName
from segvit.utils.tables import COMPACT, Fitted, too_narrow_for
from segvit.utils.text import counted, percentage

PARTS = ("backbone", "head", "label map")
"""Parts of a pass, in order. Normalising and padding count as backbone, the up-sampling of `shrunk` as head."""
COMPILED_PARTS = ("backbone and head", "label map")
"""Parts of a pass of a compiled model."""
MEBIBYTE = 2**20


@dataclass(frozen=True, kw_only=True)
class Case:
    """Image size, batch and precision of a timed pass."""

    size: tuple[int, int]
    """(H, W) of the images in pixels."""
    batch: int
    precision: PrecisionName

    def __str__(self) -> str:
        return f"{self.size[0]} x {self.size[1]}, batch {self.batch}, {self.precision}"


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Time and memory of one case."""

    case: Case
    passes: tuple[tuple[float, ...], ...]
    """For each counted pass, the seconds of each of PARTS (or of COMPILED_PARTS)."""
    peak: int | None
    """Peak memory of a pass in bytes, on top of the model; None if it was not measured."""

    @property
    def latency(self) -> float:
        """Median time of a pass in seconds."""
        return statistics.median(map(sum, self.passes))

    @property
    def quartiles(self) -> tuple[float, float]:
        """First and third quartile of the time of a pass, in seconds."""
        seconds = sorted(map(sum, self.passes))
        if len(seconds) == 1:
            return seconds[0], seconds[0]
        low, _, high = statistics.quantiles(seconds, n=4, method="inclusive")
        return low, high

    @property
    def throughput(self) -> float:
        """Images per second at the median time."""
        return self.case.batch / self.latency

    @property
    def shares(self) -> dict[str, float]:
        """Share of the time of each part, from the medians of the parts; the shares sum to 1."""
        parts = PARTS if len(self.passes[0]) == len(PARTS) else COMPILED_PARTS
        medians = [statistics.median(seconds) for seconds in zip(*self.passes, strict=True)]
        return {part: median / sum(medians) for part, median in zip(parts, medians, strict=True)}

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "size": list(self.case.size),
            "batch": self.case.batch,
            "precision": self.case.precision,
            "latency_seconds": self.latency,
            "latency_quartiles": list(self.quartiles),
            "images_per_second": self.throughput,
            "peak_bytes": self.peak,
            "shares": self.shares,
            "passes": [sum(seconds) for seconds in self.passes],
        }


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Timings of a model, case by case, and the machine they were measured on."""

    model: dict[str, Any]
    """Backbone, structure, number of classes and of parameters; `compiled` is True for a compiled model."""
    machine: dict[str, Any]
    """Device, its name, threads of a CPU, version of torch."""
    present: int | None
    """Classes present in the made-up logits behind the label map; None if the logits are the model's own."""
    timings: tuple[Timing, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        timings = [timing.to_dict() for timing in self.timings]
        return {"model": self.model, "machine": self.machine, "classes_present": self.present, "timings": timings}

    def table(self) -> Fitted:
        """Return a table for a terminal, with a row for each case. A narrow one gets fewer columns."""
        return Fitted(self._draw, levels=5)

    def _draw(self, level: int, *, ascii: bool) -> Table:
        """Draw the table: at level 1 without the shares, then also without ±, without MiB, and without images/s."""
        shares = list(self.timings[0].shares)
        left_out = ("the shares", "±", "MiB", "images/s")[:level]
        rounds = len(self.timings[0].passes)
        caption = [self.place, f"image tensor to label map, median of {rounds} rounds"]
        caption += [remark for name, remark in self._remarks().items() if name not in left_out]
        table = Table(title=self.title, caption="\n".join([*caption, too_narrow_for(left_out)]).rstrip(), **COMPACT)
        for heading in ("size", "batch", ""):
            table.add_column(heading, justify="center", no_wrap=True)
        kept = [name for name in ("ms", "±", "images/s", "MiB") if name not in left_out]
        for heading in (*kept, *(share.replace(" ", "\n") for share in shares if not level)):
            table.add_column(heading, justify="right", no_wrap=True)
        for timing in self.timings:
            case = timing.case
            low, high = timing.quartiles
            numbers = {
                "ms": _digits(1000 * timing.latency),
                "±": percentage((high - low) / 2 / timing.latency),
                "images/s": _digits(timing.throughput),
                "MiB": "" if timing.peak is None else _digits(timing.peak / MEBIBYTE),
            }
            table.add_row(
                f"{case.size[0]} x {case.size[1]}",
                str(case.batch),
                case.precision,
                *(numbers[name] for name in kept),
                *(percentage(share) for share in timing.shares.values() if not level),
            )
        return table

    @property
    def title(self) -> str:
        """Description of the model in one line."""
        compiled = ", compiled" if self.model["compiled"] else ""
        return "{backbone}, {structure}, ".format(**self.model) + counted(self.model["num_classes"], "class") + compiled

    @property
    def place(self) -> str:
        """Description of the machine in one line."""
        machine = self.machine
        count = machine["threads"]
        threads = "" if count is None else f", {counted(count, 'thread')}"
        return f"{machine['name']}{threads}, torch {machine['torch']}"

    def _remarks(self) -> dict[str, str]:
        """Return the remarks on the columns whose meaning is not obvious, by column, and on the weights."""
        remarks = {"±": "±: half the distance between the quartiles"}
        if any(timing.peak is not None for timing in self.timings):
            remarks["MiB"] = "MiB: peak memory on top of the model"
        if self.present is not None:
            present = f"{counted(self.present, 'class')} present"
            remarks["weights"] = f"random weights; label maps from logits like a trained model's, {present}"
        return remarks


def _digits(number: float) -> str:
    """Format a number with at least three digits: 1769, 57.3, 0.412."""
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"

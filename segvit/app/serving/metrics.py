"""Counts of requests, and the text that Prometheus reads (format 0.0.4).

    metrics = Metrics()
    with metrics.request("/api/predict") as done: ...; done(200)
    text = metrics.text([Family("segvit_workers", "gauge", "Workers by state.", {...})])

All counts are in this one process, so a few dictionaries are enough. They change in the event loop alone.
"""

import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal, NamedTuple

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Media type of the text."""
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""Upper bounds in seconds of the buckets of the histogram; one without a bound follows."""
NO_ANSWER = 499
"""Status by which a request counts whose client has left while it sent it."""
Labels = tuple[tuple[str, str], ...]
"""Names and values of a sample's labels."""


class Family(NamedTuple):
    """Samples of one name."""

    name: str
    kind: Literal["counter", "gauge"]
    text: str
    """Description."""
    samples: Mapping[Labels, float]


class Metrics:
    """Counts of requests, by route and status."""

    def __init__(self) -> None:
        self._requests: Counter[Labels] = Counter()
        self._running: Counter[str] = Counter()
        self._buckets: dict[str, list[int]] = defaultdict(lambda: [0] * (len(BUCKETS) + 1))
        self._seconds: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def request(self, route: str) -> Iterator[Callable[[int], None]]:
        """Count a request while the block runs. Call what is yielded with the status of the answer."""
        status = NO_ANSWER

        def answered(number: int) -> None:
            nonlocal status
            status = number

        begin = time.perf_counter()
        self._running[route] += 1
        try:
            yield answered
        finally:
            seconds = time.perf_counter() - begin
            self._running[route] -= 1
            self._requests[("route", route), ("status", str(status))] += 1
            self._buckets[route][bisect_left(BUCKETS, seconds)] += 1
            self._seconds[route] += seconds

    def text(self, more: Iterable[Family] = ()) -> str:
        """Return all counts as text, with further families behind them."""
        running: dict[Labels, float] = {(("route", route),): count for route, count in self._running.items()}
        families = [
            Family("segvit_requests_total", "counter", "Requests answered.", self._requests),
            Family("segvit_requests_in_flight", "gauge", "Requests that are not yet answered.", running),
            *more,
        ]
        lines = [line for family in families for line in _lines_of(family)]
        return "\n".join([*lines, *self._histogram()]) + "\n"

    def _histogram(self) -> Iterator[str]:
        """Yield the lines of the seconds by route."""
        name = "segvit_request_seconds"
        yield from _head(name, "histogram", "Seconds from the first byte of a request to the end of its answer.")
        for route, counts in self._buckets.items():
            label, count = ("route", route), 0
            for bound, number in zip((*map(_number, BUCKETS), "+Inf"), counts, strict=True):
                count += number
                yield _sample(f"{name}_bucket", (label, ("le", bound)), count)
            yield _sample(f"{name}_sum", (label,), self._seconds[route])
            yield _sample(f"{name}_count", (label,), count)


def _lines_of(family: Family) -> Iterator[str]:
    """Yield the lines of a family."""
    yield from _head(family.name, family.kind, family.text)
    for labels, value in family.samples.items():
        yield _sample(family.name, labels, value)


def _head(name: str, kind: str, text: str) -> Sequence[str]:
    """Return the lines that describe a family."""
    return f"# HELP {name} {text}", f"# TYPE {name} {kind}"


def _sample(name: str, labels: Labels, value: float) -> str:
    """Return the line of a sample."""
    inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels)
    return f"{name}{{{inside}}} {_number(value)}" if inside else f"{name} {_number(value)}"


def _escaped(text: str) -> str:
    """Return the value of a label between quotes."""
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    """Return a number without a needless fraction."""
    return str(int(value)) if value == int(value) else repr(float(value))

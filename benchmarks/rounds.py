"""What the benchmarks share: times in interleaved rounds."""

import statistics
import time
from collections.abc import Callable


def measure(candidates: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each candidate over interleaved rounds, after one round of warm-up.

    Every round runs each candidate once, in turn, so that noise of the machine falls on all.
    """
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for repeat in range(repeats + 1):
        for name, run in candidates.items():
            start = time.perf_counter()
            run()
            if repeat:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in times.items()}

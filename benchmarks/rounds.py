"""What the benchmarks share: times in interleaved rounds, and the peak memory of a step."""

import ctypes
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path


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


def resident(key: str) -> int:
    """A memory figure of this process in MiB: VmRSS, now, or VmHWM, at most (Linux)."""
    found = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) // 1024


def peak_memory(run: Callable[[], object]) -> int:
    """MiB that a step takes on top of what the process holds before it."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)  # what loading has freed, and a step would take unseen
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the mark of the most held so far starts anew
    run()
    return resident("VmHWM") - before

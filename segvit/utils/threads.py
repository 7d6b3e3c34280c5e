"""Background work for a loop: threads fetch what it needs next and process what it has made.

    with threads(2) as readers, threads(1) as counter:
        samples = in_order(readers, read, range(100), ahead=2)           # read while the model works on the last one
        labelled = ((sample, label(sample)) for sample in samples)       # in the calling thread
        for counts in in_order(counter, count, labelled, ahead=1):       # counted while the model works on the next
            ...

Decoding and tensor operations release Python's lock, so threads overlap. Unlike processes, threads start at once and
pass images on without copying. Order and results are those of `map`, whichever thread finishes first.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


@contextmanager
def threads(count: int) -> Iterator[ThreadPoolExecutor | None]:
    """Yield a pool of `count` threads, or None for 0. At the end, or at an error, only running calls are awaited."""
    if count == 0:
        yield None
        return
    pool = ThreadPoolExecutor(count)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def in_order(
    pool: ThreadPoolExecutor | None, function: Callable[[T], R], items: Iterable[T], *, ahead: int
) -> Iterator[R]:
    """Yield `map(function, items)`, computed by a pool up to `ahead` items before they are needed.

    Items are drawn in the calling thread, and at most `ahead` + 1 items and results are held. An error is raised in its
    turn, after the results before it. Without a pool, nothing is computed ahead.
    """
    if pool is None:
        yield from map(function, items)
        return
    under_way: deque[Future[R]] = deque()
    for item in items:
        under_way.append(pool.submit(function, item))
        if len(under_way) > ahead:
            yield under_way.popleft().result()
    while under_way:
        yield under_way.popleft().result()

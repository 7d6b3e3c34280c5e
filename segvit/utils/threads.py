"""Work that goes on beside the loop: what is needed next is fetched ahead of it, what it made is used up behind it.

    with threads(2) as readers, threads(1) as counter:
        samples = in_order(readers, read, range(100), ahead=2)           # read while the model works on the last one
        labelled = ((sample, label(sample)) for sample in samples)       # in the calling thread
        for counts in in_order(counter, count, labelled, ahead=1):       # counted while the model works on the next
            ...

Decoding and tensor operations leave Python's lock, so threads overlap; unlike processes they start at once and hand
over an image without copying it. Order and results are those of `map`, whatever thread was first.
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
    """A pool of `count` threads, or None for 0. At the end, or at an error, only what is running is waited for."""
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
    """`map(function, items)`, worked out by a pool up to `ahead` items before they are asked for.

    Items are drawn in the calling thread; no more than `ahead` + 1 of them and their results are held. An error is
    raised in its turn, after the results before it. Without a pool nothing is done ahead.
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

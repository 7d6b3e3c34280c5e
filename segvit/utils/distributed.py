"""Work shared by the processes that torchrun starts: who am I, which images are mine, what did the others find.

    with joined("auto") as device:      # the group of the processes, for the length of the block
        ...
    share = range(rank(), len(dataset), world_size())

Alone, a process is rank 0 of 1.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed
from accelerate import PartialState

from segvit.errors import UserError
from segvit.utils.device import resolve_device

T = TypeVar("T")

PATIENCE = timedelta(days=7)
"""How long a process that is done with its share waits for the others; the launcher ends all when one dies."""


@contextmanager
def joined(device: str) -> Iterator[torch.device]:
    """The device of this process, which is in one group with those that torchrun started beside it.

    Raises:
        UserError: the device asked for is not there.
    """
    place = resolve_device(device)
    if started_processes() == 1:
        yield place
        return
    state = PartialState(cpu=place.type == "cpu", timeout=PATIENCE)
    yield state.device if place.type == "cuda" else place
    state.destroy_process_group()  # not after an error: the others may be waiting, and the process ends anyway


def started_processes() -> int:
    """How many processes the launcher says that it started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Number of this process in the group, from 0."""
    return torch.distributed.get_rank() if _grouped() else 0


def world_size() -> int:
    """Number of processes in the group.

    Raises:
        UserError: a launcher started several processes that do not know each other: each would do all the work.
    """
    if _grouped():
        return torch.distributed.get_world_size()
    if started_processes() > 1:
        raise UserError(
            f"{started_processes()} processes were started (WORLD_SIZE), but they are in no group, so each would do "
            "all the work: call torch.distributed.init_process_group() or accelerate.PartialState() first"
        )
    return 1


def gather(items: Sequence[T]) -> list[T]:
    """The items of all processes, by rank; every process must call it."""
    if not _grouped():
        return list(items)
    found: list[Sequence[T]] = [[] for _ in range(world_size())]
    torch.distributed.all_gather_object(found, items)
    return [item for part in found for item in part]


def decided_by_first(decide: Callable[[], T]) -> T:
    """What `decide` gives rank 0, which alone calls it; every process must call this.

    Raises:
        UserError: that of rank 0, in every process.
    """
    if not _grouped():
        return decide()
    found: list[Any] = [None]
    if rank() == 0:
        try:
            found = [decide()]
        except UserError as error:
            found = [error]
    torch.distributed.broadcast_object_list(found, src=0)
    if isinstance(found[0], UserError):
        raise found[0]
    decided: T = found[0]
    return decided


def _grouped() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()

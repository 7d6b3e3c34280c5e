"""Share work among the processes that torchrun starts: the rank, the group, results of all ranks.

    with joined("auto") as device:      # the processes form a group inside the block
        ...
    share = range(rank(), len(dataset), world_size())

A single process is rank 0 of 1.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed
from accelerate import PartialState

from segvit.errors import UserError
from segvit.utils.device import resolve_device
from segvit.utils.launcher import started_processes

T = TypeVar("T")

PATIENCE = timedelta(days=7)
"""Time that a finished process waits for the others; if one dies, the launcher ends all."""


@contextmanager
def joined(device: str) -> Iterator[torch.device]:
    """Yield the device of this process, and join it in a group with the other processes that torchrun started.

    Raises:
        UserError: this machine has no such device.
    """
    place = resolve_device(device)
    if started_processes() == 1:
        yield place
        return
    state = PartialState(cpu=place.type == "cpu", timeout=PATIENCE)
    yield state.device if place.type == "cuda" else place
    state.destroy_process_group()  # not after an error: others may wait, and the process ends


def rank() -> int:
    """Return the number of this process in the group, from 0."""
    return torch.distributed.get_rank() if _grouped() else 0


def world_size() -> int:
    """Return the number of processes in the group.

    Raises:
        UserError: a launcher started several processes that form no group, so that each would do all the work.
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
    """Return the items of all processes, ordered by rank. Every process must call this."""
    if not _grouped():
        return list(items)
    found: list[Sequence[T]] = [[] for _ in range(world_size())]
    torch.distributed.all_gather_object(found, items)
    return [item for part in found for item in part]


def decided_by_first(decide: Callable[[], T]) -> T:
    """Call `decide` on rank 0 only, and return its result on every rank. Every process must call this.

    Raises:
        UserError: `decide` raised it on rank 0; it is raised in every process.
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

"""The processes that torchrun starts, before they form a group. Nothing here needs torch."""

import os


def started_processes() -> int:
    """Return the number of processes that the launcher started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def first_process() -> bool:
    """Return True in the first of these processes."""
    return os.environ.get("RANK", "0") == "0"

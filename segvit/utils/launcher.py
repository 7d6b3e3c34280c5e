"""Facts about the processes that torchrun starts, known before they form a group and without torch."""

import os


def first_process() -> bool:
    """Return True in the first of the processes, or in the only one."""
    return os.environ.get("RANK", "0") == "0"

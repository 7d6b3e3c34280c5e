"""Devices to run on."""

import os
import platform
import re
from pathlib import Path

import torch

from segvit.errors import UserError


def resolve_device(device: str) -> torch.device:
    """Return the torch device of a `--device`; "auto" picks cuda, then mps, then cpu.

    Raises:
        UserError: this machine has no such device.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return torch.device(next(name for name, there in available.items() if there))
    if not available.get(device, False):
        there = ", ".join(name for name, there in available.items() if there)
        raise UserError(f"device {device!r} is not available here; available: {there} (type --device auto)")
    return torch.device(device)


def device_name(device: torch.device) -> str:
    """Return the manufacturer's name of a device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    return found[1].strip() if found else platform.processor() or platform.machine()


def available_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def leave_cores_to(workers: int) -> None:
    """Give torch the cores that loading processes leave free, at least one, unless OMP_NUM_THREADS is set.

    Threads that share a core with a loader wait for each other at every operation. On 2 cores, 2 threads beside a
    loader train small models more slowly than one.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(available_cores() - workers, 1))

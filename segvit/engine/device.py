"""Where a model runs."""

import torch

from segvit.config import Device
from segvit.errors import UserError


def resolve_device(device: Device) -> torch.device:
    """The torch device of a `--device`: auto takes cuda, then mps, then cpu.

    Raises:
        UserError: the device asked for is not there.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return torch.device(next(name for name, there in available.items() if there))
    if not available[device]:
        there = ", ".join(name for name, there in available.items() if there)
        raise UserError(f"device {device!r} is not available here; available: {there} (type --device auto)")
    return torch.device(device)

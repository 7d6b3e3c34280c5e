"""Describe what segvit runs on, for reports of bugs (`segvit info` without a name): versions and devices, no paths."""

import platform
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from rich.table import Table

from segvit.utils.device import available_cores, device_name, resolve_device

PACKAGES = (
    "segvit",
    "torch",
    "torchvision",
    "timm",
    "accelerate",
    "numpy",
    "pillow",
    "onnxruntime",
    "openvino",
    "gradio",
    "rasterio",
)
"""Packages whose versions matter most in a report; those that are not installed are left out."""


@dataclass(frozen=True, kw_only=True)
class Environment:
    """Versions and devices."""

    python: str
    system: str
    """Name, release and architecture of the operating system."""
    packages: dict[str, str]
    """Version of each installed package of PACKAGES."""
    device: str
    """Device that `--device auto` picks, and its name."""
    cores: int
    """Number of CPU cores that this process may use."""
    threads: int
    """Number of threads that PyTorch uses."""
    cuda: str | None
    """Version of CUDA that PyTorch was built with."""

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return asdict(self)

    def tables(self) -> Table:
        """Return everything as a table."""
        table = Table.grid(padding=(0, 2))
        rows = {**self.packages, "python": self.python, "system": self.system, "device": self.device}
        rows |= {"cores": f"{self.cores}, {self.threads} used by torch", "cuda": self.cuda or "none"}
        for name, text in rows.items():
            table.add_row(name, text)
        return table


def environment() -> Environment:
    """Return the versions and devices of this process."""
    device = resolve_device("auto")
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return Environment(
        python=platform.python_version(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        packages=found,
        device=f"{device.type}, {device_name(device)}",
        cores=available_cores(),
        threads=torch.get_num_threads(),
        cuda=torch.version.cuda,
    )

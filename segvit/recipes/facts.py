"""The facts that a recipe depends on: the machine, and the images of the dataset.

    facts = Facts(machine=look_at_machine("auto"), images=look_at_images(config))

Sizes come from the headers of a few images, so that this takes no time on a large dataset.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median_low
from typing import Literal

import torch

from segvit.config import DataConfig, Device, ModelConfig
from segvit.data.dataset import SegmentationDataset, open_dataset
from segvit.data.images import read_size
from segvit.data.sample import Samples
from segvit.errors import UserError
from segvit.utils.device import device_name, resolve_device
from segvit.utils.distributed import started_processes
from segvit.weights.load import find_model
from segvit.weights.model_file import network_settings, read_header

GIBIBYTE = 2**30
LOOKED_AT = 64
"""Number of images whose size is read; larger sets are sampled evenly."""
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
"""File with the memory that a container may use."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The device of a run and what surrounds it."""

    device: Literal["cpu", "cuda", "mps"]
    name: str
    """Manufacturer's name of the device."""
    cores: int
    """CPU cores that this process may use."""
    memory: float
    """Memory in GiB: the GPU's own, or the main memory that a CPU or mps device uses."""
    bf16: bool
    """True if the device computes quickly in bf16."""
    processes: int = 1
    """Processes that the launcher started on this machine, with a device each."""

    def __str__(self) -> str:
        memory, cores = f"{self.memory:.0f} GB of memory", f"{self.cores} CPU core{'s' * (self.cores != 1)}"
        if self.device == "cpu":
            return f"{cores} with {memory} and no GPU"
        count = f"{self.processes} x " if self.processes > 1 else ""
        return f"{count}{self.name} with {memory}, and {cores}"


@dataclass(frozen=True, kw_only=True)
class Images:
    """The images of a dataset."""

    count: int
    """Number of training images."""
    validation: int
    """Number of validation images."""
    height: int
    """Median height in pixels."""
    width: int
    """Median width in pixels."""
    classes: tuple[str, ...]

    @property
    def short(self) -> int:
        """Shorter side of a typical image in pixels."""
        return min(self.height, self.width)

    def __str__(self) -> str:
        return f"{self.count} training images of about {self.width} x {self.height} pixels"


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """The model that a run starts from (`init`)."""

    network: ModelConfig
    classes: tuple[str, ...]
    """Names of its classes; empty if it has none."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Everything that the choice of settings depends on, besides the settings that the user gives."""

    machine: Machine
    images: Images
    model: TrainedModel | None = None
    """None if a run starts from a backbone of timm."""


def look_at_machine(device: Device) -> Machine:
    """Describe the machine and the device of a run.

    Raises:
        UserError: this machine has no such device, or a launcher started processes on several machines.
    """
    found = resolve_device(device)
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if processes != started_processes():
        raise UserError(
            "settings are chosen for one machine, and this run is on several: give all of them the same settings with "
            "--config, such as --config finetune"
        )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if found.type == "cuda":
        memory, bf16 = torch.cuda.get_device_properties(found).total_memory, torch.cuda.is_bf16_supported(False)
    else:
        memory, bf16 = _main_memory(), False
    kinds: dict[str, Literal["cpu", "cuda", "mps"]] = {"cpu": "cpu", "cuda": "cuda", "mps": "mps"}
    return Machine(
        device=kinds[found.type],
        name=device_name(found),
        cores=cores,
        memory=memory / GIBIBYTE,
        bf16=bf16,
        processes=processes,
    )


def look_at_images(config: DataConfig) -> Images:
    """Count the images of a dataset, and read the sizes of some.

    Raises:
        UserError: the dataset cannot be opened, or none of these images can be read.
    """
    train, validation = open_dataset(config, "train"), open_dataset(config, "val")
    size_of = _size_reader(train)
    count = min(len(train), LOOKED_AT)
    sizes, problems = [], []
    for index in range(count):
        try:
            sizes.append(size_of(index * len(train) // count))
        except UserError as error:  # the check of the dataset lists all of them later
            problems.append(str(error))
    if not sizes:
        raise UserError("\n".join(problems))
    return Images(
        count=len(train),
        validation=len(validation),
        height=median_low(height for height, _ in sizes),
        width=median_low(width for _, width in sizes),
        classes=train.spec.classes,
    )


def look_at_model(name: str) -> TrainedModel:
    """Read the network and the classes of a model, named as in `load_model`.

    Raises:
        UserError: the model cannot be found or read.
    """
    path = find_model(name)
    header = read_header(path)
    spec = header["spec"] or {}
    network = network_settings(header, path).without_weights()
    return TrainedModel(network=network, classes=tuple(item["name"] for item in spec.get("classes", ())))


def _size_reader(samples: Samples) -> Callable[[int], tuple[int, int]]:
    """Return a function that reads height and width of a sample's image, from its header if it is a file."""
    if isinstance(samples, SegmentationDataset):
        pairs = samples.pairs
        return lambda index: read_size(pairs[index].image)

    def size_of(index: int) -> tuple[int, int]:
        height, width = samples.read(index).labels.shape
        return height, width

    return size_of


def _main_memory() -> int:
    """Return the main memory in bytes, or what a container may use of it."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if CGROUP_LIMIT.is_file() and (limit := CGROUP_LIMIT.read_text().strip()).isdecimal():
        return min(total, int(limit))
    return total

"""The facts that a recipe depends on: the machine, and the images of the dataset.

    facts = RunFacts(machine=look_at_machine("auto"), images=look_at_images(config))

Sizes come from the headers of a few images, so that this takes no time on a large dataset.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median_low
from typing import Literal

import psutil
import torch

from segvit.config import DataConfig, Device, ModelConfig, PrecisionName
from segvit.data.bands.reading import image_size
from segvit.data.dataset import SegmentationDataset, open_dataset
from segvit.data.sample import Samples
from segvit.errors import UserError
from segvit.inference.precision import fastest_precision
from segvit.utils.device import available_cores, device_name, resolve_device
from segvit.utils.launcher import started_processes
from segvit.utils.text import counted
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
    precision: PrecisionName
    """Fastest precision to train in."""
    precision_reason: str
    """Reason for that precision."""
    processes: int = 1
    """Processes that the launcher started on this machine, with a device each."""

    def __str__(self) -> str:
        memory, cores = f"{self.memory:.0f} GB of memory", counted(self.cores, "CPU core")
        if self.device == "cpu":
            shared = f" for {self.processes} processes" if self.processes > 1 else ""
            return f"{cores} with {memory}{shared}, no GPU"
        count = f"{self.processes} x " if self.processes > 1 else ""
        return f"{count}{self.name} with {memory}, {cores}"


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
        return f"{counted(self.count, 'training image')} of about {self.width} x {self.height} pixels"


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """The model that a run starts from (`init`)."""

    network: ModelConfig
    classes: tuple[str, ...]
    """Names of its classes; empty if it has none."""


@dataclass(frozen=True, kw_only=True)
class RunFacts:
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
            "settings can be chosen for one machine only: give the same --config on each, such as --config finetune"
        )
    memory = torch.cuda.get_device_properties(found).total_memory if found.type == "cuda" else _main_memory()
    precision, reason = fastest_precision(found)
    if found.type == "cpu":
        precision, reason = "fp32", "training in less is unmeasured on a CPU"
    kinds: dict[str, Literal["cpu", "cuda", "mps"]] = {"cpu": "cpu", "cuda": "cuda", "mps": "mps"}
    return Machine(
        device=kinds[found.type],
        name=device_name(found),
        cores=available_cores(),
        memory=memory / GIBIBYTE,
        precision=precision,
        precision_reason=reason,
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
        return lambda index: image_size(pairs[index].image)

    def size_of(index: int) -> tuple[int, int]:
        height, width = samples.read(index).labels.shape
        return height, width

    return size_of


def _main_memory() -> int:
    """Return the main memory in bytes, or what a container may use of it."""
    total: int = psutil.virtual_memory().total
    if CGROUP_LIMIT.is_file() and (limit := CGROUP_LIMIT.read_text().strip()).isdecimal():
        return min(total, int(limit))
    return total

"""Predict the memory and time of a training run from its config, before it starts (`segvit info --plan`).

    plan(TrainConfig.load("ade20k/large"), num_classes=150, gpus=8).tables()

One step of the real model and criterion runs on fake tensors, which have sizes but no values. Every tensor is counted
from its allocation until it is freed. Not counted: the memory of the driver and its libraries (some 500 MiB on a GPU),
gaps between tensors, and validations.

Letters: B batch of a device, K classes, M present (image, class) pairs, S supervised outputs.
"""

import weakref
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from rich.console import Group
from rich.table import Table
from rich.text import Text
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import FlopCounterMode

from segvit.config import Head, TrainConfig
from segvit.data.bands.names import COLORS
from segvit.errors import UserError
from segvit.fused_losses import CHUNK_ELEMENTS, CHUNK_ELEMENTS_GPU, fused_mask_losses
from segvit.inference.precision import HALVES
from segvit.losses import Losses, Normalizers, losses_of, pixel_losses
from segvit.models.create import create_model
from segvit.models.decoder import Attention
from segvit.models.modes import set_grad_checkpointing
from segvit.models.output import SegOutput
from segvit.models.segvit import SegViT
from segvit.profiling.multiply_adds import fake_twin
from segvit.training.backbone.lora import add_lora
from segvit.training.optim import freeze
from segvit.training.parallel import sharded_modules
from segvit.training.step import StepInput, run_step
from segvit.utils.tables import COMPACT, Fitted, too_narrow_for

PRESENT = 10
"""Number of classes assumed in each image, about that of a crop of ADE20K."""
MEBIBYTE = 2**20
CHECKPOINTED = " + grad_checkpointing"
GATHERED_BLOCKS = 2
"""Number of blocks of a sharded model that are whole at a time: the current one and the next."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Memory of a device in bytes."""

    parameters: int
    gradients: int
    optimizer: int
    """AdamW's two moments."""
    average: int
    """The running average of the weights; 0 if there is none."""
    exchange: int
    """Buffers for exchanging gradients or parameters between processes; 0 for one device."""
    activations: int
    """Tensors stored for the backward pass, at the end of the forward pass."""
    peak: int
    """Peak of the sum. It may be less than the sum of the parts, because gradients come while activations go."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Predicted memory and time of a run."""

    gpus: int
    """Number of devices."""
    images: int
    """Number of images on a device at a time."""
    memory: dict[str, Memory]
    """Memory of each device by kind of run: "data" or "fsdp", with " + grad_checkpointing" appended if it is on."""
    chosen: str
    """Key in `memory` of the config's own kind."""
    multiply_adds: int
    """Multiply-adds of a step over all devices, forward and backward."""
    steps: int
    tflops: float | None
    """Sustained rate of a device in 10^12 floating-point operations a second; None if it is not known."""

    @property
    def step_seconds(self) -> float | None:
        """Seconds of a step at that rate, with two operations per multiply-add and without any waiting."""
        return None if self.tflops is None else 2 * self.multiply_adds / (self.gpus * self.tflops * 1e12)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        seconds = self.step_seconds
        run = None if seconds is None else seconds * self.steps
        return asdict(self) | {"step_seconds": seconds, "run_seconds": run}

    def tables(self) -> Group:
        """Return the memory by kind of run, and the time, to print."""
        return Group(Fitted(self._draw, levels=3), *map(Text, self._remarks()))

    def _draw(self, level: int, *, ascii: bool) -> Table:
        """Draw the table of the parts of the memory: at level 1 without lines, at level 2 for the config's kind."""
        whose = f"of each of {self.gpus} devices" if self.gpus > 1 else "of the device"
        shown = {name: memory for name, memory in self.memory.items() if level < 2 or name == self.chosen}
        narrow = too_narrow_for([name for name in self.memory if name not in shown])
        table = Table(title=f"Memory {whose}, MiB", caption=narrow, **COMPACT if level else {})
        table.add_column("", overflow="fold")
        for name in shown:
            kind = name.replace(CHECKPOINTED, "\ncheckpointed")
            table.add_column(kind + (" *" if name == self.chosen else ""), justify="right", no_wrap=True)
        names = {
            "parameters": "parameters",
            "gradients": "gradients",
            "optimizer": "AdamW's moments",
            "average": "average (EMA)",
            "exchange": "for the exchange",
            "activations": "activations",
        }
        for key, name in names.items():
            values = [getattr(memory, key) for memory in shown.values()]
            if any(values):
                table.add_row(name, *(f"{value / MEBIBYTE:,.0f}" for value in values))
        table.add_section()
        table.add_row("peak", *(f"{memory.peak / MEBIBYTE:,.0f}" for memory in shown.values()))
        return table

    def _remarks(self) -> list[str]:
        """Return the lines below the table."""
        remarks = [
            "* as in the config; checkpointed: --grad-checkpointing; data, fsdp: --parallel",
            f"{self.images} images at once on a device; {PRESENT} classes assumed in each",
            f"{self.multiply_adds / 1e9:,.1f} G multiply-adds a step, forward and backward, all devices",
        ]
        if self.step_seconds is None:
            return [*remarks, "for the time, give --tflops RATE: the sustained rate of a device in training"]
        hours = self.step_seconds * self.steps / 3600
        return [
            *remarks,
            f"{self.step_seconds:.3g} s a step, {hours:,.3g} h for {self.steps:,} steps at {self.tflops:g} TFLOP/s",
            "(per device; without data loading, exchange and validations)",
        ]


def plan(config: TrainConfig, *, num_classes: int, gpus: int = 1, tflops: float | None = None) -> Plan:
    """Predict the memory and time of a run on accelerators, or on a CPU if the config says `device: cpu`.

    Args:
        config: settings of the run.
        num_classes: number of classes of its dataset.
        gpus: number of devices, with one process each.
        tflops: sustained rate of a device in training, in 10^12 floating-point operations a second.

    Raises:
        UserError: the batch does not divide among the devices, or the rate is not above 0.
    """
    if gpus < 1 or config.batch_size % (gpus * config.accumulate):
        raise UserError(
            f"batch_size {config.batch_size} does not divide among {gpus} devices with accumulate "
            f"{config.accumulate}: give --gpus so that gpus * accumulate divides batch_size"
        )
    if tflops is not None and tflops <= 0:
        raise UserError(f"--tflops {tflops}: give the sustained rate of a device, above 0")
    images = config.batch_size // (gpus * config.accumulate)
    with torch.device("meta"):
        model = create_model(config=config.model.without_weights(), num_classes=num_classes)
    memory = {}
    for parallel in ("data", "fsdp") if gpus > 1 else ("data",):
        for checkpointing in (False, True):
            name = parallel + (CHECKPOINTED if checkpointing else "")
            chosen = replace(config, parallel=parallel, grad_checkpointing=checkpointing)
            memory[name] = memory_of(model, chosen, images=images, gpus=gpus)
    parallel = config.parallel if gpus > 1 else "data"
    return Plan(
        gpus=gpus,
        images=images,
        memory=memory,
        chosen=parallel + (CHECKPOINTED if config.grad_checkpointing else ""),
        multiply_adds=_multiply_adds(model, config) * config.batch_size,
        steps=config.steps,
        tflops=tflops,
    )


def memory_of(model: SegViT, config: TrainConfig, *, images: int, gpus: int) -> Memory:
    """Return the memory of a device, part by part."""
    with FakeTensorMode():
        twin = _trainable_twin(model, config)
        whole = _size(list(twin.parameters()))
        learned = _size([parameter for parameter in twin.parameters() if parameter.requires_grad])
        on_cpu = config.device == "cpu"
        if not on_cpu:
            _fuse_attention(twin)
        for parameter in twin.parameters():
            if parameter.requires_grad and config.parallel == "fsdp":  # whole gradients are freed at once
                parameter.register_post_accumulate_grad_hook(_drop_gradient)
            elif parameter.requires_grad and config.accumulate > 1:  # gradients of the previous part
                parameter.grad = torch.empty_like(parameter)
        held, peak = _step(twin, config, images, chunk_elements=CHUNK_ELEMENTS if on_cpu else CHUNK_ELEMENTS_GPU)
        unit = max(_size(list(part.parameters())) for part in sharded_modules(twin))
    parts = {
        "parameters": whole,
        "gradients": learned,
        "optimizer": 2 * learned,
        "average": whole if config.ema_decay is not None else 0,
    }
    exchange, at_step = learned if gpus > 1 else 0, learned  # AdamW on a GPU makes one more tensor of each
    if config.parallel == "fsdp":
        loose = whole - sum(_size(list(part.parameters())) for part in sharded_modules(twin))
        parts = {name: size // gpus for name, size in parts.items()}
        # The parts that are whole at a time, their gradients, and the whole copy that validations use.
        exchange, at_step = 2 * (loose + GATHERED_BLOCKS * unit) + whole, at_step // gpus
    standing = parts["parameters"] + parts["optimizer"] + parts["average"] + exchange
    beside = parts["gradients"] if config.parallel == "fsdp" or config.accumulate > 1 else 0  # not counted in `peak`
    most = standing + max(beside + peak, parts["gradients"] + (0 if on_cpu else at_step))
    return Memory(**parts, exchange=exchange, activations=held, peak=most)


def _trainable_twin(model: SegViT, config: TrainConfig) -> SegViT:
    """Return a fake copy of a model in its training state."""
    twin = fake_twin(model).train().requires_grad_(True)
    set_grad_checkpointing(twin.backbone, config.grad_checkpointing)
    freeze(twin, config.optim.freeze)
    if config.optim.lora_rank:
        add_lora(twin, config.optim)
    return twin


def _fuse_attention(model: SegViT) -> None:
    """Make the head attend as on an accelerator, whose fused kernels store no dropout mask.

    On a CPU the mask takes a byte per weight (models/dropout_attention.py). Without dropout the CPU has a fused kernel
    too.
    """
    for part in model.modules():
        if isinstance(part, Attention):
            part.dropout = 0.0


def _step(model: SegViT, config: TrainConfig, images: int, *, chunk_elements: int) -> tuple[int, int]:
    """Return the bytes that a step holds at the end of its forward pass, and its peak."""
    halves = HALVES.get(config.precision)
    standing = [*model.parameters(), *model.buffers()]
    standing += [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    held = 0

    def note(_: Losses) -> None:
        nonlocal held
        held = births.living

    with _Births(standing) as births:
        run_step(
            model,
            _inputs(config, images),
            replace(config, accumulate=1),  # `images` is the size of a part
            criterion=partial(_criterion, head=config.model.head, chunk_elements=chunk_elements),
            backward=Tensor.backward,
            check=note,
            autocast=lambda: torch.autocast("cpu", dtype=halves, enabled=halves is not None),
        )
    return held, births.peak


def _drop_gradient(parameter: Tensor) -> None:
    parameter.grad = None


def _inputs(config: TrainConfig, count: int) -> StepInput:
    """Return the input of a step of `count` training crops."""
    size = (config.model.image_size, config.model.image_size)
    return StepInput(
        step=0,
        number=0,
        images=torch.empty((count, config.model.bands or COLORS, *size), dtype=torch.uint8),
        labels=torch.empty((count, *size), dtype=torch.int64),
        indices=torch.empty(count, dtype=torch.int64),
        divisors=Normalizers(num_masks=torch.empty(()), class_weight=torch.empty(())),
        class_weights=None,
    )


def _criterion(output: SegOutput, labels: Tensor, *, head: Head, chunk_elements: int, **settings: Any) -> Losses:
    """Compute the criterion with PRESENT classes in each image, because fake labels have no values."""
    if head == "linear":
        return pixel_losses(output, labels, config=settings["config"])
    batch, num_classes = output.mask_logits.shape[1:3]
    present = torch.empty((batch, num_classes), dtype=torch.bool)
    pairs = torch.empty((batch * min(PRESENT, num_classes), 2), dtype=torch.int64)  # (M, 2)
    mask_losses = partial(fused_mask_losses, chunk_elements=chunk_elements)
    return losses_of(output, labels, present, pairs, mask_losses=mask_losses, **settings)


def _multiply_adds(model: SegViT, config: TrainConfig) -> int:
    """Return the multiply-adds of forward and backward on one image.

    Attention counts as its two products, and twice as much in the backward pass.
    """
    with FakeTensorMode(), sdpa_kernel(SDPBackend.MATH):  # a fused kernel without a formula would count as nothing
        twin = _trainable_twin(model, config)
        _fuse_attention(twin)
        with FlopCounterMode(display=False) as counter:
            run_step(
                twin,
                _inputs(config, 1),
                replace(config, accumulate=1),
                criterion=partial(_criterion, head=config.model.head, chunk_elements=CHUNK_ELEMENTS),
                backward=Tensor.backward,
            )
    return int(counter.get_total_flops()) // 2


class _Births(TorchDispatchMode):
    """Count the bytes of the tensors that are made inside the block: those that still live, and their peak.

    Args:
        before: tensors that exist already; their views are not counted.
    """

    def __init__(self, before: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.living = self.peak = 0
        self.sizes = {tensor.untyped_storage()._cdata: 0 for tensor in before}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tree_map_only(Tensor, self._note, result)
        return result

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()  # a tensor and its views share it
        key = storage._cdata
        if key in self.sizes:
            return
        self.sizes[key] = storage.nbytes()
        self.living += self.sizes[key]
        self.peak = max(self.peak, self.living)
        weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.living -= self.sizes.pop(key)


def _size(tensors: list[Any]) -> int:
    """Return the size of tensors in bytes."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

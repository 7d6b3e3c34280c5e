"""What a training run needs of each device, worked out from its config before it is started.

    plan(TrainConfig.load("ade20k/large"), num_classes=150, gpus=8).tables()

One step of the real model and criterion runs on fake tensors, which have sizes and no values, and every tensor that it
makes is counted from its birth to its end. Not counted are what a driver and its libraries take for themselves (on a
GPU some 500 MiB), gaps between tensors, and validations.

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

from segvit.config import TrainConfig
from segvit.errors import UserError
from segvit.fused_losses import CHUNK_ELEMENTS, CHUNK_ELEMENTS_GPU, fused_mask_losses
from segvit.inference.precision import HALVES
from segvit.losses import Losses, Normalizers, losses_of
from segvit.models.backbone import set_grad_checkpointing
from segvit.models.create import create_model
from segvit.models.decoder import Attention
from segvit.models.output import SegOutput
from segvit.models.segvit import SegViT
from segvit.profiling.multiply_adds import fake_twin
from segvit.training.optim import freeze
from segvit.training.parallel import sharded_modules
from segvit.training.step import StepInput, run_step

PRESENT = 10
"""Classes that are assumed to be in each image: about those of a crop of ADE20K."""
MEBIBYTE = 2**20
CHECKPOINTED = " + grad_checkpointing"
GATHERED_BLOCKS = 2
"""Blocks of a sharded model that are whole at a time: the one that works, and the next."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes that a device needs."""

    parameters: int
    gradients: int
    optimizer: int
    """AdamW's two moments."""
    average: int
    """The running average of the weights; 0 without."""
    exchange: int
    """What processes need to exchange gradients or parameters; 0 for one device."""
    activations: int
    """What a step holds at the end of its forward pass for the backward pass."""
    peak: int
    """At most, all in all. Gradients come while activations go, so it may be less than the sum of the parts."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run needs."""

    gpus: int
    """Devices."""
    images: int
    """Images that a device works on at once."""
    memory: dict[str, Memory]
    """Of each device, by `parallel` (data, and fsdp for several), with " + grad_checkpointing" behind it where on."""
    chosen: str
    """Which of these the config says."""
    multiply_adds: int
    """Of a step over all devices, forward and backward."""
    steps: int
    tflops: float | None
    """What a device sustains, in 10^12 floating-point operations a second; None: nobody said it."""

    @property
    def step_seconds(self) -> float | None:
        """Time of a step at that rate, two operations per multiply-add, if the devices wait for nothing else."""
        return None if self.tflops is None else 2 * self.multiply_adds / (self.gpus * self.tflops * 1e12)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        seconds = self.step_seconds
        run = None if seconds is None else seconds * self.steps
        return asdict(self) | {"step_seconds": seconds, "run_seconds": run}

    def tables(self) -> Group:
        """Memory by kind of run, and the time, to print."""
        return Group(self._table(), *map(Text, self._remarks()))

    def _table(self) -> Table:
        """Parts of the memory."""
        whose = f"of each of {self.gpus} devices" if self.gpus > 1 else "of the device"
        table = Table(title=f"Memory {whose}, MiB")
        table.add_column("")
        for name in self.memory:
            kind = name.replace(CHECKPOINTED, "\ncheckpointed")
            table.add_column(kind + (" *" if name == self.chosen else ""), justify="right")
        names = {
            "parameters": "parameters",
            "gradients": "gradients",
            "optimizer": "AdamW's moments",
            "average": "average (EMA)",
            "exchange": "for the exchange",
            "activations": "activations",
        }
        for key, name in names.items():
            values = [getattr(memory, key) for memory in self.memory.values()]
            if any(values):
                table.add_row(name, *(f"{value / MEBIBYTE:,.0f}" for value in values))
        table.add_section()
        table.add_row("peak", *(f"{memory.peak / MEBIBYTE:,.0f}" for memory in self.memory.values()))
        return table

    def _remarks(self) -> list[str]:
        """What else there is to know."""
        remarks = [
            "* as the config says; checkpointed: --grad-checkpointing; data, fsdp: --parallel",
            f"{self.images} images at once on a device; {PRESENT} classes assumed in each",
            f"{self.multiply_adds / 1e9:,.1f} G multiply-adds a step, forward and backward, all devices",
        ]
        if self.step_seconds is None:
            return [*remarks, "for the time say --tflops RATE: what a device sustains in training"]
        hours = self.step_seconds * self.steps / 3600
        return [
            *remarks,
            f"{self.step_seconds:.3g} s a step, {hours:,.3g} h for {self.steps:,} steps at {self.tflops:g} TFLOP/s",
            "(of each device; without loading, exchange and validations)",
        ]


def plan(config: TrainConfig, *, num_classes: int, gpus: int = 1, tflops: float | None = None) -> Plan:
    """What a run needs of each device: for an accelerator, or for a CPU where the config says `device: cpu`.

    Args:
        config: the run.
        num_classes: of its dataset.
        gpus: devices, a process each.
        tflops: what a device sustains in training, in 10^12 floating-point operations a second.

    Raises:
        UserError: a number of devices that the batch cannot be dealt out to, or a rate that is none.
    """
    if gpus < 1 or config.batch_size % (gpus * config.accumulate):
        raise UserError(
            f"batch_size {config.batch_size} cannot be dealt out to {gpus} devices, each in parts of accumulate "
            f"{config.accumulate}: give --gpus whose product with accumulate divides it"
        )
    if tflops is not None and tflops <= 0:
        raise UserError(f"--tflops {tflops}: give what a device sustains, above 0")
    images = config.batch_size // (gpus * config.accumulate)
    with torch.device("meta"):
        model = create_model(config=config.model.without_weights(), num_classes=num_classes)
    memory = {}
    for parallel in ("data", "fsdp") if gpus > 1 else ("data",):
        for checkpointing in (False, True):
            name = parallel + (CHECKPOINTED if checkpointing else "")
            chosen = replace(config, parallel=parallel, grad_checkpointing=checkpointing)
            memory[name] = _memory(model, chosen, images=images, gpus=gpus)
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


def _memory(model: SegViT, config: TrainConfig, *, images: int, gpus: int) -> Memory:
    """What a device needs, part by part."""
    with FakeTensorMode():
        twin = _trainable_twin(model, config)
        whole = _size(list(twin.parameters()))
        learned = _size([parameter for parameter in twin.parameters() if parameter.requires_grad])
        on_cpu = config.device == "cpu"
        if not on_cpu:
            _fuse_attention(twin)
        for parameter in twin.parameters():
            if parameter.requires_grad and config.parallel == "fsdp":  # whole ones do not stay
                parameter.register_post_accumulate_grad_hook(_drop_gradient)
            elif parameter.requires_grad and config.accumulate > 1:  # those of the part before
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
        # What is whole at a time, its gradient, and the whole copy that validations use.
        exchange, at_step = 2 * (loose + GATHERED_BLOCKS * unit) + whole, at_step // gpus
    standing = parts["parameters"] + parts["optimizer"] + parts["average"] + exchange
    beside = parts["gradients"] if config.parallel == "fsdp" or config.accumulate > 1 else 0  # not among the births
    most = standing + max(beside + peak, parts["gradients"] + (0 if on_cpu else at_step))
    return Memory(**parts, exchange=exchange, activations=held, peak=most)


def _trainable_twin(model: SegViT, config: TrainConfig) -> SegViT:
    """A fake copy of a model as it trains."""
    twin = fake_twin(model).train().requires_grad_(True)
    set_grad_checkpointing(twin.backbone, config.grad_checkpointing)
    freeze(twin, config.optim.freeze)
    return twin


def _fuse_attention(model: SegViT) -> None:
    """Let the head attend as on an accelerator, whose fused kernels keep nothing of the weights that they drop.

    On a CPU a byte is kept for each (models/dropout_attention.py); without dropout it has a fused kernel as well.
    """
    for part in model.modules():
        if isinstance(part, Attention):
            part.dropout = 0.0


def _step(model: SegViT, config: TrainConfig, images: int, *, chunk_elements: int) -> tuple[int, int]:
    """Bytes that a step holds at the end of its forward pass, and at most."""
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
            replace(config, accumulate=1),  # `images` are those of a part
            criterion=partial(_criterion, chunk_elements=chunk_elements),
            backward=Tensor.backward,
            check=note,
            autocast=lambda: torch.autocast("cpu", dtype=halves, enabled=halves is not None),
        )
    return held, births.peak


def _drop_gradient(parameter: Tensor) -> None:
    parameter.grad = None


def _inputs(config: TrainConfig, count: int) -> StepInput:
    """A step of `count` training crops."""
    size = (config.model.image_size, config.model.image_size)
    return StepInput(
        step=0,
        number=0,
        images=torch.empty((count, 3, *size), dtype=torch.uint8),
        labels=torch.empty((count, *size), dtype=torch.int64),
        indices=torch.empty(count, dtype=torch.int64),
        divisors=Normalizers(num_masks=torch.empty(()), class_weight=torch.empty(())),
        class_weights=None,
    )


def _criterion(output: SegOutput, labels: Tensor, *, chunk_elements: int, **settings: Any) -> Losses:
    """The criterion, with PRESENT classes in each image: fake labels could not say which."""
    _, batch, num_classes, _ = output.class_logits.shape
    present = torch.empty((batch, num_classes), dtype=torch.bool)
    pairs = torch.empty((batch * min(PRESENT, num_classes), 2), dtype=torch.int64)  # (M, 2)
    mask_losses = partial(fused_mask_losses, chunk_elements=chunk_elements)
    return losses_of(output, labels, present, pairs, mask_losses=mask_losses, **settings)


def _multiply_adds(model: SegViT, config: TrainConfig) -> int:
    """Of forward and backward over one image; attention counts as its two products, forward and twice that back."""
    with FakeTensorMode(), sdpa_kernel(SDPBackend.MATH):  # a fused kernel may have no formula, and count as nothing
        twin = _trainable_twin(model, config)
        _fuse_attention(twin)
        with FlopCounterMode(display=False) as counter:
            run_step(
                twin,
                _inputs(config, 1),
                replace(config, accumulate=1),
                criterion=partial(_criterion, chunk_elements=CHUNK_ELEMENTS),
                backward=Tensor.backward,
            )
    return int(counter.get_total_flops()) // 2


class _Births(TorchDispatchMode):
    """Bytes of all tensors that are made inside the block and still live, and the most of them so far.

    Args:
        before: tensors that are there already; a view of one is no birth.
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
        storage = tensor.untyped_storage()  # what a tensor and its views share
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
    """Bytes of tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

"""Several processes that train one model: each with a copy of it (data parallel), or with a shard of it (FSDP2).

    torchrun --nproc-per-node 8 -m segvit train --config FILE [--parallel fsdp]

Data parallel is Accelerate's. FSDP2 is PyTorch's own `fully_shard`, because Accelerate ignores FSDP on a CPU in
silence. Shards are made whole here, so that checkpoints and models are the same however they were trained.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from segvit.config import TrainConfig
from segvit.errors import UserError
from segvit.losses import Losses, Normalizers
from segvit.models.segvit import SegViT
from segvit.utils.device import leave_cores_to, resolve_device
from segvit.utils.launcher import started_processes

LAUNCHED = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""Environment variables that a launcher sets for a process, besides WORLD_SIZE."""


def create_accelerator(config: TrainConfig) -> Accelerator:
    """Create Accelerate's Accelerator with the device and precision of the config.

    Raises:
        UserError: the device lacks the precision, the processes cannot connect, or fsdp has only one process.
    """
    device = resolve_device(config.device)
    if device.type == "cpu":
        leave_cores_to(config.data.workers)
    if config.precision == "fp16" and device.type != "cuda":
        raise UserError(f"precision fp16 needs a cuda device, and this is {device.type}: type --precision bf16 or fp32")
    lacking = [name for name in LAUNCHED if name not in os.environ]
    if started_processes() > 1 and lacking:
        raise UserError(
            f"{started_processes()} processes were started (WORLD_SIZE), which cannot connect without "
            f"{', '.join(lacking)}: start with `torchrun` or `accelerate launch`, which set all of them"
        )
    AcceleratorState._reset_state(reset_partial_state=True)  # otherwise a second run in one process keeps the first's
    accelerator = Accelerator(
        mixed_precision="no" if config.precision == "fp32" else config.precision,
        cpu=device.type == "cpu",
    )
    _check_processes(config, accelerator.num_processes)
    return accelerator


def _check_processes(config: TrainConfig, count: int) -> None:
    """Check that the processes have connected, and that they can divide model and batch."""
    if count != started_processes():
        raise UserError(
            f"{started_processes()} processes were started (WORLD_SIZE), and {count} found each other: each would "
            "train alone. Start with `torchrun` or `accelerate launch`"
        )
    if config.parallel == "fsdp" and count == 1:
        raise UserError(
            "parallel fsdp shards a model over processes, and this is the only one: type `torchrun "
            "--nproc-per-node N -m segvit train ...`, or leave --parallel out"
        )
    if config.parallel == "fsdp" and config.precision == "fp16":
        raise UserError("parallel fsdp supports precision bf16 and fp32, not fp16: type --precision bf16")
    if config.batch_size % (count * config.accumulate):
        raise UserError(
            f"batch_size {config.batch_size} does not divide into {count} processes of {config.accumulate} parts; "
            f"make it a multiple of {count * config.accumulate}"
        )


def shard(model: SegViT, accelerator: Accelerator) -> None:
    """Share parameters, gradients and so the optimizer's state out over all processes, in place (FSDP2).

    The modules that each part names (blocks of the backbone, stages of a decoder) are whole while they work. What is
    left, such as embeddings and the classifier, is whole for a pass.
    """
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    for module in sharded_modules(model):
        fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)


def sharded_modules(model: SegViT) -> list[nn.Module]:
    """Return the modules that FSDP makes whole one at a time, as the parts of a model name them."""
    parts: list[Any] = [part for part in model.children() if hasattr(part, "sharded_modules")]
    return [module for part in parts for module in part.sharded_modules()]


def is_sharded(model: nn.Module) -> bool:
    """Return True if `shard` has sharded a model."""
    return isinstance(model, FSDPModule)


@contextmanager
def gradients_kept_back(wrapped: nn.Module) -> Iterator[None]:
    """Keep gradients inside the block on each process; a later pass adds to them and exchanges the sums."""
    if isinstance(wrapped, FSDPModule):
        wrapped.set_requires_gradient_sync(False)
        yield
        wrapped.set_requires_gradient_sync(True)
    elif isinstance(wrapped, nn.parallel.DistributedDataParallel):
        with wrapped.no_sync():
            yield
    else:
        yield


def whole(values: Mapping[str, Any], *, keep: bool = True) -> dict[str, Any]:
    """Return values by name, with every sharded tensor made whole; every process must call it.

    Args:
        values: tensors and others.
        keep: return the values. Otherwise return an empty dict, in a process that only takes part.
    """
    result = {}
    for name, value in values.items():
        full = value.full_tensor().cpu() if isinstance(value, DTensor) else value
        if keep:
            result[name] = full
    return result


def whole_optimizer(optimizer: torch.optim.Optimizer, *, keep: bool = True) -> dict[str, Any]:
    """Return the state of an optimizer, with whole tensors; every process must call it."""
    state = optimizer.state_dict()
    return state | {"state": {index: whole(values, keep=keep) for index, values in state["state"].items()}}


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load a state of whole tensors; each process takes its shard of those whose parameters are sharded."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    shares = {
        index: {name: _share_of(value, parameters[index]) for name, value in values.items()}
        for index, values in state["state"].items()
    }
    optimizer.load_state_dict(state | {"state": shares})


def _share_of(value: Any, parameter: Tensor) -> Any:
    """Return this process's shard of a parameter's state; anything but a tensor of its shape is returned unchanged."""
    if isinstance(parameter, DTensor) and isinstance(value, Tensor) and value.shape == parameter.shape:
        return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
    return value


# Numbers of a step over its parts and all processes; every process must call each of these.


def mean_divisors(divisors: Sequence[Normalizers], accelerator: Accelerator) -> Normalizers:
    """Average divisors over parts and processes, so that the losses equal those of one large batch."""
    mean = torch.stack([torch.stack([each.num_masks, each.class_weight]) for each in divisors]).mean(dim=0)
    num_masks, class_weight = accelerator.reduce(mean, reduction="mean")
    return Normalizers(num_masks=num_masks, class_weight=class_weight)


def mean_losses(losses: Sequence[Losses], accelerator: Accelerator) -> Losses:
    """Average losses over parts and processes, without their graphs.

    Raises:
        UserError: the parts have different terms.
    """
    first = losses[0]
    shapes = {name: term.shape for name, term in first.items()}
    for other in losses:
        if {name: term.shape for name, term in other.items()} != shapes:
            raise UserError(
                f"the criterion gave the terms {', '.join(first)} for one part of a step and {', '.join(other)} for "
                "another, or other shapes: give the same terms each time"
            )
    parts = torch.stack([torch.cat([each[name].detach().flatten() for name in shapes]) for each in losses])
    means = accelerator.reduce(parts.mean(dim=0), reduction="mean")
    split = means.split([shape.numel() for shape in shapes.values()])
    return Losses({name: mean.view(shape) for (name, shape), mean in zip(shapes.items(), split, strict=True)})


def highest(value: float, accelerator: Accelerator) -> Tensor:
    """Return the highest value of all processes, a scalar."""
    shared = torch.tensor(value, device=accelerator.device)
    if accelerator.num_processes > 1:
        torch.distributed.all_reduce(shared, torch.distributed.ReduceOp.MAX)
    return shared


def anywhere(here: bool, accelerator: Accelerator) -> bool:
    """Return True if a condition holds in any process."""
    return bool(highest(float(here), accelerator))

"""What learns in a run: the model, its optimizer, and the average of its weights, where there is one.

    learner = create_learner(config, start, own)     # fresh by the seed, or as the checkpoint has it
    learner.wrapped(images)                     # what a step calls
    learner.evaluated                           # what is validated and written

Letters: K classes.
"""

import copy
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from segvit.config import TrainConfig
from segvit.inference.compiled import compile_model
from segvit.inference.protocol import resolve_protocol
from segvit.models.segvit import SegViT
from segvit.training.class_weights import resolve_class_weights
from segvit.training.ema import create_average
from segvit.training.optim import create_optimizer, freeze
from segvit.training.own_parts import OwnParts
from segvit.training.parallel import is_sharded, load_optimizer, shard, whole, whole_optimizer
from segvit.training.start import Start
from segvit.weights.finetune import with_classes
from segvit.weights.timm_weights import RANDOM


@dataclass(frozen=True, kw_only=True)
class Learner:
    """A model with what trains it."""

    model: SegViT
    wrapped: nn.Module
    """The model as the processes share it."""
    optimizer: torch.optim.Optimizer
    average: AveragedModel | None
    """The running average of its weights."""
    evaluated: SegViT
    """The average, or else the model; where that is shared out over processes, a whole copy of it."""
    class_weights: Tensor | None
    """(K,) of the criterion."""

    @property
    def is_sharded(self) -> bool:
        """Whether each process holds a share of the model alone (FSDP2)."""
        return is_sharded(self.model)

    def bring_up_to_date(self) -> None:
        """Fill the whole copy of a model that is shared out; every process must call it."""
        if self.is_sharded:
            self.evaluated.load_state_dict(whole(_kept(self.model, self.average).state_dict()))

    def state(self, *, keep: bool) -> dict[str, Any]:
        """Return what a checkpoint holds of the learner, with whole tensors; every process must call it.

        Args:
            keep: return the tensors; otherwise only take part.
        """
        average = self.average
        return {
            "model": whole(self.model.state_dict(), keep=keep),
            "average": None if average is None else whole(average.state_dict(), keep=keep),
            "extra": self.model.extra,
            "optimizer": whole_optimizer(self.optimizer, keep=keep),
        }


def create_learner(config: TrainConfig, start: Start, own: OwnParts) -> Learner:
    """The model of a run on its device, its optimizer and its average, in every process.

    Raises:
        UserError: settings that do not go together, such as a network that cannot be, or class weights of no class.
    """
    accelerator, state = start.accelerator, start.state
    model = _create_model(config, start, own)
    model.to(accelerator.device)
    model.backbone.grad_checkpointing = config.grad_checkpointing
    freeze(model, config.optim.freeze)
    average = None if config.ema_decay is None else create_average(model, decay=config.ema_decay)
    if average is not None and state is not None:
        average.load_state_dict(state["average"])
    evaluated = _kept(model, average)
    networks = [model] if average is None else [model, evaluated]
    if config.parallel == "fsdp":
        evaluated = copy.deepcopy(evaluated)
        for network in networks:
            shard(network, accelerator)
    optimizer: torch.optim.Optimizer = create_optimizer(model, config.optim)
    if state is not None:
        load_optimizer(optimizer, state["optimizer"])
    if config.compile:
        for network in networks:
            compile_model(network)
    wrapped, optimizer = _wrap(model, optimizer, start)
    weights = resolve_class_weights(config.loss.class_weights, start.data.train.spec, lambda: start.data.census)
    resolve_protocol(model, config.eval)  # a window that cannot be is told now, not at the first validation
    return Learner(
        model=model,
        wrapped=wrapped,
        optimizer=optimizer,
        average=average,
        evaluated=evaluated,
        class_weights=None if weights is None else weights.to(accelerator.device),
    )


def _create_model(config: TrainConfig, start: Start, own: OwnParts) -> SegViT:
    """The model with its weights: those of the checkpoint, of the model to fine-tune, or its initial ones."""
    spec, state = start.data.train.spec, start.state
    torch.manual_seed(config.seed)
    if start.source is not None:
        return with_classes(start.source, spec, config=config.model, protocol=config.eval, name=str(config.init))
    model = own.take_model(spec, config)
    if model is None:
        settings = config.model if state is None else config.model.without_weights()
        model = SegViT(settings, num_classes=spec.num_classes, spec=spec, protocol=config.eval)
    model.extra.setdefault("starts_from", RANDOM)
    if state is not None:
        model.load_state_dict(state["model"])
        model.extra = state.get("extra", {"starts_from": "what an older segvit did not write down"})
    return model


def _kept(model: SegViT, average: AveragedModel | None) -> SegViT:
    """What a run is for: the average of the weights, where there is one."""
    return model if average is None else cast(SegViT, average.module)


def _wrap(model: SegViT, optimizer: torch.optim.Optimizer, start: Start) -> tuple[Any, Any]:
    """Model and optimizer as Accelerate shares them between the processes, in training mode."""
    accelerator, state = start.accelerator, start.state
    wrapped: Any = model
    if is_sharded(model):
        optimizer = accelerator.prepare(optimizer)
    else:
        wrapped, optimizer = accelerator.prepare(model, optimizer)
    # Its own autocast around forward would be a second one, in validations too, and does not compile.
    accelerator.unwrap_model(wrapped, keep_fp32_wrapper=False)
    wrapped.train()
    if state is not None and accelerator.scaler:
        accelerator.scaler.load_state_dict(state["scaler"])
    return wrapped, optimizer

"""The model of a run, its optimizer, and the average of its weights if there is one.

    learner = create_learner(config, start, own)    # new by the seed, or as in the checkpoint
    learner.wrapped(images)                         # called by a step
    learner.evaluated                               # validated and saved

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
from segvit.models.create import create_model
from segvit.models.modes import set_grad_checkpointing
from segvit.models.segvit import SegViT
from segvit.training.backbone.cache import FeatureCache, open_cache
from segvit.training.backbone.features import FrozenStart
from segvit.training.backbone.lora import add_lora
from segvit.training.class_weights import resolve_class_weights
from segvit.training.continual.extension import check_same_model, create_group
from segvit.training.ema import create_average
from segvit.training.optim import create_optimizer, freeze
from segvit.training.own_parts import OwnParts
from segvit.training.parallel import is_sharded, load_optimizer, shard, whole, whole_optimizer
from segvit.training.start import Start
from segvit.weights.extend import with_group
from segvit.weights.finetune import with_classes
from segvit.weights.timm_weights import RANDOM


@dataclass(frozen=True, kw_only=True)
class Learner:
    """A model and its optimizer."""

    model: SegViT
    network: nn.Module
    """The module that a step calls on its inputs: the model, or with cached features the part behind them."""
    wrapped: nn.Module
    """Wrapper of that module for the processes that share it."""
    optimizer: torch.optim.Optimizer
    average: AveragedModel | None
    """Running average of its weights; None without `ema_decay`."""
    evaluated: SegViT
    """The average if there is one, otherwise the model. If the model is sharded, a whole copy."""
    class_weights: Tensor | None
    """(K,) class weights of the criterion."""
    cache: FeatureCache | None
    """Features of the frozen blocks, on disk; None without `data.cache_features`."""
    extends: SegViT | None
    """Model that the run adds its classes to; None if there is none."""

    @property
    def complete(self) -> SegViT:
        """Model that is validated and saved: `evaluated`, or the model that it extends with the group of it."""
        if self.extends is None:
            return self.evaluated
        return with_group(self.extends, self.evaluated).train(self.model.training)

    @property
    def is_sharded(self) -> bool:
        """True if each process holds only a shard of the model (FSDP2)."""
        return is_sharded(self.model)

    def bring_up_to_date(self) -> None:
        """Update the whole copy of a sharded model; every process must call it."""
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
    """Create the model of a run on its device, its optimizer and its average, in every process.

    Raises:
        UserError: settings that do not fit together, such as an impossible network, or weights of an unknown class.
    """
    accelerator, state = start.accelerator, start.state
    model = _create_model(config, start, own)
    model.to(accelerator.device)
    set_grad_checkpointing(model.backbone, config.grad_checkpointing)
    freeze(model, config.optim.freeze)
    average = None if config.ema_decay is None else create_average(model, decay=config.ema_decay)
    if average is not None and state is not None:
        average.load_state_dict(state["average"])
    evaluated = _kept(model, average)
    networks = [model] if average is None else [model, evaluated]
    if config.parallel == "fsdp":
        evaluated = copy.deepcopy(evaluated)
        for each in networks:
            shard(each, accelerator)
    optimizer: torch.optim.Optimizer = create_optimizer(model, config.optim)
    if state is not None:
        load_optimizer(optimizer, state["optimizer"])
    if config.compile:
        for each in networks:
            compile_model(each)
    network, cache = _network(config, model, start)
    wrapped, optimizer = _wrap(network, optimizer, start)
    weights = resolve_class_weights(config.loss.class_weights, start.data.train.spec, lambda: start.data.census)
    resolve_protocol(model, config.eval)  # refuses an impossible window now, not at the first validation
    return Learner(
        model=model,
        network=network,
        wrapped=wrapped,
        optimizer=optimizer,
        average=average,
        evaluated=evaluated,
        class_weights=None if weights is None else weights.to(accelerator.device),
        cache=cache,
        extends=None if start.extends is None else start.extends.to(accelerator.device),
    )


def _network(config: TrainConfig, model: SegViT, start: Start) -> tuple[nn.Module, FeatureCache | None]:
    """Return the module that a step calls on its inputs, and the cache that its inputs come from, if there is one."""
    if config.data.cache_features is None:
        return model, None
    network = FrozenStart(model)
    return network, open_cache(config, network, start.data, start.accelerator)


def _create_model(config: TrainConfig, start: Start, own: OwnParts) -> SegViT:
    """Create the model with its weights: from the checkpoint, from the model to fine-tune, or initial ones."""
    spec, state = start.data.train.spec, start.state
    torch.manual_seed(config.seed)
    if start.source is not None:
        model = with_classes(start.source, spec, config=config.model, protocol=config.eval, name=str(config.init))
    elif start.extends is not None:
        model = create_group(start.extends, spec, config)
    else:
        model = own.take_model(spec, config) or _new_model(config, start)
    model.extra.setdefault("starts_from", RANDOM)
    if config.optim.lora_rank:
        add_lora(model, config.optim)
    if state is not None:
        if start.extends is not None:
            check_same_model(state["model"], model, config)
        model.load_state_dict(state["model"])
        model.extra = state.get("extra", {"starts_from": "unknown weights (the checkpoint is of an older segvit)"})
    return model


def _new_model(config: TrainConfig, start: Start) -> SegViT:
    """Create the model that the config describes, without weights to fetch if a checkpoint holds them."""
    spec = start.data.train.spec
    settings = config.model if start.state is None else config.model.without_weights()
    return create_model(config=settings, num_classes=spec.num_classes, spec=spec, protocol=config.eval)


def _kept(model: SegViT, average: AveragedModel | None) -> SegViT:
    """Return the average of the weights if there is one, otherwise the model."""
    return model if average is None else cast(SegViT, average.module)


def _wrap(network: nn.Module, optimizer: torch.optim.Optimizer, start: Start) -> tuple[Any, Any]:
    """Wrap the module of a step and its optimizer for the processes that share them, in training mode."""
    accelerator, state = start.accelerator, start.state
    wrapped: Any = network
    if is_sharded(network):
        optimizer = accelerator.prepare(optimizer)
    else:
        wrapped, optimizer = accelerator.prepare(network, optimizer)
    # Its own autocast around forward would be a second one, in validations too, and does not compile.
    accelerator.unwrap_model(wrapped, keep_fp32_wrapper=False)
    wrapped.train()
    if state is not None and accelerator.scaler:
        accelerator.scaler.load_state_dict(state["scaler"])
    return wrapped, optimizer

"""Training: one plain loop over Accelerate that reads top to bottom.

    run = segvit.train(segvit.TrainConfig.load("configs/shapes/demo.yaml"))
    segvit train --config configs/shapes/demo.yaml --output runs/shapes [--resume]

It runs on a CPU or one GPU as it is, and on many through `torchrun` or `accelerate launch`.
The folder of a run holds config.yaml, metrics.jsonl, TensorBoard events, best.safetensors, last.safetensors and
checkpoint.pt, from which --resume goes on to the bit.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor
from torch.utils.data import DataLoader

from segvit.config import TrainConfig
from segvit.data.check import check_dataset
from segvit.data.dataset import EndlessBatches, TrainingSamples, collate, mix, open_dataset
from segvit.data.transforms import TrainTransform
from segvit.engine.checkpoint import load_checkpoint, save_checkpoint
from segvit.engine.device import leave_cores_to, resolve_device
from segvit.engine.evaluate import EvalResult, evaluate
from segvit.engine.infer import resolve_protocol
from segvit.engine.optim import create_optimizer, learning_rate_factor, set_learning_rate
from segvit.engine.progress import TrainProgress
from segvit.engine.settings import check_same_run, check_settings
from segvit.errors import UserError
from segvit.losses import Losses, Normalizers, criterion, normalizers
from segvit.models.finetune import load_start, with_classes
from segvit.models.pretrained import RANDOM
from segvit.models.segvit import SegViT
from segvit.models.weights import save_model

CHECKED_SAMPLES = 1000
"""Label maps read before the first step; larger sets are sampled evenly."""

LEFT_BEHIND = ("checkpoint.pt", "best.safetensors", "last.safetensors")
"""Files that a new run must not write over. A run that ended before any of them may be started again."""

OnStep = Callable[[int, Losses], None]
"""Called after every step with the number of steps done and its losses."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a training run leaves."""

    miou: float
    """Best validation mIoU, 0..1."""
    path: Path
    """The model of that score."""
    result: EvalResult
    """The last validation."""


def train(config: TrainConfig, *, resume: bool = False, on_step: OnStep | None = None) -> Run:
    """Train a model, validate it, and write it to `config.output`.

    Args:
        config: the run.
        resume: go on from the checkpoint in `config.output`.
        on_step: called after every step.

    Raises:
        UserError: settings or data that cannot be trained on, a folder that holds another run, or a loss that is not
            a number (with the step and the files of its batch).
    """
    trainer = _Trainer(config, resume=resume)
    with trainer.progress:
        trainer.progress.say(trainer.headline())
        for step, (images, labels, indices) in trainer.batches():
            losses = trainer.step(step, images, labels, indices)
            if on_step:
                on_step(step + 1, losses)
            if trainer.due(step + 1, config.eval_every):
                trainer.validate(step + 1)
            if trainer.due(step + 1, config.save_every):
                trainer.save(step + 1)
    return trainer.finish()


class _Trainer:
    """The state of a run between steps."""

    def __init__(self, config: TrainConfig, *, resume: bool) -> None:
        check_settings(config)
        self.config = config
        self.output = config.output
        state = load_checkpoint(self.output / "checkpoint.pt") if resume else None
        if state is not None:
            check_same_run(config, state["config"])
        fine_tunes = state is None and config.init is not None
        self.source = load_start(str(config.init), config.model) if fine_tunes else None
        self.train_set = open_dataset(config.data, "train", size=config.model.image_size)
        self.val_set = open_dataset(config.data, "val", size=config.model.image_size)
        for samples in (self.train_set, self.val_set):
            check_dataset(samples, limit=CHECKED_SAMPLES, decode=True).raise_on_error()
        self.accelerator = _create_accelerator(config)
        self._prepare_output(fresh=state is None)
        self.start = 0 if state is None else int(state["step"])
        self.best = -1.0 if state is None else float(state["best"])
        self._build(state)
        self.progress = TrainProgress(config, start=self.start, shown=self.accelerator.is_main_process)
        self.result: EvalResult | None = None

    def headline(self) -> str:
        """What is about to be trained, on what, from where."""
        config = self.config
        origin = f"going on from step {self.start}, started from" if self.start else "starts from"
        return (
            f"{config.model.backbone} ({config.model.structure}) {origin} "
            f"{self.model.extra['starts_from']}\n"
            f"{self.model.num_classes} classes of {self.train_set.spec.name}: {len(self.train_set)} training and "
            f"{len(self.val_set)} validation images, {config.steps} steps of {config.batch_size}, "
            f"on {self.accelerator.device} -> {self.output}"
        )

    def _prepare_output(self, *, fresh: bool) -> None:
        """Make the run's folder and write the resolved config; refuse to write over another run."""
        if not self.accelerator.is_main_process:
            return
        if fresh and any((self.output / name).exists() for name in LEFT_BEHIND):
            raise UserError(f"{self.output} already holds a run: go on with --resume, or choose another --output")
        self.output.mkdir(parents=True, exist_ok=True)
        self.config.save(self.output / "config.yaml")

    def _build(self, state: dict[str, Any] | None) -> None:
        """Model and optimizer, fresh by the seed or as the checkpoint has them, and the loggers."""
        config, spec = self.config, self.train_set.spec
        torch.manual_seed(config.seed)
        if self.source is not None:
            name = str(config.init)
            model = with_classes(self.source, spec, config=config.model, protocol=config.eval, name=name)
            self.source = None
        else:
            network = config.model if state is None else config.model.without_weights()
            model = SegViT(network, num_classes=spec.num_classes, spec=spec, protocol=config.eval)
            model.extra.setdefault("starts_from", RANDOM)
        optimizer = create_optimizer(model, config.optim)
        if state is not None:
            model.load_state_dict(state["model"])
            model.extra = state.get("extra", {"starts_from": "what an older segvit did not write down"})
            optimizer.load_state_dict(state["optimizer"])
        self.model = model
        self.wrapped, self.optimizer = self.accelerator.prepare(model.to(self.accelerator.device), optimizer)
        self.wrapped.train()
        if state is not None and self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        resolve_protocol(model, config.eval)  # a window that cannot be is told now, not at the first validation
        self.accelerator.init_trackers("tensorboard")
        mode = "w" if state is None else "r+"
        self.log = (self.output / "metrics.jsonl").open(mode, buffering=1) if self.accelerator.is_main_process else None
        if self.log and state is not None:
            _truncate(self.log, self.start)

    def batches(self) -> Iterator[tuple[int, tuple[Tensor, Tensor, Tensor]]]:
        """(step, (images, labels, indices)) from the first step to do to the last."""
        config, accelerator = self.config, self.accelerator
        fill = [round(255 * value) for value in self.model.mean.tolist()]
        transform = TrainTransform(config.model.image_size, config.augment, fill)
        order = EndlessBatches(
            len(self.train_set),
            config.batch_size,
            seed=config.seed,
            start_step=self.start,
            rank=accelerator.process_index,
            world_size=accelerator.num_processes,
            steps=config.steps,
        )
        loader = DataLoader(
            TrainingSamples(self.train_set, transform, seed=config.seed),
            batch_sampler=order,
            num_workers=config.data.workers,
            pin_memory=accelerator.device.type == "cuda",
            collate_fn=collate,
        )
        for step, batch in enumerate(loader, start=self.start):
            if isinstance(batch, UserError):
                raise batch
            yield step, batch

    def step(self, step: int, images: Tensor, labels: Tensor, indices: Tensor) -> Losses:
        """One optimizer step on this process's share of a batch."""
        config, accelerator = self.config, self.accelerator
        number = step * accelerator.num_processes + accelerator.process_index
        torch.manual_seed(mix(config.seed, number, "dropout"))  # of the step and rank alone: resuming needs no state
        images, labels = images.to(accelerator.device), labels.to(accelerator.device)
        with accelerator.autocast():
            output = self.wrapped(images)
        divisors = normalizers(labels, self.model.num_classes, config=config.loss)
        losses = criterion(output, labels, config=config.loss, divisors=self._averaged(divisors))
        total = losses.total
        if not torch.isfinite(total):
            raise UserError(self._not_finite(f"the loss is {total.item()}", step, indices))
        factor = learning_rate_factor(step, steps=config.steps, config=config.optim)
        set_learning_rate(self.optimizer, factor)
        self.optimizer.zero_grad()
        accelerator.backward(total)
        norm = accelerator.clip_grad_norm_(self.wrapped.parameters(), config.optim.clip_norm)
        if config.precision != "fp16" and not torch.isfinite(norm):  # fp16's scaler skips such a step by itself
            broken = next(name for name, p in self.model.named_parameters() if not _finite(p.grad))
            raise UserError(self._not_finite(f"the gradient of {broken} is not a number", step, indices))
        self.optimizer.step()
        lr = config.optim.lr * factor
        mean = self._mean(losses)
        record = {"loss": mean.total.item(), **mean.named(), "lr": lr, "gradient_norm": float(norm)}
        self._write(step + 1, record)
        self.progress.update(step + 1, loss=record["loss"], lr=lr)
        return losses

    def _not_finite(self, what: str, step: int, indices: Tensor) -> str:
        """The text for a step that would spoil the weights: what happened, on which images, what to try."""
        files = "\n  ".join(self.train_set.describe(int(index)) for index in indices)
        saved = self.output / "checkpoint.pt"
        kept = f"{saved} holds an earlier step." if saved.exists() else "No checkpoint had been written yet."
        return f"{what} at step {step}. {kept} Its images:\n  {files}\nTry a lower --optim.lr"

    def _averaged(self, divisors: Normalizers) -> Normalizers:
        """The divisors as means over the processes, so that the losses equal those of one large batch."""
        return Normalizers(
            num_masks=self.accelerator.reduce(divisors.num_masks, reduction="mean"),
            class_weight=self.accelerator.reduce(divisors.class_weight, reduction="mean"),
        )

    def _mean(self, losses: Losses) -> Losses:
        """The losses averaged over the processes, for the log."""
        reduced = self.accelerator.reduce(
            torch.stack([losses.classes, losses.focal, losses.dice]).detach(), reduction="mean"
        )
        return Losses(classes=reduced[0], focal=reduced[1], dice=reduced[2])

    def due(self, step: int, every: int) -> bool:
        """Whether something that happens every so many steps, and at the end, happens after `step`."""
        return step % every == 0 or step == self.config.steps

    def validate(self, step: int) -> None:
        """Score the model on the validation set, every process its share, and keep it if it is the best."""
        config, accelerator = self.config, self.accelerator
        share = range(accelerator.process_index, len(self.val_set), accelerator.num_processes)
        with accelerator.autocast(), self.progress.task("validating", len(share)) as progress:
            self.result = evaluate(
                self.model, self.val_set, config=config.eval, workers=config.data.workers, progress=progress
            )
        self._write(step, {"miou": self.result.miou, "overall_accuracy": self.result.metrics.overall_accuracy})
        self.progress.say(f"step {step}: validation mIoU {self.result.miou:.4f}")
        if self.result.miou > self.best:
            self.best = self.result.miou
            self._save_model("best", step)

    def _save_model(self, name: str, step: int) -> None:
        """Write the model of this step with its run's config and scores."""
        if self.accelerator.is_main_process:
            metrics = self.result.to_dict() if self.result else None
            extra = {"step": step, "metrics": metrics, "train": self.config.to_dict()}
            save_model(self.model, self.output / f"{name}.safetensors", extra=extra)

    def save(self, step: int) -> None:
        """Write the checkpoint to resume from."""
        if self.log:
            self.log.flush()
            state = {
                "config": self.config.to_dict(),
                "step": step,
                "best": self.best,
                "model": self.model.state_dict(),
                "extra": self.model.extra,
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.accelerator.scaler.state_dict() if self.accelerator.scaler else {},
            }
            save_checkpoint(self.output / "checkpoint.pt", state)

    def finish(self) -> Run:
        """Write the last model, close the logs, and say what came out."""
        if self.result is None:  # resumed after the last step
            self.validate(self.config.steps)
        assert self.result is not None
        self._save_model("last", self.config.steps)
        if self.log:
            self.log.close()
        self.accelerator.end_training()
        return Run(miou=self.best, path=self.output / "best.safetensors", result=self.result)

    def _write(self, step: int, values: dict[str, float]) -> None:
        """One record in metrics.jsonl and in TensorBoard."""
        if self.log:
            self.log.write(json.dumps({"step": step, **values}) + "\n")
            self.accelerator.log(values, step=step)


def _create_accelerator(config: TrainConfig) -> Accelerator:
    """Accelerate on the device and in the precision of the config."""
    device = resolve_device(config.device)
    if device.type == "cpu":
        leave_cores_to(config.data.workers)
    if config.precision == "fp16" and device.type != "cuda":
        raise UserError(f"precision fp16 needs a cuda device, and this is {device.type}: type --precision bf16 or no")
    AcceleratorState._reset_state(reset_partial_state=True)  # else a second run in one process keeps the first's
    return Accelerator(
        mixed_precision=config.precision,
        cpu=device.type == "cpu",
        log_with="tensorboard",
        project_dir=str(config.output),
    )


def _finite(gradient: Tensor | None) -> bool:
    """Whether a gradient is absent or all numbers."""
    return gradient is None or bool(torch.isfinite(gradient).all())


def _truncate(log: Any, step: int) -> None:
    """Drop the records after `step`, which the resumed run writes again."""
    lines = log.readlines()
    log.seek(0)
    log.writelines(line for line in lines if json.loads(line)["step"] <= step)
    log.truncate()

"""Training: one plain loop over Accelerate that reads top to bottom.

    run = segvit.train(segvit.TrainConfig.load("configs/shapes/demo.yaml"))
    segvit train --config configs/shapes/demo.yaml --output runs/shapes [--resume]

It runs on a CPU or one GPU as it is, and on many through `torchrun` or `accelerate launch`.
The folder of a run holds config.yaml, metrics.jsonl, report.html, TensorBoard events, pictures of each validation,
best.safetensors, last.safetensors and the newest checkpoints, from which --resume goes on to the bit.
"""

import copy
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from segvit.config import TrainConfig
from segvit.data.census import Census, take_census
from segvit.data.check import check_dataset
from segvit.data.dataset import EndlessBatches, Replaced, TrainingSamples, collate, open_dataset
from segvit.data.rare import RareClasses
from segvit.data.transforms import TrainTransform
from segvit.data.unreadable import UnreadableList
from segvit.engine.checkpoint import checkpoints, newest_checkpoint, save_checkpoint, sweep
from segvit.engine.class_weights import describe_class_weights, resolve_class_weights
from segvit.engine.distributed import gather
from segvit.engine.ema import create_average
from segvit.engine.evaluate import EvalResult, evaluate
from segvit.engine.guards import LoaderDied, count_skipped, shield_from_sigterm, watched, written
from segvit.engine.infer import resolve_protocol
from segvit.engine.loggers import RunLog, check_loggers
from segvit.engine.optim import create_optimizer, freeze, learning_rate_factor, set_learning_rate
from segvit.engine.parallel import (
    create_accelerator,
    gradients_kept_back,
    is_sharded,
    load_optimizer,
    shard,
    whole,
    whole_optimizer,
)
from segvit.engine.progress import TrainProgress
from segvit.engine.replay import StepInput, examine, explain, listing, seed_dropout
from segvit.engine.run_report import show_validation
from segvit.engine.same_data import check_same_data
from segvit.engine.settings import check_same_run, check_settings
from segvit.engine.signals import Interrupted, Stop
from segvit.errors import UserError
from segvit.inference.compiled import compile_model
from segvit.losses import Losses, Normalizers, criterion, normalizers
from segvit.models.finetune import load_start, with_classes
from segvit.models.hub import cache_folder
from segvit.models.pretrained import RANDOM
from segvit.models.segvit import SegViT
from segvit.models.weights import save_model

CHECKED_SAMPLES = 1000
"""Label maps read before the first step; larger sets are sampled evenly."""

LEFT_BEHIND = ("best.safetensors", "last.safetensors")
"""Files that a new run must not write over, besides checkpoints. What ended before any of them may be started again."""

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


class NotFinite(UserError):
    """A step would have spoilt the weights."""


def train(
    config: TrainConfig, *, resume: bool = False, accept_changed_data: bool = False, on_step: OnStep | None = None
) -> Run:
    """Train a model, validate it, and write it to `config.output`.

    Args:
        config: the run.
        resume: go on from the checkpoint in `config.output`.
        accept_changed_data: go on although the dataset is no longer what the run was started on.
        on_step: called after every step.

    Raises:
        UserError: settings or data that cannot be trained on, a folder that holds another run, a dataset that has
            changed, a loss that is not a number (with the step, the layer and the files of its batch), a full disk, or
            a process of the loader that died.
        Interrupted: SIGTERM or SIGINT came; the checkpoint of the last step is written.
    """
    trainer = Trainer(config, resume=resume, accept_changed_data=accept_changed_data)
    with Stop() as stop, trainer.progress, trainer.telling_of_loaders(stop):
        trainer.progress.say(trainer.headline())
        if trainer.validation_due:
            trainer.validate(trainer.start, stop)
        for step, (images, labels, indices) in trainer.batches():
            losses = trainer.step(step, images, labels, indices)
            if on_step:
                on_step(step + 1, losses)
            if trainer.due(step + 1, config.eval_every):
                trainer.validate(step + 1, stop)
            if trainer.due(step + 1, config.save_every) or trainer.stopped:
                trainer.save(step + 1)
            trainer.leave_if_asked(step + 1, stop)
            if trainer.stopped:
                break
    return trainer.finish()


class Trainer:
    """The state of a run between steps."""

    def __init__(self, config: TrainConfig, *, resume: bool, accept_changed_data: bool = False) -> None:
        check_settings(config)
        check_loggers(config.loggers)
        self.config = config
        self.output = config.output
        state = newest_checkpoint(self.output, say=print) if resume else None
        if state is not None:
            check_same_run(config, state["config"])
        fine_tunes = state is None and config.init is not None
        self.source = load_start(str(config.init), config.model) if fine_tunes else None
        self.train_set = open_dataset(config.data, "train", size=config.model.image_size)
        self.val_set = open_dataset(config.data, "val", size=config.model.image_size)
        for samples in (self.train_set, self.val_set):
            report = check_dataset(samples, limit=CHECKED_SAMPLES, decode=True)
            report.raise_on_error(skip_unreadable=config.data.skip_unreadable)
        self.accelerator = create_accelerator(config)
        self._prepare_output(fresh=state is None)
        splits = {"train": self.train_set, "val": self.val_set}
        main = self.accelerator.is_main_process
        self.data = check_same_data(
            splits, self.output, state, accept=accept_changed_data, main_process=main, say=print
        )
        self._check_agreement(state)
        self.unreadable = UnreadableList(
            self.output / "unreadable.txt", limit=config.data.skip_unreadable, fresh=state is None
        )
        self.skipped = 0  # steps in a row that fp16's scaler has left out
        self.keeps_steps = True  # that went wrong, to be replayed
        self.start = self.at = 0 if state is None else int(state["step"])  # steps done
        self.schedule: Callable[[int], float] = partial(learning_rate_factor, steps=config.steps, config=config.optim)
        self.best = -1.0 if state is None else float(state["best"])
        self.stale = 0 if state is None else int(state.get("stale", 0))  # validations since the best
        self.validation_due = state is not None and bool(state.get("validation_due"))
        self._build(state)
        self.progress = TrainProgress(config, start=self.start, shown=self.accelerator.is_main_process)
        self._note_parts(state)
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
            f"on {self.accelerator.device} -> {self.output}" + "".join(f"\n{note}" for note in self._notes())
        )

    def _notes(self) -> Iterator[str]:
        """What else to know about the training."""
        if self.class_weights is not None:
            yield describe_class_weights(self.class_weights.tolist(), self.train_set.spec.classes)
        if self.config.optim.freeze != "none":
            counts = [(parameter.numel(), parameter.requires_grad) for parameter in self.model.parameters()]
            learning, total = sum(count for count, learns in counts if learns), sum(count for count, _ in counts)
            yield f"{learning:,} of {total:,} parameters learn; the others are frozen"
        if self.average is not None:
            yield f"validated and written are averages of the weights (decay {self.config.ema_decay})"

    def _check_agreement(self, state: dict[str, Any] | None) -> None:
        """Refuse to train where the processes do not go on from the same step on the same data."""
        step = 0 if state is None else int(state["step"])
        seen = gather([f"step {step}, data {self.data}"])
        if len(set(seen)) > 1:
            each = "\n".join(f"  process {number}: {what}" for number, what in enumerate(seen))
            raise UserError(
                f"the processes would train on different things:\n{each}\nGive all of them the same files in "
                f"{self.output} and the same dataset"
            )

    def _note_parts(self, state: dict[str, Any] | None) -> None:
        """Say what does not stay the same where a run goes on with its batches cut into other parts."""
        parts = [self.accelerator.num_processes, self.config.accumulate]
        if state is not None and state.get("parts", parts) != parts:
            now, before = ("{} processes x {} parts".format(*each) for each in (parts, state["parts"]))
            self.progress.say(
                f"{now} instead of {before}: the same batches and crops, but dropout is drawn differently"
            )

    def _prepare_output(self, *, fresh: bool) -> None:
        """Make the run's folder and write the resolved config; refuse to write over another run."""
        if not self.accelerator.is_main_process:
            return
        if fresh and (checkpoints(self.output) or any((self.output / name).exists() for name in LEFT_BEHIND)):
            raise UserError(f"{self.output} already holds a run: go on with --resume, or choose another --output")
        self.output.mkdir(parents=True, exist_ok=True)
        sweep(self.output)
        with written(self.output / "config.yaml", run=self.output) as aside:
            self.config.save(aside)

    def _build(self, state: dict[str, Any] | None) -> None:
        """Model and optimizer, fresh by the seed or as the checkpoint has them, and the loggers."""
        config, spec = self.config, self.train_set.spec
        torch.manual_seed(config.seed)
        if self.source is not None:
            name = str(config.init)
            model = with_classes(self.source, spec, config=config.model, protocol=config.eval, name=name)
            self.source = None
        else:
            own = config.model if state is None else config.model.without_weights()
            model = SegViT(own, num_classes=spec.num_classes, spec=spec, protocol=config.eval)
            model.extra.setdefault("starts_from", RANDOM)
        if state is not None:
            model.load_state_dict(state["model"])
            model.extra = state.get("extra", {"starts_from": "what an older segvit did not write down"})
        model.to(self.accelerator.device)
        model.backbone.grad_checkpointing = config.grad_checkpointing
        freeze(model, config.optim.freeze)
        self.average = None if config.ema_decay is None else create_average(model, decay=config.ema_decay)
        if self.average is not None and state is not None:
            self.average.load_state_dict(state["average"])
        self.model = model
        self.kept = model if self.average is None else cast(SegViT, self.average.module)
        networks = [model] if self.kept is model else [model, self.kept]
        self.evaluated = self.kept
        if config.parallel == "fsdp":
            self.evaluated = copy.deepcopy(self.kept)
            for network in networks:
                shard(network, self.accelerator)
        optimizer = create_optimizer(model, config.optim)
        if state is not None:
            load_optimizer(optimizer, state["optimizer"])
        if config.compile:
            for network in networks:
                compile_model(network)
        if is_sharded(model):
            self.wrapped, self.optimizer = model, self.accelerator.prepare(optimizer)
        else:
            self.wrapped, self.optimizer = self.accelerator.prepare(model, optimizer)
        # Its own autocast around forward would be a second one, in validations too, and does not compile.
        self.accelerator.unwrap_model(self.wrapped, keep_fp32_wrapper=False)
        self.wrapped.train()
        self.class_weights = resolve_class_weights(config.loss.class_weights, spec, lambda: self.census)
        if self.class_weights is not None:
            self.class_weights = self.class_weights.to(self.accelerator.device)
        if state is not None and self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        resolve_protocol(model, config.eval)  # a window that cannot be is told now, not at the first validation
        self.log = RunLog(config, self.accelerator, start=self.start)

    @cached_property
    def census(self) -> Census:
        """How often each class occurs in the training set."""
        return take_census(self.train_set, folder=cache_folder() / "census")

    @property
    def stopped(self) -> bool:
        """Whether too many validations have passed without a better score."""
        return self.config.early_stop is not None and self.stale >= self.config.early_stop

    def batches(self) -> Iterator[tuple[int, tuple[Tensor, Tensor, Tensor]]]:
        """(step, (images, labels, indices)) from the first step to do to the last; none where the run has stopped."""
        config, accelerator = self.config, self.accelerator
        if self.stopped:
            return
        odds, rare = config.augment.rare_class_probability, None
        if odds > 0:
            rare = RareClasses(self.census, probability=odds, seed=config.seed)
            self.progress.say(rare.describe(self.train_set.spec.classes))
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
            TrainingSamples(
                self.train_set, transform, seed=config.seed, rare=rare, skip_unreadable=config.data.skip_unreadable
            ),
            batch_sampler=order,
            num_workers=config.data.workers,
            pin_memory=accelerator.device.type == "cuda",
            collate_fn=collate,
            worker_init_fn=shield_from_sigterm,
        )
        for step, batch in enumerate(watched(loader, run=self.output), start=self.start):
            if isinstance(batch, UserError):
                raise batch
            content, unreadable = batch if isinstance(batch, Replaced) else (batch, ())
            self._list_unreadable(gather(unreadable) if config.data.skip_unreadable else ())
            yield step, content

    def _list_unreadable(self, texts: Sequence[str]) -> None:
        """Add to the list of unreadable images, of all processes.

        Raises:
            UserError: they are more than the config allows for.
        """
        for line in self.unreadable.add(texts):
            count = f"{len(self.unreadable.lines)} of at most {self.unreadable.limit}"
            self.progress.say(f"{line} -> left out, {count}, listed in {self.unreadable.path}")
            if self.accelerator.is_main_process:
                with written(self.unreadable.path, run=self.output) as aside:
                    aside.write_text(self.unreadable.text(), encoding="utf-8")

    @contextmanager
    def telling_of_loaders(self, stop: Stop) -> Iterator[None]:
        """Where a process of the loader dies because the whole run was asked to stop, it is stopped as it should be."""
        try:
            yield
        except LoaderDied:
            if stop.wished and self.accelerator.num_processes == 1:  # several would not be at the same step
                self.leave_if_asked(self.at, stop)
            raise

    def step(self, step: int, images: Tensor, labels: Tensor, indices: Tensor) -> Losses:
        """One optimizer step on this process's share of a batch."""
        config, accelerator = self.config, self.accelerator
        number = step * accelerator.num_processes + accelerator.process_index
        seed_dropout(config.seed, number)  # of the step and rank alone: resuming needs no state
        images, labels = images.to(accelerator.device), labels.to(accelerator.device)
        parts = list(zip(images.chunk(config.accumulate), labels.chunk(config.accumulate), strict=True))
        terms: dict[str, Any] = {"config": config.loss, "class_weights": self.class_weights}
        divisors = self._averaged([normalizers(part, self.model.num_classes, **terms) for _, part in parts])
        factor = self.schedule(step)
        set_learning_rate(self.optimizer, factor)
        self.optimizer.zero_grad()
        found = []
        step_input = partial(self._input, step, number, images, labels, indices, divisors)
        for done, part in enumerate(parts, start=1):
            with nullcontext() if done == len(parts) else gradients_kept_back(self.wrapped):
                with accelerator.autocast():
                    output = self.wrapped(part[0])
                losses = criterion(output, part[1], divisors=divisors, **terms)
                here = not torch.isfinite(losses.total)
                if self._anywhere(here):
                    what = f"the loss is {losses.total.item()}" if here else "the loss of another process is not finite"
                    raise self._not_finite(what, step_input(), backward=False)
                accelerator.backward(losses.total / len(parts))
            found.append(losses)
        norm = accelerator.clip_grad_norm_(self.wrapped.parameters(), config.optim.clip_norm)
        if config.precision != "fp16" and not torch.isfinite(norm):  # fp16's scaler skips such a step by itself
            raise self._not_finite(f"the norm of the gradient is {float(norm)}", step_input(), backward=True)
        self.optimizer.step()
        self.at = step + 1
        self.skipped = count_skipped(self.skipped, skipped=self.accelerator.optimizer_step_was_skipped)
        if self.average is not None:
            self.average.update_parameters(self.model)
        lr = config.optim.lr * factor
        mean = self._mean(found)
        record = {"loss": mean.total.item(), **mean.named(), "lr": lr, "gradient_norm": float(norm)}
        self.log.write(step + 1, record)
        self.progress.update(step + 1, loss=record["loss"], lr=lr)
        return mean

    def _input(
        self, step: int, number: int, images: Tensor, labels: Tensor, indices: Tensor, divisors: Normalizers
    ) -> StepInput:
        """All that the numbers of a step in this process depend on."""
        return StepInput(
            step=step,
            number=number,
            images=images,
            labels=labels,
            indices=indices,
            files=[self.train_set.describe(int(index)) for index in indices],
            num_masks=divisors.num_masks,
            class_weight=divisors.class_weight,
            class_weights=self.class_weights,
            scale=float(self.accelerator.scaler.get_scale()) if self.accelerator.scaler else 1.0,
            device=self.accelerator.device.type,
            process=self.accelerator.process_index if self.accelerator.num_processes > 1 else None,
        )

    def _anywhere(self, here: bool) -> bool:
        """Whether something is so in any process, where all must know: parts of a shared model work together."""
        if not is_sharded(self.model):
            return here
        flag = torch.tensor(float(here), device=self.accelerator.device)
        torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
        return bool(flag)

    def _not_finite(self, what: str, inputs: StepInput, *, backward: bool) -> NotFinite:
        """The error of a step that would spoil the weights; a model that is shared out is left to --replay."""
        if not self.keeps_steps:
            return NotFinite(f"{what} at step {inputs.step}. Its images:\n{listing(inputs.files)}")
        accelerator, shared = self.accelerator, is_sharded(self.model)
        found, unexamined = None, shared
        if not shared:
            try:
                found = examine(self.model, inputs, self.config, autocast=accelerator.autocast, backward=backward)
            except torch.OutOfMemoryError:  # the step's own activations are held still
                unexamined = True
        state = whole(self.model.state_dict())
        told = explain(
            found, inputs, config=self.config, num_classes=self.model.num_classes, state=state, unexamined=unexamined
        )
        if accelerator.num_processes > 1 and (backward or shared):  # all are here, and the first to leave ends all
            accelerator.wait_for_everyone()
        return NotFinite(f"{what} at step {inputs.step}. {told}")

    def _averaged(self, divisors: Sequence[Normalizers]) -> Normalizers:
        """The divisors as means over parts and processes, so that the losses equal those of one large batch."""
        mean = torch.stack([torch.stack([each.num_masks, each.class_weight]) for each in divisors]).mean(dim=0)
        num_masks, class_weight = self.accelerator.reduce(mean, reduction="mean")
        return Normalizers(num_masks=num_masks, class_weight=class_weight)

    def _mean(self, losses: Sequence[Losses]) -> Losses:
        """The losses averaged over parts and processes."""
        terms = torch.stack([torch.stack([each.classes, each.focal, each.dice]).detach() for each in losses])
        classes, focal, dice = self.accelerator.reduce(terms.mean(dim=0), reduction="mean")
        return Losses(classes=classes, focal=focal, dice=dice)

    def due(self, step: int, every: int) -> bool:
        """Whether something that happens every so many steps, and at the end, happens after `step`."""
        return step % every == 0 or step == self.config.steps

    def leave_if_asked(self, step: int, stop: Stop) -> None:
        """Write a checkpoint and leave, on all processes, if any of them has been asked to stop.

        Raises:
            Interrupted: they have.
        """
        asked = torch.tensor(stop.number or 0, device=self.accelerator.device)
        if self.accelerator.num_processes > 1:
            torch.distributed.all_reduce(asked, torch.distributed.ReduceOp.MAX)
        if not asked:
            return
        self.save(step)
        self.accelerator.wait_for_everyone()  # else the launcher sees the first one leave, and kills the others
        name = signal.Signals(int(asked)).name
        raise Interrupted(
            f"stopped by {name} after step {step}; its checkpoint is written: --resume goes on", int(asked)
        )

    def validate(self, step: int, stop: Stop) -> None:
        """Score the model on the validation set, every process its share, and keep it if it is the best.

        Raises:
            Interrupted: by a signal; a checkpoint of the step is written, and resuming begins with its validation.
        """
        config, accelerator = self.config, self.accelerator
        self.validation_due = True
        if accelerator.num_processes > 1:  # which do not break it off, and may be killed before its end
            self.save(step)
        if is_sharded(self.model):
            self.evaluated.load_state_dict(whole(self.kept.state_dict()))
        share = range(accelerator.process_index, len(self.val_set), accelerator.num_processes)

        def count(done: int, total: int) -> None:
            progress(done, total)
            if stop.wished and accelerator.num_processes == 1:  # several would wait for each other's scores
                self.leave_if_asked(step, stop)

        with self.progress.task("validating", len(share)) as progress:
            self.result = evaluate(
                self.evaluated,
                self.val_set,
                config=config.eval,
                precision="fp32" if config.precision == "no" else config.precision,
                workers=config.data.workers,
                skip_unreadable=config.data.skip_unreadable,
                progress=count,
            )
        self.validation_due = False
        if self.result.unreadable:
            self._list_unreadable(self.result.unreadable)
            self.progress.say(f"{len(self.result.unreadable)} of {len(self.val_set)} images left out: unreadable")
        self.log.write(step, {"miou": self.result.miou, "overall_accuracy": self.result.metrics.overall_accuracy})
        self.progress.say(f"step {step}: validation mIoU {self.result.miou:.4f}")
        self.stale += 1
        if self.result.miou > self.best:
            self.best, self.stale = self.result.miou, 0
            self._save_model("best", step)
        if self.stopped:
            self.progress.say(f"stops at step {step}: no better mIoU than {self.best:.4f} in {self.stale} validations")
        if accelerator.is_main_process:
            show_validation(
                self.log,
                step,
                self.result,
                model=self.evaluated,
                dataset=self.val_set,
                num_train=len(self.train_set),
                processes=accelerator.num_processes,
            )

    def _save_model(self, name: str, step: int) -> None:
        """Write the model of this step with its run's config and scores."""
        if self.accelerator.is_main_process:
            metrics = self.result.to_dict() if self.result else None
            extra: dict[str, Any] = {"step": step, "metrics": metrics, "train": self.config.to_dict()}
            if self.average is not None:
                extra |= {"weights": "ema", "ema_decay": self.config.ema_decay}
            save_model(self.evaluated, self.output / f"{name}.safetensors", extra=extra)

    def save(self, step: int) -> None:
        """Write the checkpoint to resume from."""
        writes = self.accelerator.is_main_process
        state = {
            "config": self.config.to_dict(),
            "step": step,
            "best": self.best,
            "stale": self.stale,
            "validation_due": self.validation_due,
            "parts": [self.accelerator.num_processes, self.config.accumulate],
            "model": whole(self.model.state_dict(), keep=writes),
            "average": whole(self.average.state_dict(), keep=writes) if self.average is not None else None,
            "extra": self.model.extra,
            "data": self.data,
            "optimizer": whole_optimizer(self.optimizer, keep=writes),
            "scaler": self.accelerator.scaler.state_dict() if self.accelerator.scaler else {},
        }
        if writes:
            save_checkpoint(self.output, state, keep=self.config.keep_checkpoints)

    def finish(self) -> Run:
        """Write the last model, close the logs, and say what came out."""
        if self.result is None:  # resumed after the last step
            with Stop() as stop:
                self.validate(self.at, stop)
        assert self.result is not None
        self._save_model("last", self.at)
        self.log.close()
        return Run(miou=self.best, path=self.output / "best.safetensors", result=self.result)

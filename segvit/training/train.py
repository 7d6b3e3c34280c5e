"""Training: one plain loop over Accelerate that reads top to bottom.

    run = segvit.train(segvit.TrainConfig.load("configs/shapes/demo.yaml"))
    segvit train --config configs/shapes/demo.yaml --output runs/shapes [--resume]

It runs on a CPU or one GPU, and on many through `torchrun` or `accelerate launch`. The folder of a run holds:

    config.yaml  train_batches.png  metrics.jsonl  timing.jsonl  report.html  validation/  TensorBoard events
    best.safetensors  last.safetensors  checkpoint-*.pt (the newest; --resume continues from them to the bit)

start.py checks settings and data, learner.py builds the model, batches.py loads images, step.py computes a step.
"""

import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from torch import Tensor

from segvit.config import TrainConfig
from segvit.data.sample import Samples
from segvit.data.sampling.unreadable import UnreadableList
from segvit.evaluation.result import EvalResult
from segvit.losses import Criterion, Losses, normalizers
from segvit.models.segvit import SegViT
from segvit.training.backbone.lora import merge, merged
from segvit.training.batches import add_unreadable, training_batches
from segvit.training.checkpoint import save_checkpoint
from segvit.training.learner import create_learner
from segvit.training.loader_guard import LoaderDied, count_skipped
from segvit.training.loggers import RunLog, TrainProgress
from segvit.training.not_finite import Guard, NotFinite
from segvit.training.optim import learning_rate_factor, set_learning_rate
from segvit.training.own_parts import OwnParts
from segvit.training.parallel import gradients_kept_back, highest, mean_divisors, mean_losses
from segvit.training.run_folder.first_crops import draw_first_crops
from segvit.training.run_folder.result import Run, example_of, stopped_text
from segvit.training.start import headline, make_room, prepare
from segvit.training.step import StepInput, run_step, seed_dropout
from segvit.training.validation import record_of, score, show_validation
from segvit.utils.signals import Interrupted, Stop
from segvit.utils.text import score_text
from segvit.weights.model_file import save_model

__all__ = ["NotFinite", "OnStep", "Run", "Trainer", "train"]

OnStep = Callable[[int, Losses], None]
"""Called after every step with the number of steps done and its losses."""


def train(
    config: TrainConfig,
    model: SegViT | None = None,
    datasets: Mapping[str, Samples] | None = None,
    criterion: Criterion | None = None,
    *,
    transform: Callable[..., Any] | None = None,
    resume: bool = False,
    accept_changed_data: bool = False,
    overwrite: bool = False,
    on_step: OnStep | None = None,
) -> Run:
    """Train a model, validate it, and write it to `config.output`.

    Args:
        config: the run; it describes every part that you don't hand in.
        model: your own, trained in place. Its settings replace the model section of the config, which must not
            contradict them.
        datasets: your own, `{"train": ..., "val": ...}`: any objects with the attributes of
            `segvit.data.sample.Samples`.
        criterion: your own, called as `segvit.criterion` is; it returns `segvit.Losses`.
        transform: your own, of an image and its mask, as the last step on each crop (docs/training.md).
        resume: continue from the checkpoint in `config.output`.
        accept_changed_data: continue although the dataset has changed since the run was started.
        overwrite: replace the run that `config.output` holds.
        on_step: called after every step.

    Raises:
        UserError: see `prepare` in start.py; a loss that is not finite (with the step, the layer and the files of its
            batch), a full disk, or a loader process that died.
        Interrupted: SIGTERM or SIGINT arrived; the checkpoint of the last step is written.
    """
    own = OwnParts(model=model, datasets=datasets, criterion=criterion, transform=transform)
    with ExitStack() as stack:
        options = {"accept_changed_data": accept_changed_data, "overwrite": overwrite, "stack": stack}
        return _run(Trainer(config, own, resume=resume, **options), on_step)


def _run(trainer: "Trainer", on_step: OnStep | None) -> Run:
    """Run all steps of a trainer."""
    config = trainer.config
    with Stop() as stop, trainer.progress, trainer.telling_of_loaders(stop):
        trainer.progress.say(trainer.headline)
        if trainer.start == 0:
            draw_first_crops(config, trainer.data, trainer.accelerator, mean=trainer.learner.model.mean)
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
    """State of a run between its steps."""

    def __init__(self, config: TrainConfig, own: OwnParts | None = None, *, resume: bool, **options: Any) -> None:
        """Prepare the run. The options are those of `segvit.training.start.prepare`."""
        self.own = own or OwnParts()
        start = prepare(self.own.settle(config), self.own, resume=resume, **options)
        state, config = start.state or {}, start.config
        self.config, self.output = config, config.output
        self.accelerator, self.data = start.accelerator, start.data
        self.start = self.at = start.step  # steps done
        self.best: float | None = state.get("best")
        self.stale = start.stale  # validations since the best
        self.validation_due = bool(state.get("validation_due"))
        self.skipped = 0  # steps in a row that fp16's scaler has skipped
        self.result: EvalResult | None = None
        self.schedule: Callable[[int], float] = partial(learning_rate_factor, steps=config.steps, config=config.optim)
        self.learner = create_learner(config, start, self.own)
        make_room(start)  # only now, since what a run cannot start with is refused above
        self.guard = Guard(
            config=config,
            accelerator=self.accelerator,
            learner=self.learner,
            samples=self.data.train,
            own=self.own,
        )
        self.log = RunLog(config, self.accelerator, start=self.start)
        self.progress = TrainProgress(config, start=self.start, shown=self.accelerator.is_main_process)
        unreadable = UnreadableList(
            self.output / "unreadable.txt", limit=config.data.skip_unreadable, fresh=start.state is None
        )
        self.add_unreadable = partial(
            add_unreadable, listed=unreadable, say=self.progress.say, writes=self.accelerator.is_main_process
        )
        self.headline = headline(
            config,
            start,
            model=self.learner.model,
            class_weights=self.learner.class_weights,
            averaged=self.learner.average is not None,
            cache=self.learner.cache.describe() if self.learner.cache else None,
        )

    def step(self, step: int, images: Tensor, labels: Tensor, indices: Tensor) -> Losses:
        """Do an optimizer step on this process's share of a batch: forward, criterion, backward, clip, step, log.

        Args:
            step: its number, from 0.
            images: (B, 3, H, W), uint8, or with cached features (B, L), float16.
            labels: (B, H, W), 255 = ignored.
            indices: of the samples in the dataset, (B,).

        Raises:
            NotFinite: the loss or the norm of the gradient is not finite.
        """
        config, accelerator, learner = self.config, self.accelerator, self.learner
        number = step * accelerator.num_processes + accelerator.process_index
        seed_dropout(config.seed, number)  # of the step and rank alone: resuming needs no state
        images, labels = images.to(accelerator.device), labels.to(accelerator.device)
        counted = [
            normalizers(part, learner.model.num_classes, config=config.loss, class_weights=learner.class_weights)
            for part in labels.chunk(config.accumulate)
        ]
        inputs = StepInput(
            step=step,
            number=number,
            images=images,
            labels=labels,
            indices=indices,
            divisors=mean_divisors(counted, accelerator),
            class_weights=learner.class_weights,
        )
        factor = self.schedule(step)
        set_learning_rate(learner.optimizer, factor)
        learner.optimizer.zero_grad()
        found = run_step(
            learner.wrapped,
            inputs,
            config,
            criterion=self.own.losses(config),
            backward=accelerator.backward,
            check=partial(self.guard.check_loss, inputs=inputs),
            autocast=accelerator.autocast,
            hold=partial(gradients_kept_back, learner.wrapped),
        )
        norm = accelerator.clip_grad_norm_(learner.wrapped.parameters(), config.optim.clip_norm)
        self.guard.check_norm(norm, inputs)
        learner.optimizer.step()
        self.at = step + 1
        self.skipped = count_skipped(self.skipped, skipped=accelerator.optimizer_step_was_skipped)
        if learner.average is not None:
            learner.average.update_parameters(learner.model)
        mean, lr = mean_losses(found, accelerator), config.optim.lr * factor
        record = {"loss": mean.total.item(), **mean.named(), "lr": lr, "gradient_norm": float(norm)}
        self.log.write(step + 1, record)
        self.progress.update(step + 1, loss=record["loss"], lr=lr)
        return mean

    def batches(self) -> Iterator[tuple[int, tuple[Tensor, Tensor, Tensor]]]:
        """Yield (step, (images, labels, indices)) from the first step to do to the last; nothing if the run has
        stopped.

        Images (B, 3, H, W), labels (B, H, W), indices (B,), of this process.
        """
        if self.stopped:
            return iter(())
        return training_batches(
            self.config,
            self.data,
            self.accelerator,
            start=self.start,
            mean=self.learner.model.mean,
            say=self.progress.say,
            list_unreadable=self.add_unreadable,
            cache=self.learner.cache,
        )

    @property
    def stopped(self) -> bool:
        """True if too many validations have passed without a better score."""
        return self.config.early_stop is not None and self.stale >= self.config.early_stop

    def due(self, step: int, every: int) -> bool:
        """Return True if a task that is done every `every` steps, and at the end, is due after `step`."""
        return step % every == 0 or step == self.config.steps

    @contextmanager
    def telling_of_loaders(self, stop: Stop) -> Iterator[None]:
        """Stop the run properly if a loader process dies because the whole run was asked to stop."""
        try:
            yield
        except LoaderDied:
            if stop.wished and self.accelerator.num_processes == 1:  # several would not be at the same step
                self.leave_if_asked(self.at, stop)
            raise

    def leave_if_asked(self, step: int, stop: Stop) -> None:
        """Write a checkpoint and leave, on all processes, if any of them has been asked to stop.

        Raises:
            Interrupted: a process has been asked to stop.
        """
        asked = int(highest(stop.number or 0, self.accelerator))
        if not asked:
            return
        self.save(step)
        self.learner.bring_up_to_date()
        self._save_model("last", step, scored=False)
        self.accelerator.wait_for_everyone()  # otherwise the launcher sees the first one leave, and kills the others
        raise Interrupted(stopped_text(signal.Signals(asked).name, step, self.output), asked)

    def validate(self, step: int, stop: Stop) -> None:
        """Score the model on the validation set, every process its share, and keep it if it is the best.

        Raises:
            Interrupted: a signal arrived; a checkpoint of the step is written, and resuming begins with its validation.
        """
        self.validation_due = True
        if self.accelerator.num_processes > 1:  # several do not interrupt it, and may be killed before its end
            self.save(step)
        result = self.result = self._score(step, stop)
        self.validation_due, miou = False, result.miou
        if result.unreadable:
            self.add_unreadable(result.unreadable)
            self.progress.say(f"unreadable images left out: {len(result.unreadable)} of {len(self.data.val)}")
        self.log.write(step, record_of(result))
        self.progress.say(f"step {step}: validation mIoU {score_text(miou)}{result.fewer_classes}")
        self.stale += 1
        if self.best is None or (miou is not None and miou > self.best):  # without any score, the newest is the best
            self.best, self.stale = miou, 0
            self._save_model("best", step)
        if self.stopped:
            self.progress.say(
                f"stopped at step {step}: no better mIoU than {self.best:.4f} in {self.stale} validations"
            )
        if self.accelerator.is_main_process:
            show_validation(
                self.log,
                step,
                result,
                model=self.learner.complete,
                dataset=self.data.val,
                num_train=len(self.data.train),
                processes=self.accelerator.num_processes,
            )

    def _score(self, step: int, stop: Stop) -> EvalResult:
        """Score the validation set. A process that is alone stops between two images if it is asked to."""
        self.learner.bring_up_to_date()

        def leave() -> None:
            if stop.wished and self.accelerator.num_processes == 1:  # several would wait for each other's scores
                self.leave_if_asked(step, stop)

        return score(self.learner.complete, self.data.val, self.config, progress=self.progress, leave=leave)

    def _save_model(self, name: str, step: int, *, scored: bool = True) -> None:
        """Write the model of this step with its run's config, and with its scores if it was scored."""
        if self.accelerator.is_main_process:
            metrics = self.result.to_dict() if self.result and scored else None
            extra: dict[str, Any] = {"step": step, "metrics": metrics, "train": self.config.to_public_dict()}
            if self.learner.average is not None:
                extra |= {"weights": "ema", "ema_decay": self.config.ema_decay}
            save_model(merged(self.learner.complete), self.output / f"{name}.safetensors", extra=extra)

    def save(self, step: int) -> None:
        """Write the checkpoint to resume from."""
        accelerator = self.accelerator
        writes = accelerator.is_main_process
        state = {
            "config": self.config.to_dict(),
            "step": step,
            "best": self.best,
            "stale": self.stale,
            "validation_due": self.validation_due,
            "parts": [accelerator.num_processes, self.config.accumulate],
            "own_parts": self.own.names,
            "data": self.data.digest,
            "spec": self.data.train.spec.to_dict(),
            **self.learner.state(keep=writes),
            "scaler": accelerator.scaler.state_dict() if accelerator.scaler else {},
        }
        if writes:
            save_checkpoint(self.output, state, keep=self.config.keep_checkpoints)
        self.log.lap(step, "checkpoint_seconds")

    def finish(self) -> Run:
        """Write the last model, close the logs, and return the result."""
        if self.result is None:  # resumed after the last step
            with Stop() as stop:
                self.validate(self.at, stop)
        assert self.result is not None
        self._save_model("last", self.at)
        merge(self.learner.model)  # which may have been handed in
        self.log.close()
        path, example = self.output / "best.safetensors", example_of(self.data.val)
        return Run(miou=self.best, path=path, result=self.result, example=example)

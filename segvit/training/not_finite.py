"""The guard of a step: a loss or a gradient that is no number ends the run before it spoils the weights.

    guard.check_loss(losses.total, batch)
    guard.check_norm(norm, batch)

The error names the step, the first layer whose numbers are not finite, and the images; the step is saved, to be run
again (replay.py).

Letters: B images of this process, H, W size of a crop.
"""

from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor

from segvit.config import TrainConfig
from segvit.data.sample import Samples
from segvit.errors import UserError
from segvit.losses import Normalizers
from segvit.training.learner import Learner
from segvit.training.parallel import whole
from segvit.training.reductions import anywhere
from segvit.training.replay import StepInput, examine, explain, listing


class NotFinite(UserError):
    """A step would have spoilt the weights."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """This process's share of a step's batch, on its device."""

    step: int
    """Steps done before."""
    number: int
    """Of the step and the process: what the dropout is seeded with."""
    images: Tensor
    """(B, 3, H, W) uint8."""
    labels: Tensor
    """(B, H, W) int64."""
    indices: Tensor
    """(B,) of the training samples."""
    divisors: Normalizers
    """Of the criterion, over all parts and processes."""


@dataclass(frozen=True, kw_only=True)
class Guard:
    """What looks at the numbers of each step."""

    config: TrainConfig
    accelerator: Accelerator
    learner: Learner
    samples: Samples
    """What the run trains on."""
    saves: bool = True
    """Whether a step that went wrong is examined and saved."""

    def check_loss(self, loss: Tensor, batch: Batch) -> None:
        """Refuse a loss, a scalar, that is not finite.

        Raises:
            NotFinite: it is not; in every process, where they share the model out.
        """
        here = not torch.isfinite(loss)
        # Parts of a model that is shared out work together, so all must know.
        if anywhere(here, self.accelerator) if self.learner.is_sharded else here:
            what = f"the loss is {loss.item()}" if here else "the loss of another process is not finite"
            raise self._error(what, batch, backward=False)

    def check_norm(self, norm: Tensor, batch: Batch) -> None:
        """Refuse a gradient whose norm, a scalar, is not finite; under fp16 the scaler leaves out such a step.

        Raises:
            NotFinite: it is not.
        """
        if self.config.precision != "fp16" and not torch.isfinite(norm):
            raise self._error(f"the norm of the gradient is {float(norm)}", batch, backward=True)

    def _error(self, what: str, batch: Batch, *, backward: bool) -> NotFinite:
        """The error of a step that would spoil the weights; a model that is shared out is left to --replay."""
        inputs = self._input_of(batch)
        if not self.saves:
            return NotFinite(f"{what} at step {batch.step}. Its images:\n{listing(inputs.files)}")
        accelerator, model, shared = self.accelerator, self.learner.model, self.learner.is_sharded
        found, unexamined = None, shared
        if not shared:
            try:
                found = examine(model, inputs, self.config, autocast=accelerator.autocast, backward=backward)
            except torch.OutOfMemoryError:  # the step's own activations are held still
                unexamined = True
        told = explain(
            found,
            inputs,
            config=self.config,
            num_classes=model.num_classes,
            state=whole(model.state_dict()),
            unexamined=unexamined,
        )
        if accelerator.num_processes > 1 and (backward or shared):  # all are here, and the first to leave ends all
            accelerator.wait_for_everyone()
        return NotFinite(f"{what} at step {batch.step}. {told}")

    def _input_of(self, batch: Batch) -> StepInput:
        """All that the numbers of a step in this process depend on."""
        accelerator = self.accelerator
        return StepInput(
            step=batch.step,
            number=batch.number,
            images=batch.images,
            labels=batch.labels,
            indices=batch.indices,
            files=[self.samples.describe(int(index)) for index in batch.indices],
            num_masks=batch.divisors.num_masks,
            class_weight=batch.divisors.class_weight,
            class_weights=self.learner.class_weights,
            scale=float(accelerator.scaler.get_scale()) if accelerator.scaler else 1.0,
            device=accelerator.device.type,
            process=accelerator.process_index if accelerator.num_processes > 1 else None,
        )

"""The guard of a step: a loss or gradient that is not finite stops the run before it spoils the weights.

    guard.check_loss(losses, inputs)
    guard.check_norm(norm, inputs)

The error names the step, the first layer whose numbers are not finite, and the images. The step is saved, so that it
can be run again (replay.py).
"""

from dataclasses import dataclass, field

import torch
from accelerate import Accelerator
from torch import Tensor

from segvit.config import TrainConfig
from segvit.data.sample import Samples
from segvit.errors import UserError
from segvit.losses import Losses
from segvit.training.learner import Learner
from segvit.training.own_parts import OwnParts
from segvit.training.parallel import anywhere, whole
from segvit.training.replay import Circumstances, examine, explain, listing
from segvit.training.step import StepInput


class NotFinite(UserError):
    """A step with a loss or gradient that is not finite."""


@dataclass(frozen=True, kw_only=True)
class Guard:
    """Checks the numbers of each step."""

    config: TrainConfig
    accelerator: Accelerator
    learner: Learner
    samples: Samples
    """Training set."""
    own: OwnParts = field(default_factory=OwnParts)
    """Parts that the caller of `train` handed in."""
    saves: bool = True
    """Examine and save a step that went wrong."""

    def check_loss(self, losses: Losses, inputs: StepInput) -> None:
        """Check that the total of the losses is finite.

        Raises:
            NotFinite: it is not. If the processes share a sharded model, every process raises it.
        """
        loss = losses.total
        here = not torch.isfinite(loss)
        # The shards of a model work together, so every process must know.
        if anywhere(here, self.accelerator) if self.learner.is_sharded else here:
            what = f"the loss is {loss.item()}" if here else "the loss of another process is not finite"
            raise self._error(what, inputs, backward=False)

    def check_norm(self, norm: Tensor, inputs: StepInput) -> None:
        """Check that the norm of the gradient, a scalar, is finite. Under fp16 the scaler skips such a step instead.

        Raises:
            NotFinite: it is not.
        """
        if self.config.precision != "fp16" and not torch.isfinite(norm):
            raise self._error(f"the norm of the gradient is {float(norm)}", inputs, backward=True)

    def _error(self, what: str, inputs: StepInput, *, backward: bool) -> NotFinite:
        """Return the error of a step that would spoil the weights. A sharded model is left to --replay."""
        where = self._circumstances(inputs)
        if not self.saves:
            return NotFinite(f"{what} at step {inputs.step}. Its images:\n{listing(where.files)}")
        accelerator, model, shared = self.accelerator, self.learner.model, self.learner.is_sharded
        found, unexamined = None, shared
        if not shared:
            try:
                found = examine(
                    self.learner.network,
                    inputs,
                    self.config,
                    criterion=self.own.losses(self.config),
                    scale=where.scale,
                    autocast=accelerator.autocast,
                    backward=backward,
                )
            except torch.OutOfMemoryError:  # the step's own activations still take memory
                unexamined = True
        explanation = explain(
            found,
            inputs,
            where,
            config=self.config,
            num_classes=model.num_classes,
            state=whole(model.state_dict()),
            unexamined=unexamined,
        )
        if accelerator.num_processes > 1 and (backward or shared):  # all are here, and the first to leave ends all
            accelerator.wait_for_everyone()
        return NotFinite(f"{what} at step {inputs.step}. {explanation}")

    def _circumstances(self, inputs: StepInput) -> Circumstances:
        """Return device, process and files of a step."""
        accelerator = self.accelerator
        return Circumstances(
            files=[self.samples.describe(int(index)) for index in inputs.indices],
            scale=float(accelerator.scaler.get_scale()) if accelerator.scaler else 1.0,
            device=accelerator.device.type,
            process=accelerator.process_index if accelerator.num_processes > 1 else None,
            own_parts=self.own.names,
        )

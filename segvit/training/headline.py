"""What a run says before its first step: what is trained, on what, from where, and what else to know about it."""

from collections.abc import Iterator

from segvit.config import TrainConfig
from segvit.training.class_weights import describe_class_weights
from segvit.training.learner import Learner
from segvit.training.start import Start


def headline(config: TrainConfig, start: Start, learner: Learner) -> str:
    """Some lines about a run that is about to begin or to go on."""
    model, data = learner.model, start.data
    origin = f"going on from step {start.step}, started from" if start.step else "starts from"
    what = (
        f"{config.model.backbone} ({config.model.structure}) {origin} {model.extra['starts_from']}\n"
        f"{model.num_classes} classes of {data.train.spec.name}: {len(data.train)} training and {len(data.val)} "
        f"validation images, {config.steps} steps of {config.batch_size}, on {start.accelerator.device} -> "
        f"{config.output}"
    )
    return "\n".join([*_changed_parts(config, start), what, *_notes(config, start, learner)])


def _changed_parts(config: TrainConfig, start: Start) -> Iterator[str]:
    """What does not stay the same where a run goes on with its batches cut into other parts."""
    parts = [start.accelerator.num_processes, config.accumulate]
    before = parts if start.state is None else start.state.get("parts", parts)
    if before != parts:
        now, then = ("{} processes x {} parts".format(*each) for each in (parts, before))
        yield f"{now} instead of {then}: the same batches and crops, but dropout is drawn differently"


def _notes(config: TrainConfig, start: Start, learner: Learner) -> Iterator[str]:
    """What else to know about the training."""
    if learner.class_weights is not None:
        yield describe_class_weights(learner.class_weights.tolist(), start.data.train.spec.classes)
    if config.optim.freeze != "none":
        counts = [(parameter.numel(), parameter.requires_grad) for parameter in learner.model.parameters()]
        learning, total = sum(count for count, learns in counts if learns), sum(count for count, _ in counts)
        yield f"{learning:,} of {total:,} parameters learn; the others are frozen"
    if learner.average is not None:
        yield f"validated and written are averages of the weights (decay {config.ema_decay})"

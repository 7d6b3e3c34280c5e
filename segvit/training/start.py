"""The start of a run: check settings and data, create the folder, and load the checkpoint to resume from.

    start = prepare(config, OwnParts(), resume=False, accept_changed_data=False)
    start.step                                  # 0, or the steps done in the checkpoint

Everything that can be refused before a model is built is refused here.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from textwrap import shorten
from typing import Any

from accelerate import Accelerator
from torch import Tensor

from segvit.config import TrainConfig
from segvit.config_files import RUN_CONFIG
from segvit.data.augment.own import OwnTransform, open_own
from segvit.data.check.check import CheckReport, check_dataset
from segvit.data.check.class_names import name_classes
from segvit.data.check.fixes import command
from segvit.data.check.mixed_splits import mixed_splits
from segvit.data.check.report import copies
from segvit.data.dataset import open_dataset
from segvit.data.folder_spec import resolve_white
from segvit.data.sample import Samples
from segvit.data.sampling.class_counts import Census, take_census
from segvit.data.sampling.pixel_statistics import resumed_statistics, with_statistics
from segvit.errors import UserError
from segvit.models.segvit import SegViT
from segvit.training.checkpoint import newest_checkpoint, sweep
from segvit.training.class_weights import describe_class_weights
from segvit.training.continual.extension import extension_sets, with_extended
from segvit.training.continual.teacher import teach
from segvit.training.dataset_check import check_same_data
from segvit.training.loader_guard import written
from segvit.training.loggers import check_loggers
from segvit.training.own_parts import SPLITS, OwnParts
from segvit.training.parallel import create_accelerator
from segvit.training.run_folder.names import (
    check_free,
    check_replaceable,
    claim,
    clear,
    known_part,
    name_of,
    run_to_resume,
)
from segvit.training.settings import check_same_run, check_settings
from segvit.utils.distributed import decided_by_first, gather
from segvit.utils.files import cache_folder, check_writable
from segvit.utils.launcher import first_process
from segvit.utils.lock import LOCK, held
from segvit.utils.text import counted
from segvit.weights.finetune import load_start
from segvit.weights.names import check_weights_file

CHECKED_SAMPLES = 1000
"""Label maps read before the first step. Larger sets are sampled evenly."""

MOST_WARNINGS, WARNING_LENGTH = 5, 300
"""Largest number of warnings about the data that a run prints, and the characters of each."""


@dataclass(frozen=True, kw_only=True)
class RunData:
    """Training and validation set of a run."""

    train: Samples
    val: Samples
    digest: str
    """Digest of both, by which a resumed run recognises them."""
    transform: OwnTransform | None = None
    """Transform of your own in the augmentation."""

    @cached_property
    def census(self) -> Census:
        """Occurrences of each class in the training set, counted on first use."""
        return take_census(self.train, folder=cache_folder() / "census")


@dataclass(frozen=True, kw_only=True)
class Start:
    """Everything that a run begins with."""

    config: TrainConfig
    """Settings of the run, with its folder and the names of its classes."""
    accelerator: Accelerator
    data: RunData
    state: dict[str, Any] | None
    """Checkpoint to resume from; None for a new run."""
    source: SegViT | None
    """Model to fine-tune; None if there is none, or if the run is resumed."""
    extends: SegViT | None
    """Model to add classes to; None if there is none."""
    replaces: bool
    """True if the run that the folder holds is removed once the new one can start."""

    @property
    def step(self) -> int:
        """Number of steps done."""
        return _step_of(self.state)

    @property
    def stale(self) -> int:
        """Number of validations since the best. A new number of steps begins the count again."""
        if self.state is None or self.state["config"].get("steps") != self.config.steps:
            return 0
        return int(self.state.get("stale", 0))


def prepare(
    config: TrainConfig,
    own: OwnParts,
    *,
    resume: bool,
    accept_changed_data: bool = False,
    overwrite: bool = False,
    stack: ExitStack | None = None,
) -> Start:
    """Check everything that a run depends on, and create its folder.

    Args:
        config: the run.
        own: parts that the caller of `train` handed in.
        resume: continue from the checkpoint in `config.output`.
        accept_changed_data: continue although the dataset has changed since the run was started.
        overwrite: replace the run that the folder holds.
        stack: takes the lock of the folder, and releases it when it is closed. Default: the folder is not locked.

    Raises:
        UserError: settings or data that cannot be trained on, nothing to resume, a folder that holds another run or in
            which one is under way, a dataset that has changed, or processes with different data or checkpoints.
    """
    config, extends = with_extended(config)
    check_settings(config)
    check_loggers(config.loggers)
    if first_process():  # before the data are read, which may take minutes
        check_writable(known_part(config.output), folder=True, remedy="give another --output")
    if first_process() and (config.output / LOCK).exists():
        with held(config.output, what="a run", say=print):  # refuse before anything is read
            pass
    if resume and overwrite:
        raise UserError("--overwrite starts a new run, and --resume continues one: leave one of them out")
    if overwrite:
        check_replaceable(config)
    if resume:
        config = replace(config, output=run_to_resume(config.output, name=name_of(config.data, otherwise="") or None))
    state = newest_checkpoint(config.output, say=print) if resume else None
    named = name_classes(config.data)
    if first_process():
        notes = [f"warning: {note}" for note in named.notes] if state is None else []  # a resumed run has printed them
        for line in [named.text] * bool(named.text) + notes:
            print(line)
    config = replace(config, data=named.config)
    if state is not None:
        config = resumed_statistics(config, state["config"])
        check_same_run(config, state["config"], done=_step_of(state))
        own.check_resumable(state.get("own_parts", []))
    else:
        check_weights_file(config.model)
        if not overwrite:
            check_free(config.output)
    fine_tunes = state is None and config.init is not None
    source = load_start(str(config.init), config.model) if fine_tunes else None
    config = _read_as_before(config, source or extends)
    say = print if first_process() and state is None else None
    splits = open_splits(config, own.datasets, say=say)
    config = with_statistics(config, splits, state=state, say=say)
    transform = open_own(own.transform, config.augment.module, num_classes=splits["train"].spec.num_classes)
    accelerator = create_accelerator(config)
    name = name_of(config.data, otherwise=splits["train"].spec.name)

    def take_folder() -> Path:
        return _take_folder(config, name, fresh=state is None, overwrite=overwrite, stack=stack or ExitStack())

    config = replace(config, output=decided_by_first(take_folder))
    main = accelerator.is_main_process
    digest = check_same_data(splits, config.output, state, accept=accept_changed_data, main_process=main, say=print)
    _check_agreement(config, _step_of(state), digest)
    if extends is not None:
        splits = extension_sets(extends, splits, negatives=config.loss.ignore_as_negative)
    if config.teacher is not None:
        splits["train"] = teach(config.teacher, splits["train"], device=accelerator.device, say=say)
    data = RunData(**splits, digest=digest, transform=transform)
    replaces = overwrite and not resume
    parts = {"config": config, "accelerator": accelerator, "data": data, "state": state, "source": source}
    return Start(**parts, extends=extends, replaces=replaces)


def _read_as_before(config: TrainConfig, source: SegViT | None) -> TrainConfig:
    """Return the settings with the white of the model to fine-tune, unless they or their spec give one."""
    spec = None if source is None else source.spec
    if spec is None or spec.white is None or resolve_white(config.data) is not None:
        return config
    return replace(config, data=replace(config.data, white=spec.white))


def make_room(start: Start) -> None:
    """Remove the run that the folder holds if the new one replaces it. Call this once the new one can start.

    Raises:
        UserError: a file cannot be removed.
    """
    if start.replaces:
        if start.accelerator.is_main_process:
            clear(start.config.output)
        start.accelerator.wait_for_everyone()


def open_splits(
    config: TrainConfig, own: Mapping[str, Samples] | None = None, *, say: Callable[[str], None] | None = None
) -> dict[str, Samples]:
    """Open and check the datasets "train" and "val" of a run.

    Args:
        config: the run.
        own: datasets that the caller handed in. Default: those that the config describes.
        say: prints the warnings of the check.

    Raises:
        UserError: one of them cannot be trained on.
    """
    size = config.model.image_size
    bands_of = "model.bands" if config.source is None else f"the model {config.source}"
    splits: dict[str, Samples] = {
        name: own[name]
        if own is not None
        else open_dataset(config.data, name, size=size, bands=config.model.bands, bands_of=bands_of)
        for name in SPLITS
    }
    how: dict[str, Any] = {"limit": CHECKED_SAMPLES, "decode": True, "extends": config.extend is not None}
    reports = {name: check_dataset(samples, **how) for name, samples in splits.items()}
    for report in reports.values():
        report.raise_on_error(skip_unreadable=config.data.skip_unreadable)
    if say:
        for line in _warnings(reports, None if own else config):
            say(line)
    return splits


def _warnings(reports: Mapping[str, CheckReport], config: TrainConfig | None) -> Iterator[str]:
    """Yield the warnings of a check in short, and the command that shows them in full if a config names the data."""
    texts = [f"{split}: {text}" for split, report in reports.items() for text in report.warnings]
    mixed = mixed_splits(config.data) if config is not None else None
    texts += [finding.text for finding in (*copies(reports), *([mixed] if mixed else []))]
    for text in texts[:MOST_WARNINGS]:
        yield f"warning: {shorten(text, WARNING_LENGTH, placeholder=' ...')}"
    if texts and config is not None:
        more = f"{len(texts) - MOST_WARNINGS} more warnings" if len(texts) > MOST_WARNINGS else "details"
        yield f"{more}: {command('check-data', config.data)}"


def _take_folder(config: TrainConfig, name: str, *, fresh: bool, overwrite: bool, stack: ExitStack) -> Path:
    """Create the run's folder, lock it, write the resolved config, and return the folder.

    Args:
        config: the run.
        name: of the folder if the config leaves it open.
        fresh: the run is not resumed.
        overwrite: a run that the folder holds is replaced.
        stack: takes the lock.
    """
    output = claim(config.output, name)
    stack.enter_context(held(output, what="a run", say=print))
    if fresh and not overwrite:
        check_free(output)
    sweep(output)
    with written(output / RUN_CONFIG, run=output) as aside:
        replace(config, output=output).save(aside)
    return output


def _check_agreement(config: TrainConfig, step: int, digest: str) -> None:
    """Check that all processes start from the same step with the same data."""
    seen = gather([f"step {step}, data {digest}"])
    if len(set(seen)) > 1:
        each = "\n".join(f"  process {number}: {what}" for number, what in enumerate(seen))
        raise UserError(
            f"the processes have different checkpoints or data:\n{each}\nGive all of them the same files in "
            f"{config.output} and the same dataset"
        )


def _step_of(state: Mapping[str, Any] | None) -> int:
    """Return the number of steps done in a checkpoint; 0 without one."""
    return 0 if state is None else int(state["step"])


def headline(
    config: TrainConfig,
    start: Start,
    *,
    model: SegViT,
    class_weights: Tensor | None,
    averaged: bool,
    cache: str | None = None,
) -> str:
    """Describe a run before its first step, in some lines.

    Args:
        config: the run.
        start: everything that it begins with.
        model: before its first step.
        class_weights: (K,) of the criterion.
        averaged: averages of the weights are validated and saved.
        cache: what is kept of the frozen blocks.
    """
    data = start.data
    origin = f"resumes at step {start.step}, started from" if start.step else "starts from"
    what = (
        f"{config.model.backbone} ({config.model.outline}) {origin} {model.extra['starts_from']}\n"
        f"{counted(model.num_classes, 'class')} of {data.train.spec.name}: {len(data.train)} training and "
        f"{counted(len(data.val), 'validation image')}, {counted(config.steps, 'step')} of {config.batch_size}, on "
        f"{start.accelerator.device} -> {config.output} (settings: config.yaml)"
    )
    lines = [*_changes(config, start), what]
    if class_weights is not None:
        lines.append(describe_class_weights(class_weights.tolist(), data.train.spec.classes))
    if config.optim.freeze != "none" or config.optim.lora_rank:
        counts = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
        learning, total = sum(count for count, learns in counts if learns), sum(count for count, _ in counts)
        lines.append(f"{learning:,} of {total:,} parameters learn; the others are frozen")
    if cache is not None:
        lines.append(cache)
    if averaged:
        lines.append(f"averages of the weights are validated and saved (decay {config.ema_decay})")
    return "\n".join(lines)


def _changes(config: TrainConfig, start: Start) -> Iterator[str]:
    """Describe a resumed run with another number of steps, or whose batches are cut into other parts than before."""
    steps = config.steps if start.state is None else start.state["config"].get("steps", config.steps)
    if steps != config.steps:
        yield (
            f"{config.steps} steps instead of {steps}: the learning rate now falls to 0 at step {config.steps}, so the "
            "result differs from that of a run that was started with as many"
        )
    parts = [start.accelerator.num_processes, config.accumulate]
    before = parts if start.state is None else start.state.get("parts", parts)
    if before != parts:
        now, then = ("{} processes x {} parts".format(*each) for each in (parts, before))
        yield f"{now} instead of {then}: same batches and crops, but different dropout"

"""Batches of a training run, from its first step on, and the list of images that cannot be read.

    for step, (images, labels, indices) in training_batches(config, data, accelerator, ...):

Letters: B images of this process, N bands, H, W size of a crop.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader

from segvit.config import TrainConfig
from segvit.data.augment.transform import TrainTransform
from segvit.data.bands.names import are_colors
from segvit.data.sampling.crops import Replaced, TrainingSamples, collate
from segvit.data.sampling.order import EndlessBatches
from segvit.data.sampling.partners import Partners
from segvit.data.sampling.rare_classes import RareClasses
from segvit.data.sampling.unreadable import UnreadableList
from segvit.errors import UserError
from segvit.training.backbone.cache import FeatureCache
from segvit.training.loader_guard import shield_from_sigterm, watched, written
from segvit.training.start import RunData
from segvit.utils.distributed import gather

Say = Callable[[str], None]
"""Prints a line."""


def training_batches(
    config: TrainConfig,
    data: RunData,
    accelerator: Accelerator,
    *,
    start: int,
    mean: Tensor,
    say: Say,
    list_unreadable: Callable[[Sequence[str]], None],
    cache: FeatureCache | None = None,
) -> Iterator[tuple[int, tuple[Tensor, Tensor, Tensor]]]:
    """Yield (step, (images, labels, indices)) of this process, from step `start` to the run's last.

    Images are uint8 or float32 (B, N, H, W), labels int64 (B, H, W), and indices (B,) are positions of the training
    samples. With a cache, features (B, L) are in place of images.

    Args:
        config: the run.
        data: training and validation set.
        accelerator: knows the processes.
        start: steps done.
        mean: (N,) of the model, 0..1: the values that pad images smaller than the crop.
        say: prints how often rare classes are drawn.
        list_unreadable: takes the messages of all processes about images that cannot be read.
        cache: features of the frozen blocks, on disk.

    Raises:
        UserError: a sample cannot be read, or has changed since the start.
        LoaderDied: a loader process has ended.
    """
    crops = training_crops(config, data, mean=mean)
    if crops.rare:
        say(crops.rare.describe(data.train.spec.classes))
    loader = create_loader(config, crops, accelerator, start=start, cache=cache)
    for step, batch in enumerate(watched(loader, run=config.output), start=start):
        if isinstance(batch, UserError):
            raise batch
        content, unreadable = batch if isinstance(batch, Replaced) else (batch, ())
        list_unreadable(gather(unreadable) if config.data.skip_unreadable else ())
        yield step, content if cache is None else cache.complete(content)


def training_crops(config: TrainConfig, data: RunData, *, mean: Tensor) -> TrainingSamples:
    """Return the augmented crops of a run.

    Args:
        config: the run.
        data: training and validation set.
        mean: (N,) of the model, 0..1: the values that pad images smaller than the crop.
    """
    augment, rare, partners = config.augment, None, None
    if not are_colors(data.train.spec.bands):
        augment = replace(augment, saturation=0.0, hue=0.0)
    fill = [255 * value for value in mean.tolist()]
    transform = TrainTransform(config.model.image_size, augment, fill, own=data.transform)
    if augment.rare_class_probability > 0 or augment.copy_paste > 0:
        rare = RareClasses(data.census, probability=augment.rare_class_probability, seed=config.seed)
    if augment.cutmix > 0 or augment.copy_paste > 0:
        partners = Partners(augment, length=len(data.train), rare=rare)
    return TrainingSamples(
        data.train,
        transform,
        seed=config.seed,
        rare=rare if augment.rare_class_probability > 0 else None,
        partners=partners,
        skip_unreadable=config.data.skip_unreadable,
        views=config.augment.views,
    )


def create_loader(
    config: TrainConfig,
    crops: TrainingSamples,
    accelerator: Accelerator,
    *,
    start: int,
    cache: FeatureCache | None = None,
) -> DataLoader[Any]:
    """Create the loader of this process's share of every batch, from step `start` on."""
    order = EndlessBatches(
        len(crops),
        config.batch_size,
        seed=config.seed,
        start_step=start,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
        steps=config.steps,
    )
    return DataLoader(
        crops if cache is None else cache.over(crops),
        batch_sampler=order,
        num_workers=config.data.workers,
        pin_memory=accelerator.device.type == "cuda",
        collate_fn=collate if cache is None else cache.collate,
        worker_init_fn=shield_from_sigterm,
    )


def add_unreadable(texts: Sequence[str], *, listed: UnreadableList, say: Say, writes: bool) -> None:
    """Add messages to the list of images that cannot be read, and to its file.

    Args:
        texts: messages of all processes.
        listed: the list of the run.
        say: prints new messages.
        writes: True in the process that writes the file.

    Raises:
        UserError: more images than the config allows cannot be read, or the file cannot be written.
    """
    for line in listed.add(texts):
        say(f"{line} -> left out, {len(listed.lines)} of at most {listed.limit}, listed in {listed.path}")
        if writes:
            with written(listed.path, run=listed.path.parent) as aside:
                aside.write_text(listed.text(), encoding="utf-8")

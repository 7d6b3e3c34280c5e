"""Mean and deviation of the bands of a training set, which the model normalises with.

    statistics = measure(samples)       # of up to 1000 images, one in memory at a time
    config = with_statistics(config, splits, say=print)

A run measures them once and writes them to config.yaml and to the model's file.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from segvit.config import TrainConfig
from segvit.data.bands.names import COLORS, are_colors
from segvit.data.bands.reading import Reading
from segvit.data.images import Unreadable
from segvit.data.sample import Samples
from segvit.data.spec import IGNORE_INDEX, DatasetSpec
from segvit.errors import UserError
from segvit.utils.text import counted

MOST_IMAGES = 1000
"""Images that are measured. Larger sets are sampled evenly."""
CONSTANT = 1e-6
"""Deviation below which a band is constant."""


class Statistics(NamedTuple):
    """Mean and deviation of each band, on the scale 0..1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    """1 for a constant band."""
    images: int
    """Number of images measured."""
    constant: tuple[int, ...]
    """Bands, from 0, that hold one value in all images."""


def measure(samples: Samples) -> Statistics:
    """Measure mean and deviation of each band over the pixels that are not ignored, one image at a time.

    Pixels without data are ignored, so they do not count as black. Images that cannot be read are left out.

    Raises:
        UserError: no image can be read, or all pixels are ignored.
    """
    count = min(len(samples), MOST_IMAGES)
    total, moments = 0, torch.zeros(2, 1, dtype=torch.float64)
    images = 0
    for index in range(count):
        try:
            image, labels, _ = samples.read(index * len(samples) // count)
        except Unreadable:
            continue
        kept = image.as_subclass(Tensor)[:, labels.as_subclass(Tensor) != IGNORE_INDEX]
        values = kept.double() / (255 if image.dtype == torch.uint8 else 1)
        moments = moments + torch.stack([values.sum(dim=1), values.square().sum(dim=1)])
        total, images = total + values.shape[1], images + 1
    if not images:
        raise UserError("no training image can be read, so mean and deviation cannot be measured")
    if not total:
        raise UserError("every pixel of the training labels is ignored, so mean and deviation cannot be measured")
    mean, square = moments / total
    std = (square - mean.square()).clamp(min=0).sqrt()
    constant = tuple((std < CONSTANT).nonzero().flatten().tolist())
    std = torch.where(std < CONSTANT, 1.0, std)
    return Statistics(_rounded(mean), _rounded(std), images, constant)


def with_statistics(
    config: TrainConfig,
    splits: Mapping[str, Samples],
    *,
    state: Mapping[str, Any] | None,
    say: Callable[[str], None] | None,
) -> TrainConfig:
    """Return the settings of a run with its number of bands and, if they are measured, with mean and deviation.

    Args:
        config: the run.
        splits: its datasets.
        state: checkpoint that the run resumes from, whose numbers are taken; None for a new run.
        say: prints what was measured and which augmentation does not apply.

    Raises:
        UserError: no training image can be read, or they are to be measured for a model that has its own.
    """
    if state is None and config.source is not None and config.data.statistics == "measured":
        raise UserError(
            f"data.statistics measured: the weights of {config.source} fit the mean and deviation of that model, "
            "which are kept; leave data.statistics out"
        )
    spec = splits["train"].spec
    bands = config.model.bands or Reading.of(spec).bands
    if bands != COLORS:
        config = replace(config, model=replace(config.model, bands=bands))
    if say and not are_colors(spec.bands) and (config.augment.saturation or config.augment.hue):
        say(f"{', '.join(spec.bands)}: augment.saturation and augment.hue are for red, green, blue, and are left out")
    if state is not None or config.source is not None or not _measures(config, spec):
        return config
    found = measure(splits["train"])
    if say:
        names = spec.bands or [f"band {number}" for number in range(1, bands + 1)]
        rows = [f"{name} {m:.4f} +- {s:.4f}" for name, m, s in zip(names, found.mean, found.std, strict=True)]
        say(f"mean and deviation of {counted(found.images, 'training image')}: {', '.join(rows)}")
        for band in found.constant:
            say(f"warning: band {names[band]!r} holds one value in all training images, so nothing is learned from it")
    mean, std = config.model.mean or found.mean, config.model.std or found.std  # what is given is kept
    return replace(config, model=replace(config.model, mean=mean, std=std))


def resumed_statistics(config: TrainConfig, saved: Mapping[str, Any]) -> TrainConfig:
    """Return the settings of a resumed run with the bands, mean and deviation of its start, if they are not given."""
    model = saved.get("model", {})
    known = {name: model.get(name) for name in ("bands", "mean", "std") if getattr(config.model, name) is None}
    changes: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in known.items() if value is not None
    }
    return replace(config, model=replace(config.model, **changes)) if changes else config


def _measures(config: TrainConfig, spec: DatasetSpec) -> bool:
    """True if mean and deviation of a new run are measured."""
    if config.model.mean is not None and config.model.std is not None:
        return False
    source = config.data.statistics
    return source == "measured" or (source is None and not are_colors(spec.bands))


def _rounded(values: Tensor) -> tuple[float, ...]:
    """Return values as numbers of six digits, which a file of settings shows in full."""
    return tuple(float(f"{value:.6g}") for value in values.tolist())

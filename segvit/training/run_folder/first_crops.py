"""Draw the first training crops of a run with their labels, as the model sees them.

draw_first_crops(config, data, accelerator, mean=model.mean)         # train_batches.png in the run's folder
picture = augmented_sheet(config)                                    # segvit check-data --augmented
"""

from dataclasses import replace

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor

from segvit.config import TrainConfig
from segvit.data.augment.own import open_own
from segvit.data.bands.reading import as_picture
from segvit.data.check.class_names import name_classes
from segvit.data.dataset import SegmentationDataset, open_dataset
from segvit.data.sampling.crops import Replaced, TrainingSamples
from segvit.data.sampling.order import EndlessBatches
from segvit.data.sampling.pixel_statistics import with_statistics
from segvit.errors import UserError
from segvit.models.bands import per_band
from segvit.models.create import weightless
from segvit.pictures.sample_sheet import SAMPLES, crop_sheet
from segvit.training.batches import training_crops
from segvit.training.loader_guard import written
from segvit.training.settings import check_settings
from segvit.training.start import RunData

FILE = "train_batches.png"


def draw_first_crops(config: TrainConfig, data: RunData, accelerator: Accelerator, *, mean: Tensor) -> None:
    """Draw the crops of the first steps. If one cannot be read, nothing is drawn: the run reports it.

    Every process must call this, since all of them count rare classes.

    Args:
        config: the run.
        data: training and validation set.
        accelerator: knows the process that draws.
        mean: (N,) of the model, 0..1: the values that pad images smaller than the crop.

    Raises:
        UserError: the picture cannot be written.
    """
    crops = training_crops(config, data, mean=mean)
    if not accelerator.is_main_process:
        return
    try:
        picture = first_crops(config, data, crops)
    except UserError:
        return
    with written(config.output / FILE, run=config.output) as aside:
        picture.save(aside, format="PNG")


def first_crops(config: TrainConfig, data: RunData, crops: TrainingSamples) -> Image.Image:
    """Return a sheet of the crops of the first steps.

    Args:
        config: the run.
        data: training and validation set.
        crops: of `training_crops`.

    Raises:
        UserError: a sample cannot be read or augmented.
    """
    order = EndlessBatches(len(crops), config.batch_size, seed=config.seed, steps=config.steps)
    keys = [key for batch, _ in zip(order, range(SAMPLES), strict=False) for key in batch][:SAMPLES]
    images, labels, names = [], [], []
    for key in keys:
        found = crops[key]
        if isinstance(found, UserError):
            raise found
        image, own, index = found.content if isinstance(found, Replaced) else found
        images.append(as_picture(image.numpy().transpose(1, 2, 0)))
        labels.append(own.numpy())
        names.append(_name(data, index))
    return crop_sheet(np.stack(images), np.stack(labels), names, data.train.spec)


def augmented_sheet(config: TrainConfig) -> Image.Image:
    """Return a sheet of the first crops that a run would draw, without its model.

    Raises:
        UserError: a setting is out of range, the dataset cannot be opened, or a sample cannot be read or augmented.
    """
    check_settings(config)
    config = replace(config, data=name_classes(config.data).config)
    train = open_dataset(config.data, "train", size=config.model.image_size, bands=config.model.bands)
    config = with_statistics(config, {"train": train}, state=None, say=None)
    transform = open_own(None, config.augment.module, num_classes=train.spec.num_classes)
    data = RunData(train=train, val=train, digest="", transform=transform)
    mean = torch.tensor(per_band("mean", config.model, weightless(config.model.backbone).pretrained_cfg))
    return first_crops(config, data, training_crops(config, data, mean=mean))


def _name(data: RunData, index: int) -> str:
    """Return the caption of a crop of a training sample."""
    train = data.train
    return train.pairs[index].name if isinstance(train, SegmentationDataset) else train.describe(index)

"""Models whose classes win somewhere, and photos, for the tests of what is seen inside a model."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segvit.config import EvalConfig, Structure, Upsampling
from segvit.models.create import create_model
from segvit.models.segvit import SegViT
from tests.helpers.tiny import random_images, stir, tell_apart, tiny_config

REGISTERS = "dinov2, registers"
WHOLE, SLIDE = EvalConfig(mode="whole"), EvalConfig(mode="slide")


def make(
    variant: str,
    structure: Structure,
    upsampling: Upsampling = "tap",
    *,
    classes: int = 5,
    protocol: EvalConfig = WHOLE,
) -> SegViT:
    torch.manual_seed(0)
    config = tiny_config(variant, structure, upsampling)
    if (structure, upsampling) == ("shrunk", "tap"):  # in the sum of three random stages one class wins everywhere
        config = replace(config, taps=(0, 3))
    model = create_model(config=config, num_classes=classes, protocol=protocol).eval()
    stir(model)
    tell_apart(model)
    return model


def photo_of(height: int, width: int) -> npt.NDArray[np.uint8]:
    return random_images(1, (height, width))[0].permute(1, 2, 0).numpy()


def as_batch(photo: npt.NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(photo.transpose(2, 0, 1).copy())[None]

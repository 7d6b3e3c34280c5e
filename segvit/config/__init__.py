"""Every setting of a run, with its unit and its one default.

The dataclasses are frozen, keyword-only and free of torch, so that `segvit train --help` is instant.
A YAML file holds differences from these defaults. Flags of the same names override the file:

    segvit train --config configs/camvid/vit_tiny.yaml --data.root camvid --optim.lr 3e-4
"""

from typing import Literal

from segvit.config.augment import AugmentConfig, Preset, under_preset
from segvit.config.data import DataConfig
from segvit.config.learning import Freeze, LossConfig, OptimConfig
from segvit.config.network import (
    Downsampling,
    Head,
    HeadClasses,
    ModelConfig,
    Structure,
    Upsampling,
    Upscaler,
)
from segvit.config.protocol import MULTI_SCALE, Blend, EvalConfig, EvalMode
from segvit.config.run import Device, LoggerName, Parallel, PrecisionName, TrainConfig

PrecisionChoice = Literal["auto", "fp32", "bf16", "fp16"]
BackboneSize = Literal["tiny", "small", "base", "large", "huge", "giant"]

__all__ = [
    "MULTI_SCALE",
    "AugmentConfig",
    "BackboneSize",
    "Blend",
    "DataConfig",
    "Device",
    "Downsampling",
    "EvalConfig",
    "EvalMode",
    "Freeze",
    "Head",
    "HeadClasses",
    "LoggerName",
    "LossConfig",
    "ModelConfig",
    "OptimConfig",
    "Parallel",
    "PrecisionChoice",
    "PrecisionName",
    "Preset",
    "Structure",
    "TrainConfig",
    "Upsampling",
    "Upscaler",
    "under_preset",
]

"""Semantic segmentation with plain Vision Transformers: SegViT, training, evaluation, prediction.

    import segvit
    model = segvit.load_model("best.safetensors")
    segvit.predict(model, "photo.jpg").overlay().save("seen.png")

Names are resolved on first use, so that `import segvit` and `segvit --help` load no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segvit.config import (
        AugmentConfig,
        DataConfig,
        EvalConfig,
        LossConfig,
        ModelConfig,
        OptimConfig,
        TrainConfig,
    )
    from segvit.data.dataset import open_dataset
    from segvit.data.spec import DatasetSpec, load_spec
    from segvit.errors import UserError
    from segvit.evaluation.evaluate import evaluate
    from segvit.evaluation.metrics import ConfusionMatrix, Metrics
    from segvit.evaluation.result import EvalResult
    from segvit.export.export import Exported, export_onnx, export_program
    from segvit.inference.label_map import label_map
    from segvit.inference.onnx_model import OnnxModel, load_onnx
    from segvit.losses import Losses, criterion
    from segvit.models.create import create_model
    from segvit.models.output import SegOutput
    from segvit.models.scores import scores
    from segvit.models.segvit import SegViT
    from segvit.prediction.predict import Prediction, predict
    from segvit.profiling.benchmark import bench
    from segvit.profiling.multiply_adds import Profile, profile
    from segvit.training.train import Run, train
    from segvit.weights.convert import convert_checkpoint
    from segvit.weights.finetune import with_classes
    from segvit.weights.load import load_model

_HOMES = {
    "segvit.profiling.benchmark": ("bench",),
    "segvit.config": (
        "AugmentConfig",
        "DataConfig",
        "EvalConfig",
        "LossConfig",
        "ModelConfig",
        "OptimConfig",
        "TrainConfig",
    ),
    "segvit.data.dataset": ("open_dataset",),
    "segvit.data.spec": ("DatasetSpec", "load_spec"),
    "segvit.evaluation.evaluate": ("evaluate",),
    "segvit.evaluation.result": ("EvalResult",),
    "segvit.prediction.predict": ("Prediction", "predict"),
    "segvit.training.train": ("Run", "train"),
    "segvit.errors": ("UserError",),
    "segvit.export.export": ("Exported", "export_onnx", "export_program"),
    "segvit.inference.label_map": ("label_map",),
    "segvit.inference.onnx_model": ("OnnxModel", "load_onnx"),
    "segvit.models.scores": ("scores",),
    "segvit.losses": ("Losses", "criterion"),
    "segvit.evaluation.metrics": ("ConfusionMatrix", "Metrics"),
    "segvit.weights.convert": ("convert_checkpoint",),
    "segvit.weights.finetune": ("with_classes",),
    "segvit.weights.load": ("load_model",),
    "segvit.models.output": ("SegOutput",),
    "segvit.models.create": ("create_model",),
    "segvit.models.segvit": ("SegViT",),
    "segvit.profiling.multiply_adds": ("Profile", "profile"),
}

__all__ = [
    "AugmentConfig",
    "ConfusionMatrix",
    "DataConfig",
    "DatasetSpec",
    "EvalConfig",
    "EvalResult",
    "Exported",
    "LossConfig",
    "Losses",
    "Metrics",
    "ModelConfig",
    "OnnxModel",
    "OptimConfig",
    "Prediction",
    "Profile",
    "Run",
    "SegOutput",
    "SegViT",
    "TrainConfig",
    "UserError",
    "bench",
    "convert_checkpoint",
    "create_model",
    "criterion",
    "evaluate",
    "export_onnx",
    "export_program",
    "label_map",
    "load_model",
    "load_onnx",
    "load_spec",
    "open_dataset",
    "predict",
    "profile",
    "scores",
    "train",
    "with_classes",
]


def __getattr__(name: str) -> Any:
    """Import the module of a public name when the name is first used."""
    for home, names in _HOMES.items():
        if name in names:
            value = getattr(import_module(home), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'segvit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

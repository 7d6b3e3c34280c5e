"""Semantic segmentation with plain Vision Transformers: SegViT, training, evaluation, prediction.

    import segvit
    model = segvit.load_model("best.safetensors")
    segvit.predict(model, "photo.jpg").save("seen.png")

Names are imported on first use, so that `import segvit` and `segvit --help` load no torch.
"""

from typing import TYPE_CHECKING

from segvit.utils.lazy import lazy_names

if TYPE_CHECKING:
    from segvit.config import (
        AugmentConfig as AugmentConfig,
        DataConfig as DataConfig,
        EvalConfig as EvalConfig,
        LossConfig as LossConfig,
        ModelConfig as ModelConfig,
        OptimConfig as OptimConfig,
        TrainConfig as TrainConfig,
    )
    from segvit.data.check.report import check_data as check_data
    from segvit.data.dataset import open_dataset as open_dataset
    from segvit.data.spec import DatasetSpec as DatasetSpec, load_spec as load_spec
    from segvit.errors import UserError as UserError
    from segvit.evaluation.evaluate import evaluate as evaluate
    from segvit.evaluation.metrics import ConfusionMatrix as ConfusionMatrix, Metrics as Metrics
    from segvit.evaluation.result import EvalResult as EvalResult
    from segvit.export.export import (
        Exported as Exported,
        export_model as export_model,
        export_onnx as export_onnx,
        export_program as export_program,
    )
    from segvit.inference.label_map import label_map as label_map
    from segvit.inference.onnx_model import OnnxModel as OnnxModel, load_onnx as load_onnx
    from segvit.inference.openvino_model import OpenvinoModel as OpenvinoModel, load_openvino as load_openvino
    from segvit.losses import Losses as Losses, criterion as criterion
    from segvit.models.create import create_model as create_model
    from segvit.models.output import SegOutput as SegOutput
    from segvit.models.scores import scores as scores
    from segvit.models.segvit import SegViT as SegViT
    from segvit.prediction.photo import Prediction as Prediction
    from segvit.prediction.predict import predict as predict
    from segvit.profiling.benchmark import bench as bench
    from segvit.profiling.multiply_adds import Profile as Profile, profile as profile
    from segvit.recipes.choose import Recipe as Recipe, recipe as recipe
    from segvit.recipes.train import train as train
    from segvit.training.train import Run as Run
    from segvit.weights.convert import convert_checkpoint as convert_checkpoint
    from segvit.weights.extend import drop_group as drop_group, groups as groups
    from segvit.weights.finetune import with_classes as with_classes
    from segvit.weights.load import load_model as load_model
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)

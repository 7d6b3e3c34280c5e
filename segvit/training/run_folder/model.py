"""Turn a checkpoint of a run into a model file.

model = model_of_checkpoint(Path("runs/photos/checkpoint-0000200.pt"), Path("model.safetensors"))
"""

from pathlib import Path
from typing import Any, cast

from segvit.config import TrainConfig
from segvit.data.folder_spec import resolve_spec
from segvit.data.spec import DatasetSpec
from segvit.errors import UserError
from segvit.models.create import create_model
from segvit.models.segvit import SegViT
from segvit.training.backbone.lora import add_lora, merged
from segvit.training.checkpoint import load_checkpoint
from segvit.training.continual.extension import check_same_model, create_group, with_extended
from segvit.training.ema import create_average
from segvit.weights.extend import with_group
from segvit.weights.model_file import save_model


def model_of_checkpoint(path: Path, output: Path) -> SegViT:
    """Write the model in a checkpoint of `segvit train` to a model file, and return it in evaluation mode.

    It has the averaged weights if the run averages them, as the run's own model files do. If the run adds classes to a
    model (`extend`), the classes of that model come first; its file is read for them.

    Args:
        path: checkpoint.
        output: .safetensors file to write.

    Raises:
        UserError: the file is not a checkpoint of segvit, the run had a model of its own, the model that it extends
            cannot be read or has other weights, or the output cannot be written.
    """
    if output.suffix != ".safetensors":
        raise UserError(f"{output}: a model file ends in .safetensors; give {output.with_suffix('.safetensors')}")
    state = load_checkpoint(path)
    if "model" in state.get("own_parts", []):
        raise UserError(f"{path}: the run had a model of its own: load its weights with torch.load(...)['model']")
    config, extends = with_extended(TrainConfig.from_dict(state["config"], source=str(path)))
    model = _create(config, _spec_of(state, config, path), extends)
    if extends is not None:
        check_same_model(state["model"], model, config)
    model.load_state_dict(state["model"])
    extra = {**state.get("extra", {}), "step": state["step"], "train": config.to_public_dict()}
    if state.get("average") is not None:
        average = create_average(model, decay=config.ema_decay or 0.0)
        average.load_state_dict(state["average"])
        model = cast(SegViT, average.module)
        extra |= {"weights": "ema", "ema_decay": config.ema_decay}
    model = merged(model)
    model.extra = extra
    if extends is not None:
        model = with_group(extends, model)
    save_model(model, output)
    return model.eval()


def _spec_of(state: dict[str, Any], config: TrainConfig, path: Path) -> DatasetSpec:
    """Return the classes of a run. Checkpoints of an older segvit do not hold them, but name the dataset."""
    spec = state.get("spec")
    return resolve_spec(config.data) if spec is None else DatasetSpec.from_dict(spec, source=str(path))


def _create(config: TrainConfig, spec: DatasetSpec, extends: SegViT | None) -> SegViT:
    """Create the model that a run trains, with the low-rank weights that it may have."""
    if extends is not None:
        return create_group(extends, spec, config)
    network = config.model.without_weights()
    model = create_model(config=network, num_classes=spec.num_classes, spec=spec, protocol=config.eval)
    if config.optim.lora_rank:
        add_lora(model, config.optim)
    return model

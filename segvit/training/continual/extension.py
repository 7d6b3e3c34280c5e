"""The start of a run that adds classes to a model (`extend`): its settings, its datasets and its group.

    segvit train --extend best.safetensors --data.images photos --data.labels masks --data.classes cone=1

The group is trained as a model of the new classes alone, on the frozen backbone. At each validation it is joined with
the model that it extends, and the whole is scored and saved.

Letters: H, W size of an image.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors

from segvit.config import TrainConfig
from segvit.data.labels.background import background_of
from segvit.data.sample import Sample, Samples
from segvit.data.spec import IGNORE_INDEX, DatasetSpec
from segvit.errors import UserError
from segvit.models.create_decoder import group_settings
from segvit.models.segvit import SegViT
from segvit.utils.text import counted
from segvit.weights.extend import joint_spec, named_spec, new_group, without_classes
from segvit.weights.finetune import check_network, match_classes
from segvit.weights.load import load_model
from segvit.weights.names import FILE_SUFFIXES

OWN = ("head.", "upscaler.coefficients")
"""Beginnings of the names of the weights of a group. All others are those of the model that it is added to."""


def with_extended(config: TrainConfig) -> tuple[TrainConfig, SegViT | None]:
    """Return the settings of the group that a run trains, and the model that it extends.

    The group is a presence head on the frozen backbone. A run that extends none is returned unchanged, with None.

    Raises:
        UserError: the model cannot be read, its classes have no names, or its network is not that of the settings.
    """
    if config.extend is None or config.init is not None:  # both are refused by `check_settings`
        return config, None
    model = load_model(str(config.extend))
    named_spec(model)
    assert model.config is not None  # else load_model raises
    own = {name: getattr(model.config, name) for name in ("head", "head_classes")}
    check_network(model, replace(config.model, **own), name=str(config.extend))
    optim = replace(config.optim, freeze="backbone") if config.optim.freeze == "none" else config.optim
    return replace(config, model=group_settings(config.model.without_weights()), optim=optim), model


class Relabelled:
    """Samples with the classes of another spec. Pixels of all other classes are ignored.

    Args:
        samples: a dataset.
        spec: the classes to give.
        numbers: number of a class in the dataset -> number in `spec`.
    """

    def __init__(self, samples: Samples, spec: DatasetSpec, numbers: Mapping[int, int]) -> None:
        self.samples, self.spec = samples, spec
        self._table = torch.full((IGNORE_INDEX + 1,), IGNORE_INDEX)
        for old, new in numbers.items():
            self._table[old] = new

    def __len__(self) -> int:
        return len(self.samples)

    def read(self, index: int) -> Sample:
        """Read a sample, and number its classes anew."""
        sample = self.samples.read(index)
        labels: Tensor = self._table[sample.labels.as_subclass(Tensor)]  # (H, W)
        return sample._replace(labels=tv_tensors.Mask(labels))

    def describe(self, index: int) -> str:
        """Return the origin of a sample for messages."""
        return self.samples.describe(index)


def extension_sets(model: SegViT, splits: Mapping[str, Samples], *, negatives: bool = False) -> dict[str, Samples]:
    """Return what a run learns from and is validated on.

    The training set has the new classes alone. The validation set has the classes of the whole model, so the score
    covers the old ones too where they are labelled.

    Args:
        model: the model to extend.
        splits: datasets "train" and "val", which may label old classes as well.
        negatives: ignored pixels count against the new classes (`LossConfig.ignore_as_negative`).

    Raises:
        UserError: the data have no class that the model lacks, or a background, or a single one without negatives.
    """
    old, spec = named_spec(model), splits["train"].spec
    kept = match_classes(old.classes, spec.classes).kept
    added = [index for index in range(spec.num_classes) if index not in kept]
    if not added:
        raise UserError(
            f"extend: the model already has all classes of {spec.name!r} ({', '.join(spec.classes)}): name a new class "
            "in the data, or type --init to train the old ones on"
        )
    new = without_classes(spec, list(kept))
    if (rest := background_of(new.classes)) is not None:
        raise UserError(
            f"extend: as a class of the model, {rest!r} would win over the old classes wherever a new one is absent: "
            "leave it out, and ignore its value; with --loss.ignore-as-negative, all pixels that are ignored count "
            "against the new classes"
        )
    if new.num_classes == 1 and not negatives:
        raise UserError(
            f"extend: {new.classes[0]!r} is the only new class, and all other pixels are ignored, so it would win "
            "everywhere: type --loss.ignore-as-negative if all of its pixels are labelled; the others then count "
            "against it"
        )
    place = {index: number for number, index in enumerate(added)}
    joint = kept | {index: old.num_classes + number for index, number in place.items()}
    return {
        "train": Relabelled(splits["train"], new, place),
        "val": Relabelled(splits["val"], joint_spec(old, new), joint),
    }


def create_group(model: SegViT, spec: DatasetSpec, config: TrainConfig) -> SegViT:
    """Create the model of the new classes `spec` that a run trains, on the frozen parts of `model`."""
    group = new_group(model, spec, config=config.model, protocol=config.eval)
    for name, parameter in group.named_parameters():
        parameter.requires_grad_(name.startswith(OWN))
    for part in () if group.upsampling is None else group.upsampling.modules():
        _without_dropout(part)
    file = Path(str(config.extend))
    public = file.name if file.suffix.lower() in FILE_SUFFIXES else config.extend  # a folder would be published
    frozen, before = counted(model.num_classes, "class"), model.extra.get("starts_from", "unknown weights")
    classes = ", ".join(spec.classes)
    group.extra["starts_from"] = f"{public} (its {frozen} frozen; new: {classes}), which started from {before}"
    return group


def check_same_model(state: Mapping[str, Tensor], group: SegViT, config: TrainConfig) -> None:
    """Check that a checkpoint has the frozen weights of the model that a run extends.

    Raises:
        UserError: it has others.
    """
    for name, value in group.state_dict().items():
        if not name.startswith(OWN) and not torch.equal(value.cpu(), state[name].cpu()):
            raise UserError(
                f"extend {config.extend}: its {name} differs from that of the run's checkpoint, so it is not the model "
                "that the run was started with; give that file, or start a new run in another --output"
            )


def _without_dropout(part: Any) -> None:
    """Turn off the dropout of a frozen module, since it regularises learning."""
    if isinstance(part, torch.nn.Dropout):
        part.p = 0.0
    elif isinstance(getattr(part, "dropout", None), float):
        part.dropout = 0.0

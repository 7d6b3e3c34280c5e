"""Parts that a caller hands to `train`: a model, datasets, a criterion and a transform of their own.

    own = OwnParts(model=model, datasets={"train": train_set, "val": val_set}, criterion=my_criterion)
    config = own.settle(config)         # with the model's own settings; contradictions are errors

The config describes every part that is not handed in.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from segvit.config import DataConfig, Head, ModelConfig, TrainConfig
from segvit.data.sample import Samples
from segvit.data.spec import DatasetSpec
from segvit.errors import UserError
from segvit.losses import CRITERIA, Criterion
from segvit.models.linear_head import LinearHead
from segvit.models.segvit import SegViT
from segvit.utils.text import counted

SPLITS: tuple[Literal["train", "val"], ...] = ("train", "val")
"""Names of the datasets that a run needs."""
SAYS_WHICH_DATA = ("spec", "root", "images", "labels", "classes", "val_images", "val_labels", "train_list", "val_list")
"""Settings of `DataConfig` that choose the images of a run."""


@dataclass(frozen=True, kw_only=True)
class OwnParts:
    """Parts that take the place of those that the config describes."""

    model: SegViT | None = None
    datasets: Mapping[str, Samples] | None = None
    """The datasets `train` and `val`."""
    criterion: Criterion | None = None
    transform: Callable[..., Any] | None = None
    """Transform in the augmentation (segvit/data/augment/own.py)."""

    @property
    def names(self) -> list[str]:
        """Names of the parts that are handed in."""
        return [field.name for field in fields(self) if getattr(self, field.name) is not None]

    def losses(self, config: TrainConfig) -> Criterion:
        """Return the criterion of the run: your own, or that of the head."""
        return self.criterion or CRITERIA[config.model.head]

    def settle(self, config: TrainConfig) -> TrainConfig:
        """Return the config with the settings of the model that is handed in.

        Raises:
            UserError: the config contradicts a part, or a dataset is missing.
        """
        if self.datasets is not None:
            _check_datasets(self.datasets, config.data)
        if self.model is None:
            return config
        if config.source is not None:
            raise UserError(f"{config.source} and your own model both set the initial weights: leave one of them out")
        own = self.model.config or self._settings_of_parts(self.model)
        rows = [
            f"  model.{name}: {ours!r} in the config, {theirs!r} in the model"
            for name, ours, theirs in _differences(config.model, own)
        ]
        if rows:
            differing = "\n".join(rows)
            raise UserError(
                f"the config contradicts the model that you hand in:\n{differing}\nLeave these settings out, or give "
                "the model's: dataclasses.replace(config, model=model.config)"
            )
        return replace(config, model=own)

    def _settings_of_parts(self, model: SegViT) -> ModelConfig:
        """Return settings for a model of parts of its own, which has none.

        The log names the backbone's class, and crops have the model's size. A linear head decides the criterion.
        """
        head: Head = "linear" if isinstance(model.head, LinearHead) and self.criterion is None else "atm"
        return ModelConfig(backbone=model.parts["backbone"], image_size=model.image_size, head=head)

    def check_resumable(self, started_with: list[str]) -> None:
        """Refuse to resume a run without the parts that it was started with.

        Raises:
            UserError: other parts are handed in.
        """
        if started_with != self.names:
            were, are = (" and ".join(names) or "no part of its own" for names in (started_with, self.names))
            raise UserError(
                f"the run was started with {were} and would be resumed with {are}: hand the same parts to segvit.train"
            )

    def take_model(self, spec: DatasetSpec, config: TrainConfig) -> SegViT | None:
        """Return the model that is handed in, with the names of its classes and the protocol of the run.

        Raises:
            UserError: the dataset has other classes.
        """
        model = self.model
        if model is None:
            return None
        if model.num_classes != spec.num_classes or (model.spec and model.spec.classes != spec.classes):
            raise UserError(
                f"the model has {_classes(model)}, and the dataset {spec.name!r} has {spec.num_classes}: "
                f"{', '.join(spec.classes)}. Create the model with num_classes={spec.num_classes}, or give it the "
                "classes of the dataset: segvit.with_classes(model, spec)"
            )
        model.spec, model.protocol = model.spec or spec, config.eval
        model.extra.setdefault("starts_from", "a model that was handed in")
        return model


def _check_datasets(datasets: Mapping[str, Samples], config: DataConfig) -> None:
    """Refuse datasets that are incomplete, or that the config contradicts."""
    if sorted(datasets) != sorted(SPLITS):
        raise UserError(f"datasets holds {', '.join(datasets) or 'nothing'}: give a dataset for each of train and val")
    if named := [name for name in SAYS_WHICH_DATA if getattr(config, name) != getattr(DataConfig(), name)]:
        settings = ", ".join(f"data.{name} ({getattr(config, name)})" for name in named)
        raise UserError(f"the config sets {settings}, but you also pass datasets: leave one of them out")


def _differences(config: ModelConfig, own: ModelConfig) -> list[tuple[str, Any, Any]]:
    """List name, value in the config and value in the model of every setting that contradicts the model.

    A setting that the config leaves at its default contradicts nothing.
    """
    default = ModelConfig()
    rows = [(field.name, getattr(config, field.name), getattr(own, field.name)) for field in fields(ModelConfig)]
    return [row for row in rows if row[1] not in (row[2], getattr(default, row[0]))]


def _classes(model: SegViT) -> str:
    """Return the number of a model's classes, and their names if it knows them."""
    names = f": {', '.join(model.spec.classes)}" if model.spec else ""
    return f"{counted(model.num_classes, 'class')}{names}"

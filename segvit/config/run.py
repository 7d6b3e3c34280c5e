"""Settings of a training run, which hold all others, and the way from a YAML file to them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from segvit.config.augment import AugmentConfig, below_preset
from segvit.config.data import DataConfig
from segvit.config.learning import LossConfig, OptimConfig
from segvit.config.network import ModelConfig
from segvit.config.protocol import EvalConfig
from segvit.config_files import by_source, over_network, parse_settings, plain, read_yaml, take_paths, without_folders

PrecisionName = Literal["fp32", "bf16", "fp16"]
Parallel = Literal["data", "fsdp"]
Device = Literal["auto", "cpu", "cuda", "mps"]
LoggerName = Literal["tensorboard", "wandb", "mlflow", "comet_ml", "clearml", "aim", "dvclive", "swanlab", "trackio"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run: everything that `segvit train` needs."""

    init: str | None = None
    """Model to fine-tune: a model file or anything else that `segvit.load_model` takes. Network and weights come from
    it, and so do the classes whose names match the data. The model section then holds differences, such as the crop."""
    extend: str | None = None
    """Model to add classes to, named as for `init`. Classes of the data that it lacks learn as a group of their own.
    Everything else is frozen, so the scores of its own classes stay equal to the bit."""
    teacher: str | None = None
    """Model whose labels fill the ignored pixels of the training set, as far as the data have its classes: old classes
    are then not forgotten while new ones are learned. Named as for `init`, often the same. By default they stay
    ignored."""
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    steps: int = 160_000
    """Number of optimizer steps."""
    batch_size: int = 16
    """Images per step, summed over all processes and parts."""
    accumulate: int = 1
    """Split each batch into this many parts: less memory, same gradients."""
    parallel: Parallel = "data"
    """Way in which the processes of `torchrun` share the work. data: each holds the whole model. fsdp: they also share
    parameters, gradients and optimizer state."""
    seed: int = 0
    """Seed of the initial weights, the image order, the augmentation and the dropout."""
    precision: PrecisionName = "fp32"
    """Precision of the forward pass. fp32: full. bf16, fp16: mixed."""
    compile: bool = False
    """Compile the network (torch.compile). Compiling delays the first step and the first validation by a minute or more
    and pays off only in long runs; see docs/performance.md."""
    grad_checkpointing: bool = False
    """Store only each block's input in the backbone and recompute the rest in the backward pass: less memory, more
    time, same gradients."""
    ema_decay: float | None = None
    """Decay of a running average of the weights (EMA), such as 0.9999. The average is what is validated and saved; the
    decay is lower in the first steps. Default: no average."""
    early_stop: int | None = None
    """Stop after this many validations in a row without a better mIoU. Default: run all steps."""
    device: Device = "auto"
    """Device to train on. auto: cuda if there is one, then mps, then cpu."""
    eval_every: int = 5_000
    """Steps between validations. The last step always validates."""
    save_every: int = 1_000
    """Steps between checkpoints to resume from. The last step always saves."""
    keep_checkpoints: int = 2
    """Number of newest checkpoints to keep."""
    log_every: int = 50
    """Steps between printed lines. Every step is logged in metrics.jsonl."""
    loggers: tuple[LoggerName, ...] = ("tensorboard",)
    """Loggers of steps, validations and pictures, besides the files in the run's folder: tensorboard, wandb, mlflow,
    comet_ml, clearml, aim, dvclive, swanlab, trackio. --empty-loggers: none."""
    output: Path = Path("runs/*")
    """Folder of the run. A * stands for the name of the photo folder or the spec; -2, -3, ... are appended if that
    folder exists."""

    def __post_init__(self) -> None:
        take_paths(self)

    @property
    def source(self) -> str | None:
        """Model of segvit that the network comes from: that of `init` or of `extend`."""
        return self.init or self.extend

    @classmethod
    def load(
        cls, path: str | Path, overrides: Sequence[str] = (), *, network: ModelConfig | None = None
    ) -> "TrainConfig":
        """Read a YAML file over the defaults.

        Args:
            path: a YAML file, or the name of a shipped recipe such as `shapes/demo`.
            overrides: flags as on the command line, such as `["--optim.lr", "3e-4"]`.
            network: the config of the model `init`; it replaces the network in the file's model section.

        Raises:
            UserError: no such file, not a mapping, an unknown key (the nearest one is named) or a bad value.
        """
        content, layers = read_yaml(path, cls)
        content = below_preset(content, _typed(overrides, "--augment.preset"))
        if network is not None:
            content = over_network(content, plain(asdict(network)), replaces=not {"init", "extend"} & content.keys())
        return parse_settings(cls, by_source(content, layers, source=str(path)), overrides, source=str(path))

    @classmethod
    def from_dict(cls, content: dict[str, Any], overrides: Sequence[str] = (), *, source: str) -> "TrainConfig":
        """Build a config from plain values, as `to_dict` returns them, over the defaults.

        Args:
            content: some of the settings.
            overrides: flags as on the command line.
            source: name of the content in error texts.

        Raises:
            UserError: an unknown key or a bad value.
        """
        return parse_settings(cls, [(source, content)], overrides, source=source)

    def to_dict(self) -> dict[str, Any]:
        """Return every resolved setting as plain types for YAML and JSON."""
        settings: dict[str, Any] = plain(asdict(self))
        return settings

    def to_public_dict(self) -> dict[str, Any]:
        """Return `to_dict` without the folders in it, for a model's file, which may be published."""
        settings: dict[str, Any] = without_folders(asdict(self))
        return settings

    def save(self, path: Path) -> None:
        """Write every resolved setting as YAML. `load` of that file returns this config."""
        path.write_text(yaml.safe_dump(self.to_dict(), sort_keys=False), encoding="utf-8")


def _typed(flags: Sequence[str], name: str) -> str | None:
    """Return the value of a flag, typed as `--name value` or `--name=value`. None if it is not typed."""
    for place, flag in enumerate(flags):
        if flag.partition("=")[0] == name:
            return " ".join(flags[place + 1 : place + 2]) if flag == name else flag.partition("=")[2]
    return None

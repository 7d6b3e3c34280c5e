"""Every setting of a run, with its unit and its one default.

The dataclasses are frozen, keyword-only and free of torch, so that `segvit train --help` is instant.
A YAML file holds differences from these defaults. Flags of the same names override the file:

    segvit train --config configs/camvid/vit_tiny.yaml --data.root camvid --optim.lr 3e-4
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from segvit.config_files import by_source, over_network, parse_settings, plain, read_yaml, take_paths

PrecisionName = Literal["fp32", "bf16", "fp16"]
Parallel = Literal["data", "fsdp"]
PrecisionChoice = Literal["auto", "fp32", "bf16", "fp16"]
Device = Literal["auto", "cpu", "cuda", "mps"]
Structure = Literal["plain", "shrunk", "naive_shrunk"]
Downsampling = Literal["nearest_q", "nearest_qkv", "conv"]
Upsampling = Literal["tap", "paper"]
EvalMode = Literal["slide", "whole"]
Head = Literal["atm", "linear"]
Freeze = Literal["none", "backbone"]
BackboneSize = Literal["tiny", "small", "base", "large", "huge", "giant"]
LoggerName = Literal["tensorboard", "wandb", "mlflow"]

MULTI_SCALE = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
"""Scales of the paper's multi-scale test, which evaluates each of them mirrored as well."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network, without its classes, which the dataset names."""

    backbone: str = "vit_base_patch16_384"
    """Name of a plain ViT in timm."""
    structure: Structure = "plain"
    """plain: the ATM cascade on every token. shrunk: one block keeps a quarter of the tokens, and an up-sampling
    restores the grid. naive_shrunk: like shrunk without the up-sampling, with masks at half the resolution."""
    head: Head = "atm"
    """atm: attention to mask. linear: one linear layer on the normalised maps, trained by the cross entropy of each
    pixel; a baseline, and a probe of the backbone."""
    image_size: int = 512
    """Side of the training crop in pixels, which is also the default window. Inference takes any size."""
    pretrained: bool = False
    """Start from timm's weights of this backbone, downloaded from the Hub. Default: random weights."""
    pretrained_file: Path | None = None
    """Start from timm's weights in this file (.safetensors or .pth), without network access. Add their tag, such as
    .augreg_in21k, to `backbone`: it selects mean and std."""
    position_grid: Literal["pretrained", "crop"] | None = None
    """Grid of absolute positions. pretrained: that of timm's weights; each image gets them resized to its own grid.
    crop: that of the training crop, as in the paper's recipes. Default: pretrained if they start so, otherwise crop."""
    taps: tuple[int, ...] | None = None
    """Blocks (from 0) whose outputs feed the head, shallow first. Default: the paper's for 12 and 24 blocks. shrunk:
    the block before `shrink_at` and the last. naive_shrunk: the last."""
    shrink_at: int | None = None
    """Block (from 0) of a shrunk structure that keeps every second row and column of the tokens. Default: 6 of 12
    blocks, 8 of 24, otherwise a third of the depth."""
    downsampling: Downsampling = "nearest_q"
    """Source of the queries of that block. nearest_q: the kept tokens, with keys and values from all. nearest_qkv: the
    same, with keys and values from the kept tokens. conv: a convolution of stride 2, otherwise like nearest_q."""
    upsampling: Upsampling = "tap"
    """Up-sampling of shrunk. tap: the last map is interpolated, the tap before added. paper: by learned queries."""
    patch_size: int | None = None
    """Side of a patch in pixels. Default: the backbone's own."""
    embed_dim: int | None = None
    """Width of the backbone. Default: its own."""
    depth: int | None = None
    """Number of blocks. Default: the backbone's own."""
    num_heads: int | None = None
    """Attention heads of a block. Default: the backbone's own. If `embed_dim` is set, embed_dim / 64."""
    class_token: bool | None = None
    """Keep the class token. Default: the backbone's own setting. The paper's recipes set it to false."""
    drop_path: float = 0.0
    """Stochastic depth rate of the last block; it grows linearly from 0 at the first."""
    drop_path_branches: Literal["both", "mlp"] = "both"
    """Branches of a block that drop path drops: attention and MLP, or the MLP alone, as in the paper's recipes."""
    head_dim: int | None = None
    """Width d of the ATM head and of the up-sampling. Default: half the backbone's width."""
    head_num_heads: int | None = None
    """Attention heads of an ATM layer. Default: head_dim / 32."""
    head_num_layers: int = 3
    """Decoder layers of an ATM stage."""
    upsampling_num_layers: int = 3
    """Decoder layers of the up-sampling `paper` over each tap."""
    head_dropout: float = 0.1
    """Dropout rate of the ATM head, on branches and on attention weights."""
    init_std: float = 0.02
    """Standard deviation of the initial weights of Linear layers: the head's, and the backbone's if not pretrained."""
    mean: tuple[float, float, float] | None = None
    """Mean of R, G, B on the 0..1 scale. Default: the backbone's own."""
    std: tuple[float, float, float] | None = None
    """Standard deviation of R, G, B on the 0..1 scale. Default: the backbone's own."""

    def __post_init__(self) -> None:
        take_paths(self)

    @property
    def starts_pretrained(self) -> bool:
        """True if the backbone starts from timm's weights, from the Hub or a file."""
        return self.pretrained or self.pretrained_file is not None

    def without_weights(self) -> "ModelConfig":
        """Return the config without pretrained weights, for a network that gets weights of its own."""
        grid = self.position_grid or ("pretrained" if self.starts_pretrained else "crop")
        return replace(self, pretrained=False, pretrained_file=None, position_grid=grid)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Images and labels: their places, and the meaning of the labels."""

    spec: str | None = None
    """Name of a shipped dataset (shapes, camvid, ade20k, ...) or a YAML file that describes one."""
    root: Path | None = None
    """Folder of the dataset named by `spec`."""
    images: Path | None = None
    """Folder of images, if there is no spec."""
    labels: Path | None = None
    """Folder of label maps with the images' names, if there is no spec."""
    classes: tuple[str, ...] = ()
    """Class names in order, if there is no spec. Write `name=VALUE` if the mask values are not 0, 1, 2, ..."""
    ignore: tuple[int, ...] = (255,)
    """Raw label values to ignore, if there is no spec."""
    val_images: Path | None = None
    """Folder of validation images, if there is no spec. Default: a share of `images`."""
    val_labels: Path | None = None
    """Folder of validation label maps, if there is no spec."""
    val_fraction: float | None = None
    """Share of the training pairs held out for validation if there is no validation split. A hash of their names
    chooses them. Default: the share in the spec; without a spec 0.1."""
    train_split: str = "train"
    """Split of the spec to train on."""
    val_split: str = "val"
    """Split of the spec to validate on."""
    train_list: Path | None = None
    """Text file with one name per line, such as `street/0001`: train on these pairs only. Default: the split's own
    list, or every pair."""
    val_list: Path | None = None
    """Text file with one name per line: validate on these pairs only. Default: the split's own list, or every pair."""
    cache: Path | None = None
    """Folder in which to keep label maps decoded from .mat and JSON files, as PNG. It saves time from about forty
    polygons per image. Default: decode them each time."""
    skip_unreadable: int = 0
    """Number of images in a whole run that may be unreadable. In training other images replace them, a validation
    leaves them out, and all are listed. 0: stop at the first one."""
    cache_features: Path | None = None
    """Folder in which to keep the outputs of the frozen blocks for each crop, so that a step runs only what learns.
    Needs `optim.freeze` and `augment.views`. Default: run the frozen blocks in every step."""
    cache_features_gb: float = 20.0
    """Largest size of that folder in gigabytes. A run that would need more stops before its first step."""
    workers: int = 2
    """Processes that load and augment; in an evaluation, threads that read ahead. 0: do it in the main thread."""

    def __post_init__(self) -> None:
        take_paths(self)


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Training augmentation, in the order of its steps. The defaults are the paper's."""

    resize_long: int | None = 2048
    """Largest longer side in pixels: the image is resized to fit, keeping its ratio. No resizing if this and
    `resize_short` are None."""
    resize_short: int | None = None
    """Largest shorter side in pixels of the same resizing. Default: the crop, if `resize_long` is set."""
    scale: tuple[float, float] = (0.5, 2.0)
    """Range of the random factor on the resized size."""
    max_class_share: float = 0.75
    """Largest share of one class among the labelled pixels of a crop. A crop with more is drawn again, up to 10 times.
    1: accept any crop."""
    rare_class_probability: float = 0.0
    """Share of the crops that is forced to contain a class; rare classes are picked more often (1 / their pixels in the
    training set). The crop comes from a random image with that class. Label maps are counted once and the counts
    kept."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    brightness: float = 32.0
    """Largest shift of the brightness, on the scale 0..255."""
    contrast: float = 0.5
    """Range x of the contrast factor, drawn from 1 - x .. 1 + x."""
    saturation: float = 0.5
    """Range x of the saturation factor, drawn from 1 - x .. 1 + x."""
    hue: float = 18.0
    """Largest shift of the hue, on the scale 0..180."""
    views: int | None = None
    """Number of different crops of each image; epoch e shows number e modulo `views`. Default: a new crop in each
    epoch."""


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Coefficients of the criterion (docs/method.md section 4)."""

    class_coefficient: float = 1.0
    """Factor of the cross entropy over the queries."""
    focal_coefficient: float = 20.0
    """Factor of the focal loss of the masks."""
    dice_coefficient: float = 1.0
    """Factor of the dice loss of the masks."""
    no_object_weight: float = 0.1
    """Weight of "no object" in the cross entropy."""
    ignore_as_negative: bool = False
    """Count ignored pixels as negatives of every mask, as the paper's authors do. Default: leave them out."""
    class_weights: tuple[str, ...] = ()
    """Weights of the present classes in the cross entropy. Give NAME=WEIGHT for those that are not 1, or one number per
    class in order, or the word balanced. balanced: labelled pixels of the training set / (classes * pixels of the
    class)."""


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW with linear warm-up on top of polynomial decay (docs/method.md section 5)."""

    lr: float = 2e-5
    """Peak learning rate of the backbone."""
    head_lr_factor: float = 10.0
    """Factor on `lr` for the head."""
    weight_decay: float = 0.01
    """Decoupled weight decay. The backbone's LayerNorms are exempt."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of AdamW's first and second moments."""
    warmup_steps: int = 1500
    """Steps of linear warm-up."""
    warmup_factor: float = 1e-6
    """Factor on the learning rate at step 0 of the warm-up."""
    power: float = 1.0
    """Power of the polynomial decay. 1: linear."""
    clip_norm: float = 35.0
    """Largest L2 norm of the whole gradient; a longer one is scaled down."""
    layer_decay: float = 1.0
    """Factor d on the backbone's learning rate per block, counted from the head: lr * d for the last block, and
    lr * d^(blocks + 1) for the embeddings. 1: the same rate everywhere."""
    freeze: Freeze | int = "none"
    """Frozen layers, which keep their initial weights: none, backbone, or a number of blocks. A number freezes the
    embeddings and that many of the first blocks."""
    lora_rank: int = 0
    """Rank of the low-rank weights (LoRA) that learn in place of the backbone's, in its attention. Saved models have
    them merged. 0: all weights learn."""
    lora_alpha: float | None = None
    """Scale of the low-rank weights, which count alpha / rank times. Default: twice the rank."""


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """The test protocol (docs/method.md section 5)."""

    mode: EvalMode = "slide"
    """slide: overlapping windows whose scores are averaged. whole: the image in one piece."""
    window: int | None = None
    """Side of a window in pixels. Default: the model's image_size."""
    stride: int | None = None
    """Step between windows in pixels. Default: two thirds of the window."""
    resize_long: int | None = None
    """Largest longer side in pixels: the image is resized to fit before inference, keeping its ratio. Default: native
    size."""
    resize_short: int | None = None
    """Largest shorter side in pixels of the same resizing."""
    resize_short_min: int | None = None
    """Least shorter side in pixels at every scale, if `resize_short` alone is set. Default: no bound."""
    scales: tuple[float, ...] = (1.0,)
    """Factors on the resized size. With several, the softmax of the scores is averaged over them."""
    flip: bool = False
    """Evaluate each scale mirrored as well."""
    batch_size: int = 8
    """Number of windows that run through the model together."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run: everything that `segvit train` needs."""

    init: str | None = None
    """Model to fine-tune: a model file or anything else that `segvit.load_model` takes. Network and weights come from
    it, and so do the classes whose names match the data. The model section then holds differences, such as the crop."""
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
    """Loggers of steps, validations and pictures, besides the files in the run's folder: tensorboard, wandb, mlflow.
    --empty-loggers: none."""
    output: Path = Path("runs/train")
    """Folder of the run."""

    def __post_init__(self) -> None:
        take_paths(self)

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
        if network is not None:
            content = over_network(content, plain(asdict(network)), replaces="init" not in content)
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

    def save(self, path: Path) -> None:
        """Write every resolved setting as YAML. `load` of that file returns this config."""
        path.write_text(yaml.safe_dump(self.to_dict(), sort_keys=False), encoding="utf-8")

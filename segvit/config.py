"""Every setting of a run, with its unit and its one default.

The dataclasses are frozen, keyword-only and free of torch, so that `segvit train --help` is instant.
A YAML file holds differences from these defaults; flags of the same names override the file:

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
EvalMode = Literal["slide", "whole"]
Freeze = Literal["none", "backbone"]
LoggerName = Literal["tensorboard", "wandb", "mlflow"]

MULTI_SCALE = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
"""Scales of the paper's multi-scale test, in which each is looked at mirrored as well."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What the network is, but for its classes, which the dataset says."""

    backbone: str = "vit_base_patch16_384"
    """Name of a plain ViT of timm."""
    structure: Structure = "plain"
    """plain: the ATM cascade on every token. shrunk: a block keeps a quarter of the tokens, learned queries restore
    the grid for one ATM stage. naive_shrunk: the same without the queries, masks at half the resolution."""
    image_size: int = 512
    """Side of the training crop in pixels; sets the native grid of the position embedding. Inference takes any size."""
    pretrained: bool = False
    """Start from timm's weights of this backbone (fetched from the Hub); otherwise random."""
    pretrained_file: Path | None = None
    """Start from timm's weights in this file (.safetensors or .pth) instead, with no need of a network. Its tag, such
    as .augreg_in21k, belongs in `backbone`: mean and std go by it."""
    taps: tuple[int, ...] | None = None
    """Blocks (from 0) whose outputs feed the head, shallow first. Default: the paper's for 12 and 24 blocks; shrunk:
    the one before `shrink_at` and the last; naive_shrunk: the last."""
    shrink_at: int | None = None
    """Block (from 0) that keeps every second row and column of the tokens, where the structure is a shrunk one.
    Default: 6 of 12 blocks, 8 of 24, else a third of the depth."""
    downsampling: Downsampling = "nearest_q"
    """Where the queries of that block come from. nearest_q: the kept tokens, keys and values from all. nearest_qkv:
    all three from the kept tokens. conv: a convolution of stride 2, keys and values from all."""
    patch_size: int | None = None
    """Side of a patch in pixels. Default: the backbone's own."""
    embed_dim: int | None = None
    """Width of the backbone. Default: its own."""
    depth: int | None = None
    """Number of blocks. Default: the backbone's own."""
    num_heads: int | None = None
    """Attention heads of a block. Default: the backbone's own; with `embed_dim` set, embed_dim / 64."""
    class_token: bool | None = None
    """Keep the class token. Default: as the backbone has it. The paper's recipes say false."""
    drop_path: float = 0.0
    """Stochastic depth rate at the last block, growing linearly from 0 at the first."""
    head_dim: int | None = None
    """Width d of the ATM head and of the up-sampling. Default: half the backbone's width."""
    head_num_heads: int | None = None
    """Attention heads of an ATM layer. Default: head_dim / 32."""
    head_num_layers: int = 3
    """Decoder layers of an ATM stage."""
    upsampling_num_layers: int = 3
    """Decoder layers of the up-sampling over each tap, where the structure is shrunk."""
    head_dropout: float = 0.1
    """Dropout of the ATM head, on branches and on attention weights."""
    init_std: float = 0.02
    """Deviation of the initial weights of Linear layers: the head's, and the backbone's unless it is pretrained."""
    mean: tuple[float, float, float] | None = None
    """Mean of R, G, B on the 0..1 scale. Default: the backbone's own."""
    std: tuple[float, float, float] | None = None
    """Standard deviation of R, G, B on the 0..1 scale. Default: the backbone's own."""

    def __post_init__(self) -> None:
        take_paths(self)

    @property
    def starts_pretrained(self) -> bool:
        """Whether the backbone starts from timm's weights, wherever they lie."""
        return self.pretrained or self.pretrained_file is not None

    def without_weights(self) -> "ModelConfig":
        """The same network, to be filled with weights of its own: nothing is fetched for it."""
        return replace(self, pretrained=False, pretrained_file=None)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where images and labels lie, and what the labels mean."""

    spec: str | None = None
    """Name of a shipped dataset (shapes, camvid, ade20k, ...) or a YAML file that describes one."""
    root: Path | None = None
    """Folder of the dataset named by `spec`."""
    images: Path | None = None
    """Folder of images, when there is no spec."""
    labels: Path | None = None
    """Folder of label maps that bear the images' names, when there is no spec."""
    classes: tuple[str, ...] = ()
    """Class names in order, when there is no spec; `name=VALUE` where the value in the files is not the position."""
    ignore: tuple[int, ...] = (255,)
    """Raw label values that count for nothing, when there is no spec."""
    val_images: Path | None = None
    """Folder of validation images, when there is no spec. Default: a share of `images`."""
    val_labels: Path | None = None
    """Folder of validation label maps, when there is no spec."""
    val_fraction: float | None = None
    """Share of the training pairs kept for validation where there is no split for it, chosen by a hash of their names.
    Default: what the spec says; without a spec 0.1."""
    train_split: str = "train"
    """Split of the spec to train on."""
    val_split: str = "val"
    """Split of the spec to validate on."""
    train_list: Path | None = None
    """Text file with one name a line, such as `street/0001`: train on these pairs only. Default: the split's own list,
    or every pair."""
    val_list: Path | None = None
    """The same for validation."""
    cache: Path | None = None
    """Folder that keeps label maps decoded from .mat and JSON files, as PNG: worth it from some forty polygons an
    image on. Default: they are decoded each time."""
    skip_unreadable: int = 0
    """Images over a whole run that may be unreadable: while training others take their place, in a validation they
    count for nothing, and all are listed. 0: the first one is refused."""
    workers: int = 2
    """Processes that load and augment, and in an evaluation threads that read ahead; 0 does it in the main thread."""

    def __post_init__(self) -> None:
        take_paths(self)


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Training augmentation, in the order in which it is applied (paper's recipe by default)."""

    resize_long: int | None = 2048
    """Longer side in pixels that the image is fitted into, keeping the ratio. None with `resize_short` None: no fit."""
    resize_short: int | None = None
    """Shorter side in pixels of the same fit. Default: the crop (where `resize_long` is set)."""
    scale: tuple[float, float] = (0.5, 2.0)
    """Range of the random factor on top of the fitted size."""
    max_class_share: float = 0.75
    """A crop is drawn again (10 tries) while one class exceeds this share of its labelled pixels. 1: any crop."""
    rare_class_probability: float = 0.0
    """Probability that a crop must show a class drawn by inverse frequency (1 / its pixels in the training set), cut
    from a random image that shows it. The label maps are counted once, and the counts kept."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    brightness: float = 32.0
    """Largest shift of the brightness, of 255."""
    contrast: float = 0.5
    """Contrast factor is drawn from 1 - x .. 1 + x."""
    saturation: float = 0.5
    """Saturation factor is drawn from 1 - x .. 1 + x."""
    hue: float = 18.0
    """Largest shift of the hue, of 180."""


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
    """Count ignored pixels as negatives of every mask, as the paper's authors do; else they are left out."""
    class_weights: tuple[str, ...] = ()
    """Weights of the classes in the cross entropy where they are present: NAME=WEIGHT for those that are not 1; or a
    number for each class, in order; or the word balanced: all labelled pixels of the training set over classes times
    pixels of the class."""


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW with linear warm-up over polynomial decay (docs/method.md section 5)."""

    lr: float = 2e-5
    """Peak learning rate of the backbone."""
    head_lr_factor: float = 10.0
    """The head learns at lr times this."""
    weight_decay: float = 0.01
    """Decoupled weight decay; the backbone's LayerNorms are exempt."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of AdamW's first and second moments."""
    warmup_steps: int = 1500
    """Steps of linear warm-up."""
    warmup_factor: float = 1e-6
    """Learning-rate factor at step 0 of the warm-up."""
    power: float = 1.0
    """Power of the polynomial decay; 1 is linear."""
    clip_norm: float = 35.0
    """Largest L2 norm of the whole gradient."""
    layer_decay: float = 1.0
    """Factor on the backbone's rate for each block down from the head: the last block learns at lr times this, the
    embeddings at lr times its power of the number of blocks + 1. 1: all alike."""
    freeze: Freeze | int = "none"
    """What keeps the weights that it starts with: none; backbone; or the embeddings and so many of the first blocks."""


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """The test protocol (docs/method.md section 5)."""

    mode: EvalMode = "slide"
    """slide: overlapping windows, scores averaged; whole: the image in one piece."""
    window: int | None = None
    """Side of a window in pixels. Default: the model's image_size."""
    stride: int | None = None
    """Step between windows in pixels. Default: two thirds of the window."""
    resize_long: int | None = None
    """Longer side in pixels that the image is fitted into before inference, keeping the ratio. Default: native size."""
    resize_short: int | None = None
    """Shorter side in pixels of the same fit."""
    resize_short_min: int | None = None
    """Least shorter side in pixels, whatever the scale, where `resize_short` alone is set. Default: no bound."""
    scales: tuple[float, ...] = (1.0,)
    """Factors of that size at which the image is looked at; the softmax of the scores is averaged over several."""
    flip: bool = False
    """Look at each scale mirrored as well."""
    batch_size: int = 8
    """Windows that run through the model together."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run: everything that `segvit train` needs."""

    init: str | None = None
    """Model file of segvit (or what else `segvit.load_model` takes) to fine-tune: its network and weights, and of its
    classes those that bear the same names in the data. The model section then holds differences, such as the crop."""
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    steps: int = 160_000
    """Optimizer steps."""
    batch_size: int = 16
    """Images per step, over all processes and parts."""
    accumulate: int = 1
    """Parts that each process works its images of a step through in, one after the other: so many times less memory for
    activations, the same gradients."""
    parallel: Parallel = "data"
    """What the processes of `torchrun` share: data (each holds the whole model), or fsdp (parameters, gradients and the
    optimizer's state too)."""
    seed: int = 0
    """Seed of the initial weights, the order of images, their augmentation and dropout."""
    precision: PrecisionName = "fp32"
    """Precision of the forward pass: fp32, or mixed precision in bf16 or fp16."""
    compile: bool = False
    """Compile the network (torch.compile): the first step and the first validation wait a minute or more for it.
    docs/performance.md says where it pays."""
    grad_checkpointing: bool = False
    """Keep of each block of the backbone its input alone, and run the block again in the backward pass: less memory,
    more time, the same gradients."""
    ema_decay: float | None = None
    """Validate and write a running average of the weights that keeps this share of its old value at each step, such
    as 0.9999; less in the first steps. Default: the weights themselves."""
    early_stop: int | None = None
    """End the run after so many validations in a row without a better mIoU. Default: run all steps."""
    device: Device = "auto"
    """auto takes cuda, then mps, then cpu."""
    eval_every: int = 5_000
    """Steps between validations; the last step always validates."""
    save_every: int = 1_000
    """Steps between checkpoints to resume from; the last step always saves."""
    keep_checkpoints: int = 2
    """Newest checkpoints that are kept."""
    log_every: int = 50
    """Steps between lines of the log; every step goes to metrics.jsonl."""
    loggers: tuple[LoggerName, ...] = ("tensorboard",)
    """What takes every step, every validation and its pictures besides the files in the run's folder: tensorboard,
    wandb, mlflow; --empty-loggers for none."""
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
            network: with `init`, the config of that model, which the file's model section gives way to.

        Raises:
            UserError: no such file, not a mapping, an unknown key (the nearest one is named) or a bad value.
        """
        content, layers = read_yaml(path, cls)
        if network is not None:
            content = over_network(content, plain(asdict(network)), replaces="init" not in content)
        return parse_settings(cls, by_source(content, layers, source=str(path)), overrides, source=str(path))

    @classmethod
    def from_dict(cls, content: dict[str, Any], overrides: Sequence[str] = (), *, source: str) -> "TrainConfig":
        """Take plain values, as `to_dict` gives them, over the defaults.

        Args:
            content: some of the settings.
            overrides: flags as on the command line.
            source: what error texts call the content.

        Raises:
            UserError: an unknown key or a bad value.
        """
        return parse_settings(cls, [(source, content)], overrides, source=source)

    def to_dict(self) -> dict[str, Any]:
        """Every resolved setting as plain types, fit for YAML and JSON."""
        settings: dict[str, Any] = plain(asdict(self))
        return settings

    def save(self, path: Path) -> None:
        """Write every resolved setting as YAML; `load` of that file gives this config back."""
        path.write_text(yaml.safe_dump(self.to_dict(), sort_keys=False), encoding="utf-8")

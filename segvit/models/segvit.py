"""The whole model: uint8 images in, class and mask logits out; normalisation and padding are inside.

    model = segvit.create_model("vit_tiny_patch16_224", num_classes=11, image_size=256)
    labels = model.predict(images)          # (B, 3, H, W) uint8 or float in 0..1 -> (B, H, W)

Letters: B batch, K classes, H W image, S supervised outputs, p patch, h w token grid.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segvit.config import EvalConfig, ModelConfig, Structure
from segvit.data.spec import IGNORE_INDEX, DatasetSpec
from segvit.errors import UserError
from segvit.inference.label_map import label_map
from segvit.inference.network import Network
from segvit.models.atm import ATMHead
from segvit.models.backbone import create_backbone
from segvit.models.decoder import folding
from segvit.models.downsampling import STRIDE
from segvit.models.output import SegOutput
from segvit.models.scores import scores
from segvit.models.upsampling import QueryUpsampling
from segvit.weights.hub import push_model
from segvit.weights.model_file import save_model
from segvit.weights.timm_weights import licence_of, starts_from


class SegViT(nn.Module):
    """Semantic segmentation with a plain ViT and attention to mask.

    Args:
        config: what the network is.
        num_classes: K.
        spec: names and colours of the classes, carried along in the model's file.
        protocol: how images are cut for this model, in evaluation and prediction; carried along too.

    Attributes:
        mean, std: (3,) of R, G, B on the 0..1 scale; the backbone's own unless the config says otherwise.
        extra: what else stands in the model's file, in plain values, such as the metrics of its training; `save` writes
            it again.

    Raises:
        UserError: a number of classes out of 1..255 or not the spec's, a head that has no layer or does not divide into
            its heads, or what `create_model` refuses.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        config: ModelConfig,
        *,
        num_classes: int,
        spec: DatasetSpec | None = None,
        protocol: EvalConfig | None = None,
    ) -> None:
        super().__init__()
        if not 1 <= num_classes <= IGNORE_INDEX:
            raise UserError(f"num_classes {num_classes}: give 1 to {IGNORE_INDEX}; label {IGNORE_INDEX} means ignored")
        if spec is not None and spec.num_classes != num_classes:
            raise UserError(f"num_classes {num_classes}, but the spec {spec.name!r} names {spec.num_classes}")
        for name in ("head_num_layers", "upsampling_num_layers"):
            if getattr(config, name) < 1:
                raise UserError(f"model.{name} {getattr(config, name)}: give 1 or more")
        self.config = config
        self.num_classes = num_classes
        self.spec = spec
        self.protocol = protocol or EvalConfig()
        self.extra: dict[str, Any] = {}
        self.backbone, weights = create_backbone(config)
        if config.starts_pretrained:
            self.extra |= {"starts_from": starts_from(config, weights), "licence": licence_of(weights)}
        dim = config.head_dim or self.backbone.embed_dim // 2
        num_heads = config.head_num_heads or max(dim // 32, 1)
        if dim % num_heads:
            raise UserError(
                f"head width {dim} does not divide into {num_heads} heads: set model.head_num_heads to a divisor"
            )
        decoder: dict[str, Any] = {
            "dim": dim,
            "num_heads": num_heads,
            "dropout": config.head_dropout,
            "init_std": config.init_std,
        }
        num_taps = len(self.backbone.taps)
        shrunk = config.structure == "shrunk"
        self.upsampling = None
        if shrunk:
            self.upsampling = QueryUpsampling(
                in_dim=self.backbone.embed_dim,
                num_stages=num_taps,
                native_grid=self.backbone.native_grid,
                num_layers=config.upsampling_num_layers,
                **decoder,
            )
        self.head = ATMHead(
            in_dim=None if shrunk else self.backbone.embed_dim,
            num_stages=1 if shrunk else num_taps,
            num_classes=num_classes,
            num_layers=config.head_num_layers,
            every_layer=shrunk,
            **decoder,
        )
        self.register_buffer("mean", torch.tensor(config.mean or weights["mean"]))
        self.register_buffer("std", torch.tensor(config.std or weights["std"]))

    def forward(self, images: Tensor, deep: bool = True, canvas: tuple[int, int] | None = None) -> SegOutput:
        """Class and mask logits of images (B, 3, H, W) of any size, uint8 or float in 0..1.

        Args:
            images: R, G, B.
            deep: give every supervised output; else only the prediction (S = 1).
            canvas: (H, W) in pixels that smaller images are padded to, on the right and at the bottom, with what
                normalises to zero.

        Raises:
            UserError: another shape than (B, 3, H, W), or fewer than 2 x 2 patches in a shrunk structure.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise UserError(f"images of shape {tuple(images.shape)}: expected (B, 3, H, W)")
        image_size = (images.shape[2], images.shape[3])
        images = self.pad(self.normalise(images), canvas)
        features = self.backbone(images)
        if self.upsampling is not None:
            patch = self.backbone.patch_size
            features = [self.upsampling(features, (images.shape[2] // patch, images.shape[3] // patch))]
        class_logits, mask_logits = self.head(features, deep=deep)
        padded_size = (mask_logits.shape[3] * self.mask_cell, mask_logits.shape[4] * self.mask_cell)
        return SegOutput(class_logits, mask_logits, image_size, padded_size)

    @property
    def mask_cell(self) -> int:
        """Side in pixels of a cell of the masks' grid: a patch, or two where nothing restores a shrunk grid."""
        restored = self.upsampling is not None or self.backbone.shrink_at is None
        return self.backbone.patch_size if restored else STRIDE * self.backbone.patch_size

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 or float in 0..1 (B, 3, H, W) -> zero mean, unit deviation, in the dtype of the weights.

        Raises:
            UserError: another dtype.
        """
        if images.dtype != torch.uint8 and not images.is_floating_point():
            raise UserError(f"images are {images.dtype}: give torch.uint8, or floats in 0..1")
        dtype = self.head.class_tokens.dtype
        images = images.to(dtype) / 255 if images.dtype == torch.uint8 else images.to(dtype)
        return (images - self.mean[:, None, None]) / self.std[:, None, None]

    def pad(self, images: Tensor, canvas: tuple[int, int] | None = None) -> Tensor:
        """Zeros on the right and at the bottom up to a canvas and to whole patches: normalised images (B, 3, H, W)."""
        patch = self.backbone.patch_size
        height, width = images.shape[2], images.shape[3]
        if canvas is not None:
            images = F.pad(images, (0, max(canvas[1] - width, 0), 0, max(canvas[0] - height, 0)))
            height, width = images.shape[2], images.shape[3]
        # Not -height % patch: the grid of an exported graph would be a formula that takes minutes to work with.
        bottom, right = ((side + patch - 1) // patch * patch - side for side in (height, width))
        return F.pad(images, (0, right, 0, bottom))

    @torch.no_grad()
    def scores(self, images: Tensor) -> Tensor:
        """Semantic scores (B, K, H, W) of images (B, 3, H, W), in evaluation mode."""
        with evaluating(self):
            return scores(self(images, deep=False))

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        """Class of every pixel (B, H, W) int64 of images (B, 3, H, W), in evaluation mode."""
        with evaluating(self):
            return label_map(self(images, deep=False))

    def save(self, path: str | Path) -> None:
        """Write weights, config, class names and palette as one safetensors file; see `segvit.load_model`."""
        save_model(self, path)

    def push_to_hub(self, repo: str, *, private: bool = False, token: str | None = None) -> str:
        """Put the model into a repository of the Hugging Face Hub, with a card; `load_model(repo)` gives it back.

        Args:
            repo: `user/repo`; made where missing.
            private: of a repository that is made: for its owner only.
            token: that may write there. Default: the one that `hf auth login` keeps.

        Returns:
            The repository's address.

        Raises:
            UserError: the Hub cannot be reached or does not take it.
        """
        return push_model(self, repo, private=private, token=token)


def create_model(
    backbone: str,
    *,
    num_classes: int,
    structure: Structure | None = None,
    image_size: int | None = None,
    pretrained: bool | None = None,
    config: ModelConfig | None = None,
) -> SegViT:
    """A SegViT on a plain ViT of timm.

    Args:
        backbone: timm's name, such as `vit_base_patch16_384`.
        num_classes: K.
        structure: see `ModelConfig`.
        image_size: side of the training crop in pixels.
        pretrained: start the backbone from timm's weights.
        config: further settings, and those of the arguments before it that are not given.

    Raises:
        UserError: an unknown or hierarchical backbone, or settings that do not fit together.
    """
    given = {"structure": structure, "image_size": image_size, "pretrained": pretrained}
    changes: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    return SegViT(replace(config or ModelConfig(), backbone=backbone, **changes), num_classes=num_classes)


@contextmanager
def evaluating(model: Network) -> Iterator[None]:
    """Evaluation mode inside the block, in which the weights must not change; the former mode after it."""
    training = model.training
    model.train(False)
    try:
        with folding(model) if isinstance(model, nn.Module) else nullcontext():
            yield
    finally:
        model.train(training)

"""The whole model: uint8 images in, class and mask logits out; normalisation and padding are inside.

    model = segvit.create_model("vit_tiny_patch16_224", num_classes=11, image_size=256)
    model = segvit.SegViT(backbone, head, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), num_classes=11)
    labels = model.predict(images)          # (B, N, H, W) uint8 or float in 0..1 -> (B, H, W)

Letters: B batch, N bands (3 unless `model.bands` differs), K classes, Q queries, D width, H W image, S supervised
outputs, p patch, h w token grid.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segvit.config import EvalConfig, ModelConfig
from segvit.data.images import Source
from segvit.data.spec import IGNORE_INDEX, DatasetSpec
from segvit.errors import UserError
from segvit.inference.label_map import label_map
from segvit.inference.network import classes_of
from segvit.models.bands import check_images
from segvit.models.downsampling import QueryDownsampling
from segvit.models.modes import evaluating
from segvit.models.output import SegOutput
from segvit.models.scores import ADDED, scores
from segvit.models.upsampling import TapUpsampling
from segvit.prediction.photo import P, Photos, Prediction, label_photos
from segvit.utils.keywords import refuse_others
from segvit.weights.hub import push_model
from segvit.weights.model_file import save_model


class SegViT(nn.Module):
    """Semantic segmentation with a plain ViT and attention to mask, or with parts of your own.

    Examples:
        >>> import segvit
        >>> import torch
        >>> model = segvit.load_model("best.safetensors")
        >>> model.predict("photo.jpg").labels.shape  # of a photo: see `segvit.predict`
        (48, 64)
        >>> images = torch.zeros(2, 3, 48, 64, dtype=torch.uint8)
        >>> model.predict(images).shape  # of a batch: label maps
        torch.Size([2, 48, 64])
        >>> model(images).class_logits.shape  # (S, B, K, K + 1)
        torch.Size([2, 2, 2, 3])

    Args:
        backbone: normalised images to maps (B, D, h, w), shallow first; see `segvit.models.backbone.Backbone`.
        head: maps to class logits (S, B, Q, K + 1) and mask logits (S, B, Q, h, w); see `segvit.models.output.Head`.
        upsampling: maps and a grid of patches to maps at that grid, shallow first. None: the head reads the maps of the
            backbone.
        upscaler: mask logits, normalised images and the first map that the head reads to finer mask logits; see
            `segvit.models.detail.upscaler`. None: masks are those of the head.
        added: presence heads of classes that were added later, which follow those of `head`.
        mean: of each band (R, G, B) on the 0..1 scale, subtracted from every image.
        std: standard deviation of each band on the 0..1 scale, which every image is divided by.
        num_classes: K.
        image_size: side of the training crop in pixels, and of the windows at test.
        spec: names and colours of the classes; they are saved with the model.
        protocol: how images are cut for this model, in evaluation and prediction; it is saved with the model.
        config: settings that `create_model` made the parts of. None: they are your own.

    Attributes:
        extra: further plain values of the model's file, such as the metrics of its training; `save` writes them again.

    Raises:
        UserError: `num_classes` is not in 1..255, or not the spec's; or the up-sampling does not fit the down-sampling.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Module,
        upsampling: nn.Module | None = None,
        *,
        upscaler: nn.Module | None = None,
        added: Sequence[nn.Module] = (),
        mean: Sequence[float] | Tensor,
        std: Sequence[float] | Tensor,
        num_classes: int,
        image_size: int = ModelConfig.image_size,
        spec: DatasetSpec | None = None,
        protocol: EvalConfig | None = None,
        config: ModelConfig | None = None,
    ) -> None:
        super().__init__()
        check_classes(num_classes, spec)
        _check_lattice(backbone, upsampling)
        self.config = config
        self.num_classes = num_classes
        self.image_size = image_size
        self.spec = spec
        self.protocol = protocol or EvalConfig()
        self.extra: dict[str, Any] = {}
        self.backbone: Any = backbone
        self.upsampling: Any = upsampling
        self.head: Any = head
        self.upscaler: Any = upscaler
        self.added = nn.ModuleList(added)
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.as_tensor(std, dtype=torch.float32))

    def forward(self, images: Tensor, deep: bool = True, canvas: tuple[int, int] | None = None) -> SegOutput:
        """Return class and mask logits of images (B, N, H, W) of any size, uint8 or float in 0..1.

        Args:
            images: R, G, B, or the bands of the model.
            deep: compute every supervised output; else only the prediction (S = 1), as a model with added classes
                always does.
            canvas: (H, W) in pixels that smaller images are padded to, on the right and at the bottom, with what
                normalises to zero.

        Raises:
            UserError: another shape than (B, N, H, W), fewer than 2 x 2 patches in a shrunk structure, or a custom
                up-sampling that returns one tensor in place of a list.
        """
        check_images(images, self.bands)
        image_size = (images.shape[2], images.shape[3])
        images = self.pad(self.normalise(images), canvas)
        patch = self.backbone.patch_size
        grid = (images.shape[2] // patch, images.shape[3] // patch)
        return self.decode(self.backbone(images), grid, image_size, deep=deep, images=images)

    def decode(
        self,
        features: Sequence[Tensor],
        grid: tuple[int, int],
        image_size: tuple[int, int],
        deep: bool = True,
        images: Tensor | None = None,
    ) -> SegOutput:
        """Return class and mask logits from the maps of the backbone.

        Args:
            features: (B, D, h, w) of each tap, shallow first; `segvit.models.output.Maps` have edge logits too.
            grid: (h, w) of all patches of the padded images.
            image_size: (H, W) of the images in pixels, before padding.
            deep: compute every supervised output; else only the prediction (S = 1).
            images: (B, N, H, W), normalised and padded, which an upscaler reads.

        Raises:
            UserError: a custom up-sampling returns one tensor in place of a list.
        """
        maps: Any = features
        if self.upsampling is not None:
            maps = self.upsampling(features, grid)
            if isinstance(maps, Tensor):  # a loop over it would take its batch for maps
                raise UserError(
                    f"the up-sampling {self.parts['upsampling']} returned one tensor: return a list of maps "
                    "(B, d, h, w), shallow first; a single map too, as [map]"
                )
        height, width = maps[-1].shape[2:]
        padded_size = (height * self.map_cell, width * self.map_cell)
        class_logits, mask_logits, added_logits = self._decode_heads(maps, deep=deep)
        if self.upscaler is not None:
            mask_logits = self.upscaler(mask_logits, images, maps[0])
        edge_logits = getattr(features, "edge_logits", None)
        return SegOutput(
            class_logits, mask_logits, image_size, padded_size, edge_logits, added_logits, self._score_weights
        )

    @property
    def _score_weights(self) -> tuple[float, ...]:
        """Factors of the scores of the head and of each added one; () if no class was added."""
        head_was_added = self.config is not None and self.config.added_head
        if not self.added and not head_was_added:
            return ()
        return (ADDED if head_was_added else 1.0, *(ADDED for _ in self.added))

    def _decode_heads(self, maps: Sequence[Tensor], *, deep: bool) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Return class logits of the head, masks of all classes, and class logits of every added head.

        With added heads, they are those of the prediction (S = 1), since nothing supervises the heads together.
        """
        if not self.added:
            class_logits, mask_logits = self.head(maps, deep=deep)
            return class_logits, mask_logits, ()
        outputs = [head(maps, deep=False) for head in (self.head, *self.added)]
        (class_logits, *added), masks = zip(*outputs, strict=True)
        return class_logits, torch.cat(masks, dim=2), tuple(added)

    @property
    def parts(self) -> dict[str, str]:
        """Class names of backbone, up-sampling, head and upscaler, by attribute."""
        return {name: type(part).__name__ for name, part in self.named_children() if name != "added"}

    @property
    def classes(self) -> tuple[str, ...]:
        """Names (K,) of the classes; numbered ones if the model has no spec."""
        return classes_of(self)[0]

    @property
    def bands(self) -> int:
        """Number of bands of the images."""
        return len(self.mean)

    @property
    def map_cell(self) -> int:
        """Side in pixels of a cell of the head's maps: a patch, or two if nothing restores a shrunk grid."""
        cell: int = self.backbone.patch_size if self.upsampling is not None else self.backbone.map_cell
        return cell

    @property
    def mask_cell(self) -> float:
        """Side in pixels of a cell of the masks: of a map, or a part of it behind an upscaler."""
        return self.map_cell if self.upscaler is None else self.map_cell / self.upscaler.scale

    def normalise(self, images: Tensor) -> Tensor:
        """Bring uint8 or float in 0..1 (B, N, H, W) to zero mean and unit deviation, in the dtype of the weights.

        Raises:
            UserError: another dtype.
        """
        if images.dtype != torch.uint8 and not images.is_floating_point():
            raise UserError(f"images are {images.dtype}: give torch.uint8, or floats in 0..1")
        dtype = self.mean.dtype
        images = images.to(dtype) / 255 if images.dtype == torch.uint8 else images.to(dtype)
        return (images - self.mean[:, None, None]).div_(self.std[:, None, None])

    def pad(self, images: Tensor, canvas: tuple[int, int] | None = None) -> Tensor:
        """Pad normalised images (B, N, H, W) with zeros, right and bottom, to a canvas and to whole patches."""
        patch = self.backbone.patch_size
        height, width = images.shape[2], images.shape[3]
        wanted = (height, width) if canvas is None else (max(height, canvas[0]), max(width, canvas[1]))
        # Not -height % patch: the grid of an exported graph would be a formula that takes minutes to work with.
        bottom, right = (
            (side + patch - 1) // patch * patch - own for side, own in zip(wanted, (height, width), strict=True)
        )
        return F.pad(images, (0, right, 0, bottom))

    @torch.no_grad()
    def scores(self, images: Tensor) -> Tensor:
        """Return semantic scores (B, K, H, W) of images (B, N, H, W), in evaluation mode."""
        with evaluating(self):
            return scores(self(images, deep=False))

    @overload
    def predict(self, images: Tensor) -> Tensor: ...

    @overload
    def predict(self, images: Source, *, confidence: bool = False) -> Prediction: ...

    @overload
    def predict(self, images: Photos[P], *, confidence: bool = False) -> list[Prediction]: ...

    @torch.no_grad()
    def predict(
        self, images: Tensor | Source | Photos[P], *, confidence: bool = False, **others: Any
    ) -> Tensor | Prediction | list[Prediction]:
        """Return the class of every pixel.

        Args:
            images: a tensor (B, N, H, W), whose label maps (B, H, W) int64 are returned; or photos as in
                `segvit.predict`, whose results are returned.
            confidence: compute the confidence maps of photos too.
            others: refused; `segvit.predict` has more options.

        Raises:
            UserError: something that is neither, or an argument that does not exist.
        """
        refuse_others("model.predict", SegViT.predict, others)
        with evaluating(self):
            if isinstance(images, Tensor):
                if confidence:
                    raise UserError("confidence=True is for photos: type segvit.predict(model, image, confidence=True)")
                return label_map(self(images, deep=False))
            return label_photos(self, images, confidence=confidence)

    def train(self, mode: bool = True, **others: Any) -> Self:
        """Switch to training mode, or to evaluation mode, as every module of torch. `segvit.train` trains a model.

        Raises:
            UserError: arguments of a training.
        """
        if others or not isinstance(mode, bool):
            raise UserError(
                'model.train() only switches to training mode. To train, type segvit.train(images="photos", '
                'labels="masks", classes=["sky", "road"], steps=300); to start from a saved model, add '
                'init="best.safetensors"'
            )
        return super().train(mode)

    def save(self, path: str | Path) -> None:
        """Write weights, config, class names and palette as one safetensors file; see `segvit.load_model`."""
        save_model(self, path)

    def push_to_hub(self, repo: str, *, private: bool = False, token: str | None = None) -> str:
        """Upload the model to a repository of the Hugging Face Hub, with a card; `load_model(repo)` reads it.

        Args:
            repo: `user/repo`; created if missing.
            private: show a created repository to its owner only.
            token: access token with write permission. Default: the one that `hf auth login` stored.

        Returns:
            The repository's address.

        Raises:
            UserError: the Hub cannot be reached or does not accept the model.
        """
        return push_model(self, repo, private=private, token=token)


def check_classes(num_classes: int, spec: DatasetSpec | None) -> None:
    """Refuse a number of classes that labels cannot hold, or that is not the spec's.

    Raises:
        UserError: as above.
    """
    if not 1 <= num_classes <= IGNORE_INDEX:
        raise UserError(f"num_classes {num_classes}: give 1 to {IGNORE_INDEX}; label {IGNORE_INDEX} means ignored")
    if spec is not None and spec.num_classes != num_classes:
        raise UserError(f"num_classes {num_classes}, but the spec {spec.name!r} names {spec.num_classes}")


def _check_lattice(backbone: nn.Module, upsampling: nn.Module | None) -> None:
    """Refuse the up-sampling tap behind a down-sampling that may keep other patches than every second row and column.

    A down-sampling that restores the grid itself is no obstacle.

    Raises:
        UserError: as above.
    """
    downsampling = getattr(backbone, "downsampling", None)
    regular = isinstance(downsampling, QueryDownsampling | None) or hasattr(downsampling, "restore")
    if regular or not isinstance(upsampling, TapUpsampling):
        return
    raise UserError(
        "the up-sampling tap interpolates every second row and column, and the down-sampling "
        f"{type(downsampling).__name__} is your own: set model.upsampling to paper, or write an up-sampling of your own"
    )

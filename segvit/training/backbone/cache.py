"""The cache of a run: which features it may use, how large it gets, and batches that are filled from it.

    cache = open_cache(config, network, data, accelerator)
    loader = DataLoader(cache.over(crops), collate_fn=cache.collate, ...)
    features, labels, indices = cache.complete(batch)

The loader augments a crop that has no file, as without a cache. The main process then runs the frozen blocks on it and
writes the file. So an interrupted run reuses the stored crops. Each crop runs alone: its values depend on neither its
batch nor the process that met it first.

Letters: B images of this process, c side of the crop, L values of an image, N images of the training set.
"""

import hashlib
import json
import math
import shutil
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from segvit.config import TrainConfig
from segvit.data.dataset import SegmentationDataset
from segvit.data.sample import Samples
from segvit.data.sampling.crops import CropKey, Replaced, TrainingSamples, collate
from segvit.data.sampling.manifest import take_manifest
from segvit.data.shapes.scenes import ShapesDataset
from segvit.errors import UserError
from segvit.models.backbone import PlainViT
from segvit.training.backbone.features import FrozenStart
from segvit.training.backbone.store import REMEDY, FeatureStore
from segvit.training.start import RunData
from segvit.utils.files import whole_file, writing

FORMAT = 1
"""Version of the files; another one is another folder."""
GIGABYTE = 1e9


class CachedCrops(Dataset[Any]):
    """Crops by (index, draw): features from the store, or else the augmented image."""

    def __init__(self, crops: TrainingSamples, store: FeatureStore) -> None:
        self.crops = crops
        self.store = store

    def __len__(self) -> int:
        return len(self.crops)

    def __getitem__(self, key: tuple[int, int]) -> Any:
        """Return (features (L,) or image (3, c, c), labels (c, c), index, key to store under or None).

        Errors and replaced samples are as in `TrainingSamples`; the latter are not stored.
        """
        crop_key = self.crops.crop_key(*key)
        if found := self.store.read(crop_key):
            return (*found, crop_key.sample, None)
        drawn = self.crops[key]
        if isinstance(drawn, UserError):
            return drawn
        if isinstance(drawn, Replaced):
            return Replaced((*drawn.content, None), drawn.unreadable)
        return (*drawn, crop_key)


def _join(samples: list[Any]) -> tuple[list[Tensor], Tensor, Tensor, list[CropKey | None]]:
    """Join samples to a batch whose inputs are still features or images."""
    values, labels, indices, crop_keys = zip(*samples, strict=True)
    return list(values), torch.stack(labels), default_collate(list(indices)), list(crop_keys)


@dataclass(frozen=True, kw_only=True)
class FeatureCache:
    """Features of the frozen blocks, on disk."""

    network: FrozenStart
    store: FeatureStore
    accelerator: Accelerator
    max_crops: int
    """Largest number of crops that the run can store."""
    num_stored: int
    """Number of crops that are stored already."""

    collate = staticmethod(partial(collate, join=_join))

    def over(self, crops: TrainingSamples) -> CachedCrops:
        """Return crops that come from the store if they are in it."""
        return CachedCrops(crops, self.store)

    def complete(
        self, batch: tuple[list[Tensor], Tensor, Tensor, list[CropKey | None]]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run the frozen blocks on the images of a batch, store their features, and return the batch.

        Returns:
            Features (B, L) float16, labels (B, c, c), indices (B,).

        Raises:
            UserError: features cannot be stored.
        """
        values, labels, indices, crop_keys = batch
        for number, crop_key in enumerate(crop_keys):
            if values[number].ndim == 1:
                continue
            with self.accelerator.autocast():  # alone: other images of the batch must not change a bit of it
                image = values[number][None].to(self.accelerator.device)
                values[number] = self.network.features(image)[0].cpu()
            if crop_key is not None:
                self.store.write(crop_key, values[number], labels[number])
        return torch.stack(values), labels, indices

    def describe(self) -> str:
        """Return in one line what is kept and how much room it takes."""
        size = self.max_crops * self.store.file_bytes / GIGABYTE
        return (
            f"outputs of the {self.network.num_blocks} frozen blocks are kept in {self.store.folder}: at most "
            f"{self.max_crops:,} crops, {size:.2f} GB; {self.num_stored:,} are there"
        )


def open_cache(config: TrainConfig, network: FrozenStart, data: RunData, accelerator: Accelerator) -> FeatureCache:
    """Open the cache of a run in the folder `data.cache_features`, and check that it has room.

    Raises:
        UserError: the training set or a transform of your own cannot be recognised, or the cache would exceed its limit
            or the free disk space.
    """
    assert config.data.cache_features is not None and config.augment.views is not None
    if data.transform is not None:
        raise UserError(
            f"data.cache_features: {data.transform.name} does not say when its code changes, so features of its crops "
            "cannot be kept; leave one of the two out"
        )
    folder, crop = config.data.cache_features, config.model.image_size
    facts = facts_of(config, network, data.train)
    store = FeatureStore(folder / digest_of(facts)[:16], num_values=network.num_values, crop=crop)
    with writing(store.folder, REMEDY):
        store.folder.mkdir(parents=True, exist_ok=True)
        with whole_file(store.folder / "about.json", flush=False, ending=".json.partial") as aside:
            aside.write_text(json.dumps(facts, indent=1), encoding="utf-8")
    max_crops = config.augment.views * len(data.train)
    if config.augment.rare_class_probability > 0:  # a forced class has crops of its own
        max_crops += config.augment.views * int(data.census.shown.sum())
    max_crops = min(max_crops, config.steps * config.batch_size)
    num_stored = store.num_stored()
    _check_room(config, store, max_crops=max_crops, num_stored=num_stored)
    return FeatureCache(
        network=network, store=store, accelerator=accelerator, max_crops=max_crops, num_stored=num_stored
    )


def _check_room(config: TrainConfig, store: FeatureStore, *, max_crops: int, num_stored: int) -> None:
    """Refuse a cache that would exceed its limit or the free disk space.

    Raises:
        UserError: as above.
    """
    root, limit = store.folder.parent, config.data.cache_features_gb
    whole = max(max_crops, num_stored) * store.file_bytes / GIGABYTE
    others = {
        path: sum(file.stat().st_size for file in path.glob("*.features")) / GIGABYTE
        for path in sorted(root.iterdir())
        if path.is_dir() and path != store.folder
    }
    ways = (
        f"\n  fewer --augment.views ({config.augment.views})"
        f"\n  a smaller --model.image-size ({config.model.image_size})"
        "\n  no --data.cache-features"
    )
    total = whole + sum(others.values())
    if total > limit:
        rows = [f"\n  rm -r {path}  # of other settings, {size:.2f} GB" for path, size in others.items() if size > 0]
        raise UserError(
            f"data.cache_features: {max_crops:,} crops of {store.file_bytes / 1e6:.2f} MB take {whole:.2f} GB. {root} "
            f"may hold {limit:g} GB. Change one of these:\n  --data.cache-features-gb {math.ceil(total)}{ways}"
            f"{''.join(rows)}"
        )
    free = shutil.disk_usage(store.folder).free / GIGABYTE
    missing = max(max_crops - num_stored, 0) * store.file_bytes / GIGABYTE
    if missing > free:
        raise UserError(
            f"data.cache_features: {max_crops - num_stored:,} crops take {missing:.2f} GB more. The disk of {root} has "
            f"{free:.2f} GB left. Change one of these:\n  --data.cache-features FOLDER on another disk{ways}"
        )


def facts_of(config: TrainConfig, network: FrozenStart, samples: Samples) -> dict[str, Any]:
    """Return everything that features depend on, as plain values.

    Raises:
        UserError: the training set cannot be recognised.
    """
    backbone, model = network.model.backbone, network.model
    # Views and forced classes decide which crops are drawn, and not what one shows. The preset is in other settings.
    choosing = ("views", "rare_class_probability", "preset")
    augment = {name: value for name, value in asdict(config.augment).items() if name not in choosing}
    weights = {name: value for name, value in backbone.state_dict().items() if _is_frozen(name, network)}
    return {
        "format": FORMAT,
        "backbone": [repr(backbone), [getattr(block.attn, "num_heads", None) for block in backbone.blocks]],
        "blocks": [network.num_blocks, list(backbone.taps), backbone.shrink_at, list(backbone.native_grid)],
        "weights": _hash_of({**weights, "mean": model.mean, "std": model.std}),
        "precision": config.precision,
        "crop": config.model.image_size,
        "augment": augment,
        "seed": config.seed,
        "images": _images(samples),
    }


def _is_frozen(name: str, network: FrozenStart) -> bool:
    """True if a tensor of the backbone belongs to what runs before the features."""
    backbone: PlainViT = network.model.backbone
    layer = backbone.layer_of(name)
    return ((backbone.shrink_at or 0) + 1 if layer is None else layer) <= network.num_blocks


def _images(samples: Samples) -> str:
    """Hash names, sizes and times of the files of a training set, in order.

    Raises:
        UserError: the samples are neither files nor the scenes of segvit, or a subclass may read them otherwise.
    """
    if type(samples) not in (SegmentationDataset, ShapesDataset):
        raise UserError(
            f"data.cache_features: your own dataset {type(samples).__name__} does not say when its images change, so "
            "their features cannot be kept; leave data.cache_features out"
        )
    times = []
    if isinstance(samples, SegmentationDataset):
        times = [path.stat().st_mtime_ns for pair in samples.files for path in pair if path.exists()]
    return digest_of([take_manifest({"train": samples}), times])


def digest_of(facts: Any) -> str:
    """Return the SHA-256 of plain values as hexadecimal digits."""
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _hash_of(tensors: dict[str, Tensor]) -> str:
    """Hash tensors by name."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()

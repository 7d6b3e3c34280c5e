"""Settings of the data: images and labels."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from segvit.config_files import take_paths


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Images and labels: their places, and the meaning of the labels.

    Examples:
        >>> import segvit
        >>> data = segvit.DataConfig(images="photos", labels="masks", classes=("background=0", "person=1"))
        >>> segvit.open_dataset(data, "train").spec.classes
        ('background', 'person')
    """

    spec: str | None = None
    """Name of a shipped dataset (shapes, camvid, ade20k, ...) or a YAML file that describes one."""
    root: Path | None = None
    """Folder of the dataset named by `spec`."""
    images: Path | None = None
    """Folder of images, if there is no spec."""
    labels: Path | None = None
    """Folder of label maps with the images' names, or the files of a labelling tool, if there is no spec."""
    classes: tuple[str, ...] = ()
    """Class names in order, if there is no spec. Write `name=VALUE` if the mask values are not 0, 1, 2, ..., and
    `name=#RRGGBB` if masks are painted. Default: classes.txt or labelmap.txt beside the masks, else the mask values.
    Of a labelling tool's names, choose some; `name=CLASS` joins two, and `name=ignore` ignores one."""
    ignore: tuple[int, ...] = (255,)
    """Raw label values to ignore, if there is no spec."""
    bands: tuple[str, ...] = ()
    """Names of the image's bands in order, such as red green blue nir. Default: those in the spec, otherwise red, green
    and blue."""
    white: float | None = None
    """Value of white in images of more than 8 bits, such as 4095 for 12 bits in 16. Values above it are cut. It is kept
    in the model's file. Default: the one in the spec, otherwise the largest value of the depth."""
    statistics: Literal["backbone", "measured"] | None = None
    """Source of `model.mean` and `model.std` if they are not given. backbone: those of its pretraining. measured: up to
    1000 training images; refused beside `init`, whose model keeps its own. Default: measured if the images have other
    bands than red, green and blue."""
    val_images: Path | None = None
    """Folder of validation images, if there is no spec. Default: a share of `images`."""
    val_labels: Path | None = None
    """Folder of validation label maps, if there is no spec."""
    val_fraction: float | None = None
    """Share of the training pairs held out for validation if there is no validation split. A hash of their names
    chooses them. Default: the share in the spec; without a spec 0.1."""
    train_split: str = "train"
    """Split of the spec or of `hub` to train on."""
    val_split: str = "val"
    """Split of the spec or of `hub` to validate on. Default for `hub`: val, validation, valid, dev or test, the first
    that exists."""
    train_list: Path | None = None
    """Text file with one name per line, such as `street/0001`: train on these pairs only. Default: the split's own
    list, or every pair."""
    val_list: Path | None = None
    """Text file with one name per line: validate on these pairs only. Default: the split's own list, or every pair."""
    hub: str | None = None
    """Dataset of the Hugging Face Hub (`user/dataset`, `user/dataset@revision`), folder saved by `save_to_disk`, or
    folder of parquet files (docs/data.md)."""
    hub_subset: str | None = None
    """Subset of that dataset, if it has several."""
    shards: str | None = None
    """Tar shards in the form of WebDataset: folder, glob, URL or pattern such as `train-{000000..000009}.tar`."""
    val_shards: str | None = None
    """Tar shards to validate on. Default: those named val or test in the folder, else a share of the samples."""
    image_key: str | None = None
    """Column of the images in `hub`, or their endings in `shards`, such as `jpg`. Default: the only usual name."""
    labels_key: str | None = None
    """Column of the label maps in `hub`, or their endings in `shards`, such as `seg.png`. Default: the only usual
    name."""
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

    @property
    def is_packed(self) -> bool:
        """True if the samples are in tables or tar shards."""
        return self.hub is not None or self.shards is not None

    @property
    def is_given(self) -> bool:
        """True if a setting names the images."""
        return self.is_packed or self.spec is not None or self.images is not None

"""A dataset of which some files lack their partner: what is complete, and all that is not.

Training refuses such a dataset (`open_dataset`); the check looks at the rest and lists what is missing.
"""

from pathlib import Path
from typing import Literal, NamedTuple

from segvit.config import DataConfig
from segvit.data.cache import LabelCache
from segvit.data.dataset import Samples, SegmentationDataset, _find_pairs, open_dataset
from segvit.data.files import IMAGE_SUFFIXES, LABEL_SUFFIXES, MAT_SUFFIX, Pair, _find, _read_list
from segvit.data.formats import CocoLabels, MatLabels
from segvit.data.labels import LabelReader
from segvit.data.resolve import resolve_spec
from segvit.data.spec import Split
from segvit.errors import UserError


class Orphans(NamedTuple):
    """What lacks its partner."""

    images: tuple[str, ...] = ()
    """Images without labels: files, or names in a list."""
    labels: tuple[str, ...] = ()
    """Labels without an image."""
    error: str = ""
    """What `open_dataset` says of it."""

    def __bool__(self) -> bool:
        return bool(self.images or self.labels)


def open_incomplete(config: DataConfig, split: Literal["train", "val"]) -> tuple[Samples, Orphans]:
    """The complete pairs of a split, and what is left over.

    Raises:
        UserError: as `open_dataset` does, but for files without a partner where some pairs are complete.
    """
    try:
        return open_dataset(config, split), Orphans()
    except UserError as error:
        if config.spec is not None and config.root is None:
            raise
        spec = resolve_spec(config)
        reader = _TolerantReader(spec, cache=LabelCache(config.cache) if config.cache else None)
        try:
            pairs = _find_pairs(config, spec, split, reader)
        except UserError:
            raise error from None
        if not reader.orphans:
            raise
        return SegmentationDataset(spec, pairs, reader=reader), reader.orphans._replace(error=str(error))


class _TolerantReader(LabelReader):
    """Finds the complete pairs and remembers the others."""

    orphans = Orphans()

    def find(self, root: Path, split: Split, *, what: str, options: tuple[str, str]) -> list[Pair]:
        """The complete pairs of a split.

        Raises:
            UserError: there are none, or a folder or list cannot be read.
        """
        described = isinstance(self.spec.label_format, CocoLabels)
        images = _find(root, split.images, IMAGE_SUFFIXES, f"{what}: images ({options[0]})")
        if described:
            names = self._polygon_file(root / split.labels).names
            labels = dict.fromkeys(names, root / split.labels)
        else:
            suffixes = (MAT_SUFFIX,) if isinstance(self.spec.label_format, MatLabels) else LABEL_SUFFIXES
            labels = _find(root, split.labels, suffixes, f"{what}: label maps ({options[1]})")
        if split.list is not None:
            listed = _read_list(root / split.list, what)
            self.orphans = Orphans(
                images=tuple(f"{images.get(name, name)}" for name in listed if name not in labels),
                labels=tuple(f"{labels.get(name, name)}" for name in listed if name not in images),
            )
        else:
            listed = sorted(images.keys() | labels.keys())
            partial = split.labeled_only or described
            self.orphans = Orphans(
                images=() if partial else tuple(str(images[name]) for name in listed if name not in labels),
                labels=tuple(f"{labels[name]}{f': {name}' * described}" for name in listed if name not in images),
            )
        pairs = [Pair(name, images[name], labels[name]) for name in listed if name in images and name in labels]
        if not pairs:
            raise UserError(f"{what}: no image has a label map of its name")
        return pairs

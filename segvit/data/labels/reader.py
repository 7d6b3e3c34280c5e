"""The raw values of any label file: one reader per format of a spec (formats.py)."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from segvit.data.files import LABEL_SUFFIXES, MAT_SUFFIX, Orphans, Pair, find_pairs, read_labels
from segvit.data.formats import CocoLabels, ColorLabels, IndexLabels, MatLabels
from segvit.data.labels.cache import LabelCache
from segvit.data.labels.coco import PolygonFile
from segvit.data.labels.color import ColorTable
from segvit.data.labels.mat import read_mat
from segvit.data.spec import DatasetSpec, Split
from segvit.errors import UserError


class LabelReader:
    """Finds and reads the labels of one spec."""

    def __init__(self, spec: DatasetSpec, *, cache: LabelCache | None = None) -> None:
        """Set the format.

        Args:
            spec: whose labels to read.
            cache: where decoded label maps of .mat and JSON files are kept.
        """
        self.spec = spec
        self._cache = cache
        self._colors = ColorTable(spec, spec.label_format) if isinstance(spec.label_format, ColorLabels) else None
        self._polygons: dict[Path, PolygonFile] = {}

    def find(self, root: Path, split: Split, *, what: str, options: tuple[str, str]) -> tuple[list[Pair], Orphans]:
        """The complete pairs of a split, and what is left over; see `find_pairs`."""
        suffixes: Sequence[str] = LABEL_SUFFIXES
        described = None
        if isinstance(self.spec.label_format, MatLabels):
            suffixes = (MAT_SUFFIX,)
        elif isinstance(self.spec.label_format, CocoLabels):
            described = self._polygon_file(root / split.labels).names
        return find_pairs(root, split, what=what, options=options, suffixes=suffixes, described=described)

    def read(self, pair: Pair) -> npt.NDArray[Any]:
        """The raw values (H, W) of a pair's labels, of an integer type.

        Raises:
            UserError: the labels cannot be read; see the format's module.
        """
        label_format = self.spec.label_format
        match label_format:
            case IndexLabels():
                return read_labels(pair.labels)
            case ColorLabels():
                assert self._colors is not None
                return self._colors.read(pair.labels)
            case MatLabels(key=key):
                return self._kept(pair.labels, lambda: read_mat(pair.labels, key), settings=f"mat {key}")
            case CocoLabels(unlabeled=unlabeled, crowd=crowd):
                rest = self.spec.raw_of(unlabeled)
                ignored = self.spec.raw_of("ignore") if crowd == "ignore" else None
                return self._kept(
                    pair.labels,
                    lambda: self._polygon_file(pair.labels).paint(pair.name, unlabeled=rest, crowd=ignored),
                    item=pair.name,
                    settings=f"coco {rest} {ignored}",
                )

    def _kept(
        self, source: Path, decode: Callable[[], npt.NDArray[Any]], *, item: str = "", settings: str
    ) -> npt.NDArray[Any]:
        """What `decode` gives, through the cache where there is one."""
        if self._cache is None:
            return decode()
        return self._cache.get(source, decode, item=item, settings=settings)

    def _polygon_file(self, path: Path) -> PolygonFile:
        """The parsed file, read once.

        Raises:
            UserError: it cannot be read, or it uses a category that is neither a class nor ignored.
        """
        if path not in self._polygons:
            polygons = PolygonFile(path)
            if unknown := self.spec.unknown(polygons.categories_used):
                first = unknown[0]
                raise UserError(
                    f"{path}: category {first} ({polygons.categories.get(first, 'without a name')!r}, "
                    f"{polygons.categories_used[first]} annotations) is no class of {self.spec.name!r} and not ignored"
                    f"{f', nor are {len(unknown) - 1} others' if unknown[1:] else ''}; in the spec add "
                    f"`{{name: NAME, raw: {first}}}` to the classes, or drop it with `ignore` or `others: ignore`"
                )
            self._polygons[path] = polygons
        return self._polygons[path]

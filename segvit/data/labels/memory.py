"""Keep label files that were read before: parsed files in memory, decoded label maps in a folder.

Letters: H, W size of a label map.
"""

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import numpy.typing as npt

from segvit.data.labels.cache import LabelCache
from segvit.data.member import File

T = TypeVar("T")


class LabelMemory:
    """The label files of one dataset that were read before."""

    def __init__(self, cache: LabelCache | None = None) -> None:
        """Start empty.

        Args:
            cache: folder of decoded label maps. Default: label maps are decoded each time.
        """
        self._cache = cache
        self._made: dict[Hashable, Any] = {}

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what `make` returned for this key, and call it only the first time."""
        if key not in self._made:
            self._made[key] = make()
        made: T = self._made[key]
        return made

    def decoded(
        self, source: File, decode: Callable[[], npt.NDArray[Any]], *, item: str = "", settings: str = ""
    ) -> npt.NDArray[Any]:
        """Return the label map (H, W) that `decode` gives, through the cache if there is one: see `LabelCache.get`."""
        if self._cache is None:
            return decode()
        return self._cache.get(source, decode, item=item, settings=settings)

"""Compare learned queries with each other once for many images, not once for each.

    with cached_queries(model):
        for image in images:
            model(image)

The first layer of a decoder begins with a self-attention of its learned queries, in which no image has a part. Without
the block above it runs in every forward, and the results are the same to the bit.
"""

from collections.abc import Hashable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from segvit.models.decoder import Compared, DecoderStage


class QueryCache(nn.Module):
    """Comparisons of one decoder's learned queries, kept inside `cached_queries`."""

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[Hashable, Compared] | None = None

    def forward(self, stage: nn.Module, queries: Tensor, key: Hashable = None) -> Compared | None:
        """Return `stage.compare(queries)` from the cache, or None to let the stage do it.

        Args:
            stage: the decoder's first `DecoderStage`.
            queries: (1, n, d), in evaluation.
            key: what the queries depend on besides the weights.
        """
        # A compiled graph must not look at the cache: it would be compiled anew whenever the cache changes.
        if self.training or torch.compiler.is_compiling() or self.held is None:
            return None
        assert isinstance(stage, DecoderStage)
        kind = queries.device.type
        key = (key, torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind))
        if key not in self.held:
            self.held[key] = stage.compare(queries)
        return self.held[key]


@contextmanager
def cached_queries(model: nn.Module) -> Iterator[None]:
    """Keep inside the block what the decoders of a model make of their learned queries alone.

    The weights must not change inside the block; its end empties the caches. Blocks may be nested.
    """
    caches = [part for part in model.modules() if isinstance(part, QueryCache) and part.held is None]
    for cache in caches:
        cache.held = {}
    try:
        yield
    finally:
        for cache in caches:
            cache.held = None

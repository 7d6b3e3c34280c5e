"""Token merging: similar patches share one token from a block on (docs/merging.md)."""

"""From settings to a token merging, checked against the rest of the network (docs/merging.md)."""

from collections.abc import Sequence

from segvit.config import Structure
from segvit.errors import UserError
from segvit.models.merging.token_merging import TokenMerging

NO_COSINE = 2.0
"""Thresholds from here on are mistakes, such as percentages. From 1 on, none merge."""


def default_merge_at(depth: int) -> tuple[int, int]:
    """Return the blocks behind which windows and pairs merge: 1 and 5 of 12 blocks (ours, measured), as in depth."""
    first = depth // 12
    return first, max(5 * depth // 12, first + 1)


def resolve_merging(
    structure: Structure,
    taps: Sequence[int],
    depth: int,
    *,
    threshold: float | None = None,
    shares: tuple[float, float] | None = None,
    at: tuple[int, int] | None = None,
) -> TokenMerging | None:
    """Return the token merging of a backbone with `depth` blocks and these taps; None: nothing asks for one.

    Args:
        structure, taps: see `ModelConfig`.
        depth: number of blocks.
        threshold, shares, at: `ModelConfig.merge_threshold`, `merge_shares` and `merge_at`.

    Raises:
        UserError: a value is out of range, settings contradict each other, the structure shrinks, or the backbone lacks
            a block.
    """
    if threshold is None and shares is None:
        if at is not None:
            raise UserError(
                f"model.merge_at {_typed(at)} without a threshold has no effect: set model.merge_threshold to 0.88, or "
                "leave merge_at out"
            )
        return None
    if threshold is not None and shares is not None:
        raise UserError(
            f"model.merge_threshold {threshold:g} and model.merge_shares {_typed(shares)} both choose what merges: "
            "leave one of them out"
        )
    if threshold is not None and not 0 < threshold < NO_COSINE:
        raise UserError(f"model.merge_threshold {threshold:g}: give a cosine similarity between 0 and 1, such as 0.88")
    if shares is not None and not all(0 <= share <= 1 for share in shares):
        raise UserError(f"model.merge_shares {_typed(shares)}: give two shares between 0 and 1, such as 0.2 0.5")
    if structure != "plain":
        raise UserError(
            f"tokens cannot merge in model.structure {structure}, which keeps every second row and column of them: set "
            "model.structure to plain, or leave merge_threshold, merge_shares and merge_at out"
        )
    first, second = default_merge_at(depth) if at is None else at
    if not 0 <= first < second < taps[-1]:
        if taps[-1] < 2:
            raise UserError(
                f"tokens merge behind two blocks before the last tap, and this is block {taps[-1]}: leave "
                "model.merge_threshold, merge_shares and merge_at out"
            )
        raise UserError(
            f"model.merge_at {first} {second}: give two ascending blocks (from 0) before the last tap, block {taps[-1]}"
        )
    return TokenMerging(at=(first, second), threshold=threshold, shares=shares or (0.0, 0.0))


def _typed(values: Sequence[float]) -> str:
    """Return numbers in the form that a flag takes."""
    return " ".join(f"{value:g}" for value in values)

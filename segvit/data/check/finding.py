"""A fault in a dataset, as a check reports it."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong."""

    kind: str
    """Short name, such as `unknown-values`."""
    level: Literal["error", "warning"]
    text: str
    """The fault, what is needed, and the remedy."""
    count: int = 1
    """Number of files or classes concerned."""

"""Sums over the scans of a dataset, of bounded size: what check.py reports and findings.py judges."""

from collections import Counter
from dataclasses import dataclass, field

from segvit.data.palette import Color
from segvit.data.scan import Scan, Size
from segvit.data.spec import IGNORE_INDEX, DatasetSpec

NAMED = 20
"""Files that are kept by name for a value or a finding; the others are counted."""


@dataclass
class Named:
    """A count of files, the first of them by name."""

    count: int = 0
    names: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        """Count a file."""
        self.count += 1
        if len(self.names) < NAMED:
            self.names.append(name)


@dataclass
class Tally:
    """Sums over the scans."""

    spec: DatasetSpec
    pixels: Counter[int] = field(default_factory=Counter)
    """By raw value."""
    files: Counter[int] = field(default_factory=Counter)
    """Label maps that hold a raw value."""
    images: Counter[int] = field(default_factory=Counter)
    """Images that show a class, by its index."""
    unknown: dict[int, Named] = field(default_factory=dict)
    """Files by unknown value."""
    strange: Named = field(default_factory=Named)
    """Files with an unknown value."""
    uniform: list[str] = field(default_factory=list)
    """Files that show one class or none."""
    empty: Named = field(default_factory=Named)
    """Files that are wholly ignored."""
    mismatches: list[str] = field(default_factory=list)
    """What is said of pairs of unequal size."""
    unreadable: list[str] = field(default_factory=list)
    painted: list[str] = field(default_factory=list)
    """What is said of label files with colours in them."""
    colors: Counter[Color] = field(default_factory=Counter)
    """Pixels by colour, in those."""
    turned: Named = field(default_factory=Named)
    """Images that EXIF turns, whose label maps fit both ways."""
    sizes: Counter[Size] = field(default_factory=Counter)
    digests: dict[bytes, list[str]] = field(default_factory=dict)
    """Image files by the hash of their picture."""
    classes: list[bytes | None] = field(default_factory=list)
    """Indices of the classes that each scanned sample shows; None where it cannot be drawn."""
    turned_at: list[int] = field(default_factory=list)
    """Positions of the `turned` among the scanned."""

    def add(self, scan: Scan) -> None:
        """Count one sample."""
        fits = scan.size == scan.label_size
        self.unreadable.extend(() if scan.colors is not None else scan.unreadable)
        if scan.colors is not None:
            self.painted.append(scan.unreadable[-1])
            self.colors.update(scan.colors)
            self.unreadable.extend(scan.unreadable[:-1])  # what is said of the image
        if scan.size:
            self.sizes[scan.size] += 1
        if scan.mismatch:
            self.mismatches.append(scan.mismatch)
        if scan.digest:
            self.digests.setdefault(scan.digest, []).append(scan.image)
        if fits and scan.size and (scan.turned in (2, 3, 4) or (scan.turned != 1 and scan.size[0] == scan.size[1])):
            self.turned.add(scan.image)
            self.turned_at.append(len(self.classes))
        found = self._add_values(scan) if scan.pixels is not None else None
        self.classes.append(found if fits and scan.size else None)

    def _add_values(self, scan: Scan) -> bytes:
        """Count the values of a label map; the classes that it shows."""
        assert scan.pixels is not None
        self.pixels.update(scan.pixels)
        self.files.update(scan.pixels.keys())
        unknown = self.spec.unknown(scan.pixels)
        for value in unknown:
            self.unknown.setdefault(value, Named()).add(scan.where)
        if unknown:
            self.strange.add(scan.where)
        known = scan.pixels.keys() - set(unknown)
        classes = {self.spec.class_of(value) for value in known} - {IGNORE_INDEX}
        self.images.update(classes)
        if len(classes) + len(unknown) < 2:
            self.uniform.append(scan.where)
        if not classes and not unknown:
            self.empty.add(scan.where)
        return bytes(sorted(classes))

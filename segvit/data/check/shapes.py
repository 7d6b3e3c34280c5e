"""Check files of labelling tools: what is left out, and shapes that look like mistakes.

    findings = [*shape_findings({"train": samples})]

All findings are warnings. The label maps that the shapes become are checked as any others are.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from segvit.data.annotations.format import FileLabels, ShapeLabels, SharedLabels
from segvit.data.annotations.geometry import crosses_itself, is_tiny, outside_by
from segvit.data.annotations.shapes import Drawing, Rings
from segvit.data.annotations.summary import remark, spelled
from segvit.data.check.finding import Finding
from segvit.data.check.findings import SHOWN
from segvit.data.check.scan import Named
from segvit.data.dataset import Samples, SegmentationDataset
from segvit.data.images import read_size
from segvit.data.pairs import Orphans, first
from segvit.errors import UserError
from segvit.utils.text import counted

FAR = 1.0
"""Distance in pixels beyond the image up to which a shape is not reported. Tools write such points on the edge."""


@dataclass
class _Seen:
    """Counts over all drawings."""

    skipped: Counter[str] = field(default_factory=Counter)
    without_area: Named = field(default_factory=Named)
    """Images with shapes that are no areas."""
    outside: Named = field(default_factory=Named)
    tiny: Named = field(default_factory=Named)
    crossing: Named = field(default_factory=Named)
    names: Counter[str] = field(default_factory=Counter)
    renamed: list[str] = field(default_factory=list)
    """Names in the file and of the image, where they differ."""
    remarks: dict[Any, Counter[str]] = field(default_factory=dict)
    """Remarks on a file, by file."""
    on_files: Counter[str] = field(default_factory=Counter)
    """Remarks on the files of tools with one file per image."""

    def add(self, drawing: Drawing, size: tuple[int, int]) -> None:
        """Count the shapes of one image."""
        if drawing.skipped:
            self.skipped.update(drawing.skipped)
            self.without_area.add(drawing.where)
        for shape in drawing.shapes:
            where = f"{drawing.where}: {shape.kind} of {shape.name!r}"
            self.names[shape.name] += 1
            if outside_by(shape.area, size) > FAR:
                self.outside.add(where)
            if isinstance(shape.area, Rings) and any(map(crosses_itself, shape.area.rings)):
                self.crossing.add(where)
            elif is_tiny(shape.area):
                self.tiny.add(where)


def shape_findings(samples: Mapping[Any, Samples]) -> Iterator[Finding]:
    """Yield warnings about the shapes in the files of labelling tools. Other datasets have none."""
    seen = _Seen()
    for dataset in samples.values():
        if isinstance(dataset, SegmentationDataset) and isinstance(dataset.spec.label_format, ShapeLabels):
            _look(dataset, dataset.spec.label_format, seen)
            _remark(dataset, dataset.spec.label_format, seen)
    yield from _left_out(seen)
    for found, kind, text in (
        (seen.outside, "outside", f"shape with a part more than {FAR:g} pixel outside the image, which is cut off"),
        (seen.tiny, "tiny", "shape of less than one pixel, which may label nothing"),
        (seen.crossing, "self-crossing", "polygon with edges that cross; what it covers twice becomes a hole"),
    ):
        if found.count:
            yield _warning(kind, f"{remark(found.count, text)}: {first(found.names, SHOWN)}", found.count)
    by_folded: dict[str, list[str]] = {}
    for name in seen.names:
        by_folded.setdefault(name.strip().casefold(), []).append(name)
    alike = [sorted(names) for names in by_folded.values() if len(names) > 1]
    if alike:
        shown = first([" and ".join(map(repr, names)) for names in alike], SHOWN)
        text = f"class names differ by case or blanks only: {shown}; to join two, type NAME=OTHER in --data.classes"
        yield _warning("names-alike", text, len(alike))


def left_out(orphans: Orphans) -> Iterator[Finding]:
    """Yield warnings about images and labels without a partner that are left out."""
    for files, what in ((orphans.images, "image without labels"), (orphans.labels, "label without an image")):
        if files:
            yield _warning("left-out", f"{remark(len(files), what)} left out: {first(files, SHOWN)}", len(files))


def _look(dataset: SegmentationDataset, label_format: ShapeLabels, seen: _Seen) -> None:
    """Count the drawings of one split. Files that cannot be read are reported elsewhere."""
    for pair in dataset.pairs:
        try:
            drawing = label_format.drawing(pair, dataset.memory)
            seen.add(drawing, drawing.size or read_size(pair.image))
        except UserError:
            continue
        if isinstance(label_format, SharedLabels):
            index = label_format.indexed(pair.label_path, dataset.memory)
            seen.remarks[pair.labels] = index.summary.remarks
            name = index.lookup.match(pair.name)
            if name is not None and name != pair.name:
                seen.renamed.append(f"{name} -> {pair.name}")


def _remark(dataset: SegmentationDataset, label_format: ShapeLabels, seen: _Seen) -> None:
    """Keep the remarks on files of one image each, for the names seen so far: the last split has those of all."""
    if isinstance(label_format, FileLabels):
        seen.on_files |= label_format.remarks([pair.label_path for pair in dataset.pairs], seen.names)


def _left_out(seen: _Seen) -> Iterator[Finding]:
    """Report what is not painted, and names that differ."""
    if seen.skipped:
        count = seen.skipped.total()
        text = (
            f"{counted(count, 'shape')} of no area left out ({spelled(seen.skipped)}): {first(seen.without_area.names)}"
        )
        yield _warning("no-areas", text, count)
    for path, remarks in seen.remarks.items():
        for text, count in remarks.items():
            yield _warning("remark", f"{path}: {remark(count, text)}", count)
    for text, count in seen.on_files.items():
        yield _warning("remark", remark(count, text), count)
    if seen.renamed:
        shown = first(seen.renamed, SHOWN)
        text = f"{counted(len(seen.renamed), 'image')} in another folder than the labels give, matched by name: {shown}"
        yield _warning("renamed", text, len(seen.renamed))


def _warning(kind: str, text: str, count: int) -> Finding:
    return Finding(kind=kind, level="warning", text=text, count=count)

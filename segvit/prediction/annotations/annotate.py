"""Write the label maps in an output folder as the files of labelling tools.

    annotate(["labelme"], written, classes, folder=Path("seen"), tolerance=1.0, raw_ids=None)

The files come from the label maps on disk. So a prediction that was resumed, or shared by several processes, gives the
same files as one run. They are in the subfolder `annotations`.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segvit.data.images import open_picture
from segvit.errors import UserError
from segvit.prediction.annotations.annotated import Annotated, trace
from segvit.prediction.annotations.kinds import AnnotationFormat
from segvit.prediction.annotations.writers import write_annotations
from segvit.prediction.names import ANNOTATIONS, CONFIDENCE, FACTS, LABELS, named, read_facts


def annotate(
    kinds: Sequence[AnnotationFormat],
    label_maps: Sequence[Path],
    classes: Sequence[str],
    *,
    folder: Path,
    tolerance: float,
    raw_ids: Sequence[int] | None,
) -> list[Path]:
    """Write one set of annotation files per format, and return the file or folder of each.

    Args:
        kinds: formats.
        label_maps: label maps that `predict_files` has written below `folder`. Those of scenes are left out.
        classes: names (K,).
        folder: output folder.
        tolerance: see `simplified`.
        raw_ids: (K,) values of the classes in the label maps. None if they are class numbers.

    Raises:
        UserError: a label map that cannot be read, or a file that cannot be written.
    """
    ordered = sorted({path for path in label_maps if path.name.endswith(LABELS)})  # scenes have theirs
    return [
        write_annotations(kind, _read_all(ordered, classes, folder, tolerance, raw_ids), classes, folder / ANNOTATIONS)
        for kind in kinds
    ]


def check_stems(folder: Path, targets: Iterable[Path]) -> None:
    """Refuse images whose outputs would be among the annotation files.

    Args:
        folder: output folder.
        targets: paths of the outputs of each image, without suffix.

    Raises:
        UserError: there is such an image.
    """
    for target in targets:
        if ANNOTATIONS in target.relative_to(folder).parts[:-1][:1]:
            name = target.relative_to(folder)
            raise UserError(
                f"the results of {name} would be among the files of --write in {folder / ANNOTATIONS}: give the photos "
                f"in the folder {ANNOTATIONS} in a command of their own"
            )


def _read_all(
    label_maps: Sequence[Path],
    classes: Sequence[str],
    folder: Path,
    tolerance: float,
    raw_ids: Sequence[int] | None,
) -> Iterator[Annotated]:
    """Yield the regions of each label map."""
    for path in label_maps:
        target = path.with_name(path.name.removesuffix(LABELS))
        labels = _read(path).astype(np.int64)
        if raw_ids is not None:
            table = np.zeros(max(raw_ids) + 1, dtype=np.int64)
            table[list(raw_ids)] = np.arange(len(raw_ids))
            labels = table[labels]
        confidence = named(target, CONFIDENCE)
        yield trace(
            labels,
            classes,
            image=Path(read_facts(named(target, FACTS)).get("image", path)),
            stem=target.relative_to(folder).as_posix(),
            tolerance=tolerance,
            confidence=_read(confidence) / np.float32(255) if confidence.exists() else None,
        )


def _read(path: Path) -> npt.NDArray[Any]:
    """Return the pixels (H, W) of a picture that `predict_files` has written."""
    with open_picture(path, "a label map") as picture:
        return np.asarray(picture)

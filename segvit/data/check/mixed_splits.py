"""Notice two folders that hold several splits below them, such as `train` and `val`, and propose to keep them apart.

finding = mixed_splits(DataConfig(images="photos", labels="masks"))
"""

import shlex
from pathlib import Path

from segvit.config import DataConfig
from segvit.data.annotations.tools.class_masks import HELD_OUT, TRAINING
from segvit.data.check.finding import Finding
from segvit.data.pairs import WILDCARD


def mixed_splits(config: DataConfig) -> Finding | None:
    """Return a warning if the folder of the images has subfolders of several splits and all are used as one."""
    if config.images is None or config.labels is None or config.val_images is not None or config.train_list is not None:
        return None
    inside = _subfolders(config.images)
    train = next((inside[name] for name in TRAINING if name in inside), None)
    others = [inside[name] for name in HELD_OUT if name in inside]
    if train is None or not others:
        return None
    beside = _subfolders(config.labels)
    labels = [
        str(config.labels / beside[name.lower()]) if name.lower() in beside else f"{name.upper()}_LABELS"
        for name in (train, others[0])
    ]
    words = ["segvit", "check-data", str(config.images / train), labels[0]]
    words += ["--data.val-images", str(config.images / others[0]), "--data.val-labels", labels[1]]
    named = ", ".join(f"{name}/" for name in (train, *others))
    text = (
        f"{config.images} holds {named}, and all are used as one set, of which a share is held out at random; to "
        f"validate on {others[0]}/ and keep the others out of training, type `{shlex.join(words)}`"
    )
    if missing := [f"{name}/" for name in (train, others[0]) if name.lower() not in beside]:
        text += f" with the labels of {' and '.join(missing)} in files or folders of their own"
    return Finding(kind="mixed-splits", level="warning", text=text, count=len(others) + 1)


def _subfolders(folder: Path) -> dict[str, str]:
    """Return the names of the folders in a folder by their names in lower case. A glob has none."""
    if WILDCARD.search(folder.as_posix()) or not folder.is_dir():
        return {}
    return {child.name.lower(): child.name for child in folder.iterdir() if child.is_dir()}

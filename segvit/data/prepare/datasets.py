"""Unpack datasets that come as archives, so that their shipped spec finds the files: `segvit data prepare`.

    print(prepare_dataset("ade20k", Path("data")).text)

You download the archives from the dataset's home page, whose terms apply. This module finds them, unpacks them
(archives.py) and counts the pairs.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from segvit.config import DataConfig
from segvit.data.check.fixes import command
from segvit.data.dataset import open_incomplete
from segvit.data.pairs import first
from segvit.data.prepare.archives import Unpacked, unpack
from segvit.errors import UserError
from segvit.utils.progress import Progress
from segvit.utils.text import counted, suggest


class Archive(NamedTuple):
    """One archive to download."""

    name: str
    page: str
    """Page that offers the archive."""
    into: str = ""
    """Folder below the root to unpack into."""
    below: tuple[str, ...] = ()
    """Top folders of the archive to unpack. Empty unpacks all."""


class Recipe(NamedTuple):
    """The archives of a dataset, and the facts to check it by."""

    archives: tuple[Archive, ...]
    roots: tuple[str, ...]
    """Possible places of `data.root` below the target folder."""
    counts: tuple[int, int]
    """Official numbers of training and validation pairs."""
    note: str = ""


SPLITS: tuple[Literal["train", "val"], ...] = ("train", "val")
ENDINGS = (".tar.gz", ".tar", ".zip")
VOC_2010 = Archive("VOCtrainval_03-May-2010.tar", "http://host.robots.ox.ac.uk/pascal/VOC/voc2010/")
CONTEXT = Archive(
    "trainval.tar.gz", "https://cs.stanford.edu/~roozbeh/pascal-context/", into="VOCdevkit/VOC2010", below=("trainval",)
)
PASCAL_CONTEXT = Recipe(
    (VOC_2010, CONTEXT),
    ("VOCdevkit/VOC2010",),
    (4998, 5105),
    "papers count 4,996 and 5,104, because they leave out three images: see docs/data.md",
)
CITYSCAPES = "https://www.cityscapes-dataset.com/"
RECIPES = {
    "ade20k": Recipe(
        (Archive("ADEChallengeData2016.zip", "http://sceneparsing.csail.mit.edu/"),),
        ("ADEChallengeData2016",),
        (20_210, 2000),
    ),
    "coco_stuff_10k": Recipe(
        (Archive("cocostuff-10k-v1.1.zip", "https://github.com/nightrome/cocostuff10k"),),
        ("", "cocostuff-10k-v1.1"),
        (9000, 1000),
    ),
    "pascal_context_59": PASCAL_CONTEXT,
    "pascal_context_60": PASCAL_CONTEXT,
    "cityscapes": Recipe(
        (
            Archive("leftImg8bit_trainvaltest.zip", CITYSCAPES, below=("leftImg8bit",)),
            Archive("gtFine_trainvaltest.zip", CITYSCAPES, below=("gtFine",)),
        ),
        ("",),
        (2975, 500),
    ),
    "pascal_voc_2012": Recipe(
        (Archive("VOCtrainval_11-May-2012.tar", "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/"),),
        ("VOCdevkit/VOC2012",),
        (1464, 1449),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """The result of `prepare_dataset`."""

    unpacked: dict[str, Unpacked]
    """Results by the archive's name, without archives that are gone but whose files exist."""
    config: DataConfig
    """Settings that open the dataset."""
    pairs: dict[str, int]
    """Number of complete pairs by split."""
    problems: tuple[str, ...]
    """Differences from the spec."""
    text: str
    """Report of all this, with the command to run next."""

    @property
    def complete(self) -> bool:
        """True if the dataset matches its spec."""
        return not self.problems


def prepare_dataset(
    name: str, folder: Path, *, archives: Sequence[Path] = (), progress: Progress | None = None
) -> Prepared:
    """Unpack a dataset's archives and check the result.

    Args:
        name: name of a shipped spec.
        folder: target folder, which is also searched for archives.
        archives: archives in other places.
        progress: called after each file.

    Raises:
        UserError: the name is unknown, an archive is missing (the text says where to download it), or one is damaged or
            unsafe.
    """
    if name not in RECIPES:
        raise UserError(f"no archives are known for {name!r}{suggest(name, RECIPES)}; give {', '.join(RECIPES)}")
    recipe = RECIPES[name]
    found = _find_archives(recipe, folder, archives)
    missing = [archive for archive in recipe.archives if archive.name not in found]
    if missing and not _check(name, recipe, folder, {}).complete:
        raise UserError(_explain_missing(name, folder, missing))
    unpacked = {
        archive.name: unpack(found[archive.name], folder / archive.into, below=archive.below, progress=progress)
        for archive in recipe.archives
        if archive.name in found
    }
    return _check(name, recipe, folder, unpacked)


def _find_archives(recipe: Recipe, folder: Path, given: Sequence[Path]) -> dict[str, Path]:
    """Find the given archives by their official names, to which a browser may have added ` (1)`."""
    for path in given:
        if not path.is_file():
            raise UserError(f"--archive {path}: no such file")
    found: dict[str, Path] = {}
    used: set[Path] = set()
    for archive in recipe.archives:
        ending = next(ending for ending in ENDINGS if archive.name.endswith(ending))
        start = archive.name.removesuffix(ending)
        inside = (
            [folder / archive.name] if (folder / archive.name).is_file() else sorted(folder.glob(f"{start}*{ending}"))
        )
        fits = [path for path in given if path.name.startswith(start) and path.name.endswith(ending)] or inside
        if fits:
            found[archive.name] = fits[0]
            used.add(fits[0])
    strangers = [path for path in given if path not in used]
    missing = [archive.name for archive in recipe.archives if archive.name not in found]
    if len(strangers) == len(missing) == 1:
        found[missing[0]] = strangers[0]  # under another name
    elif strangers:
        names = ", ".join(archive.name for archive in recipe.archives)
        raise UserError(f"--archive {strangers[0]}: unknown name; rename it as on the home page: {names}")
    return found


def _explain_missing(name: str, folder: Path, missing: Sequence[Archive]) -> str:
    lines = "\n".join(f"  {archive.name} from {archive.page}" for archive in missing)
    return (
        f"{name}: {len(missing)} archives are missing in {folder}; download (you may need an account, and the "
        f"dataset's own terms apply)\n{lines}\nput them into {folder}, or give them as --archive FILE, and run the "
        "same command again"
    )


def _check(name: str, recipe: Recipe, folder: Path, unpacked: dict[str, Unpacked]) -> Prepared:
    """Open the dataset as training does, and count the pairs."""
    root = next((folder / root for root in reversed(recipe.roots) if (folder / root).is_dir()), folder)
    config = DataConfig(spec=name, root=root)
    lines = [
        f"{archive}: {counted(done.written, 'file')} unpacked" + f", {done.kept} existed already" * bool(done.kept)
        for archive, done in unpacked.items()
    ]
    pairs: dict[str, int] = {}
    problems: list[str] = []
    for split, official in zip(SPLITS, recipe.counts, strict=True):
        try:
            samples, orphans = open_incomplete(config, split)
        except UserError as error:
            problems.append(f"{split}: {error}")
            continue
        pairs[split] = len(samples)
        note = "" if len(samples) == official else f", which differs from the official {official:,}"
        lines.append(f"{split}: {counted(len(samples), 'pair', ',')}" + (note or " (the official number)"))
        if orphans:
            alone = [*orphans.images, *orphans.labels]
            problems.append(f"{split}: {counted(len(alone), 'file')} without a partner: {first(alone)}")
    lines += [f"note: {recipe.note}"] * bool(recipe.note)
    lines += [f"error: {problem}" for problem in problems]
    lines.append("Download the archives again, then run:" if problems else f"{name} is ready. Run:")
    verb = f"data prepare {name} --root {shlex.quote(str(folder))}"
    lines.append("  segvit " + verb if problems else "  " + command("check-data", config))
    return Prepared(unpacked=unpacked, config=config, pairs=pairs, problems=tuple(problems), text="\n".join(lines))

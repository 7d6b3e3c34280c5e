"""The commands `segvit check-data` and `segvit data prepare`.

Exit codes of both: 0 all is well, 1 an error in the data, 2 an error in the command.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from segvit.cli.flags import Given, bar, check_paths, with_folders, write_json
from segvit.config import DataConfig
from segvit.errors import UserError
from segvit.utils.files import writing

if TYPE_CHECKING:
    from segvit.data.check.report import Survey


def check_data(
    photos: Path | None = None,
    masks: Path | None = None,
    /,
    *,
    config: Path | None = None,
    data: Annotated[DataConfig, Parameter(name="data")] = DataConfig(),
    split: Literal["train", "val"] | None = None,
    sheet: Path | None = None,
    json: Path | None = None,
    given: Given = (),
) -> None:
    """Check a dataset before training: pairs, sizes, mask values and their classes, errors, the command to run next.

    Parameters
    ----------
    photos
        Folder of photos; the same as --data.images.
    masks
        Folder of masks with the photos' names, or the files of a labelling tool; the same as --data.labels.
    config
        YAML file to take the data section from. Flags override it.
    split
        Split to check. Default: both, and that no image is in both.
    sheet
        Write a picture of up to twelve samples with their labels drawn over them, rare classes first.
    json
        Write all findings to this JSON file.
    """
    from segvit.data.folder_spec import check_given

    if sheet is not None and sheet.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise UserError(f"--sheet {sheet}: give a file that ends in .png or .jpg")
    check_paths(files=(json, sheet))
    data = with_folders(data, photos, masks, verb="check-data", given=given)
    check_given(data)
    from segvit.data.check.class_names import name_classes

    named = name_classes(data)
    if named.found or named.text:
        print(named.found or named.text)  # the report has the warnings about files of labelling tools
    from rich import print as rich_print

    from segvit.data.check.report import check_splits

    with bar("checking") as progress:
        survey = check_splits(
            named.config,
            [split] if split else ["train", "val"],
            settings=config,
            typed=data if named.text else None,
            progress=progress,
        )
    rich_print(survey.table())
    for warning in survey.warnings:
        print(f"warning: {warning}")
    if json:
        write_json(json, survey.to_dict())
    if sheet:
        _write_sheet(survey, sheet)
    print(*survey.verdicts, sep="\n", flush=True)
    for error in survey.errors:
        print(f"error: {error}", file=sys.stderr, flush=True)
    print(survey.advice)
    if survey.errors:
        sys.exit(1)


def prepare(name: str, *, root: Path, archive: tuple[Path, ...] = ()) -> None:
    """Unpack a dataset's archives to where its shipped spec looks for the files, and check the result.

    If it was interrupted, run the same command again to resume.

    Parameters
    ----------
    name
        Shipped spec: ade20k, coco_stuff_10k, pascal_context_59, pascal_context_60, cityscapes, pascal_voc_2012.
    root
        Folder to unpack into; it is also searched for the archives.
    archive
        Archives in other folders.
    """
    from segvit.data.prepare.datasets import prepare_dataset

    with bar("unpacking") as progress:
        prepared = prepare_dataset(name, root, archives=archive, progress=progress)
    print(prepared.text)
    if not prepared.complete:
        sys.exit(1)


def _write_sheet(survey: "Survey", path: Path) -> None:
    """Draw the sheet; if that fails, print why and continue with the report."""
    from segvit.pictures.sample_sheet import contact_sheet_of

    try:
        picture = contact_sheet_of(survey.samples, survey.reports)
    except UserError as error:
        print(f"warning: {error}")
        return
    with writing(f"--sheet {path}", "give another file"):
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
    print(f"samples with their labels: {path}")

"""The verbs about data: `segvit check-data` and `segvit data prepare`.

Exit codes of both: 0 good, 1 something is wrong with the data, 2 something is wrong with what was typed.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from segvit.cli.flags import bar, check_paths, write_json
from segvit.config import DataConfig
from segvit.errors import UserError
from segvit.utils.files import writing

if TYPE_CHECKING:
    from segvit.data.check.report import Survey


def check_data(
    *,
    config: Path | None = None,
    data: Annotated[DataConfig, Parameter(name="data")] = DataConfig(),
    split: Literal["train", "val"] | None = None,
    sheet: Path | None = None,
    json: Path | None = None,
) -> None:
    """Look at a dataset before training: pairs, sizes, what each value becomes, what is wrong, what to type next.

    Parameters
    ----------
    config
        YAML file whose data section is meant; flags override it.
    split
        Which split. Default: both, and pictures that are in both.
    sheet
        Write a picture of up to twelve samples with their labels over them, rare classes first.
    json
        Write everything found to this file.
    """
    from rich import print as rich_print

    from segvit.data.check.report import check_splits

    if sheet is not None and sheet.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise UserError(f"--sheet {sheet}: give a file that ends in .png or .jpg")
    check_paths(files=(json, sheet))
    with bar("checking") as progress:
        survey = check_splits(data, [split] if split else ["train", "val"], settings=config, progress=progress)
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
    """Unpack a dataset's archives so that its shipped spec finds the files, and check what came out.

    It goes on where it was stopped: type the same again.

    Parameters
    ----------
    name
        Shipped spec: ade20k, coco_stuff_10k, pascal_context_59, pascal_context_60, cityscapes, pascal_voc_2012.
    root
        Folder to unpack into; archives are looked for in it too.
    archive
        Archives that lie elsewhere.
    """
    from segvit.data.prepare.datasets import prepare_dataset

    with bar("unpacking") as progress:
        prepared = prepare_dataset(name, root, archives=archive, progress=progress)
    print(prepared.text)
    if not prepared.complete:
        sys.exit(1)


def _write_sheet(survey: "Survey", path: Path) -> None:
    """Draw the sheet, or say why there is none: the report goes on."""
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

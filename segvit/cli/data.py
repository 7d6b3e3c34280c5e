"""The commands `segvit check-data` and `segvit data prepare`.

Exit codes of both: 0 all is well, 1 an error in the data, 2 an error in the command.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from segvit.cli.flags import FOLDER_SETTINGS, Given, bar, check_paths, with_folders, with_recipe, write_json
from segvit.cli.help.panels import SECTIONS
from segvit.config import AugmentConfig, DataConfig, TrainConfig
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
    augmented: Path | None = None,
    augment: Annotated[AugmentConfig, Parameter(name="augment", group=SECTIONS["augment"])] = AugmentConfig(),
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
        YAML file to take the data section from, and the settings of --augmented. Flags override it.
    split
        Split to check. Default: both, and that no image is in both.
    sheet
        Write a picture of up to twelve samples with their labels drawn over them, rare classes first.
    augmented
        Write a picture of the first twelve crops that `segvit train` would draw, with their labels over them. Without
        --config, the crop and the augmentation are those that `segvit train` chooses; --augment flags override them.
    json
        Write all findings to this JSON file.
    """
    from segvit.data.folder_spec import check_given

    for flag, file in {"--sheet": sheet, "--augmented": augmented}.items():
        if file is not None and file.suffix.lower() not in (".png", ".jpg", ".jpeg"):
            raise UserError(f"{flag} {file}: give a file that ends in .png or .jpg")
    if typed := [name for name in given if augmented is None and name.startswith("augment")]:
        raise UserError(
            f"--{typed[0].replace('_', '-')} has an effect on --augmented alone: give --augmented crops.png"
        )
    check_paths(files=(json, sheet, augmented))
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
    if augmented:
        training = TrainConfig(data=data, augment=augment)
        _write_crops(training, survey, augmented, config, given=(*given, *(FOLDER_SETTINGS if photos else ())))
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


def _write_crops(
    training: TrainConfig, survey: "Survey", path: Path, config: Path | None, *, given: Sequence[str]
) -> None:
    """Draw the first crops of a training run; if the data have errors, print why not and continue with the report.

    Args:
        training: holds the data and the augmentation.
        survey: findings of the check.
        path: file to write.
        config: file of the other settings. Default: those that `segvit train` chooses.
        given: names of the settings that flags give.
    """
    if survey.errors:
        print("warning: --augmented: fix the reported errors first")
        return
    from segvit.recipes.train import load_settings
    from segvit.training.run_folder.first_crops import augmented_sheet

    if config is None:
        training = with_recipe(training, given)
    else:
        training = replace(load_settings(config, {}), data=training.data, augment=training.augment)
    picture = augmented_sheet(training)
    with writing(f"--augmented {path}", "give another file"):
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
    print(f"crops of {training.model.image_size} px with their labels: {path}")

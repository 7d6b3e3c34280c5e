"""Find the spec of the dataset in the settings: one by name or file, or one made of two plain folders."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from segvit.config import DataConfig
from segvit.data.annotations.choose import spec_of
from segvit.data.annotations.recognise import Recognised, recognise
from segvit.data.bands.names import COLORS, check_bands
from segvit.data.labels.color import NEAREST, ColorLabels
from segvit.data.labels.format import FOLDERS, IGNORED, OTHERS
from segvit.data.labels.index import IndexLabels
from segvit.data.lists import read_list
from segvit.data.packed.packed import check_packed
from segvit.data.pairs import Place, Split, folder_of
from segvit.data.palette import Color, default_palette
from segvit.data.spec import DEFAULT_IGNORE, DatasetSpec, default_ignore, load_spec
from segvit.errors import UserError
from segvit.utils.files import check_writable

Role = Literal["train", "val"]

ANY = ("any",)
"""Class that stands for those of two folders, where only the folders matter."""
DEFAULT_FRACTION = 0.1
"""Default share of two plain folders that is held out for validation."""
COLOR_CLASS = re.compile(r"(?P<name>.+)=#(?P<code>[0-9a-fA-F]{6})")
"""A class of painted masks, such as `sky=#87ceeb`."""


def resolve_spec(config: DataConfig) -> DatasetSpec:
    """Return the spec of `data.spec`, or of the two folders in `config`.

    `data.bands` and `data.white` replace those of the spec.

    Raises:
        UserError: neither or both are given, or a setting of one is combined with the other.
    """
    spec = _named_spec(config)
    return replace(spec, bands=config.bands or spec.bands, white=spec.white if config.white is None else config.white)


def resolve_white(config: DataConfig) -> float | None:
    """Return the value of white that the settings or their spec give. A dataset that is handed in has no settings."""
    known = config.spec is not None or config.images is not None
    return resolve_spec(config).white if known else config.white


def with_bands(spec: DatasetSpec, bands: int | None, *, source: str = "model.bands") -> DatasetSpec:
    """Return a spec for images of `model.bands` bands, which get numbers if the spec does not name them.

    `source` is where the number comes from, in error texts: see `check_bands`.

    Raises:
        UserError: the spec names another number of bands, or there is no band.
    """
    if bands is None or bands == (len(spec.bands) or COLORS):
        return spec
    check_bands(bands, spec.bands, source=source)
    return replace(spec, bands=tuple(f"band {number}" for number in range(1, bands + 1)))


def _named_spec(config: DataConfig) -> DatasetSpec:
    """Return the spec of `data.spec`, or of the two folders in `config`, without the settings of bands and white.

    Raises:
        UserError: neither or both are given, or a setting of one is combined with the other.
    """
    folders = {key: getattr(config, key) for key in ("images", "labels", "val_images", "val_labels")}
    given = [key for key, value in folders.items() if value is not None]
    _check_packed_settings(config)
    if config.spec is None:
        if config.is_packed:
            return _spec_of_classes(config, {}, "data.hub and data.shards need")
        if not given:
            raise UserError(
                "no dataset given; give `--data.spec NAME --data.root FOLDER` for a known one, or "
                "`--data.images FOLDER --data.labels FOLDER --data.classes NAME ...` for two folders of your own"
            )
        if config.root is not None:
            raise UserError("data.root works only with data.spec; for two folders, give their full paths instead")
        return folder_spec(config)
    if config.classes:
        given.append("classes")
    if tuple(config.ignore) != DEFAULT_IGNORE:
        given.append("ignore")
    if given:
        raise UserError(
            f"data.spec {config.spec!r} defines the folders and classes, but data.{given[0]} is given as well; "
            "drop one of them (or change a copy of the spec in a YAML file of your own)"
        )
    return load_spec(config.spec)


def folder_spec(config: DataConfig) -> DatasetSpec:
    """Return the spec of two plain folders, `config.images` and `config.labels`, with the classes of `config.classes`.

    A class is `name`, whose value in the files is its position, or `name=VALUE`. A class with the value 255 replaces
    the default `ignore`. Any other value that is both a class and ignored is an error. If the masks are painted, each
    class is `name=#RRGGBB`.
    Files of labelling tools are recognised, and name the classes themselves (annotations/choose.py).
    The spec has a split "val" only if `val_images` is given. Otherwise `open_dataset` holds out a share of the pairs.

    Raises:
        UserError: a folder or the classes are missing, a class is malformed, or values collide.
    """
    splits = {"train": _folder_split(config.images, config.labels, "images", "labels")}
    if found := recognised(config):
        given = () if config.classes == ANY else config.classes
        return spec_of(config, found, name=FOLDERS, given=given, fraction=DEFAULT_FRACTION)
    if config.val_images is not None or config.val_labels is not None:
        splits["val"] = _folder_split(config.val_images, config.val_labels, "val_images", "val_labels")
    return _spec_of_classes(config, splits, "two folders need")


def _spec_of_classes(config: DataConfig, splits: dict[str, Split], needs: str) -> DatasetSpec:
    """Return the spec of `data.classes`.

    Args:
        config: settings with the classes.
        splits: folders of the spec.
        needs: start of the error text for missing classes.
    """
    if not config.classes:
        raise UserError(
            f"{needs} class names, in the order of the values in the label files: give "
            "`--data.classes background --data.classes thing`, or `--data.classes thing=7` if the values are not "
            "0, 1, 2, ..."
        )
    given, others = _apart(config.classes)
    colors = _read_colors(given)
    names, raw_ids = [], []
    for position, text in enumerate(given):
        name, equals, value = text.rpartition("=")
        if colors:
            value = str(position)
        if equals and not (name and value.strip().isdecimal()):
            raise UserError(
                f"data.classes: {text!r} is not `name=VALUE` with a whole number, such as `thing=255`, "
                "or with a colour, such as `thing=#ff8000`"
            )
        names.append(name.strip() if equals else text)
        raw_ids.append(int(value) if equals else position)
    if others not in (None, NEAREST, IGNORED, *names):
        raise UserError(f"data.classes: '{OTHERS}={others}': write {OTHERS}={NEAREST}, {OTHERS}={IGNORED} or a class")
    untouched = tuple(config.ignore) == DEFAULT_IGNORE
    return DatasetSpec(
        name=FOLDERS,
        classes=tuple(names),
        palette=colors or default_palette(len(names)),
        raw_ids=tuple(raw_ids),
        ignore=default_ignore(raw_ids) if untouched else tuple(config.ignore),
        others=None if others == NEAREST else others,
        label_format=ColorLabels(others="nearest" if others == NEAREST else None) if colors else IndexLabels(),
        splits=splits,
        val_fraction=None if "val" in splits else DEFAULT_FRACTION,
    )


def recognised(config: DataConfig) -> list[Recognised]:
    """Return what the labels of the two folders and of the validation set are, if they are files of a labelling tool.

    Raises:
        UserError: a file has no known form, or only one of two label folders holds files of a tool.
    """
    places = [(config.images, config.labels), (config.val_images, config.val_labels)]
    pairs = [(images, labels) for images, labels in places if images is not None and labels is not None]
    found = [recognise(images, labels) for images, labels in pairs] if config.spec is None else []
    known = [each for each in found if each is not None]
    if known and len(known) < len(found):
        name = known[0].label_format.name
        raise UserError(f"only one of data.labels and data.val_labels holds files of {name}: export both in one form")
    return known


def place_of(config: DataConfig, spec: DatasetSpec, name: str, role: Role) -> Place:
    """Return the folders of the split `name` of a spec. The list for `role` in `config` overrides the split's own.

    Raises:
        UserError: there is no such split.
    """
    if name not in spec.splits:
        keep = "; to hold out a share of the training pairs, set data.val_fraction" if role == "val" else ""
        raise UserError(
            f"dataset {config.spec!r} has no split {name!r}, only {', '.join(spec.splits) or 'none'}; "
            f"set data.{role}_split, or add the split to the spec{keep}"
        )
    found = spec.splits[name]
    own_list = config.train_list if role == "train" else config.val_list
    if own_list is not None:
        found = replace(found, list=str(own_list.absolute()))
    if config.spec is None:
        prefix = "val_" if name == "val" else ""
        return Place(Path(), found, "your folders", (f"data.{prefix}images", f"data.{prefix}labels"))
    assert config.root is not None
    options = (f"`images` of split {name}", f"`labels` of split {name}")
    return Place(config.root, found, f"dataset {spec.name!r}, split {name!r}", options)


def check_given(config: DataConfig) -> DatasetSpec:
    """Return the spec of a dataset whose two folders may lack the names of their classes.

    Raises:
        UserError: no dataset or a contradictory one is given.
    """
    nameless = config.labels is not None or (config.is_packed and config.spec is None)
    return resolve_spec(replace(config, classes=config.classes or ANY) if nameless else config)


def check_places(config: DataConfig, splits: Sequence[Role] = ("train", "val")) -> None:
    """Refuse a dataset whose folders or lists are missing, without opening it.

    Args:
        config: the dataset.
        splits: the splits that are used.

    Raises:
        UserError: no dataset or a contradictory one is given, a folder or list is missing, or the cache cannot be
            written.
    """
    spec = check_given(config)
    if config.is_packed:
        check_packed(config, spec.label_format)
    elif config.spec is not None and config.root is None:
        return  # scenes that are drawn, or an error of `open_dataset`
    else:
        _check_folders(config, spec, splits)
    if config.cache is not None:
        check_cache(spec)
        check_writable(config.cache, folder=True, remedy="give another --data.cache")


def _check_folders(config: DataConfig, spec: DatasetSpec, splits: Sequence[Role]) -> None:
    """Refuse folders and lists that are missing."""
    names = {"train": config.train_split, "val": config.val_split} if config.spec else {"train": "train", "val": "val"}
    for role in splits:
        name = names[role] if names[role] in spec.splits else names["train"]  # a share of it is held out
        if name in spec.splits:
            _check_place(place_of(config, spec, name, role), pictures=isinstance(spec.label_format, IndexLabels))
    for file, what in ((config.train_list, "data.train_list"), (config.val_list, "data.val_list")):
        if file is not None:
            read_list(file, what)


def _check_packed_settings(config: DataConfig) -> None:
    """Refuse settings of packed datasets and settings of folders that contradict each other."""
    own = {key: getattr(config, key) for key in ("hub_subset", "val_shards", "image_key", "labels_key")}
    set_own = [key for key, value in own.items() if value is not None]
    if not config.is_packed:
        if set_own:
            raise UserError(f"data.{set_own[0]} works only with data.hub or data.shards; give one of them, or drop it")
        return
    other = ("images", "labels", "val_images", "val_labels", "root", "train_list", "val_list")
    packed = "hub" if config.hub is not None else "shards"
    wrong = [key for key in other if getattr(config, key) is not None]
    if packed == "hub":
        wrong += [key for key in ("shards", "val_shards") if getattr(config, key) is not None]
    elif config.hub_subset is not None:
        wrong.append("hub_subset")
    if wrong:
        raise UserError(f"data.{packed} names the dataset, but data.{wrong[0]} is given as well; drop one of them")
    if config.val_shards is not None and config.val_fraction is not None:
        raise UserError(
            f"data.val_fraction is {config.val_fraction}, but data.val_shards is the validation set; drop one of them"
        )


def check_cache(spec: DatasetSpec) -> None:
    """Refuse a cache of label maps that are pictures already.

    Raises:
        UserError: they are.
    """
    if not spec.label_format.slow_to_decode:
        raise UserError("data.cache is for label maps in .mat and JSON files; these are images already: leave it out")


def _check_place(place: Place, *, pictures: bool) -> None:
    """Refuse missing folders and a missing list of names. `pictures` is False if labels may be a single file."""
    root, split, what, options = place
    folder_of(root, split.images, f"{what}: images ({options[0]})")
    if pictures or not (root / split.labels).is_file():
        folder_of(root, split.labels, f"{what}: label maps ({options[1]})")
    if split.list is not None:
        read_list(root / split.list, what)


def _apart(classes: tuple[str, ...]) -> tuple[tuple[str, ...], str | None]:
    """Return the classes of painted masks without `others=TARGET`, and the target. Other masks keep all their words."""
    given = tuple(text for text in classes if not text.startswith(f"{OTHERS}=") or COLOR_CLASS.fullmatch(text))
    if len(given) == len(classes) or not any(map(COLOR_CLASS.fullmatch, given)):
        return classes, None
    return given, next(text for text in classes if text not in given).partition("=")[2]


def _read_colors(classes: tuple[str, ...]) -> tuple[Color, ...]:
    """Return the colours of the classes if the first has one.

    Raises:
        UserError: some classes have a colour, and others have none.
    """
    matches = [COLOR_CLASS.fullmatch(text) for text in classes]
    if not any(matches):
        return ()
    if bare := [text for text, match in zip(classes, matches, strict=True) if match is None]:
        raise UserError(f"data.classes: {bare[0]!r} has no colour, but others have one: write `{bare[0]}=#RRGGBB`")
    codes = [bytes.fromhex(match["code"]) for match in matches if match]
    return tuple((code[0], code[1], code[2]) for code in codes)


def _folder_split(images: Path | None, labels: Path | None, images_key: str, labels_key: str) -> Split:
    """Return the split of two plain folders, both of which must be given."""
    if images is None or labels is None:
        missing, other = (images_key, labels_key) if images is None else (labels_key, images_key)
        raise UserError(f"data.{other} is given without data.{missing}; add `--data.{missing} FOLDER`")
    return Split(images=str(images), labels=str(labels))

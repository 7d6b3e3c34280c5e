"""Example photos that the page offers: from a folder, or from a run's validation set.

A model file names its dataset but not the dataset's folder. The run does: in config.yaml, beside best.safetensors. Its
relative paths start where the training was started: mostly a folder above the run, wherever the page is started.
"""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from PIL import Image

from segvit.app.limits import Limits
from segvit.app.messages import Setup
from segvit.app.photo import SUFFIXES, open_photo
from segvit.config import DataConfig, TrainConfig
from segvit.config_files import RUN_CONFIG
from segvit.data.dataset import Samples, open_dataset
from segvit.data.packed.ranges import is_url
from segvit.errors import UserError

COUNT = 6
"""Number of photos offered."""
JPEG_QUALITY = 92


def offer_examples(setup: Setup, folder: Path, limits: Limits) -> tuple[list[Path], str]:
    """Write the examples into a folder, and return them with a note on their source, or on why there are none.

    Args:
        setup: names the folder to look in, or the models whose run is used.
        folder: to write to.
        limits: limits that the examples must also respect.

    Raises:
        UserError: the named folder holds no photos, or a photo in it cannot be read.
    """
    source = setup.examples
    if source is None:
        beside = Path(setup.models[0]).parent / RUN_CONFIG
        if not (setup.own_examples and Path(setup.models[0]).is_file() and beside.is_file()):
            return [], "no examples; to offer some, give a folder of photos with --examples"
        try:
            return _of_run(beside, folder)
        except UserError as error:
            return [], f"no examples from {beside} ({error}); give a folder of photos with --examples"
    if (source / RUN_CONFIG).is_file():
        return _of_run(source / RUN_CONFIG, folder)
    return _of_folder(source, folder, limits), f"examples: photos in {source}"


def _of_folder(source: Path, folder: Path, limits: Limits) -> list[Path]:
    """Write photos spread evenly over a folder."""
    if not source.is_dir():
        raise UserError(
            f"--examples {source}: no such folder; give a folder of photos, or of a run (with {RUN_CONFIG})"
        )
    photos = sorted(path for path in source.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    if not photos:
        raise UserError(
            f"--examples {source} holds no photo ({', '.join(SUFFIXES)}) and no {RUN_CONFIG} of a run; give another "
            "folder"
        )
    chosen = [photos[index] for index in _spread(len(photos))]
    return [
        _write(open_photo(path, name=str(path), limits=limits).image, folder / str(number), path.stem)
        for number, path in enumerate(chosen)
    ]


def _of_run(config: Path, folder: Path) -> tuple[list[Path], str]:
    """Write photos spread evenly over a run's validation set, and return them with a note on their source."""
    settings = TrainConfig.load(config)
    dataset, base = _open(replace(settings.data, cache=None, cache_features=None), config, settings.model.image_size)
    samples = [dataset.read(index) for index in _spread(len(dataset))]
    written = [
        _write(Image.fromarray(sample.image.permute(1, 2, 0).numpy()), folder / str(number), Path(sample.name).name)
        for number, sample in enumerate(samples)
    ]
    return written, f"examples: the validation set of {config}" + (f", whose paths start in {base}" if base else "")


def _open(data: DataConfig, config: Path, size: int) -> tuple[Samples, Path | None]:
    """Open a run's validation set, and return it with the folder in which its relative paths start, if it has any.

    Raises:
        UserError: the paths lead to no such set, neither from a folder above the run nor from the working folder.
    """
    first: UserError | None = None
    for base in (*config.absolute().parents, Path.cwd()):
        placed = _placed(data, base)
        try:
            return open_dataset(placed, "val", size=size), None if placed == data else base
        except UserError as error:
            if placed == data:
                raise
            first = first or error
    assert first is not None
    raise first


def _placed(data: DataConfig, base: Path) -> DataConfig:
    """Return the settings with relative paths starting in a folder."""
    placed: dict[str, Any] = {}
    for field in fields(data):
        value = getattr(data, field.name)
        if isinstance(value, Path) and not value.is_absolute():
            placed[field.name] = base / value
    if data.spec is not None and (base / data.spec).is_file():
        placed["spec"] = str(base / data.spec)
    if data.hub is not None and (base / data.hub).is_dir():
        placed["hub"] = str(base / data.hub)
    shards = {"shards": data.shards, "val_shards": data.val_shards}
    placed |= {name: str(base / value) for name, value in shards.items() if value is not None and not is_url(value)}
    return replace(data, **placed)


def _spread(count: int) -> list[int]:
    """Return up to COUNT numbers below `count`, evenly spaced."""
    number = min(count, COUNT)
    return [index * count // number for index in range(number)]


def _write(image: Image.Image, folder: Path, name: str) -> Path:
    """Write an example as JPEG, in its own folder, since two examples may have the same name."""
    folder.mkdir()
    path = folder / f"{name}.jpg"
    image.save(path, format="JPEG", quality=JPEG_QUALITY, subsampling=0)
    return path

"""Photos that the page offers to those who have none at hand: a folder's, or a run's validation set.

A model's file says its dataset, not where that lies; its run does: config.yaml, beside best.safetensors.
"""

from pathlib import Path

from PIL import Image

from segvit.app.limits import Limits
from segvit.app.messages import Setup
from segvit.app.photo import SUFFIXES, open_photo
from segvit.config import TrainConfig
from segvit.data.dataset import open_dataset
from segvit.errors import UserError

COUNT = 6
"""Photos that are offered."""
CONFIG = "config.yaml"
JPEG_QUALITY = 92


def offer_examples(setup: Setup, folder: Path, limits: Limits) -> tuple[list[Path], str]:
    """Write the examples into a folder, and say where they come from, or why there are none.

    Args:
        setup: which folder to look in, or which models' run.
        folder: to write to.
        limits: which the photos must keep as others do.

    Raises:
        UserError: a folder is named that holds none; or a photo in it cannot be read.
    """
    source = setup.examples
    if source is None:
        beside = Path(setup.models[0]).parent / CONFIG
        if not (setup.own_examples and Path(setup.models[0]).is_file() and beside.is_file()):
            return [], "no examples: name a folder of photos with --examples"
        try:
            return _of_run(beside, folder), f"examples: the validation set of {beside}"
        except UserError as error:
            return [], f"no examples from {beside} ({error}); name a folder of photos with --examples"
    if (source / CONFIG).is_file():
        return _of_run(source / CONFIG, folder), f"examples: the validation set of {source / CONFIG}"
    return _of_folder(source, folder, limits), f"examples: photos in {source}"


def _of_folder(source: Path, folder: Path, limits: Limits) -> list[Path]:
    """Some of the photos in a folder, spread over it."""
    if not source.is_dir():
        raise UserError(f"--examples {source}: no such folder; give one of photos, or of a run (with {CONFIG})")
    photos = sorted(path for path in source.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    if not photos:
        raise UserError(f"--examples {source} holds no photo ({', '.join(SUFFIXES)}) and no {CONFIG} of a run")
    chosen = [photos[index] for index in _spread(len(photos))]
    return [
        _write(open_photo(path, name=str(path), limits=limits).image, folder / str(number), path.stem)
        for number, path in enumerate(chosen)
    ]


def _of_run(config: Path, folder: Path) -> list[Path]:
    """Some of the photos that a run is validated on."""
    settings = TrainConfig.load(config)
    dataset = open_dataset(settings.data, "val", size=settings.model.image_size)
    samples = [dataset.read(index) for index in _spread(len(dataset))]
    return [
        _write(Image.fromarray(sample.image.permute(1, 2, 0).numpy()), folder / str(number), Path(sample.name).name)
        for number, sample in enumerate(samples)
    ]


def _spread(count: int) -> list[int]:
    """Up to COUNT numbers below `count`, as far apart as they can be."""
    number = min(count, COUNT)
    return [index * count // number for index in range(number)]


def _write(image: Image.Image, folder: Path, name: str) -> Path:
    """Write an example as JPEG, in a folder of its own: two of them may have one name."""
    folder.mkdir()
    path = folder / f"{name}.jpg"
    image.save(path, format="JPEG", quality=JPEG_QUALITY, subsampling=0)
    return path

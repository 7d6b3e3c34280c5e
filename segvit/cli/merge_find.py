"""The command `segvit merge-find`."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from segvit.cli.flags import bar, check_paths
from segvit.config import DataConfig, Device
from segvit.errors import UserError


def merge_find(
    model: Path,
    output: Path,
    *,
    images: Annotated[tuple[Path, ...], Parameter(negative=())] = (),
    data: Annotated[DataConfig, Parameter(name="data")] = DataConfig(),
    split: Literal["train", "val"] = "val",
    budget: float | None = None,
    max_loss: float | None = None,
    fixed: bool = False,
    at: Annotated[tuple[int, int] | None, Parameter(negative=())] = None,
    device: Device = "auto",
) -> None:
    """Find how many similar tokens of a trained model can merge on your images, and write a faster model.

    The weights stay the same. Give either a dataset (--data.*) or photos without masks (--images).

    Parameters
    ----------
    model
        Model file, repository of the Hugging Face Hub (user/repo), or a name from the zoo. Its structure must be plain.
    output
        Model file to write (.safetensors); an existing one is replaced.
    images
        Photos (files and folders) without masks. The mIoU is then that against the labels of the model itself.
    split
        With --data.*: split to measure on.
    budget
        Largest share of the multiply-adds that may be left, such as 0.75; in place of --max-loss.
    max_loss
        Largest loss of mIoU, on the scale 0 to 1. Default: 0.005.
    fixed
        Merge a fixed share of the tokens of every image, as exported models need, in place of a threshold.
    at
        Blocks (from 0) behind which windows and pairs merge. Default: 1 and 5 of 12 blocks.
    device
        Device to run on.
    """
    from segvit.data.folder_spec import check_places
    from segvit.prediction.inputs import find_images
    from segvit.weights.names import check_model_name

    check_model_name(model)
    if output.suffix != ".safetensors":
        raise UserError(f"{output}: give a name that ends in .safetensors for the model file to write")
    check_paths(files=(output,))
    if bool(images) == (data.is_given or bool(data.labels)):
        raise UserError(
            "give images to measure on: type --images PHOTOS, or --data.spec NAME --data.root FOLDER, and not both"
        )
    photos = [file for given in images for file, _ in find_images([given], output)]
    if not images:
        check_places(data, [split])
    from rich import print as rich_print

    from segvit.data.dataset import open_dataset
    from segvit.evaluation.evaluate import as_model_reads, check_classes
    from segvit.profiling.merging import OwnLabels, find_merging
    from segvit.utils.device import resolve_device
    from segvit.utils.text import percentage
    from segvit.weights.load import load_model

    network = load_model(model, device=resolve_device(device))
    dataset = OwnLabels(network, photos) if images else open_dataset(data, split, size=network.image_size)
    dataset = as_model_reads(network, dataset)
    check_classes(network, dataset)
    with bar("measuring") as progress:
        found = find_merging(network, dataset, budget=budget, max_loss=max_loss, fixed=fixed, at=at, progress=progress)
    rich_print(found.table())
    found.save(output)
    saved = percentage(1 - found.share, ".1f")
    print(f"model {output}: {saved} fewer multiply-adds, mIoU {found.rows[0].miou:.4f} -> {found.chosen.miou:.4f}")

"""The commands that make one model of another or publish it: `segvit convert`, `drop-group`, `merge-find`, `push`."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from segvit.cli.flags import bar, check_paths
from segvit.config import DataConfig, Device
from segvit.errors import UserError
from segvit.utils.text import counted

Rgb = Annotated[tuple[float, float, float] | None, Parameter(negative=())]


def convert(
    checkpoint: Path,
    output: Path,
    *,
    num_heads: int | None = None,
    head_num_heads: int | None = None,
    taps: Annotated[tuple[int, ...] | None, Parameter(negative=())] = None,
    shrink_at: int | None = None,
    mean: Rgb = None,
    std: Rgb = None,
) -> None:
    """Convert a checkpoint of the paper's authors, or of a run of segvit, to a model file.

    Sizes and classes of the authors' model are read from the tensors. A checkpoint of segvit (.pt) takes no options.

    Parameters
    ----------
    checkpoint
        File to convert: .pth of the authors, or checkpoint-N.pt of a run. No code in it is executed.
    output
        File to write (.safetensors); an existing one is replaced.
    num_heads
        Number of attention heads of a backbone block. Default: width / 64.
    head_num_heads
        Number of attention heads of a head layer. Default: head width / 32.
    taps
        Numbers (from 0) of the blocks that the head reads, shallow first. Default: the paper's for this depth.
    shrink_at
        Number (from 0) of the block that shrinks the tokens. Default: the paper's for this depth.
    mean
        Mean of R, G, B on the 0..1 scale. Default: ImageNet's, or 0.5 for width 1024.
    std
        Standard deviation of R, G, B on the 0..1 scale. Default: ImageNet's, or 0.5 for width 1024.
    """
    check_paths(files=(output,))
    from segvit.training.run_folder.model import model_of_checkpoint
    from segvit.training.run_folder.names import CHECKPOINT
    from segvit.weights.convert import convert_checkpoint

    if CHECKPOINT.fullmatch(checkpoint.name):
        options = {"num-heads": num_heads, "head-num-heads": head_num_heads, "taps": taps, "shrink-at": shrink_at}
        if given := [name for name, value in {**options, "mean": mean, "std": std}.items() if value is not None]:
            raise UserError(f"{checkpoint} is a checkpoint of segvit, which holds its settings: leave out --{given[0]}")
        trained = model_of_checkpoint(checkpoint, output)
        print(f"{counted(trained.num_classes, 'class')}, step {trained.extra['step']}\nmodel {output}")
        return
    model = convert_checkpoint(
        checkpoint,
        output,
        num_heads=num_heads,
        head_num_heads=head_num_heads,
        taps=taps,
        shrink_at=shrink_at,
        mean=mean,
        std=std,
    )
    config, backbone = model.config, model.backbone
    assert config is not None
    known = f" of {model.spec.name}" if model.spec else ", their names not known"
    classes = f"{counted(model.num_classes, 'class')}{known}"
    print(f"{config.outline}, {len(backbone.blocks)} blocks of width {backbone.embed_dim}, {classes}")
    heads = f"{config.num_heads} heads, {config.head_num_heads} in the head"
    print(f"crop {config.image_size} px, taps {config.taps}, {heads}")
    print(f"mean {config.mean}, std {config.std}")
    if "licence" in model.extra:
        print(f"licence {model.extra['licence']}")
    print(f"model {output}")


def drop_group(model: Path, output: Path, *, group: int) -> None:
    """Remove a group of classes from a model to which classes were added. The scores of the others do not change.

    `segvit info MODEL` lists the groups. `segvit train --extend MODEL` adds one.

    Parameters
    ----------
    model
        Model file, repository of the Hub, or a name from the zoo.
    output
        File to write (.safetensors); an existing one is replaced.
    group
        Number of the group. 0: the classes that the model was first trained on.
    """
    check_paths(files=(output,))
    from segvit.weights.names import check_model_name

    check_model_name(model)
    from segvit.weights.extend import drop_group as drop, groups
    from segvit.weights.load import load_model

    whole = load_model(model)
    kept = drop(whole, group)
    kept.save(output)
    print(f"dropped {', '.join(groups(whole)[group])}; kept {', '.join(kept.classes)}\nmodel {output}")


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


def push(model: Path, repo: str, *, private: bool = False) -> None:
    """Upload a model with its card to a repository of the Hugging Face Hub. Log in first with `hf auth login`.

    Parameters
    ----------
    model
        Model file, repository of the Hub, or a name from the zoo.
    repo
        Repository to upload to (user/repo); it is created if it does not exist.
    private
        If the repository is created, make it private.
    """
    from segvit.weights.names import check_model_name

    check_model_name(model)
    from segvit.weights.load import load_model

    print(load_model(model).push_to_hub(repo, private=private))

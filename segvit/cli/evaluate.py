"""The command `segvit evaluate`."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from segvit.cli.flags import ProtocolFlags, bar, check_paths, write_json
from segvit.config import DataConfig, Device, PrecisionChoice


def evaluate(
    model: Path,
    *,
    config: Path | None = None,
    data: Annotated[DataConfig, Parameter(name="data")] = DataConfig(),
    protocol: ProtocolFlags = ProtocolFlags(),
    split: Literal["train", "val"] = "val",
    precision: PrecisionChoice | None = None,
    compile: bool = False,
    json: Path | None = None,
    csv: Path | None = None,
    pictures: Path | None = None,
    device: Device = "auto",
) -> None:
    """Score a model on a dataset: per-class table, protocol, mIoU.

    Started by torchrun --nproc-per-node N -m segvit evaluate ..., N processes share the images.

    Parameters
    ----------
    model
        A model file of segvit (.safetensors, or .onnx of segvit export), a repository of the Hugging Face Hub
        (user/repo), or a name of the zoo.
    config
        YAML file whose data section is meant; flags override it.
    split
        Which split of the dataset.
    precision
        What the model computes in; auto takes what the processor is fast at. Default: fp32, whose scores compare with
        anybody's; an exported model computes as it was exported.
    compile
        Compile the model first (torch.compile), a minute or two.
    json
        Write everything that is printed to this file too.
    csv
        The same as a table for spreadsheets: one row per class, and the means.
    pictures
        Folder for the confusion matrix, the worst images, and the scores of every image.
    device
        Where to run.
    """
    from rich import print as rich_print

    from segvit.data.dataset import open_dataset
    from segvit.evaluation import files as report
    from segvit.evaluation.evaluate import evaluate as run_evaluation
    from segvit.inference.compiled import compile_model
    from segvit.inference.onnx_model import place_for
    from segvit.utils.distributed import joined, rank
    from segvit.weights.load import load_network
    from segvit.weights.model_file import averaged

    check_paths(files=(json, csv), folder=pictures)
    with joined(place_for(model, device)) as place:
        network = load_network(model, device=place)
        if compile:
            compile_model(network)
        dataset = open_dataset(data, split, size=network.image_size)
        test, main_process = protocol.over(network.protocol), rank() == 0
        with bar("evaluating", shown=main_process) as progress:
            result = run_evaluation(
                network,
                dataset,
                config=test,
                precision=precision,
                workers=data.workers,
                skip_unreadable=data.skip_unreadable,
                progress=progress,
            )
    if not main_process:
        return
    rich_print(result.table())
    for text in result.unreadable:
        print(f"left out: {text}")
    about = {"model": str(model), "dataset": dataset.spec.name, "split": split}
    if average := averaged(network.extra):
        print(f"weights: {average}")
        about["weights"] = average
    if json:
        write_json(json, {**about, **result.to_dict()})
    if csv:
        report.write_csv(result, csv, about=about)
    if pictures:
        report.write_pictures(result, pictures, model=network, dataset=dataset, config=test, precision=precision)
    print(f"mIoU {result.miou:.4f}")

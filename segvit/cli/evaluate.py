"""The command `segvit evaluate`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from segvit.cli.flags import ProtocolFlags, bar, check_paths, write_json
from segvit.config import DataConfig, Device, PrecisionChoice
from segvit.config_files import RUN_CONFIG
from segvit.errors import UserError
from segvit.utils.launcher import first_process
from segvit.utils.text import score_text

if TYPE_CHECKING:
    from segvit.evaluation.result import EvalResult


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

    With torchrun --nproc-per-node N -m segvit evaluate ..., N processes share the images.

    Parameters
    ----------
    model
        Model file (.safetensors; .onnx or .xml of `segvit export`), repository of the Hugging Face Hub (user/repo), or
        a name from the zoo.
    config
        YAML file to take the data section from. Flags override it. Default: config.yaml beside the model, unless
        --data.spec or --data.images names another dataset.
    split
        Split of the dataset to score on.
    precision
        Precision to compute in; auto picks the fastest. Default: fp32, the precision in which published scores compare.
        An exported model uses the precision of its export.
    compile
        Compile the model first (torch.compile), which takes a minute or two.
    json
        Also write everything that is printed to this JSON file.
    csv
        Also write the per-class table and the means to this CSV file.
    pictures
        Folder for the confusion matrix, the worst images, and the scores of every image.
    device
        Device to run on.
    """
    from segvit.data.folder_spec import check_places
    from segvit.weights.names import check_model_name

    check_model_name(model)
    protocol.check()
    check_paths(files=(json, csv), folder=pictures)
    if not (data.is_given or data.labels):
        raise UserError(
            f"no dataset given, and there is no {RUN_CONFIG} beside {model}: type `--config FILE` with the "
            f"{RUN_CONFIG} of the run, or `--data.spec NAME --data.root FOLDER`, or `--data.images FOLDER "
            "--data.labels FOLDER --data.classes NAME ...`"
        )
    check_places(data, [split])
    if config and first_process():
        print(f"data of {config}; protocol of the model, unless flags change it", flush=True)
    from segvit.data.dataset import open_dataset
    from segvit.evaluation import files as report
    from segvit.evaluation.evaluate import as_model_reads, evaluate as run_evaluation
    from segvit.inference.compiled import compile_model
    from segvit.inference.runtimes import place_for
    from segvit.utils.distributed import joined, rank
    from segvit.weights.load import load_network
    from segvit.weights.model_file import averaged

    with joined(place_for(model, device)) as place:
        network = load_network(model, device=place)
        if compile:
            compile_model(network)
        dataset = as_model_reads(network, open_dataset(data, split, size=network.image_size))
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
    about = {"model": str(model), "dataset": dataset.spec.name, "split": split}
    if average := averaged(network.extra):
        about["weights"] = average
    _tell(result, about)
    if json:
        write_json(json, {**about, **result.to_dict()})
    if csv:
        report.write_csv(result, csv, about=about)
    if pictures:
        report.write_pictures(result, pictures, model=network, dataset=dataset, config=test, precision=precision)


def _tell(result: "EvalResult", about: Mapping[str, str]) -> None:
    """Print the scores, and what they were computed from and without."""
    from rich import print as rich_print

    rich_print(result.table())
    for text in result.unreadable:
        print(f"skipped: {text}")
    if "weights" in about:
        print(f"weights: {about['weights']}")
    if result.fewer_classes:
        print(f"mean{result.fewer_classes}: the others are in neither labels nor predictions")
    print(f"mIoU {score_text(result.miou)}")

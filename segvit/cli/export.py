"""The command `segvit export`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from segvit.cli.flags import bar, check_paths
from segvit.config import DataConfig
from segvit.errors import UserError
from segvit.export.formats.table import choose_format, describe_formats
from segvit.export.formats.web import WebPage

if TYPE_CHECKING:
    from segvit.data.dataset import Samples
    from segvit.export.export import Exported
    from segvit.models.segvit import SegViT


def export(
    model: Path,
    output: Path,
    *,
    format: Annotated[
        str | None, Parameter(help=f"{describe_formats()}. Default: that of the ending of OUTPUT.")
    ] = None,
    precision: Literal["fp32", "fp16", "int8"] | None = None,
    size: Annotated[tuple[int, int] | None, Parameter(negative=())] = None,
    scores: bool = False,
    images: Annotated[tuple[Path, ...], Parameter(negative=())] = (),
    data: Annotated[DataConfig, Parameter(name="data")] = DataConfig(),
    split: Literal["train", "val"] = "val",
    web_runtime: Path | None = None,
) -> None:
    """Export a model to ONNX (.onnx), OpenVINO (.xml), torch.export (.pt2) or another format, and compare labels with
    PyTorch's.

    The graph takes uint8 RGB and returns the label map; normalisation is inside. `segvit predict` and `segvit evaluate`
    also run .onnx and .xml files.

    Parameters
    ----------
    model
        Model file, repository of the Hugging Face Hub (user/repo), or a name from the zoo.
    output
        File or folder to write; an existing one is replaced, with all that is in it. If the labels differ from
        PyTorch's, nothing is written.
    precision
        fp16 halves the file, int8 quarters it (see --images). Default: fp32, or the first that the format has.
    size
        Fixed height and width of the input in pixels. Default: any size.
    scores
        Also output the scores of all classes.
    images
        Your own photos (files and folders). Labels are compared on them too, and int8 takes its ranges from them once,
        instead of from each image.
    split
        With --data.*: split on which mIoU and time are measured, beside PyTorch's.
    web_runtime
        With --format web: package onnxruntime-web, as an archive of npm (.tgz) or a folder. Default: the one in the
        cache or in node_modules; if there is none, npm fetches it.
    """
    from segvit.data.folder_spec import check_places
    from segvit.prediction.inputs import find_images
    from segvit.weights.names import EXPORTED, check_model_name

    form = choose_format(output, format)
    if web_runtime is not None:
        if form.name != "web":
            raise UserError("--web-runtime: for --format web only; leave it out")
        form = WebPage(web_runtime)
    chosen = form.choose_precision(precision, has_images=bool(images))
    with_data = data.is_given
    if form.suffix not in EXPORTED and with_data:
        raise UserError(f"--data.*: only {' and '.join(EXPORTED)} files can be scored; leave it out")
    check_model_name(model)
    form.check_target(output)
    check_paths(files=(output,) if form.marker is None else (), folder=None if form.marker is None else output.parent)
    for given in images:
        find_images([given], output)
    if with_data:
        check_places(data, [split])
    from segvit.data.dataset import open_dataset
    from segvit.evaluation.evaluate import check_classes
    from segvit.export.export import export_model
    from segvit.weights.load import load_model
    from segvit.weights.model_file import averaged

    form.check(chosen)  # before a download
    network = load_model(model)
    if average := averaged(network.extra):
        print(f"weights: {average}")
    dataset = open_dataset(data, split, size=network.image_size) if with_data else None
    if dataset is not None:
        check_classes(network, dataset)
    exported = export_model(network, output, format=form, precision=precision, size=size, scores=scores, images=images)
    print(*exported.lines(), sep="\n", flush=True)
    if dataset is not None:
        _score(network, exported, dataset, title=f"{dataset.spec.name}, {split}, {len(dataset)} images")


def _score(network: "SegViT", exported: "Exported", dataset: "Samples", *, title: str) -> None:
    """Print mIoU, time and size of the exported file beside those of PyTorch."""
    from rich import print as rich_print

    from segvit.export.compare import Candidate, score, table
    from segvit.inference.runtimes import load_exported

    runtime = load_exported(exported.path, device="cpu")
    weights = sum(value.nbytes for value in network.state_dict().values())
    candidates = [
        Candidate(name="PyTorch", network=network, num_bytes=weights),
        Candidate(name=f"{runtime.runtime_name} {exported.precision}", network=runtime, num_bytes=exported.num_bytes),
    ]
    with bar("scoring") as progress:
        rows = score(candidates, dataset, progress=progress)
    rich_print(table(rows, title=title))

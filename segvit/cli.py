"""The command line: thin verbs over the library, which is imported only when a verb runs.

segvit demo | train | evaluate | predict | check-data | data prepare | info | convert | push | export | bench
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, CycloptsPanel, MissingArgumentError, Parameter

from segvit.cli_bench import register as register_bench
from segvit.cli_config import from_config_file
from segvit.cli_data import register
from segvit.cli_export import register as register_export
from segvit.cli_models import register as register_models
from segvit.cli_tools import TERMINAL, BackboneFlags, Flat, JsonFile, bar, check_json, check_paths, to_json, write_json
from segvit.config import MULTI_SCALE, DataConfig, Device, EvalConfig, EvalMode, TrainConfig
from segvit.errors import UserError


@Flat
@dataclass(frozen=True, kw_only=True)
class ProtocolFlags:
    """Changes to the protocol that a model carries; what is not given stays as it is."""

    mode: EvalMode | None = None
    """slide: overlapping windows; whole: the image in one piece."""
    window: int | None = None
    """Side of a window in pixels."""
    stride: int | None = None
    """Step between windows in pixels."""
    resize_long: int | None = None
    """Longer side in pixels that the image is fitted into first."""
    resize_short: int | None = None
    """Shorter side in pixels of the same fit."""
    resize_short_min: int | None = None
    """Least shorter side in pixels, whatever the scale."""
    scales: tuple[float, ...] | None = None
    """Factors of that size at which the image is looked at, such as 0.5 1 1.5."""
    flip: bool | None = None
    """Look at each scale mirrored as well."""
    multi_scale: bool = False
    """The paper's multi-scale test: scales 0.5 to 1.75 in six steps, each mirrored as well."""
    batch_size: int | None = None
    """Windows that run through the model together."""

    def over(self, protocol: EvalConfig) -> EvalConfig:
        """The protocol with these changes.

        Raises:
            UserError: `multi_scale` beside `scales` or `flip`.
        """
        changes = {key: value for key, value in asdict(self).items() if value is not None}
        if changes.pop("multi_scale"):
            if self.scales is not None or self.flip is not None:
                raise UserError("--multi-scale says scales and flip itself: leave --scales and --flip out, or it")
            changes |= {"scales": MULTI_SCALE, "flip": True}
        return replace(protocol, **changes)


app = App(
    name="segvit",
    help="Semantic segmentation with plain Vision Transformers.",
    config=from_config_file,
    default_parameter=Parameter(consume_multiple=True),  # --data.classes sky road car
    result_action="return_value",
    suppress_keyboard_interrupt=False,  # main says how to go on
    version_flags=["--version"],
)
register(app)
register_models(app)
register_export(app)
register_bench(app)


@app.command
def demo(*, output: Path = Path("runs/demo"), steps: int | None = None, device: Device = "auto") -> None:
    """The whole tour on made-up scenes: train, evaluate, predict, paint.

    Parameters
    ----------
    output
        Folder of the pictures and of the model.
    steps
        Training steps. Default: about four minutes on two cores.
    device
        Where to run.
    """
    from segvit.demo import run_demo

    run_demo(output=output, steps=steps, device=device)


@app.command
def train(
    *,
    config: Path | None = None,
    resume: bool = False,
    settings: Annotated[TrainConfig, Flat] = TrainConfig(),
) -> None:
    """Train a model.

    Parameters
    ----------
    config
        YAML file of settings, or a shipped recipe such as camvid/vit_tiny; flags override it.
    resume
        Go on from the checkpoint in the output folder.
    """
    from segvit.engine.train import train as run_training

    run = run_training(settings, resume=resume)
    print(f"best model {run.path}")
    print(f"mIoU {run.miou:.3f}")


@app.command
def evaluate(
    model: Path,
    *,
    config: Path | None = None,
    data: Annotated[DataConfig, Parameter(name="data")] = DataConfig(),
    protocol: ProtocolFlags = ProtocolFlags(),
    split: Literal["train", "val"] = "val",
    json: Path | None = None,
    csv: Path | None = None,
    pictures: Path | None = None,
    device: Device = "auto",
) -> None:
    """Score a model on a dataset: per-class table, protocol, mIoU.

    Started by torchrun --nproc-per-node N -m segvit.cli evaluate ..., N processes share the images.

    Parameters
    ----------
    model
        A model file of segvit (.safetensors, or .onnx of segvit export), a repository of the Hugging Face Hub
        (user/repo), or a name of the zoo.
    config
        YAML file whose data section is meant; flags override it.
    split
        Which split of the dataset.
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
    from segvit.engine import report
    from segvit.engine.distributed import joined, rank
    from segvit.engine.evaluate import evaluate as run_evaluation
    from segvit.inference.onnx import load_network, place_for

    check_paths(files=(json, csv), folder=pictures)
    with joined(place_for(model, device)) as place:
        network = load_network(model, device=place)
        dataset = open_dataset(data, split, size=network.config.image_size)
        test, main_process = protocol.over(network.protocol), rank() == 0
        with bar("evaluating", shown=main_process) as progress:
            result = run_evaluation(network, dataset, config=test, workers=data.workers, progress=progress)
    if not main_process:
        return
    rich_print(result.table())
    about = {"model": str(model), "dataset": dataset.spec.name, "split": split}
    if json:
        write_json(json, {**about, **result.to_dict()})
    if csv:
        report.write_csv(result, csv, about=about)
    if pictures:
        report.write_pictures(result, pictures, model=network, dataset=dataset, config=test)
    print(f"mIoU {result.miou:.4f}")


@app.command
def predict(
    model: Path,
    inputs: list[Path],
    *,
    output: Path,
    protocol: ProtocolFlags = ProtocolFlags(),
    opacity: float = 0.6,
    confidence: bool = False,
    ids: Literal["index", "raw"] = "index",
    device: Device = "auto",
) -> None:
    """Paint label maps of images: index PNG, overlay with a legend, JSON of class shares.

    Parameters
    ----------
    model
        A model file of segvit (.safetensors, or .onnx of segvit export), a repository of the Hugging Face Hub
        (user/repo), or a name of the zoo.
    inputs
        Images, and folders of images.
    output
        Folder to write to.
    opacity
        Of the colours over the photo, 0 to 1.
    confidence
        Write a confidence map as well: white is certain.
    ids
        index: class numbers with a palette; raw: the dataset's own ids.
    device
        Where to run.
    """
    from segvit.engine.predict import predict_files

    if not 0 <= opacity <= 1:
        raise UserError(f"--opacity {opacity}: give a number from 0 to 1")
    network = _load(model, device)
    with bar("predicting") as progress:
        written, failures = predict_files(
            network,
            inputs,
            output,
            config=protocol.over(network.protocol),
            opacity=opacity,
            confidence=confidence,
            raw_ids=ids == "raw",
            progress=progress,
        )
    print(f"{len(written)} label maps in {output}")
    if failures:
        listing = "\n".join(f"  {failure.reason}" for failure in failures)
        raise UserError(f"{len(failures)} of {len(written) + len(failures)} images could not be read:\n{listing}")


def _whole_numbers(_: Any, tokens: Sequence[Any]) -> tuple[int, ...]:
    """Two numbers as typed; cyclopts itself would cut 64.5 down to 64."""
    if not all(token.value.isdecimal() for token in tokens):
        given = " ".join(token.value for token in tokens)
        raise UserError(f"--size {given}: give height and width in whole pixels, such as --size 640 640")
    return tuple(int(token.value) for token in tokens)


def _explain_size(error: CycloptsError) -> Any:
    """Say what to type where --size has got one number."""
    if isinstance(error, MissingArgumentError) and error.argument is not None and error.argument.name == "--size":
        return CycloptsPanel(f"{error} Type --size HEIGHT WIDTH, such as --size 640 640.")
    return CycloptsPanel(error)


@app.command(error_formatter=_explain_size)
def info(
    name: str,
    *,
    size: Annotated[tuple[int, int] | None, Parameter(negative=(), converter=_whole_numbers)] = None,
    backbone: BackboneFlags = BackboneFlags(),
    json: JsonFile = None,
) -> None:
    """What a model is and costs: parts, parameters, multiply-adds, classes and how it was tested.

    Parameters
    ----------
    name
        A model (file, user/repo, name of the zoo), a config, or a backbone of timm.
    size
        Height and width in pixels of the image whose cost is told. Default: the training crop.
    json
        Write everything to this file too; - prints it as JSON and nothing else.
    """
    from rich import print as rich_print

    from segvit.info import describe

    check_json(json)
    seen = describe(name, size=size, **asdict(backbone))
    if json == TERMINAL:
        print(to_json(seen.to_dict()))
        return
    rich_print(seen.tables())
    if json:
        write_json(json, seen.to_dict())


def main() -> None:
    """Run the command line; a UserError is printed without a traceback and exits with 2, Ctrl-C with 130."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin while waiting starve the loader's
    try:
        app(sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor may the interpreter's last flush fail
        sys.exit(141)  # as a program that SIGPIPE ends
    except KeyboardInterrupt:
        print("stopped; a training run goes on from its last checkpoint with --resume", file=sys.stderr)
        sys.exit(130)


def _load(path: Path, device: Device) -> Any:
    """The model in a file, on a device."""
    from segvit.engine.device import resolve_device
    from segvit.inference.onnx import load_network, place_for

    return load_network(path, device=resolve_device(place_for(path, device)))


if __name__ == "__main__":
    main()

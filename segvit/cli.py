"""The command line: thin verbs over the library, which is imported only when a verb runs.

segvit demo | train | evaluate | predict | check-data | info
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import cyclopts
from cyclopts import App, CycloptsError, CycloptsPanel, MissingArgumentError, Parameter

from segvit.config import DataConfig, Device, EvalConfig, EvalMode, Structure, TrainConfig, read_yaml
from segvit.errors import UserError

Flat = Parameter(name="*")
"""The settings' own names become the flags: --data.root, --optim.lr."""


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
    batch_size: int | None = None
    """Windows that run through the model together."""

    def over(self, protocol: EvalConfig) -> EvalConfig:
        """The protocol with these changes."""
        return replace(protocol, **{key: value for key, value in asdict(self).items() if value is not None})


def _from_config_file(app: App, commands: tuple[str, ...], arguments: cyclopts.ArgumentCollection) -> None:
    """Take what the flags leave open from the YAML file of --config; check-data takes its data section."""
    given = arguments.get("--config", default=None)
    if given is not None and given.tokens:
        path = given.tokens[0].value
        content = read_yaml(path)
        if commands == ("check-data",):
            content = {"data": content.get("data", {})}
        cyclopts.config.Dict(content, source=path, use_commands_as_keys=False)(app, commands, arguments)


app = App(
    name="segvit",
    help="Semantic segmentation with plain Vision Transformers.",
    config=_from_config_file,
    default_parameter=Parameter(consume_multiple=True),  # --data.classes sky road car
    result_action="return_value",
    suppress_keyboard_interrupt=False,  # main says how to go on
    version_flags=["--version"],
)


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
    data: Annotated[DataConfig, Parameter(name="data")] = DataConfig(),
    protocol: ProtocolFlags = ProtocolFlags(),
    split: Literal["train", "val"] = "val",
    json: Path | None = None,
    device: Device = "auto",
) -> None:
    """Score a model on a dataset: per-class table, protocol, mIoU.

    Parameters
    ----------
    model
        A .safetensors file of segvit.
    split
        Which split of the dataset.
    json
        Write everything that is printed to this file too.
    device
        Where to run.
    """
    from rich import print as rich_print

    from segvit.data.dataset import open_dataset
    from segvit.engine.evaluate import evaluate as run_evaluation

    network = _load(model, device)
    dataset = open_dataset(data, split, size=network.config.image_size)
    with _bar("evaluating") as progress:
        result = run_evaluation(
            network, dataset, config=protocol.over(network.protocol), workers=data.workers, progress=progress
        )
    rich_print(result.table())
    if json:
        _write_json(json, {"model": str(model), **result.to_dict()})
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
        A .safetensors file of segvit.
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
    with _bar("predicting") as progress:
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


@app.command
def check_data(
    *,
    config: Path | None = None,
    data: Annotated[DataConfig, Parameter(name="data")] = DataConfig(),
    split: Literal["train", "val"] = "train",
) -> None:
    """Look at a dataset before training: pairs, sizes, what each value becomes, what is wrong.

    Parameters
    ----------
    config
        YAML file whose data section is meant; flags override it.
    split
        Which split.
    """
    from rich import print as rich_print

    from segvit.data.check import check_dataset
    from segvit.data.dataset import open_dataset

    with _bar("checking") as progress:
        report = check_dataset(open_dataset(data, split), decode=True, progress=progress)
    rich_print(report.table())
    for warning in report.warnings:
        print(f"warning: {warning}")
    report.raise_on_error()
    print(report.verdict)


def _explain_size(error: CycloptsError) -> Any:
    """Say what to type where --size has got one number."""
    if isinstance(error, MissingArgumentError) and error.argument is not None and error.argument.name == "--size":
        return CycloptsPanel(f"{error} Type --size HEIGHT WIDTH, such as --size 640 640.")
    return CycloptsPanel(error)


@app.command(error_formatter=_explain_size)
def info(
    name: str,
    *,
    size: Annotated[tuple[int, int] | None, Parameter(negative=())] = None,
    num_classes: int | None = None,
    image_size: int | None = None,
    class_token: bool | None = None,
    structure: Structure | None = None,
    json: Annotated[Path | None, Parameter(allow_leading_hyphen=True)] = None,
) -> None:
    """What a model is and costs: parts, parameters, multiply-adds, classes and how it was tested.

    Parameters
    ----------
    name
        A model file, a config, or a backbone of timm.
    size
        Height and width in pixels of the image whose cost is told. Default: the training crop.
    num_classes
        For a backbone: number of classes. Default: 150.
    image_size
        For a backbone: side of the training crop in pixels.
    class_token
        For a backbone: keep its class token.
    structure
        For a backbone: plain, or one of those that shrink the tokens. Default: plain.
    json
        Write everything to this file too; - prints it as JSON and nothing else.
    """
    from rich import print as rich_print

    from segvit.info import describe

    if json and json.name.startswith("--"):
        raise UserError(f"--json {json}: give a file first, or - to print")
    seen = describe(
        name,
        size=size,
        num_classes=num_classes,
        image_size=image_size,
        class_token=class_token,
        structure=structure,
    )
    if json == Path("-"):
        print(_to_json(seen.to_dict()))
        return
    rich_print(seen.tables())
    if json:
        _write_json(json, seen.to_dict())


def main() -> None:
    """Run the command line; a UserError is printed without a traceback and exits with 2, Ctrl-C with 130."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin while waiting starve the loader's
    try:
        app(sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped; a training run goes on from its last checkpoint with --resume", file=sys.stderr)
        sys.exit(130)


def _load(path: Path, device: Device) -> Any:
    """The model in a file, on a device."""
    from segvit.engine.device import resolve_device
    from segvit.models.segvit import load_model

    return load_model(path, device=resolve_device(device))


def _write_json(path: Path, content: dict[str, Any]) -> None:
    """Write plain values, making the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_to_json(content) + "\n", encoding="utf-8")


def _to_json(content: dict[str, Any]) -> str:
    """Plain values as JSON text."""
    import json

    return json.dumps(content, indent=1, ensure_ascii=False)


@contextmanager
def _bar(name: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar to be called with (done, total)."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


if __name__ == "__main__":
    main()

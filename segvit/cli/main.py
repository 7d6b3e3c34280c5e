"""The command line: thin verbs over the library, which is imported only when a verb runs.

segvit demo | train | lr-find | report | evaluate | predict | check-data | data prepare | info | convert | push | export
segvit bench | look | app
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, CycloptsPanel, MissingArgumentError, Parameter

from segvit.cli.app import register as register_app
from segvit.cli.bench import register as register_bench
from segvit.cli.config_file import from_config_file
from segvit.cli.data import register
from segvit.cli.errors import parser_errors, say_once
from segvit.cli.export import register as register_export
from segvit.cli.flags import (
    TERMINAL,
    BackboneFlags,
    Flat,
    JsonFile,
    ProtocolFlags,
    bar,
    check_json,
    check_paths,
    to_json,
    write_json,
)
from segvit.cli.look import register as register_look
from segvit.cli.lr_find import register as register_lr_find
from segvit.cli.models import register as register_models
from segvit.cli.predict import register as register_predict
from segvit.cli.report import plan_of
from segvit.cli.report import register as register_report
from segvit.config import DataConfig, Device, PrecisionChoice, TrainConfig
from segvit.errors import UserError

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
register_lr_find(app)
register_report(app)
register_predict(app)
register_look(app)
register_app(app)


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
    accept_changed_data: bool = False,
    replay: Path | None = None,
    settings: Annotated[TrainConfig, Flat] = TrainConfig(),
) -> None:
    """Train a model.

    Parameters
    ----------
    config
        YAML file of settings, or a shipped recipe such as camvid/vit_tiny; flags override it.
    resume
        Go on from the checkpoint in the output folder.
    accept_changed_data
        With --resume: go on although the dataset is no longer what the run was started on.
    replay
        Instead: run the step in this not-finite-stepN.pt again and say which layer is the first whose numbers are not
        finite (exit code 2), or that all are (0). Only --device goes with it.
    """
    if replay:
        if resume or config or settings != TrainConfig(device=settings.device):
            raise UserError(f"the step has its settings with it: type --replay {replay} alone, or with --device")
        _replay(replay, settings.device)
        return
    if accept_changed_data and not resume:
        raise UserError("--accept-changed-data belongs to --resume: a new run takes the dataset as it is")
    from segvit.training.train import train as run_training
    from segvit.utils.distributed import rank

    run = run_training(settings, resume=resume, accept_changed_data=accept_changed_data)
    if rank() == 0:
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
    name: str | None = None,
    *,
    plan: str | None = None,
    gpus: int = 1,
    tflops: float | None = None,
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
    plan
        Instead: a config (file or shipped recipe), to tell the memory and time that training by it takes.
    gpus
        With --plan: devices that share the batch.
    tflops
        With --plan: what a device sustains in training, in 10^12 floating-point operations a second, for the time.
    json
        Write everything to this file too; - prints it as JSON and nothing else.
    """
    from rich import print as rich_print

    from segvit.profiling.info import describe

    check_json(json)
    if plan:
        seen: Any = plan_of(plan, name=name, gpus=gpus, tflops=tflops, size=size, backbone=backbone)
    elif name is None:
        raise UserError("info tells about a model, a config or a backbone: name one, or type --plan CONFIG")
    elif gpus != 1 or tflops is not None:
        raise UserError(f"--gpus and --tflops belong to a plan: type segvit info --plan {name}")
    else:
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
        with parser_errors() as console:
            app(sys.argv[1:], error_console=console)
    except UserError as error:
        say_once(f"error: {error}")
        sys.exit(error.exit_code)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor may the interpreter's last flush fail
        sys.exit(141)  # as a program that SIGPIPE ends
    except KeyboardInterrupt:
        say_once("stopped; train goes on with --resume, predict when its command is typed again")
        sys.exit(130)


def _replay(path: Path, device: Device) -> None:
    """Run a saved step again, say what came of it, and leave with 2 where something is not finite."""
    from segvit.training.replay import replay

    seen = replay(path, device=device)
    print(seen.text)
    if seen.finding:
        sys.exit(2)


if __name__ == "__main__":
    main()

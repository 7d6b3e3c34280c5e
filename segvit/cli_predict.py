"""The verb `segvit predict`: label maps of images as files."""

from pathlib import Path
from typing import Literal

from cyclopts import App

from segvit.cli_tools import ProtocolFlags, bar
from segvit.config import DataConfig, Device, PrecisionChoice
from segvit.errors import UserError


def register(app: App) -> None:
    """Add the verb to the command line."""
    app.command(predict)


def predict(
    model: Path,
    inputs: list[Path],
    *,
    output: Path,
    protocol: ProtocolFlags = ProtocolFlags(),
    precision: PrecisionChoice | None = None,
    compile: bool = False,
    opacity: float = 0.6,
    confidence: bool = False,
    ids: Literal["index", "raw"] = "index",
    overwrite: bool = False,
    workers: int = DataConfig.workers,
    device: Device = "auto",
) -> None:
    """Paint label maps of images: index PNG, overlay with a legend, JSON of class shares.

    Images whose files are there already, made with the same model and settings, are skipped: a run that was stopped
    goes on when its command is typed again. Started by torchrun --nproc-per-node N -m segvit predict ..., N processes
    share the images.

    Parameters
    ----------
    model
        A model file of segvit (.safetensors, or .onnx of segvit export), a repository of the Hugging Face Hub
        (user/repo), or a name of the zoo.
    inputs
        Images, and folders of images.
    output
        Folder to write to.
    precision
        What the model computes in; auto takes what the processor is fast at. Default: fp32, the labels that the model
        was scored with; an exported model computes as it was exported.
    compile
        Compile the model first (torch.compile), a minute or two: for thousands of images.
    opacity
        Of the colours over the photo, 0 to 1.
    confidence
        Write a confidence map as well: white is certain.
    ids
        index: class numbers with a palette; raw: the dataset's own ids.
    overwrite
        Compute all anew, and replace what the output folder holds.
    workers
        Threads that read, and as many that write, while the model works.
    device
        Where to run.
    """
    from segvit.engine.distributed import joined, rank
    from segvit.engine.precision import resolve_precision
    from segvit.engine.predict_files import predict_files
    from segvit.inference.compiled import compile_model
    from segvit.inference.onnx import load_network, place_for

    if not 0 <= opacity <= 1:
        raise UserError(f"--opacity {opacity}: give a number from 0 to 1")
    if workers < 0:
        raise UserError(f"--workers {workers}: give a number of threads, or 0 for none")
    with joined(place_for(model, device)) as place:
        network = load_network(model, device=place)
        chosen, main_process = resolve_precision(network, precision), rank() == 0
        if compile:
            compile_model(network)
        if main_process:
            print(f"computing in {chosen}")
        with bar("predicting", shown=main_process) as progress:
            done = predict_files(
                network,
                inputs,
                output,
                config=protocol.over(network.protocol),
                precision=precision,
                opacity=opacity,
                confidence=confidence,
                raw_ids=ids == "raw",
                overwrite=overwrite,
                workers=workers,
                progress=progress,
            )
    if not main_process:
        return
    if done.skipped:
        there = f"{len(done.skipped)} were there already (--overwrite computes all anew)"
        print(f"{len(done.written)} new label maps in {output}; {there}")
    else:
        print(f"{len(done.written)} label maps in {output}")
    if done.failures:
        listing = "\n".join(f"  {failure.reason}" for failure in done.failures)
        tried = len(done.written) + len(done.failures)
        raise UserError(f"{len(done.failures)} of {tried} images could not be read:\n{listing}")

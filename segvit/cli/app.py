"""The verb `segvit app`: a page in the browser that labels photos."""

from pathlib import Path

from cyclopts import App

from segvit.config import Device, PrecisionChoice


def register(app: App) -> None:
    """Add the verb to the command line."""
    app.command(name="app")(serve)


def serve(
    models: list[str],
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    examples: Path | None = None,
    max_megabytes: float = 20,
    max_megapixels: float = 25,
    timeout: float = 60,
    queue: int = 32,
    concurrency: int = 1,
    batch_files: int = 50,
    keep_minutes: float = 10,
    max_gigabytes: float = 2,
    precision: PrecisionChoice | None = None,
    device: Device = "auto",
) -> None:
    """Serve a page in the browser: drop a photo, see its label map; and an API for programs (docs/app.md).

    Nothing is sent anywhere else, and what visitors send is deleted again. There is no log-in: put a proxy with one
    before it where others can reach it.

    Parameters
    ----------
    models
        Model files of segvit (.safetensors, or .onnx of segvit export), repositories of the Hugging Face Hub
        (user/repo), or names of the zoo. Several are shown side by side, with their times.
    host
        Address to listen at. 0.0.0.0: other machines can reach it.
    port
        0 takes any that is free.
    examples
        Folder of photos to offer, or of a run, for its validation set. Default: the run in whose folder the first model
        lies, where only this machine can reach the page.
    max_megabytes
        Size of a file, in 2^20 bytes.
    max_megapixels
        Width times height of a photo, in 10^6 pixels.
    timeout
        Seconds for one photo; then it is given up.
    queue
        Requests that wait; a further one is told to come again.
    concurrency
        Photos that are worked on at the same time, each by a process with the models in its own memory.
    batch_files
        Photos in one batch.
    keep_minutes
        How long photos and results are kept.
    max_gigabytes
        What all of them may take on disk, in 10^9 bytes.
    precision
        What the models compute in; auto takes what the processor is fast at. Default: fp32, as segvit predict does.
    device
        Where to run.
    """
    from segvit.app.limits import Limits
    from segvit.app.messages import Setup
    from segvit.app.server import run_app

    limits = Limits(
        megabytes=max_megabytes,
        megapixels=max_megapixels,
        seconds=timeout,
        waiting=queue,
        at_once=concurrency,
        files=batch_files,
        minutes=keep_minutes,
        gigabytes=max_gigabytes,
    )
    setup = Setup(models=tuple(models), device=device, precision=precision, examples=examples)
    run_app(setup, limits, host=host, port=port)

"""The verb `segvit app`: a page in the browser that labels photos."""

from pathlib import Path
from typing import Annotated

from segvit.app.limits import Limits
from segvit.cli.flags import Flat
from segvit.config import Device, PrecisionChoice


def serve(
    models: list[str],
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    examples: Path | None = None,
    limits: Annotated[Limits, Flat] = Limits(),
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
    precision
        What the models compute in; auto takes what the processor is fast at. Default: fp32, as segvit predict does.
    device
        Where to run.
    """
    from segvit.app.messages import Setup
    from segvit.app.server import run_app

    setup = Setup(models=tuple(models), device=device, precision=precision, examples=examples)
    run_app(setup, limits, host=host, port=port)

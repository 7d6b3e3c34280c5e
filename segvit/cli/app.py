"""The command `segvit app`: a web page that labels photos, and an API."""

import os
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from segvit.app.limits import Limits
from segvit.cli.help.panels import panel
from segvit.config import Device, PrecisionChoice
from segvit.errors import UserError


def serve(
    models: list[str],
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    root_path: str = "",
    # Not tuple[str, ...]: cyclopts holds the two Parameters for equal, and typing would share this one with `bench`.
    api_key: Annotated[list[str] | None, Parameter(negative=(), consume_multiple=False)] = None,
    api_keys_file: Path | None = None,
    label_studio_url: str | None = None,
    examples: Path | None = None,
    limits: Annotated[Limits, Parameter(name="*", group=panel("Limits"))] = Limits(),
    precision: PrecisionChoice | None = None,
    device: Device = "auto",
) -> None:
    """Serve a web page that labels the photos dropped on it, and an API for programs (docs/app.md, docs/serve.md).

    Photos stay on this machine and are deleted after a while. Without API keys, everybody who reaches the server can
    use it.

    Parameters
    ----------
    models
        Model files (.safetensors; .onnx or .xml of `segvit export`), repositories of the Hugging Face Hub (user/repo),
        or names from the zoo. The results of several models are shown side by side, with their times.
    host
        Address to listen on. With 0.0.0.0, other machines can reach the page.
    port
        Port to listen on; 0 picks a free one.
    root_path
        Path below which a proxy serves the page, such as /seg.
    api_key
        Key that requests need; repeat the flag for several keys. Other users of this machine can see flags: a file or
        the environment variable SEGVIT_API_KEYS keeps keys secret.
    api_keys_file
        Text file with a key in each line.
    label_studio_url
        Address of the Label Studio whose images may be fetched. Its token is read from the environment variable
        LABEL_STUDIO_API_KEY.
    examples
        Folder of photos to offer, or folder of a run to offer its validation images. Default: the run that the first
        model belongs to, if only this machine can reach the page.
    precision
        Precision to compute in; auto picks the fastest. Default: fp32, as in segvit predict.
    device
        Device to run on.
    """
    from segvit.weights.names import check_model_name

    for model in models:
        check_model_name(model)
    if examples and not examples.is_dir():
        raise UserError(f"--examples {examples}: no such folder; give a folder of photos, or of a run")
    from segvit.app.labelling.images import TOKEN, LabelStudio
    from segvit.app.messages import Setup
    from segvit.app.server import Access, run_app
    from segvit.app.serving.keys import read_keys

    token = os.environ.pop(TOKEN, None)  # workers, which inherit the environment, do not need it
    access = Access(
        keys=read_keys(api_key or (), file=api_keys_file, environment=os.environ),
        label_studio=LabelStudio(url=label_studio_url, token=token) if label_studio_url else None,
        root_path=root_path,
    )
    setup = Setup(models=tuple(models), device=device, precision=precision, examples=examples)
    run_app(setup, limits, host=host, port=port, access=access)

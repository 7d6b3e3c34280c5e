"""Write the folder of a serverless function for CVAT: function.yaml, main.py and the model.

    write_function("best.safetensors", Path("cvat-function"), name="camvid")

Nuclio builds an image from the folder and runs it. CVAT reads the names of the classes from function.yaml.
"""

import json
import re
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from segvit.errors import UserError
from segvit.inference.exported import ExportedModel
from segvit.inference.network import classes_of
from segvit.prediction.annotations.annotated import drawn_classes
from segvit.utils.files import writing
from segvit.weights.load import find_model, load_network

YAML, CODE = "function.yaml", "main.py"
"""Names of files in the folder."""
PLACE = "/opt/nuclio"
"""Folder of the function in its image."""
PYTHON = "3.11"
"""Version of Python in the image."""
SECONDS = 120
"""Time in seconds that CVAT waits for an image."""
MOST_BYTES = 32 * 2**20
"""Largest request in bytes, as in CVAT's own functions."""
EXTRAS = {".safetensors": None, ".onnx": "export", ".xml": "openvino"}
"""Extra of segvit that a model needs, by its ending."""
MAIN = '''"""The function that CVAT calls through Nuclio: see `segvit cvat --help`."""

import json
from pathlib import Path

from segvit.app.labelling.cvat import CvatFunction
from segvit.errors import UserError

MODEL = Path(__file__).with_name("{model}")


def init_context(context):
    """Load the model once, when the container starts."""
    context.user_data.function = CvatFunction(str(MODEL))


def handler(context, event):
    """Answer one image with the masks of its regions."""
    try:
        status, content = 200, context.user_data.function.answer(event.body)
    except UserError as error:
        status, content = 400, {{"error": str(error)}}
    return context.Response(
        body=json.dumps(content), headers={{}}, content_type="application/json", status_code=status
    )
'''
"""Code of the function."""


def write_function(model: str, folder: Path, *, name: str | None = None) -> list[Path]:
    """Write the files of a function, and return them.

    Args:
        model: model file, repository of the Hugging Face Hub, or a name from the zoo.
        folder: new or empty folder.
        name: name of the function in CVAT. Default: that of the model.

    Raises:
        UserError: the model cannot be loaded or has no class besides the background, the folder holds files, or it
            cannot be written to.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not an empty folder: give a new one")
    network = load_network(model, device="cpu")
    classes, _ = classes_of(network)
    source = find_model(model)
    files = network.files if isinstance(network, ExportedModel) else (source,)
    with writing(folder, "give another folder"):
        folder.mkdir(parents=True, exist_ok=True)
        copied = [folder / f"model{file.suffix}" for file in files]
        for file, copy in zip(files, copied, strict=True):
            shutil.copyfile(file, copy)
        settings = settings_of(classes, name=name or _name_of(model), extra=EXTRAS[source.suffix.lower()])
        (folder / YAML).write_text(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True), encoding="utf-8")
        (folder / CODE).write_text(MAIN.format(model=copied[0].name), encoding="utf-8")
    return [folder / YAML, folder / CODE, *copied]


def settings_of(classes: tuple[str, ...], *, name: str, extra: str | None = None) -> dict[str, Any]:
    """Return the content of function.yaml.

    Args:
        classes: names (K,).
        name: name of the function in CVAT.
        extra: extra of segvit that the model needs.

    Raises:
        UserError: all classes are background.
    """
    drawn = drawn_classes(classes)
    if not drawn:
        raise UserError("the model has no class besides the background, so CVAT would get no mask")
    spec = [{"id": number, "name": label, "type": "mask"} for number, label in drawn.items()]
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-") or "model"
    package = f"segvit[{extra}]" if extra else "segvit"
    return {
        "metadata": {
            "name": f"segvit-{slug}",
            "namespace": "cvat",
            "annotations": {
                "name": name,
                "type": "detector",
                "framework": "pytorch",
                "spec": json.dumps(spec, ensure_ascii=False, indent=1),
            },
        },
        "spec": {
            "description": f"Label maps by {name} (segvit)",
            "runtime": f"python:{PYTHON}",
            "handler": "main:handler",
            "eventTimeout": f"{SECONDS}s",
            "build": {
                "image": f"cvat.segvit.{slug}",
                "baseImage": f"python:{PYTHON}-slim-bookworm",
                "directives": {
                    "preCopy": [
                        {"kind": "WORKDIR", "value": PLACE},
                        {"kind": "RUN", "value": f"pip install --no-cache-dir '{package}{_pinned()}'"},
                    ]
                },
            },
            "triggers": {
                "myHttpTrigger": {
                    "numWorkers": 1,
                    "kind": "http",
                    "workerAvailabilityTimeoutMilliseconds": 1000 * SECONDS,
                    "attributes": {"maxRequestBodySize": MOST_BYTES},
                }
            },
            "platform": {
                "attributes": {
                    "restartPolicy": {"name": "always", "maximumRetryCount": 3},
                    "mountMode": "volume",
                }
            },
        },
    }


def _pinned() -> str:
    """Return the installed version as a requirement."""
    try:
        return f"=={version('segvit')}"
    except PackageNotFoundError:  # run from a source tree
        return ""


def _name_of(model: str) -> str:
    """Return the name of a function for a model."""
    from segvit.app.label_photo import short_names

    (name,) = short_names([model])
    return name

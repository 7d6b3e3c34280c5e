"""The command `segvit cvat`."""

from pathlib import Path

from segvit.cli.flags import check_paths


def cvat(model: str, folder: Path, *, name: str | None = None) -> None:
    """Write a serverless function that labels images in CVAT (docs/serve.md).

    The folder gets function.yaml, main.py and the model. Deploy it with `nuctl deploy`, as CVAT's guide to serverless
    functions describes.

    Parameters
    ----------
    model
        Model file (.safetensors; .onnx or .xml of `segvit export`), repository of the Hugging Face Hub (user/repo), or
        a name from the zoo.
    folder
        New folder to write to.
    name
        Name of the function in CVAT. Default: that of the model.
    """
    from segvit.weights.names import check_model_name

    check_model_name(model)
    check_paths(files=(), folder=folder)
    from segvit.app.labelling.cvat_folder import write_function

    for file in write_function(model, folder, name=name):
        print(f"wrote {file}")
    print(f"next: nuctl deploy --project-name cvat --path {folder} --platform local")

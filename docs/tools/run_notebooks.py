"""Run notebooks, and write their outputs into them.

    python docs/tools/run_notebooks.py                          # all, from the weights that segvit downloads
    python docs/tools/run_notebooks.py try_it --set 'STEPS = 60' --folder DIR

A notebook runs in DIR, which may hold files that it looks for, or else in an empty folder. `--set` gives a variable of
its settings another value for this run; the notebook keeps its own. In the outputs, the notebook's temporary folder is
called by the variable that holds it, FOLDER.
"""

import argparse
import base64
import io
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbclient
import nbformat
from PIL import Image

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
TEMPORARY = re.compile(rf"{re.escape(tempfile.gettempdir())}/segvit-\w+")
"""Folder that a notebook makes for its files."""
QUALITY = 85
"""Quality of the JPEG that replaces a larger PNG."""


def execute(notebook: Any, folder: Path, *, settings: Sequence[str] = (), timeout: int = 7200) -> Any:
    """Run a copy of a notebook in a kernel of its own, and return it.

    Args:
        notebook: as nbformat reads it.
        folder: folder to run in.
        settings: assignments such as `STEPS = 3`, in place of those that the notebook has.
        timeout: seconds for a cell.
    """
    copy = nbformat.from_dict(notebook)
    for setting in settings:
        name = setting.partition(" = ")[0]
        found = [cell for cell in copy.cells if re.search(rf"^{name} = ", cell.source, re.MULTILINE)]
        assert len(found) == 1, f"{len(found)} cells set {name}"
        found[0].source = re.sub(rf"^{name} = .*$", lambda _, new=setting: new, found[0].source, flags=re.MULTILINE)
    client = nbclient.NotebookClient(
        copy, timeout=timeout, record_timing=False, resources={"metadata": {"path": str(folder)}}
    )
    client.execute(env=os.environ | {"PYTHONWARNINGS": "ignore:IProgress not found"})  # of a bar that is not used
    return copy


def take_outputs(notebook: Any, executed: Any) -> None:
    """Copy the outputs of a run into the notebook. A photo as PNG becomes a JPEG if that is smaller."""
    for cell, done in zip(notebook.cells, executed.cells, strict=True):
        if cell.cell_type != "code":
            continue
        cell.outputs, cell.execution_count = done.outputs, done.execution_count
        for output in cell.outputs:
            content = output.get("data", {})
            for texts, name in ((output, "text"), (content, "text/plain"), (content, "text/html")):
                if name in texts:
                    texts[name] = TEMPORARY.sub("FOLDER", texts[name])
            if "image/png" in content:
                content.pop("image/jpeg", None)  # Pillow gives both
                content.update(_smaller(content.pop("image/png")))


def _smaller(png: str) -> dict[str, str]:
    """Return a picture in the smaller of the two kinds."""
    picture = Image.open(io.BytesIO(base64.b64decode(png)))
    packed = io.BytesIO()
    picture.convert("RGB").save(packed, format="JPEG", quality=QUALITY)
    jpeg = base64.b64encode(packed.getvalue()).decode()
    return {"image/jpeg": jpeg} if len(jpeg) < len(png) else {"image/png": png}


def main() -> None:
    """Run the notebooks that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=[path.stem for path in sorted(FOLDER.glob("*.ipynb"))])
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="'NAME = VALUE'")
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    for name in arguments.names:
        path = FOLDER / f"{name}.ipynb"
        notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
        with tempfile.TemporaryDirectory() as empty:
            done = execute(notebook, arguments.folder or Path(empty), settings=arguments.settings)
        take_outputs(notebook, done)
        path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
        print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()

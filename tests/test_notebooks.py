"""The notebooks: committed with the outputs of one whole run, true to the library, and run in slow tests.

An .ipynb is its own source. `python docs/tools/run_notebooks.py` runs all of them and writes their outputs.
"""

import ast
import base64
import importlib.util
import io
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import segvit

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MAX_LINES = 32
"""Largest number of lines of a code cell, which fits a screen."""
MAX_BYTES = 1_000_000
"""Largest size of a file with its outputs, which opens at once on a page."""
MACHINE = re.compile(r"/(?:work|root|home|Users|mnt|tmp)/")
"""Paths of the machine that made the outputs."""
TINY = {
    "backbone": "vit_tiny_patch16_224",
    "image_size": 64,
    "patch_size": 8,
    "embed_dim": 32,
    "depth": 4,
    "num_heads": 2,
    "pretrained": False,
}
"""Network that the tests train in a notebook."""
LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)")

nbformat = pytest.importorskip("nbformat", reason="needs the extra dev")


def read(path: Path) -> Any:
    """A notebook, which is a valid one of version 4.5."""
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    return notebook


def untidy(notebook: Any) -> list[str]:
    """What a notebook holds that should not be committed."""
    found = []
    run = any(cell.get("execution_count") for cell in notebook.cells)
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        found.append("its kernel is not python3")
    if extra := set(notebook.metadata) - {"kernelspec", "language_info"}:
        found.append(f"metadata {sorted(extra)}")
    for number, cell in enumerate(notebook.cells):
        if cell.metadata:
            found.append(f"cell {number}: metadata {sorted(cell.metadata)}")
        if cell.cell_type == "code":
            if run and cell.execution_count is None:
                found.append(f"cell {number}: not run, and others are")
            found += [f"cell {number}: {fault}" for fault in map(fault_of, cell.outputs) if fault]
            if cell.source.count("\n") >= MAX_LINES:
                found.append(f"cell {number}: more than {MAX_LINES} lines")
        if not cell.source.strip():
            found.append(f"cell {number}: empty")
    return found


def fault_of(output: Any) -> str | None:
    """Return the fault of an output, if it has one."""
    if output.output_type == "error":
        return f"ends in {output.ename}"
    if output.get("name") == "stderr":
        return f"says {output.text[:80]!r} as an error"
    content = output.get("data", {})
    text = output.get("text", "") + content.get("text/plain", "") + content.get("text/html", "")
    return "names a path of a machine" if MACHINE.search(text) else None


def code_of(notebook: Any) -> str:
    """All code cells as one program, without what is IPython's own."""
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return re.sub(r"^( *)%.*$", r"\1pass", "\n".join(cells), flags=re.MULTILINE)


def missing_names(tree: ast.AST) -> Iterator[str]:
    """Names that are imported, or taken from `segvit`, and are not there."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None
            module = importlib.import_module(node.module)
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                modules = hasattr(module, "__path__") and importlib.util.find_spec(name)  # PIL.Image is one
                if not hasattr(module, alias.name) and not modules:
                    yield name
        elif (
            isinstance(node, ast.Attribute) and ast.unparse(node.value) == "segvit" and node.attr not in segvit.__all__
        ):
            yield f"segvit.{node.attr}"


def not_public(tree: ast.AST) -> list[str]:
    """Modules of segvit below the public ones that are imported from."""
    modules = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    return [name for name in modules if name.startswith("segvit.") and name != "segvit.pictures"]


def test_there_are_four() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["add_a_class", "finetune_your_own", "look_inside", "try_it"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_tidy(path: Path) -> None:
    notebook = read(path)
    assert not untidy(notebook)
    assert any(cell.get("outputs") for cell in notebook.cells), "it is committed with its outputs"
    assert path.stat().st_size < MAX_BYTES
    first = notebook.cells[0]
    assert first.cell_type == "markdown" and first.source.startswith("# ")
    assert re.search(r"^\*\*Needs\*\* ", first.source, re.MULTILINE)
    assert re.search(r"^\*\*Takes\*\* .*\bminutes on 2 cores\b", first.source, re.MULTILINE)
    install = next(cell for cell in notebook.cells if cell.cell_type == "code")
    assert "%pip install" in install.source and "Colab" in install.source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_names_and_links_are_there(path: Path) -> None:
    notebook = read(path)
    tree = ast.parse(code_of(notebook))
    assert not list(missing_names(tree)) and not not_public(tree)
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    links = LINK.findall(prose)
    assert links
    assert not [link for link in links if not (path.parent / link).is_file()]


def test_what_is_wrong_is_seen() -> None:
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "mine", "display_name": "x"}, "widgets": {}})
    cell = nbformat.v4.new_code_cell("a = 1\n" * 40, execution_count=3)
    cell.outputs = [nbformat.v4.new_output("stream", text="x")]
    notebook.cells = [cell, nbformat.v4.new_markdown_cell(" ", metadata={"tags": ["x"]})]
    assert len(untidy(notebook)) == 5
    notebook.cells.append(nbformat.v4.new_code_cell("b = 1", execution_count=4))
    cell.execution_count, cell.outputs = None, [nbformat.v4.new_output("stream", name="stderr", text="careful")]
    assert len(untidy(notebook)) == 7
    code = "import segvit\nfrom segvit.pictures import look, lok\nsegvit.fit\nfrom segvit.data import spec\n"
    assert list(missing_names(ast.parse(code))) == ["segvit.pictures.lok", "segvit.fit"]
    assert not_public(ast.parse(code)) == ["segvit.data"]


# --- running ---------------------------------------------------------------------------------------------------------


def executed(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, *settings: str) -> tuple[Any, str]:
    """A notebook after it ran with tiny settings in an empty folder, and all that it printed."""
    pytest.importorskip("nbclient", reason="needs the extra dev")
    pytest.importorskip("ipykernel", reason="needs the extra dev")
    pytest.importorskip("skimage", reason="needs the extra dev")
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "tools"))
    runner = importlib.import_module("run_notebooks")
    here, temporary = folder / "here", folder / "temporary"
    here.mkdir()
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setenv("IPYTHONDIR", str(folder / "ipython"))
    notebook = runner.execute(read(ROOT / "notebooks" / f"{name}.ipynb"), here, settings=settings, timeout=1800)
    assert not list(here.iterdir()), "it writes beside its temporary folder"
    said = []
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            assert output.get("name") != "stderr", output.text
            said.append(output.text if output.output_type == "stream" else output.data.get("text/plain", ""))
    return notebook, re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(said))


def pictures(notebook: Any) -> int:
    """How many outputs are pictures."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return sum("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.slow
def test_try_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook, said = executed("try_it", tmp_path, monkeypatch, "STEPS = 4", f"MODEL = {TINY}")
    assert pictures(notebook) == 2
    assert "of the pixels are marked" in said and "(400, 600) int64" in said
    assert said.count("Prediction(") == 3 and "billion multiply-adds" in said  # two are printed, one is shown


@pytest.mark.slow
def test_finetune_your_own_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"steps": 4, "model": TINY, "loggers": [], "data": {"workers": 0}}
    notebook, said = executed("finetune_your_own", tmp_path, monkeypatch, f"SETTINGS = {settings}")
    assert pictures(notebook) == 3
    ready, _, not_ready = said.partition("Not ready to train")
    assert "Ready to train" in ready and "--data.classes rest=0 road=80 tree=160 car=240" in not_ready
    assert "Settings for" in said and re.search(r"mIoU 0\.\d{3} on 12 photos", said)
    assert float(re.findall(r"([\d.]+)% of the pixels have the same label", said)[-1]) > 99.9


@pytest.mark.slow
def test_look_inside_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook, said = executed("look_inside", tmp_path, monkeypatch, "STEPS = 4", f"MODEL = {TINY}")
    assert pictures(notebook) == 6
    assert float(re.findall(r"largest difference ([\d.e-]+)", said)[-1]) < 1e-4
    assert len(list((tmp_path / "temporary").glob("segvit-*/figures/*.pdf"))) >= 4


@pytest.mark.slow
def test_add_a_class_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook, said = executed("add_a_class", tmp_path, monkeypatch, "STEPS = 4", "MORE_STEPS = 4")
    assert pictures(notebook) == 2
    assert "group 0: sky, water, grass, road, building, tree, sign\ngroup 1: car\n" in said
    assert said.count("equal to the bit: True") == 2 and "all to car: True" in said


def test_outputs_of_a_run_are_taken_without_its_folder_and_photos_made_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "tools"))
    runner = importlib.import_module("run_notebooks")
    noise = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(noise, format="PNG")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x")])
    done = nbformat.from_dict(notebook)
    png = base64.b64encode(noise.getvalue()).decode()
    folder = f"{tempfile.gettempdir()}/segvit-g1_ffj7e"
    printed = {"text/plain": f"-> {folder}/run\n", "text/html": f"<b>{folder}/</b>run"}
    done.cells[0].outputs = [
        nbformat.v4.new_output("display_data", data={"image/png": png}),
        nbformat.v4.new_output("display_data", data=dict(printed)),
        nbformat.v4.new_output("stream", text=f"see {folder}"),
    ]
    done.cells[0].execution_count = 1
    runner.take_outputs(notebook, done)
    first, second, third = notebook.cells[0].outputs
    assert list(first.data) == ["image/jpeg"] and notebook.cells[0].execution_count == 1
    assert second.data == {"text/plain": "-> FOLDER/run\n", "text/html": "<b>FOLDER/</b>run"}
    assert third.text == "see FOLDER"

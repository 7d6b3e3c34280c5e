"""The notebooks: committed without outputs, true to the library, and run from a clean kernel in slow tests.

An .ipynb is its own source. Who has run one clears its outputs (Restart kernel and clear all outputs) before saving.
"""

import ast
import importlib.util
import re
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import segvit

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MAX_LINES = 26
"""Of a code cell: it fits a screen with what it shows."""
MINUTES, CORES = 4, 2
"""What a notebook may take."""
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
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        found.append("its kernel is not python3")
    if extra := set(notebook.metadata) - {"kernelspec", "language_info"}:
        found.append(f"metadata {sorted(extra)}")
    for number, cell in enumerate(notebook.cells):
        if cell.metadata:
            found.append(f"cell {number}: metadata {sorted(cell.metadata)}")
        if cell.cell_type == "code":
            if cell.outputs or cell.execution_count is not None:
                found.append(f"cell {number}: outputs; clear them and save")
            if cell.source.count("\n") >= MAX_LINES:
                found.append(f"cell {number}: more than {MAX_LINES} lines")
        if not cell.source.strip():
            found.append(f"cell {number}: empty")
    return found


def code_of(notebook: Any) -> str:
    """All code cells as one program, without what is IPython's own."""
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return "\n".join(line for line in "\n".join(cells).splitlines() if not line.startswith("%"))


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


def test_there_are_three() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["finetune_your_own", "look_inside", "try_it"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_tidy(path: Path) -> None:
    notebook = read(path)
    assert not untidy(notebook)
    first = notebook.cells[0]
    assert first.cell_type == "markdown" and first.source.startswith("# ")
    assert re.search(r"^\*\*Needs\*\* ", first.source, re.MULTILINE)
    assert re.search(r"^\*\*Takes\*\* .*\bminutes on 2 cores\b", first.source, re.MULTILINE)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_names_and_links_are_there(path: Path) -> None:
    notebook = read(path)
    assert not list(missing_names(ast.parse(code_of(notebook))))
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    links = LINK.findall(prose)
    assert links
    assert not [link for link in links if not (path.parent / link).is_file()]


def test_what_is_wrong_is_seen() -> None:
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "mine", "display_name": "x"}, "widgets": {}})
    cell = nbformat.v4.new_code_cell("a = 1\n" * 30, execution_count=3)
    cell.outputs = [nbformat.v4.new_output("stream", text="x")]
    notebook.cells = [cell, nbformat.v4.new_markdown_cell(" ", metadata={"tags": ["x"]})]
    assert len(untidy(notebook)) == 6
    code = "import segvit\nfrom segvit.data.shapes.scenes import render_scene, draw_scene\nsegvit.train\nsegvit.fit\n"
    assert list(missing_names(ast.parse(code))) == ["segvit.data.shapes.scenes.draw_scene", "segvit.fit"]


# --- running ---------------------------------------------------------------------------------------------------------


def executed(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, str]:
    """A notebook after it ran in a kernel of its own, in an empty folder, and all that it printed."""
    nbclient = pytest.importorskip("nbclient", reason="needs the extra dev")
    pytest.importorskip("ipykernel", reason="needs the extra dev")
    here, temporary = folder / "here", folder / "temporary"
    here.mkdir()
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setenv("IPYTHONDIR", str(folder / "ipython"))
    notebook = read(ROOT / "notebooks" / f"{name}.ipynb")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    nbclient.NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": str(here)}}).execute()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{name}: {seconds:.0f} s of processor time")
    assert seconds < MINUTES * 60 * CORES  # of the clock, other processes would count too
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


def number(pattern: str, said: str) -> float:
    """The last number that a pattern finds."""
    return float(re.findall(pattern, said)[-1])


@pytest.mark.slow
def test_try_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook, said = executed("try_it", tmp_path, monkeypatch)
    assert pictures(notebook) == 4
    assert number(r"validation mIoU ([\d.]+)", said) > 0.45
    right = [float(share) for share in re.findall(r"quarter \d: +([\d.]+)% right", said)]
    assert right == sorted(right) and right[3] > 97
    assert "shrunk 49%" in said


@pytest.mark.slow
def test_finetune_your_own_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook, said = executed("finetune_your_own", tmp_path, monkeypatch)
    assert pictures(notebook) == 4
    assert "label value 80, 160, 240 is not a class" in said and "Ready to train" in said
    assert "keeps backbone, decoder and 3 of 4 classes" in said
    assert number(r"validation mIoU ([\d.]+)", said) > 0.5
    assert number(r"([\d.]+)% of that photo's pixels", said) > 99.9


@pytest.mark.slow
def test_look_inside_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook, said = executed("look_inside", tmp_path, monkeypatch)
    assert pictures(notebook) == 8
    assert number(r"up to stage 3\S* .*mIoU ([\d.]+)", said) > 0.45
    assert number(r"largest difference ([\d.e-]+)", said) < 1e-4
    assert number(r"([\d.]+)% of the pixels alike", said) == 100
    assert len(list((tmp_path / "temporary").glob("segvit-*/figures/*.pdf"))) >= 5

"""What holds the package together: which module may import which, and what an import costs."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "segvit"
EXTRAS = (
    "onnx",
    "onnxscript",
    "onnxruntime",
    "openvino",
    "nncf",
    "executorch",
    "litert_torch",
    "ai_edge_litert",
    "ai_edge_quantizer",
    "coremltools",
    "gradio",
    "uvicorn",
    "fastapi",
    "starlette",
    "scipy",
    "av",
    "peft",
    "pillow_heif",
    "rasterio",
    "pydicom",
    "datasets",
    "pyarrow",
)

# Each package, and those that it may import from, itself aside. A module belongs to the longest name that fits it.
# Some modules lie lower than the rest of their package, since the model leans on them: they have a line of their own.
SPEC = {"errors", "utils", "data.spec", "data.labels", "data.pairs", "data.lists", "data.images", "data.yaml_values"}
SPEC |= {"data.palette", "data.frames", "data.masks_beside", "data.bands", "data.member"}
SPEC |= {"data.annotations"}  # the formats of labelling tools are label formats too
FILES = {
    "weights.file_kind",
    "weights.names",
    "weights.model_file",
    "weights.timm_weights",
    "weights.hub",
    "weights.card",
}
LABEL_MAP = {"inference.label_map", "inference.tiles", "inference.bounds"}
PHOTO = {"prediction.photo", "prediction.polygons"}
CONFIG = SPEC | {"config_files", "config"}
MODEL = CONFIG | FILES | LABEL_MAP | {"models", "models.segvit"}
NETWORK = MODEL | {"losses", "fused_losses", "edge_loss", "inference", "weights", "data"}
PICTURES = NETWORK | {"pictures", "pictures.inside"}
RUNS = PICTURES | PHOTO | {"evaluation", "prediction", "video", "reports", "training", "profiling", "recipes", "export"}
MAY_IMPORT = {
    "errors": set(),
    "utils": {"errors"},
    **dict.fromkeys(SPEC - {"errors", "utils"}, SPEC),
    "data.annotations.choose": SPEC | {"config"},
    "config_files": {"errors", "utils"},
    "config": {"errors", "utils", "config_files"},
    "data": CONFIG | {"data.annotations.choose"},
    **dict.fromkeys(FILES, CONFIG | FILES),
    **dict.fromkeys(LABEL_MAP, CONFIG | LABEL_MAP | {"models"}),
    "models": MODEL,
    "models.segvit": MODEL | {"inference", "prediction.photo"},  # model.predict("photo.jpg")
    "prediction.polygons": CONFIG,
    "prediction.photo": MODEL | {"inference", "pictures", "prediction.polygons"},
    "fused_losses": CONFIG,
    "edge_loss": CONFIG,
    "losses": CONFIG | {"models", "fused_losses", "edge_loss"},
    "inference": MODEL,
    "weights": MODEL | {"inference"},
    "pictures": SPEC | {"data", "pictures.inside"},
    "pictures.inside": PICTURES,
    "video": SPEC | {"data"},
    "evaluation": PICTURES,
    "prediction": PICTURES | PHOTO | {"video"},
    "reports": PICTURES | {"evaluation"},
    "training": PICTURES | {"evaluation", "reports"},
    "profiling": PICTURES | {"training", "evaluation"},
    "recipes": PICTURES | {"training", "profiling"},
    "export": PICTURES | {"evaluation", "prediction", "reports"},
    "demo": RUNS,
    "app": RUNS,
    "cli": RUNS | {"app", "demo"},
    "__main__": {"cli"},
    "segvit": RUNS,  # segvit/__init__.py: the public names, resolved lazily
}


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name below `segvit`; the package itself is `segvit`."""
    found = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "segvit"] = file
    return found


def group_of(module: str) -> str:
    """The group of MAY_IMPORT that `module` belongs to."""
    fits = [group for group in MAY_IMPORT if module == group or module.startswith(group + ".")]
    assert fits, f"segvit/{module.replace('.', '/')}.py has no place yet: give it one in MAY_IMPORT of {__file__}"
    return max(fits, key=len)


def lazy_names(known: dict[str, Path]) -> dict[str, str]:
    """Return the module of each name that a package imports on first use (utils/lazy.py), by the name in full."""
    found = {}
    for package, file in known.items():
        text = file.read_text() if file.name == "__init__.py" else ""
        blocks = [node for node in ast.parse(text).body if isinstance(node, ast.If)] if "lazy_names(" in text else []
        prefix = "segvit" if package == "segvit" else f"segvit.{package}"
        for node in (statement for block in blocks for statement in block.body):
            if isinstance(node, ast.ImportFrom) and node.module:
                found |= {f"{prefix}.{alias.name}": node.module.removeprefix("segvit.") for alias in node.names}
    return found


def imports_of(file: Path, known: dict[str, Path], lazy: dict[str, str]) -> Iterator[str]:
    """The modules of ours that `file` imports: at the top, in functions, for types alone, or by a lazy name."""
    tree = ast.parse(file.read_text())
    bound: dict[str, str] = {}  # names in the file of our packages
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
            bound |= {(alias.asname or "segvit"): "segvit" for alias in node.names if alias.name == "segvit"}
        elif isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names]
            bound |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            names += [name for name in [f"{bound.get(node.value.id)}.{node.attr}"] if name in lazy]
    for name in names:
        path = name.split(".")
        if name in lazy:
            yield lazy[name]
        elif path[0] == "segvit":
            inside = [".".join(path[1:end]) for end in range(len(path), 1, -1)]
            yield next((module for module in inside if module in known), "segvit")


def test_imports_point_one_way() -> None:
    known = modules()
    lazy = lazy_names(known)
    wrong = [
        f"{module} imports {imported}"
        for module, file in known.items()
        for imported in imports_of(file, known, lazy)
        if group_of(imported) not in MAY_IMPORT[group_of(module)] | {group_of(module)}
    ]
    assert not wrong, "\n".join(sorted({*wrong}))


def test_pictures_are_opened_in_one_place() -> None:
    """Pillow refuses files above 179 megapixels: `open_unlimited` lifts the limit, and the app has one of its own."""
    found = {
        name
        for name, file in modules().items()
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute) and node.attr == "open" and ast.unparse(node.value).endswith("Image")
    }
    assert found == {"data.images", "app.photo"}


def test_no_import_cycles() -> None:
    known = modules()
    lazy = lazy_names(known)
    graph = {module: set(imports_of(file, known, lazy)) - {module} for module, file in known.items()}
    for package in {name.removeprefix("segvit").rpartition(".")[0].lstrip(".") or "segvit" for name in lazy}:
        graph.pop(package)  # names of its modules, lazily: whoever uses one leans on that module
    while leaves := [module for module, needs in graph.items() if not needs & graph.keys()]:
        for module in leaves:
            del graph[module]
    while tops := [module for module in graph if not any(module in needs for needs in graph.values())]:
        for module in tops:
            del graph[module]
    circles = "\n".join(f"  {module} -> {', '.join(sorted(graph[module] & graph.keys()))}" for module in sorted(graph))
    assert not graph, f"these modules import each other in a circle:\n{circles}"


def test_import_rules_can_fail(tmp_path: Path) -> None:
    known = {"errors": tmp_path, "training.train": tmp_path, "data.spec": tmp_path, "models": tmp_path}
    lazy = {"segvit.create_model": "models.create", "segvit.pictures.look": "pictures.inside.look"}
    file = tmp_path / "x.py"
    file.write_text(
        "import segvit.training.train\nfrom segvit import errors, pictures\nfrom segvit.data.spec import load_spec\n"
        "def f():\n    from segvit import create_model\n    pictures.look()\n"
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from segvit.models import atm\n"
    )
    expected = {"training.train", "errors", "data.spec", "models", "segvit", "models.create", "pictures.inside.look"}
    assert set(imports_of(file, known, lazy)) == expected
    file.write_text("import segvit\nsegvit.create_model()\n")
    assert set(imports_of(file, known, lazy)) == {"segvit", "models.create"}
    found = lazy_names(modules())
    assert found["segvit.create_model"] == "models.create" and found["segvit.pictures.look"] == "pictures.inside.look"
    assert group_of("data.spec") == "data.spec"
    assert group_of("data.dataset") == "data"
    with pytest.raises(AssertionError, match="no place yet"):
        group_of("newcomer")


def test_the_tree_stays_small() -> None:
    long = {name: lines for name, file in modules().items() if (lines := len(file.read_text().splitlines())) > 350}
    assert not long, "split these files: 350 lines at most"
    folders = [folder for folder in (PACKAGE, *PACKAGE.rglob("*")) if folder.is_dir() and folder.name != "__pycache__"]
    full = {str(folder): count for folder in folders if (count := len([*folder.glob("*.*")])) > 20}
    assert not full, "give these files a folder of their own: 20 side by side at most"
    assert len([*PACKAGE.glob("*.py")]) <= 8, "what has a package does not lie in the root"


def python(code: str, *arguments: str, cwd: Path = ROOT, path: Path = ROOT) -> str:
    """What a fresh interpreter prints for `code`; its errors fail the test."""
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(path)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_every_module_imports_without_extras() -> None:
    names = ["segvit" if name == "segvit" else f"segvit.{name}" for name in modules() if name != "__main__"]
    code = f"""
import importlib.util, sys
class Hide:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in {EXTRAS!r} else self.finder.find_spec(name, path, target)
sys.meta_path[:] = [Hide(finder) for finder in sys.meta_path]
assert importlib.util.find_spec("scipy") is None and importlib.util.find_spec("numpy")
for name in sys.argv[1:]:
    importlib.import_module(name)
print(len(sys.argv) - 1)
"""
    assert python(code, *names).strip() == str(len(names))


HEAVY = "print([name for name in ('torch', 'torchvision', 'timm', 'matplotlib', 'accelerate') if name in sys.modules])"


@pytest.mark.parametrize("module", ["segvit", "segvit.config", "segvit.cli.main", "segvit.data.spec"])
def test_importing_stays_light(module: str) -> None:
    assert python(f"import sys, {module}\n{HEAVY}").strip() == "[]"


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"]])
def test_help_loads_no_torch(arguments: list[str]) -> None:
    code = f"""
import sys
from segvit.cli.main import main
sys.argv = ["segvit", *sys.argv[1:]]
try:
    main()
except SystemExit as leave:
    assert not leave.code, leave.code
{HEAVY}
"""
    *text, heavy = python(code, *arguments).strip().splitlines()
    assert heavy == "[]"
    assert "segvit" in "\n".join(text)


def repository_files() -> Iterator[Path]:
    """Every text file that belongs to the repository, found without git."""
    for top in sorted(ROOT.iterdir()):
        if top.name in {".ci", ".github", "benchmarks", "configs", "deploy", "docs", "notebooks", "segvit", "tests"}:
            yield from (file for file in sorted(top.rglob("*")) if file.is_file() and "__pycache__" not in file.parts)
        elif top.is_file() and top.name != ".git":
            yield top


def test_no_machine_paths_or_package_hosts() -> None:
    # Written so that the patterns don't match their own text.
    machine_path = re.compile(r"(?<![\w.$}>])/(?:work|root|home|Users|mnt|workspace)/\w")
    package_host = re.compile(
        r"pypi\.(?:org|python|io)|python[h]osted|download\.py[t]orch|(?:extra-)?index[-_]url|pkg\.dev/|[a]rtifactory|conda\.anaconda"
    )
    wrong = []
    for file in repository_files():
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), start=1):
            if machine_path.search(line) or package_host.search(line):
                wrong.append(f"{file.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert not wrong, "\n".join(wrong)


def test_links_resolve() -> None:
    result = subprocess.run(
        [sys.executable, "docs/tools/build_site.py", "--links"], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_test_skipped_without_need_fails_ci(tmp_path: Path) -> None:
    report = tmp_path / "tests.xml"
    case = '<testsuite><testcase classname="tests.{0}" name="test_a"><skipped message="{1}"/></testcase></testsuite>'
    script = [sys.executable, str(ROOT / ".ci" / "skipped_tests.py"), str(report)]
    for name, reason, kinds, code in [
        ("test_golden", "no file", ["parity"], 1),
        ("test_model", "../shared is absent", ["browser", "parity"], 1),
        ("test_model", "../shared is absent", ["browser"], 0),
        ("test_page", "no browser found: none of chromium", ["browser"], 1),
        ("test_page", "playwright is not installed", ["browser", "parity"], 1),
        ("test_page", "no browser found: none of chromium", ["parity"], 0),
        ("test_browser", "no GPU", ["browser", "parity"], 0),
        ("test_x", "no GPU", [], 1),
    ]:
        report.write_text(case.format(name, reason))
        assert bool(subprocess.run([*script, *kinds], capture_output=True).returncode) is bool(code), (name, reason)

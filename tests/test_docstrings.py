"""Docstrings of public names: there is one; it tells the shapes of tensors, and the errors that its code raises.

Public is what has no underscore in front, in a module that has none: functions, classes, their methods and properties.
The rules read the source, not the objects, so that no module has to be imported.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(path for path in (ROOT / "segvit").rglob("*.py") if not path.name.startswith("__"))
METHOD = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
Function = ast.FunctionDef | ast.AsyncFunctionDef

DIM = r"(?:\.{1,3}|[A-Za-z]'?|\d+|new|old|size|heads|number of \w+)(?: \w+| ?[-+*/] ?[^,()]+)?"
SHAPE = re.compile(rf"\({DIM}(?:, ?{DIM})*,?\)|\bscalar\b")
"""A shape in words: (B, K, H, W), (3,), (h, w), (1, P + N, D), (number of classes, n); or a tensor of one value."""
TENSOR = re.compile(r"\b(?:Tensor|NDArray|ndarray)\b")
STATE = re.compile(r"\b(?:dict|Mapping)\[[^\]]*\bTensor\]")
"""Tensors by name, whose shapes are the model's."""
VERBS = re.compile(r"^segvit/cli/\w+\.py")
"""Modules of the command line: their docstrings are the help, which tells of no exceptions."""
METHOD_PARTS = {
    "segvit/models/backbone.py": 1,
    "segvit/models/structure.py": 1,
    "segvit/models/atm.py": 2,
    "segvit/models/decoder.py": 2,
    "segvit/models/scores.py": 2,
    "segvit/models/downsampling.py": 3,
    "segvit/models/upsampling.py": 3,
    "segvit/losses.py": 4,
    "segvit/fused_losses.py": 4,
    "segvit/training/optim.py": 5,
    "segvit/data/augment/geometry.py": 5,
    "segvit/inference/windows.py": 5,
    "segvit/evaluation/metrics.py": 6,
    "segvit/evaluation/boundary.py": 6,
}
"""What follows the method, and the section of docs/method.md that says so."""
CITED = re.compile(r"docs/method\.md,? sections? (\d)(?: and (\d))?")


@dataclass(frozen=True)
class Name:
    """A public name, and where it stands."""

    path: str
    """Module and name, such as segvit/losses.py: criterion."""
    node: Function | ast.ClassDef

    @property
    def text(self) -> str:
        return ast.get_docstring(self.node) or ""


def public_names(source: str, module: str) -> Iterator[Name]:
    """Functions and classes of a module, and the methods of the classes, without those that have an underscore."""

    def walk(body: list[ast.stmt], prefix: str) -> Iterator[Name]:
        for node in body:
            overloads = any(ast.unparse(each) == "overload" for each in getattr(node, "decorator_list", ()))
            if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_") and not overloads:
                yield Name(f"{module}: {prefix}{node.name}", node)
                if isinstance(node, ast.ClassDef):
                    yield from walk(node.body, f"{prefix}{node.name}.")

    yield from walk(ast.parse(source).body, "")


def own_parts(node: ast.AST) -> Iterator[ast.AST]:
    """The parts of a function without those of functions and classes inside it."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, Function | ast.ClassDef | ast.Lambda):
            yield child
            yield from own_parts(child)


def raises_user_error(node: ast.AST) -> bool:
    """Whether a function itself raises a UserError."""
    raised = (part.exc for part in own_parts(node) if isinstance(part, ast.Raise) and part.exc)
    return any("UserError" in ast.unparse(error).partition("(")[0] for error in raised)


def handles_tensors(node: Function) -> bool:
    """Whether a function takes or gives tensors or arrays, by its annotations."""
    arguments = node.args
    types = [part.annotation for part in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    words = [STATE.sub("", ast.unparse(kind)) for kind in (*types, node.returns) if kind]
    return any(map(TENSOR.search, words))


def parameters(node: Function | ast.ClassDef) -> set[str]:
    """What a function takes, or the making of a class: its fields too, for dataclasses."""
    if isinstance(node, ast.ClassDef):
        made = [part for part in node.body if isinstance(part, Function) and part.name == "__init__"]
        fields = {
            part.target.id
            for part in node.body
            if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)
        }
        return fields.union(*map(parameters, made))
    arguments = node.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    return {part.arg for part in every if part}


def told_arguments(text: str) -> set[str]:
    """The names in the section Args of a docstring."""
    section = re.search(r"^Args:\n((?:^    .*\n?|^\n)*)", text, re.MULTILINE)
    lines = re.findall(r"^    (\w+(?:, \w+)*):", section[1], re.MULTILINE) if section else []
    return {name for line in lines for name in line.split(", ")}


def lacks(name: Name) -> str | None:
    """What the docstring of a public name lacks, if anything."""
    node = name.node
    if not name.text:
        return "no docstring"
    if foreign := told_arguments(name.text) - parameters(node):
        return f"tells of {', '.join(sorted(foreign))}, which it does not take"
    if isinstance(node, ast.ClassDef):
        starts = ("__init__", "__post_init__")
        made = [part for part in node.body if isinstance(part, Function) and part.name in starts]
        said = name.text + "".join(ast.get_docstring(part) or "" for part in made)
        return "Raises" if any(map(raises_user_error, made)) and "Raises:" not in said else None
    if raises_user_error(node) and "Raises:" not in name.text and not VERBS.match(name.path):
        return "Raises"
    if handles_tensors(node) and not SHAPE.search(name.text):
        return "shape"
    return None


def lacking(source: str, module: str) -> set[str]:
    """`module: name: what is lacking` of each public name of a module."""
    return {f"{name.path}: {fault}" for name in public_names(source, module) if (fault := lacks(name))}


def test_every_public_name_says_what_it_must() -> None:
    found: set[str] = set()
    for path in MODULES:
        found |= lacking(path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix())
    assert not found, "\n".join(sorted(found))


def test_the_rules_see_what_is_lacking_and_nothing_else() -> None:
    source = '''
def bare(): pass
def told(x: Tensor) -> int:
    """Pixels of (B, H, W)."""
def untold(x: Tensor) -> int:
    """Pixels (all of them, always)."""
def state(x: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by name."""
def refuses(x):
    """Refuse."""
    raise UserError("no")
def inside(x):
    """Give a function that refuses."""
    def refuses(): raise UserError("no")
def says(x):
    """Refuse.

    Raises:
        UserError: always.
    """
    raise UserError("no")
class Part:
    """A part."""
    def __init__(self): raise UserError("no")
    def method(self) -> NDArray[np.uint8]:
        """Its picture."""
    def _own(self): pass
def _own(): pass
def renamed(new):
    """Take a number.

    Args:
        old: the number,
            always: this is no name.
    """
'''
    assert lacking(source, "m.py") == {
        "m.py: bare: no docstring",
        "m.py: untold: shape",
        "m.py: refuses: Raises",
        "m.py: Part: Raises",
        "m.py: Part.method: shape",
        "m.py: renamed: tells of old, which it does not take",
    }
    assert not lacking('def verb():\n    """Help."""\n    raise UserError("no")\n', "segvit/cli/data.py")


@pytest.mark.parametrize(
    "text", ["(B, K, h, w)", "(3,)", "(new, old)", "(n, number of classes)", "(1, P + N, D)", "(., y)"]
)
def test_a_shape_is_seen(text: str) -> None:
    assert SHAPE.search(f"What is {text}.") and not SHAPE.search("What it is (that, too, is so).")


def test_every_module_says_what_it_is() -> None:
    silent = [str(path) for path in MODULES if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))]
    assert not silent, "\n".join(silent)


@pytest.mark.parametrize("module,section", METHOD_PARTS.items())
def test_the_parts_of_the_method_name_their_source(module: str, section: int) -> None:
    cited = CITED.findall((ROOT / module).read_text(encoding="utf-8"))
    assert any(str(section) in pair for pair in cited), f"cite docs/method.md section {section}"


def test_cited_sections_exist() -> None:
    sections = set(re.findall(r"^## (\d)\. ", METHOD, re.MULTILINE))
    for path in MODULES:
        for pair in CITED.findall(path.read_text(encoding="utf-8")):
            assert set(pair) - {""} <= sections, path

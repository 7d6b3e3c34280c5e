"""Public names of a package that are imported on first use, listed once.

if TYPE_CHECKING:
    from segvit.losses import criterion as criterion        # one line per home; type checkers and editors read them
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
"""

import ast
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from segvit.utils.text import did_you_mean, nearest

ELSEWHERE = {
    "from_pretrained": "load_model",
    "load": "load_model",
    "AutoModel": "load_model",
    "Model": "load_model",
    "pipeline": "predict",
    "inference": "predict",
    "Unet": "create_model",
    "fit": "train",
    "Trainer": "train",
    "val": "evaluate",
    "validate": "evaluate",
    "test": "evaluate",
    "Dataset": "open_dataset",
    "load_dataset": "open_dataset",
    "export": "export_model",
    "benchmark": "bench",
    "summary": "profile",
}
"""Names in other libraries, and the public name of the same task."""


def lazy_names(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return `__getattr__`, `__dir__` and `__all__` of a package for the names that it imports under TYPE_CHECKING.

    Args:
        package: the package's `__name__`.
        file: the package's `__file__`.
    """
    tree = ast.parse(Path(file).read_text(encoding="utf-8"))
    homes = {
        alias.name: str(node.module)
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }

    def get(name: str) -> Any:
        if name not in homes:
            near = ELSEWHERE.get(name) if ELSEWHERE.get(name) in homes else None
            hint = did_you_mean([f"{package}.{each}" for each in ([near] if near else nearest(name, homes))])
            raise AttributeError(f"module {package!r} has no attribute {name!r}{hint}")
        value = getattr(import_module(homes[name]), name)
        setattr(sys.modules[package], name, value)  # found without this function from now on
        return value

    return get, lambda: sorted(homes), sorted(homes)

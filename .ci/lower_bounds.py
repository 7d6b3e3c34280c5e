"""Write the lowest version of each package that pyproject.toml allows, as constraints for pip.

    python .ci/lower_bounds.py > constraints-lowest.txt

`.ci/lowest` installs exactly those versions and runs the default tests with them.
A test compares constraints-lowest.txt with pyproject.toml.
"""

import re
import sys
import tomllib
from itertools import chain
from pathlib import Path

PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"
REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(?:\[[\w,-]+\])?>=(?P<version>[0-9][0-9.]*)(?:,<[0-9.]+)?")
HEADER = (
    "# Lowest versions that pyproject.toml allows. Written by `python .ci/lower_bounds.py > constraints-lowest.txt`.\n"
)


def lower_bounds(text: str) -> dict[str, str]:
    """Return the lowest version of each package that a pyproject.toml names, sorted by name.

    Raises:
        ValueError: a requirement has no lower bound, or two requirements of a package have different ones.
    """
    project = tomllib.loads(text)["project"]
    bounds: dict[str, str] = {}
    for requirement in chain(project["dependencies"], *project["optional-dependencies"].values()):
        found = REQUIREMENT.fullmatch(requirement.replace(" ", ""))
        if not found:
            raise ValueError(f"{requirement!r} in pyproject.toml has no lower bound; write it as NAME>=VERSION")
        name, version = found["name"].lower().replace("_", "-"), found["version"]
        if bounds.setdefault(name, version) != version:
            raise ValueError(f"{name} has two lower bounds in pyproject.toml: {bounds[name]} and {version}")
    return dict(sorted(bounds.items()))


def constraints(text: str) -> str:
    """Return constraints for pip, one package a line."""
    return HEADER + "".join(f"{name}=={version}\n" for name, version in lower_bounds(text).items())


if __name__ == "__main__":
    try:
        print(constraints(PYPROJECT.read_text(encoding="utf-8")), end="")
    except ValueError as error:
        sys.exit(f"error: {error}")

"""The lowest versions that pyproject.toml allows, and the constraints made of them."""

import tomllib
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.helpers.pages import load_script

ROOT = Path(__file__).resolve().parents[2]
CI = ROOT / ".ci"
PROJECT = """
[project]
dependencies = ["torch>=2.8", "PyYAML >= 6.0.2"]
[project.optional-dependencies]
a = ["gradio[x]>=6.0,<7", "torch>=2.8"]
"""


def requirements() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [Requirement(text) for text in chain(project["dependencies"], *project["optional-dependencies"].values())]


def test_constraints_are_those_of_pyproject() -> None:
    text = (ROOT / "constraints-lowest.txt").read_text(encoding="utf-8")
    wanted = load_script("lower_bounds", CI).constraints((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert text == wanted, "run: python .ci/lower_bounds.py > constraints-lowest.txt"
    pins = {canonicalize_name(each.name): each for each in map(Requirement, text.splitlines()[1:])}
    for requirement in requirements():
        (pin,) = pins[canonicalize_name(requirement.name)].specifier
        assert pin.operator == "==" and requirement.specifier.contains(pin.version)
        assert {str(each) for each in requirement.specifier if each.operator == ">="} == {f">={pin.version}"}
    assert len(pins) == len({canonicalize_name(requirement.name) for requirement in requirements()})


def test_the_pinned_versions_are_allowed() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {
        canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines) if version
    }
    for requirement in requirements():
        name = canonicalize_name(requirement.name)
        assert name not in pins or requirement.specifier.contains(pins[name]), f"{requirement}: pinned to {pins[name]}"


def test_names_are_read_in_any_spelling() -> None:
    assert load_script("lower_bounds", CI).lower_bounds(PROJECT) == {"gradio": "6.0", "pyyaml": "6.0.2", "torch": "2.8"}


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("'torch' in pyproject.toml has no lower bound", '"torch"'),
        ("has no lower bound; write it as NAME>=VERSION", '"torch<3"'),
        ("has no lower bound", '"torch @ file:///torch.whl"'),
        ("torch has two lower bounds in pyproject.toml: 2.8 and 2.9", '"torch>=2.9"'),
    ],
)
def test_requirements_without_one_lower_bound_are_refused(said: str, line: str) -> None:
    with pytest.raises(ValueError, match=said):
        load_script("lower_bounds", CI).lower_bounds(PROJECT.replace('"torch>=2.8"]\n', f"{line}]\n"))

"""Files about the project agree with pyproject.toml: citation, recipe, Space, forms, badges."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
SPACE = ROOT / "deploy" / "space"
CONDA_NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base"}
"""Names of packages that conda-forge calls otherwise."""
FRESH = re.compile(r"pip install (?:-q )?(?:\\?[\"'])?segvit\b")
"""A command that installs segvit by its name."""


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return found


def pythons(project: dict[str, Any]) -> list[str]:
    return re.findall(r"Python :: (\d+\.\d+)", "\n".join(project["classifiers"]))


# --- citation --------------------------------------------------------------------------------------------------------


def test_citation_names_software_and_papers(project: dict[str, Any]) -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0" and citation["type"] == "software"
    assert {"message", "title", "authors"} <= citation.keys()
    assert citation["authors"] == [{"name": "The segvit developers"}] and citation["license"] == project["license"]
    first, second = citation["references"]
    assert (first["type"], first["year"], first["url"]) == (
        "conference-paper",
        2022,
        "https://arxiv.org/abs/2210.05844",
    )
    assert (second["type"], second["year"], second["doi"]) == ("article", 2024, "10.1007/s11263-023-01894-8")
    for paper in (first, second):
        assert paper["title"].startswith("SegViT") and paper["authors"][0]["family-names"] == "Zhang"
        assert all(author.keys() == {"family-names", "given-names"} for author in paper["authors"])


# --- conda -----------------------------------------------------------------------------------------------------------


def test_recipe_requires_what_pyproject_requires(project: dict[str, Any]) -> None:
    recipe = yaml.safe_load((ROOT / "deploy" / "conda" / "recipe.yaml").read_text(encoding="utf-8"))
    needs = [f"python{project['requires-python']}", *project["dependencies"]]
    wanted = {}
    for requirement in map(Requirement, needs):
        wanted[CONDA_NAMES.get(requirement.name, requirement.name)] = requirement.specifier
    minimum = recipe["context"]["python_min"]
    found = {}
    for line in recipe["requirements"]["run"]:
        name, _, bounds = line.replace("${{ python_min }}", minimum).partition(" ")
        found[name] = Requirement(f"{name}{bounds}").specifier
    assert found == wanted
    scripts = [f"{name} = {target}" for name, target in project["scripts"].items()]
    assert recipe["build"]["python"]["entry_points"] == scripts
    backend = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
    assert recipe["requirements"]["host"][2:] == [requirement.replace(">=", " >=") for requirement in backend]
    assert recipe["about"]["license"] == project["license"]


# --- Space -----------------------------------------------------------------------------------------------------------


def test_space_agrees_with_the_package(project: dict[str, Any]) -> None:
    _, front, _ = (SPACE / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    facts = yaml.safe_load(front)
    assert facts["sdk"] == "gradio" and (SPACE / facts["app_file"]).is_file()
    assert facts["python_version"] in pythons(project)
    assert facts["license"] == project["license"].lower()
    assert len(facts["short_description"]) <= 60, "the Hub's limit"
    colors = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
    assert {facts["colorFrom"], facts["colorTo"]} <= colors
    (gradio,) = project["optional-dependencies"]["app"]
    assert facts["sdk_version"] in Requirement(gradio).specifier
    assert f"gradio=={facts['sdk_version']}\n" in (ROOT / "constraints.txt").read_text(encoding="utf-8")
    (line,) = (SPACE / "requirements.txt").read_text(encoding="utf-8").splitlines()
    needed = Requirement(line)
    assert needed.name == project["name"] and needed.extras <= project["optional-dependencies"].keys()


# --- forms -----------------------------------------------------------------------------------------------------------


def test_forms_are_those_that_github_reads() -> None:
    forms = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")}
    assert forms.pop("config") == {"blank_issues_enabled": False}
    assert forms.keys() == {"bug", "question", "feature"}
    for name, form in forms.items():
        assert form.keys() == {"name", "description", "labels", "body"}, name
        ids = [part["id"] for part in form["body"] if part["type"] != "markdown"]
        assert ids and len({*ids}) == len(ids)
        for part in form["body"]:
            assert part["type"] in {"markdown", "textarea", "input", "dropdown", "checkboxes"}
            assert part["attributes"].get("value" if part["type"] == "markdown" else "label")
    (info,) = (part for part in forms["bug"]["body"] if part.get("id") == "info")
    assert "`segvit info`" in info["attributes"]["label"] and info["validations"]["required"]
    text = "".join(path.read_text() for path in (ROOT / ".github").rglob("*") if path.suffix in (".md", ".yml"))
    for linked in re.findall(r"\.\./blob/main/([\w./-]+)", text):
        assert (ROOT / linked).is_file(), linked


# --- README ----------------------------------------------------------------------------------------------------------


def test_badges_are_true(project: dict[str, Any]) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    badges = re.findall(r"https://img\.shields\.io/badge/([\w.%-]+)", text)
    versions = "%20%7C%20".join(pythons(project))
    assert badges == [f"python-{versions}-blue", f"license-{project['license'].replace('-', '--')}-blue"]
    (workflow,) = re.findall(r'<img src="\.\./\.\./actions/workflows/([\w.]+)/badge\.svg"', text)
    assert (ROOT / ".github" / "workflows" / workflow).is_file()
    matrix = yaml.safe_load((ROOT / ".github" / "workflows" / workflow).read_text())["jobs"]["test"]["strategy"][
        "matrix"
    ]
    assert matrix["python"] == pythons(project), "the versions that the badge names are those that are tested"


def test_installing_by_name_carries_a_note() -> None:
    """Until the first release, pip's index has no segvit: each page says so."""
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "notebooks").glob("*.ipynb")]
    told = [path for path in pages if FRESH.search(path.read_text(encoding="utf-8"))]
    assert len(told) >= 6
    for path in told:
        text = " ".join(path.read_text(encoding="utf-8").lower().split())
        assert "from the first release on" in text, (
            f"{path.relative_to(ROOT)}: add the note `from the first release on`"
        )

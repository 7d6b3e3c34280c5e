"""The version: one home, and a check that tag, version and changelog agree."""

import re
import subprocess
import sys
from datetime import date
from importlib.metadata import version as installed_version
from pathlib import Path

import pytest

from tests.helpers.pages import load_script

ROOT = Path(__file__).resolve().parents[2]
CI = ROOT / ".ci"
TODAY = date(2027, 3, 4)
CHANGELOG = """\
# Changelog

## [Unreleased]

## [0.2.0] - 2027-03-01

### Added

- A thing.

## [0.1.0] - 2026-12-01

- The first.
"""


def problems(tag: str = "v0.2.0", version: str = "0.2.0", changelog: str = CHANGELOG) -> list[str]:
    found: list[str] = load_script("check_release", CI).problems(tag, version, changelog, today=TODAY)
    return found


def test_a_tag_that_agrees_is_released() -> None:
    assert problems() == []
    candidate = CHANGELOG.replace("0.2.0", "0.2.0rc1")
    assert problems("v0.2.0rc1", "0.2.0rc1", candidate) == []


@pytest.mark.parametrize(
    ("said", "change"),
    [
        ("tag 'v0.3.0' is not v0.2.0", {"tag": "v0.3.0"}),
        ("tag '0.2.0' is not v0.2.0", {"tag": "0.2.0"}),
        ("version '0.2' of pyproject.toml is not X.Y.Z", {"tag": "v0.2", "version": "0.2"}),
        ("version '0.2.0.dev1' of", {"tag": "v0.2.0.dev1", "version": "0.2.0.dev1"}),
        ("has no section '## \\[0.3.0\\]", {"tag": "v0.3.0", "version": "0.3.0"}),
        ("dates 0.2.0 None", {"changelog": CHANGELOG.replace("[0.2.0] - 2027-03-01", "[0.2.0]")}),
        ("dates 0.2.0 '1 March'", {"changelog": CHANGELOG.replace("2027-03-01", "1 March")}),
        ("after today, 2027-03-04", {"changelog": CHANGELOG.replace("2027-03-01", "2027-03-05")}),
        ("lists no change of 0.2.0", {"changelog": CHANGELOG.replace("- A thing.", "A thing.")}),
        (
            "changes under \\[Unreleased\\]",
            {"changelog": CHANGELOG.replace("[Unreleased]\n", "[Unreleased]\n\n- B.\n")},
        ),
        ("\\[0.2.0\\] above \\[0.1.0\\]", {"tag": "v0.1.0", "version": "0.1.0"}),
    ],
)
def test_a_tag_that_does_not_agree_is_refused(said: str, change: dict[str, str]) -> None:
    assert any(re.search(said, problem) for problem in problems(**change)), problems(**change)


def test_the_notes_are_the_section_of_the_version() -> None:
    found = load_script("check_release", CI).sections(CHANGELOG)
    assert found["0.2.0"] == ("2027-03-01", "### Added\n\n- A thing.")
    assert found["Unreleased"] == (None, "") and list(found) == ["Unreleased", "0.2.0", "0.1.0"]


def test_the_version_has_one_home() -> None:
    script = load_script("check_release", CI)
    version = script.project_version((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert version == installed_version("segvit"), "run `make test` again, which installs the new version"
    known = script.sections((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    assert next(iter(known)) == "Unreleased"
    for name, (day, _) in known.items():
        assert name == "Unreleased" or date.fromisoformat(day or ""), f"CHANGELOG.md: {name} has no date"
    for file in [ROOT / "CITATION.cff", *(ROOT / "deploy" / "conda").iterdir(), *(ROOT / "segvit").rglob("*.py")]:
        text = file.read_text(encoding="utf-8")
        assert f'"{version}"' not in text and f"version: {version}" not in text, f"{file}: a second home of the version"


def test_the_script_checks_this_repository() -> None:
    command = [sys.executable, str(CI / "check_release.py"), "v999.0.0", "--notes"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "v999.0.0 cannot be released:\n  tag 'v999.0.0' is not v" in done.stderr

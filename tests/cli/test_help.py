"""The help: commands in order of use, common options first, one panel per section, and examples that parse."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

from segvit.cli.help.examples import EXAMPLES
from segvit.cli.help.panels import COMMON, PANELS
from segvit.cli.main import app, main

DOCS_TOOLS = Path(__file__).resolve().parents[2] / "docs" / "tools"
COMMANDS = [name for name in app if not name.startswith("-") and name != "data"] + ["data prepare"]


def help_of(command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """The text of `segvit COMMAND --help` in a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.argv", ["segvit", *command.split(), "--help"])
    main()
    return capsys.readouterr().out


def panels_of(text: str) -> dict[str, list[str]]:
    """The options of each panel, in order."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if title := re.match(r"╭─ (.+?) ─", line):
            found[title[1]] = []
        elif option := re.match(r"│ [* ]? {0,2}(?:[A-Z]+ )?--([\w.-]+)", line):
            found[[*found][-1]].append(option[1])
    return found


def test_commands_are_listed_in_order_of_use(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = help_of("", capsys, monkeypatch)
    listed = re.findall(r"^│ ([a-z][a-z-]+)  ", text, re.MULTILINE)
    assert listed[:4] == ["check-data", "train", "evaluate", "predict"]
    assert sorted(listed) == sorted(name for name in app if not name.startswith("-"))


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_ends_with_the_examples(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = help_of(command, capsys, monkeypatch)
    _, examples = text.split("Examples:")
    assert [line.strip() for line in examples.splitlines() if line.strip()] == [*EXAMPLES[command or "segvit"]]


def test_every_command_has_examples_and_they_name_it() -> None:
    assert {*COMMANDS, "segvit"} == EXAMPLES.keys()
    for command in COMMANDS:
        assert all(f"{line} ".startswith(f"segvit {command} ") for line in EXAMPLES[command])


@pytest.mark.parametrize("command", COMMON)
def test_common_options_come_first(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    panels = panels_of(help_of(command, capsys, monkeypatch))
    assert next(iter(panels)) == "Common options"
    arguments = {"model", "inputs", "output"} - {*COMMON[command]}  # they have no flag of their own
    assert [name for name in panels["Common options"] if name not in arguments] == [*COMMON[command]]


def test_each_section_has_a_panel(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    panels = panels_of(help_of("train", capsys, monkeypatch))
    assert [*panels] == ["Common options", "Options", *PANELS.values()]
    for section, title in PANELS.items():
        assert all(option.startswith((section, f"{section}.")) for option in panels[title])
    assert not [option for option in panels["Options"] if "." in option]
    assert {"Test protocol", "Videos"} <= panels_of(help_of("predict", capsys, monkeypatch)).keys()
    assert "For a backbone" in panels_of(help_of("info", capsys, monkeypatch))


def test_the_page_of_the_site_shows_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(DOCS_TOOLS), *sys.path])
    spec = importlib.util.spec_from_file_location("build_site", DOCS_TOOLS / "build_site.py")
    assert spec and spec.loader
    builder = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(builder)
    text = builder.command_line_help()
    headings = re.findall(r"^#+ segvit (.+)$", text, re.MULTILINE)
    assert [name for name in headings if name != "data"] == COMMANDS
    for command in COMMANDS:
        assert "\n".join(["```sh", *EXAMPLES[command], "```"]) in text
    for title in PANELS.values():
        assert f"**{title}**:" in text

"""The documentation: every block tagged as runnable runs, and pages and links hold together."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import segvit
from tests.helpers.pages import Block, Page, blocks, commands, load_script, make_world

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
HOW_TO = (
    "index",
    "data",
    "finetuning",
    "training",
    "any-backbone",
    "export",
    "serve",
    "weights",
    "coming-from",
)
"""Pages whose main path must run."""


# --- blocks ----------------------------------------------------------------------------------------------------------


def runnable_pages() -> Iterator[Any]:
    """Pages with blocks that are run; slow where one of them is."""
    for path in PAGES:
        runs = {block.run for block in blocks(path)} - {"no"}
        if runs:
            yield pytest.param(
                path, id=path.relative_to(DOCS).as_posix(), marks=[pytest.mark.slow] if "slow" in runs else []
            )


@pytest.fixture
def world(tmp_path: Path) -> Path:
    make_world(tmp_path)
    return tmp_path


@pytest.mark.parametrize("path", runnable_pages())
def test_runnable_blocks_do_what_the_page_says(path: Path, world: Path) -> None:
    page = Page(world)
    for block in blocks(path):
        if block.run != "no":
            try:
                page.run(block)
            except BaseException as error:
                error.add_note(f"in {path.relative_to(ROOT)}, line {block.line}")
                raise
    if path.stem == "data":
        labels = np.array(Image.open(world / "seen" / "street_00.png"))
        assert labels.shape == (80, 80) and set(np.unique(labels)) <= {0, 1}
        assert (world / "seen" / "street_00_overlay.png").is_file() and (world / "runs/own/scores.json").is_file()


def test_the_main_path_of_every_how_to_is_run() -> None:
    for name in HOW_TO:
        assert any(block.run != "no" for block in blocks(DOCS / f"{name}.md")), f"docs/{name}.md runs nothing"


def test_the_python_of_the_readme_runs(world: Path) -> None:
    (block,) = (block for block in blocks(ROOT / "README.md") if block.language == "python")
    (world / "runs" / "camvid").mkdir(parents=True)
    (world / "best.safetensors").rename(world / "runs" / "camvid" / "best.safetensors")
    given = {
        "images": torch.zeros(1, 3, 64, 96, dtype=torch.uint8),
        "labels": torch.zeros(1, 64, 96, dtype=torch.int64),
    }
    Page(world, given).run(block)
    assert (world / "seen.png").is_file()


def test_a_block_that_is_wrong_is_seen(world: Path) -> None:
    page = Page(world)
    page.run(Block("sh", "segvit --version\necho one \\\n  two  # exits with 0\n", 1, "yes"))
    assert page.said.endswith("one two\n") and page.said.startswith("0.")
    page.run(Block("text", "one\n", 1, "yes"))
    wrong = [
        Block("text", "three\n", 1, "yes"),
        Block("sh", "segvit trian\n", 1, "yes"),
        Block("sh", "segvit --version  # exits with 2\n", 1, "yes"),
        Block("sh", "false | true; false\n", 1, "yes"),
        Block("python", "assert 1 == 2\n", 1, "yes"),
        Block("", "what is this\n", 1, "yes"),
    ]
    for block in wrong:
        with pytest.raises(AssertionError):
            page.run(block)


def test_every_runnable_block_is_found() -> None:
    for path in PAGES:
        tags = len(re.findall(r"^<!-- run", path.read_text(encoding="utf-8"), re.MULTILINE))
        assert tags == sum(block.run != "no" for block in blocks(path)), f"{path.name}: a tag without a block below it"
    assert list(commands("# no\na \\\n b\n\nc")) == ["a   b", "c"]


# --- pages -----------------------------------------------------------------------------------------------------------


def test_every_page_is_in_the_menu_and_every_entry_is_a_page(tmp_path: Path) -> None:
    load_script("build_site").stage(tmp_path / "docs")
    listed = re.findall(r"^\s+- .*: ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    there = [path.relative_to(tmp_path / "docs").as_posix() for path in (tmp_path / "docs").rglob("*.md")]
    assert sorted(listed) == sorted(there)


def test_files_to_read_are_there() -> None:
    text = (DOCS / "method.md").read_text(encoding="utf-8").partition("## Read the code in this order")[2]
    named = re.findall(r"`([\w/]+\.py)`", text.partition("\n## ")[0])
    assert len(named) > 10
    for name in named:
        assert (ROOT / name).is_file() or (ROOT / "segvit" / name).is_file(), name


def test_every_public_name_is_in_the_reference() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in (DOCS / "api").glob("*.md"))
    told = re.findall(r"^::: segvit\.(\w+)$", text, re.MULTILINE)
    assert sorted(name for name in told if name[0].isupper() or name in segvit.__all__) == sorted(segvit.__all__)


def test_links_that_leave_the_pages_are_put_right(tmp_path: Path) -> None:
    builder = load_script("build_site")
    problems: list[str] = []

    def relinked(text: str, page: str = "docs/api/index.md") -> str:
        path = ROOT / page
        place = builder.pages().get(path, Path(page))  # README is no page of the site
        link = builder.LINK.search(text)
        return builder._relink(link, page=path, place=place, where=page, problems=problems)

    assert relinked("[a](../data.md#splits)") == "[a](../data.md#splits)"
    assert relinked("[a](../../CONTRIBUTING.md#tests)") == "[a](../contributing.md#tests)"
    assert relinked("[a](docs/data.md)", "README.md") == "[a](data.md)"
    assert relinked("[a](segvit_in_one_file.py)", "docs/method.md") == "[a](segvit_in_one_file.md)"
    assert relinked("![a](../images/dial.png)") == "![a](../images/dial.png)"
    assert relinked("[the table](../../tests/test_structure.py)") == "the table"
    assert relinked("[a](https://arxiv.org)") == "[a](https://arxiv.org)"
    assert not problems
    faulty = ("[a](nowhere.md)", "[a](../data.md#nowhere)", "[a](#nowhere)", "[a](../../../elsewhere.md)")
    for text in (*faulty, "[a](../../README.md)"):
        relinked(text, "docs/data.md" if text == "[a](#nowhere)" else "docs/api/index.md")
    faults = [problem.split(": ")[1] for problem in problems]
    assert faults[:4] == ["no such file", "no such heading", "no such heading", "no such file"]
    assert len(faults) == 5 and "link to a page of docs/" in faults[4]


def test_code_in_a_page_holds_no_links(tmp_path: Path) -> None:
    builder = load_script("build_site")
    problems: list[str] = []
    page = ROOT / "docs" / "cli.md"
    text = builder.relinked(page, Path("cli.md"), problems)
    assert text == page.read_text(encoding="utf-8")
    assert builder.CODE.findall("`[a](b.md)` and [c](d.md)") and not problems


# --- the site --------------------------------------------------------------------------------------------------------


def test_the_check_of_a_site_finds_what_is_wrong(tmp_path: Path) -> None:
    checker = load_script("check_site")
    (tmp_path / "b.html").write_text('<h2 id="here">b</h2>')
    (tmp_path / "a.html").write_text(
        '<a href="b.html#here">1</a><a href="b.html#gone">2</a><a href="c.html">3</a><a href="#top">4</a>'
        '<a href="https://elsewhere.org">5</a><script src="https://elsewhere.org/x.js"></script>'
        '<img src="x.png"><link rel="stylesheet" href="//fonts.org/x.css"><a href="../outside.html">6</a>'
    )
    (tmp_path / "x.css").write_text("a { background: url('https://elsewhere.org/x.png') }")
    found = checker.problems_of(tmp_path)
    assert [problem.split(": ", 1)[1] for problem in found] == [
        "b.html#gone: no such place on that page",
        "c.html: no such file",
        "#top: no such place on that page",
        "https://elsewhere.org/x.js: loads from the web",
        "x.png: no such file",
        "//fonts.org/x.css: loads from the web",
        "../outside.html: no such file",
        "loads from the web",
    ]

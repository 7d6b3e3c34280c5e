"""The documentation site: its tools, and the built pages in a real browser, opened as files.

The builder is the extra `docs`; tests that need it are skipped without it.
"""

import ast
import contextlib
import io
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock

from tests.helpers.axe import serious_faults
from tests.helpers.browser import Visit, browser, visit  # noqa: F401
from tests.helpers.pages import load_script

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
SITE = ROOT / "site"
OPENED = ("index", "data", "method", "settings", "troubleshooting", "api/training")
"""Pages of each kind: text, code, formulas, tables, docstrings."""


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site once, also if several processes run the tests."""
    pytest.importorskip("zensical", reason="needs the extra docs")
    pytest.importorskip("mkdocstrings_handlers.python", reason="needs the extra docs")
    pytest.importorskip("latex2mathml", reason="needs the extra docs")
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    with FileLock(shared / "site.lock"):
        if not (shared / "site.txt").exists():
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed), pytest.raises(SystemExit) as leave:
                load_script("build_site").main()
            (shared / "site.txt").write_text("" if not leave.value.code else f"{printed.getvalue()}{leave.value.code}")
    assert not (problems := (shared / "site.txt").read_text()), problems
    return SITE


def shown(page: "Page", site: Path, name: str) -> "Page":
    """Open a page of the site as a file, and wait until its scripts have run."""
    page.goto((site / f"{name}.html").as_uri())
    page.locator("pre nav, h1").first.wait_for(state="attached")
    return page


# --- tools -----------------------------------------------------------------------------------------------------------


def test_formulas_become_mathml() -> None:
    pytest.importorskip("latex2mathml", reason="needs the extra docs")
    text = load_script("formulas").with_formulas("a\n```math\n\\frac{h}{l}\n```\nand $`N = hw`$, not `$x$`\n")
    assert text.count("<math") == 2 and "<mfrac>" in text and text.count("\n") == 5
    assert 'display="block"' in text and "`$x$`" in text and "\\frac" not in text


def test_marked_blocks_become_tabs_and_others_stay() -> None:
    shell, python = "```sh\nsegvit demo\n```", "```python\nimport segvit\n\nsegvit\n```"
    text = load_script("code_tabs").with_tabs(
        f"<!-- tabs -->\n<!-- run -->\n{shell}\n\n{python}\n<!-- end of tabs -->\n"
    )
    assert text.startswith('=== "Command line"\n\n    ```sh\n    segvit demo\n    ```\n\n=== "Python"\n\n    ```python')
    assert "    import segvit\n\n    segvit\n" in text and "<!--" not in text
    assert load_script("code_tabs").with_tabs(f"{shell}\n\n{python}") == f"{shell}\n\n{python}"


def test_every_setting_is_listed_with_default_and_meaning() -> None:
    import segvit

    text = load_script("settings_table").settings_tables()
    rows = dict(re.findall(r"^\| `([\w.]+)`\{ #[\w-]+ \} \| (.+? \| .+) \|$", text, re.MULTILINE))
    assert set(rows) >= {"steps", "data.images", "optim.lr", "eval.window", "augment.flip", "loss.class_weights"}
    assert rows["optim.lr"] == "`2e-05` | Peak learning rate of the backbone."
    assert rows["data.images"].startswith("none | ")
    assert set(segvit.TrainConfig.__dataclass_fields__) - set(rows) == {
        "model", "data", "augment", "optim", "loss", "eval",
    }  # fmt: skip


def test_the_index_of_the_search_has_guides_first_and_members_inside_their_class() -> None:
    def item(location: str, title: str) -> dict[str, str]:
        return {"location": location, "title": title, "text": f"<p>{title}</p>"}

    found = load_script("finish_site").guides_first(
        [
            item("api/a.html", "Reference"),
            item("api/a.html#segvit.Config", "Config"),
            item("api/a.html#segvit.Config.lr", "lr"),
            item("changelog.html#fixed", "Fixed"),
            item("training.html#rates", "Rates"),
        ]
    )
    assert [each["title"] for each in found] == ["Rates", "Reference", "Config"]
    assert found[2]["text"] == "<p>Config</p> lr <p>lr</p>"


def test_help_texts_become_markdown_with_flags_as_code_and_pages_as_links() -> None:
    text = (
        "* `--a.b PATH`: As --data.* has it, see docs/any-backbone.md. *[default: runs/*]*\n"
        "* `--no-c`: x--y. *[choices: tap, paper]* *[default: (0.5, 2.0)]* *[default: ()]* *[default: ('fp32',)]*\n"
        "```sh\nsegvit train --steps 3  # docs/x.md\n```\n"
    )
    assert load_script("build_site").help_as_page(text) == (
        "* `--a.b PATH`: As `--data.*` has it, see [any-backbone](any-backbone.md). (default: `runs/*`)\n"
        "* `--no-c`: x--y. (choices: `tap, paper`) (default: `0.5 2.0`) (default: none) (default: `fp32`)\n"
        "```sh\nsegvit train --steps 3  # docs/x.md\n```\n"
    )


def test_printed_lines_wrap_unless_they_draw_a_table(tmp_path: Path) -> None:
    start = '<div class="language-text highlight"><pre><span></span><code>'
    page = f"{start}error: --lr 1</code></pre></div>{start}│ 1 │</code></pre></div>"
    (tmp_path / "a.html").write_text(page)
    (tmp_path / "search.json").write_text('{"items": []}')
    load_script("finish_site").finish(tmp_path, "1")
    wraps = start.replace("text ", "text wraps ")
    flag = '<span class="flag">--lr</span>'
    assert (tmp_path / "a.html").read_text() == page.replace(start, wraps, 1).replace("--lr", flag)


def test_flags_in_a_sentence_stay_in_one_piece() -> None:
    whole = load_script("finish_site")
    text = whole.CODE_IN_TEXT.sub(whole._whole_words, "<td><code>--a.b 1</code></td><pre><code>x y</code></pre>")
    assert text == "<td><code><span>--a.b</span> <span>1</span></code></td><pre><code>x y</code></pre>"
    path = f"{'a' * 20}/{'b' * 20}"
    assert path.replace("/", "/<wbr>") in whole.CODE_IN_TEXT.sub(whole._whole_words, f"<code>{path}</code>")


def test_messages_of_the_troubleshooting_page_are_those_of_the_package() -> None:
    texts = []
    for file in (ROOT / "segvit").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                texts.append(
                    "".join(str(part.value) if isinstance(part, ast.Constant) else "\0" for part in node.values)
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    said = "\n".join(texts)
    blocks = re.findall(r"^```text\n(.*?)\n```$", (DOCS / "troubleshooting.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) > 12
    for part in (" ".join(part.split()) for block in blocks for part in block.split("...")):
        assert part in said, f"no message of the package has the text {part!r}"


# --- the built site --------------------------------------------------------------------------------------------------


def test_the_site_builds_without_a_warning(site: Path) -> None:
    assert "create_model" in (site / "api" / "models.html").read_text(encoding="utf-8")
    for page in site.glob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert "SEGVIT_VERSION" not in text and "$<code>" not in text and "<!-- tabs" not in text, page.name
    assert "<math" in (site / "method.html").read_text(encoding="utf-8")


def test_the_accessibility_check_finds_faults_and_passes_a_sound_page(visit: Callable[..., Visit]) -> None:  # noqa: F811
    page = visit().page
    head = '<!doctype html><html lang="en"><head><title>A page</title></head><body><main><h1>A page</h1>'
    page.set_content(head + '<img src="data:," alt="A street"><p>Text.</p></main></body></html>')
    assert not serious_faults(page)
    page.set_content(head + '<img src="data:,"><p style="color:#ccc;background:#fff">Text.</p></main></body></html>')
    assert sorted(fault.split(" (")[0] for fault in serious_faults(page)) == ["color-contrast", "image-alt"]


def test_the_search_works_in_pages_opened_as_files_and_finds_guides_first(
    site: Path,
    visit: Callable[..., Visit],  # noqa: F811
) -> None:
    page = shown(visit().page, site, "index")
    from playwright.sync_api import expect  # installed, since there is a page

    page.get_by_role("button", name="Search").first.click()
    box = page.get_by_role("combobox", name="Search")
    results = page.locator("a[href*='?h=']")
    first = {
        "less memory": "training.html?h=less+memory#less-memory",
        "learning rate": "training.html?h=learning+rate#a-learning-rate",
        "not a class": "troubleshooting.html",
        "masks": "",
        "install": "",
        "OptimConfig": "api/training.html?h=OptimConfig#segvit.OptimConfig",
    }
    for typed, expected in first.items():
        box.fill("")
        box.press_sequentially(typed)
        page.locator(f"a[href*='?h={typed.replace(' ', '+')}']").first.wait_for()
        wanted = re.escape(expected) if expected else r"^(?!.*/api/)"
        expect(results.first).to_have_attribute("href", re.compile(wanted))  # drawn a moment later


def test_copy_buttons_are_seen_and_copy_commands_alone(site: Path, visit: Callable[..., Visit]) -> None:  # noqa: F811
    page = visit().page
    page.add_init_script(
        "addEventListener('copy', () => { copied = document.activeElement.value ?? `${getSelection()}` }, true)"
    )
    shown(page, site, "data")
    block = page.locator(".language-sh", has_text="exits with 1").first
    button = block.locator("[data-md-type=copy]")
    button.wait_for()
    assert button.evaluate("element => getComputedStyle(element).opacity") == "1"
    button.click()
    page.wait_for_function("window.copied")
    copied = page.evaluate("window.copied")
    assert copied.startswith("segvit check-data ") and copied.endswith("background thing")
    assert not page.locator(".language-text [data-md-type=copy]:visible").count()


LARGE_PAGES = ("settings", "api/training")
WINDOWS: dict[str, dict[str, int]] = {"light": {}, "dark": {"dark": True}, "phone": {"width": 390, "height": 844}}


@pytest.mark.parametrize(
    "window, names",
    [
        pytest.param(
            window,
            names,
            id=f"{kind}, {names[0]}",
            marks=[pytest.mark.slow] * (kind != "light" or names is LARGE_PAGES),
        )
        for kind, window in WINDOWS.items()
        for names in (("index", "data"), LARGE_PAGES)
    ],
)
def test_the_site_has_no_serious_accessibility_fault(
    site: Path,
    visit: Callable[..., Visit],  # noqa: F811
    window: dict[str, int],
    names: tuple[str, ...],
) -> None:
    page = visit(**window).page
    for name in names:
        assert not serious_faults(shown(page, site, name)), name


def test_pages_fit_a_phone_and_break_no_flag(site: Path, visit: Callable[..., Visit]) -> None:  # noqa: F811
    visited = visit(width=390, height=844)
    for name in OPENED:
        page = shown(visited.page, site, name)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
        broken = page.evaluate(
            "[...document.querySelectorAll(':not(pre) > code > span, pre .flag')]"
            ".filter(word => word.getClientRects().length > 1).map(word => word.textContent)"
        )
        assert not broken, name
        sideways = page.evaluate(
            "[...document.querySelectorAll('.language-sh code, .wraps code, [data-stacked]')]"
            ".map(part => part.matches('table') ? part.parentElement.parentElement : part)"
            ".filter(part => part.scrollWidth > part.clientWidth).map(part => part.textContent)"
        )
        assert not sideways, name
    page = shown(visited.page, site, "settings")
    assert page.locator("[data-stacked] td[data-label=default]").count() > 50
    page.set_viewport_size({"width": 1280, "height": 900})
    names = "[...document.querySelectorAll('td > code[id]')].map(name => name.getClientRects().length)"
    assert {*page.evaluate(names)} == {1}
    assert not visited.complaints

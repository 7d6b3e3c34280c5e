"""Build the documentation site in site/ from the pages and the docstrings; warnings are errors.

    make docs                              # or, where the extra `docs` is installed:
    python docs/tools/build_site.py              # then open site/index.html; it needs no server and no network
    python docs/tools/build_site.py --links      # the links of the pages alone, which needs no extra

The pages can be read in the repository. For the site they are copied to build/docs and completed there. Links that
leave docs/ are corrected: CONTRIBUTING and CHANGELOG are pages too, other files of the repository become plain text.
Formulas become MathML, and marked blocks become tabs. docs/cli.md gets the help of every command,
docs/settings.md every setting.
"""

import os
import re
import shutil
import subprocess
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path
from urllib.parse import unquote

from check_site import problems_of
from code_tabs import with_tabs
from finish_site import finish
from formulas import with_formulas
from settings_table import settings_tables

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
STAGED = ROOT / "build" / "docs"
SITE = ROOT / "site"
REPOSITORY_PAGES = {name: f"{name.lower()}.md" for name in ("CONTRIBUTING", "CHANGELOG")}
"""Pages at the repository's root, by their names without suffix, and their names in the site."""
README = "README.md"
"""The front page of the repository: the site has index.md instead."""
ONE_FILE = DOCS / "segvit_in_one_file.py"
"""Code that is a page of its own."""
HELP_GOES_HERE = "<!-- The site shows the help of every verb here. -->"
SETTINGS_GO_HERE = "<!-- The site shows every setting here. -->"
GENERATED = (Path("cli.md"), Path("settings.md"))
"""Pages whose headings are not in the repository."""

CODE = re.compile(r"^(?P<fence>```|~~~).*?^(?P=fence)\s*$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
HELP = re.compile(
    CODE.pattern
    + r"|\*\[(?P<kind>default|choices): (?P<value>[^]]*)\]\*"
    + r"|(?P<flag>(?<![\w-])--[a-z](?:[\w.*-]*[\w*])?)"
    + r"|(?P<page>\bdocs/(?P<name>[\w-]+)\.md)",
    CODE.flags,
)
"""Parts of a help text that a page shows in another form: defaults, flags, pages."""
IN_WORDS = {"True": "on", "False": "off", "()": "none"}
"""Defaults that the help prints as Python writes them."""
FENCED = re.compile(r"^(```|~~~).*?^\1\s*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?P<picture>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")
HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*$", re.MULTILINE)


def main() -> None:
    """Build the site and check it, or check links alone; exit with 1 if something is wrong."""
    problems = stage(STAGED if "--links" not in sys.argv[1:] else None)
    if "--links" in sys.argv[1:] or problems:
        _finish(problems, checked=f"{len(pages())} pages")
    build()
    finish(SITE, version("segvit"))
    _finish(problems_of(SITE), checked=f"site/index.html: {len(list(SITE.rglob('*.html')))} pages")


def pages() -> dict[Path, Path]:
    """Return every page of the repository with its place in the site."""
    found = {page: page.relative_to(DOCS) for page in sorted(DOCS.rglob("*.md"))}
    found[ONE_FILE] = Path(f"{ONE_FILE.stem}.md")
    return found | {ROOT / f"{name}.md": Path(place) for name, place in REPOSITORY_PAGES.items()}


def stage(folder: Path | None) -> list[str]:
    """Fill a folder (None: nowhere) with the sources of the site, and return links that lead nowhere."""
    problems: list[str] = []
    texts = {place: relinked(page, place, problems) for page, place in pages().items()}
    relinked(ROOT / README, Path(README), problems)
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(DOCS, folder, ignore=shutil.ignore_patterns("*.py", "*.md", "__pycache__"))
        texts[Path("cli.md")] = texts[Path("cli.md")].replace(HELP_GOES_HERE, help_as_page(command_line_help()))
        settings = help_as_page(settings_tables())
        texts[Path("settings.md")] = texts[Path("settings.md")].replace(SETTINGS_GO_HERE, settings)
        for place, text in texts.items():
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            (folder / place).write_text(with_tabs(with_formulas(text)), encoding="utf-8")
    return problems


def build() -> None:
    """Run the builder over the staged pages; a warning ends the build."""
    shutil.rmtree(SITE, ignore_errors=True)
    # Without --clean, pages come from a cache, and what is wrong with them was said the first time only.
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean", "--config-file", "mkdocs.yml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    said = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)
    if done.returncode or "Warning" in said:
        print(said.partition("Traceback")[0] or said)
        sys.exit("the site was not built; build/docs/X.md is docs/X.md with formulas, tabs and generated parts")


def relinked(page: Path, place: Path, problems: list[str]) -> str:
    """Return the text of a page with its relative links corrected for the site; add broken ones to `problems`."""
    text = page.read_text(encoding="utf-8")
    if page == ONE_FILE:
        text = f"# The method in one file\n\n```python\n{text}```\n"

    def relink(link: re.Match[str]) -> str:
        where = f"{page.relative_to(ROOT)}: {link['target']}"
        return _relink(link, page=page, place=place, where=where, problems=problems)

    done, parts = 0, []
    for code in CODE.finditer(text):
        parts += [LINK.sub(relink, text[done : code.start()]), code.group()]
        done = code.end()
    return "".join(parts) + LINK.sub(relink, text[done:])


def _relink(link: re.Match[str], *, page: Path, place: Path, where: str, problems: list[str]) -> str:
    """Return a link of a page, corrected for the site, or its text alone if the site has no such file."""
    if re.match(r"[a-z][a-z0-9+.-]*:|//", link["target"]):
        return link.group()
    path, mark, anchor = unquote(link["target"]).partition("#")
    file = (page.parent / path).resolve() if path else page
    if not file.is_relative_to(ROOT) or not file.exists():
        problems.append(f"{where}: no such file")
        return link.group()
    if file == ROOT / README and page != file:
        problems.append(f"{where}: no page of the site; link to a page of docs/")
    target = pages().get(file, file.relative_to(DOCS) if file.is_relative_to(DOCS) else None)
    if target is None:
        return link["text"]
    generated = target.parts[0] == "api" or target in GENERATED
    if anchor and file.suffix == ".md" and not generated and anchor not in anchors(file):
        problems.append(f"{where}: no such heading")
    address = os.path.relpath(target, place.parent) if path else ""
    return f"{link['picture']}[{link['text']}]({address}{mark}{anchor})"


@cache
def anchors(page: Path) -> set[str]:
    """Return the names that `#...` may point to, made from the headings as code hosts and mkdocs.yml make them."""
    names: set[str] = set()
    for heading in HEADING.findall(FENCED.sub("", page.read_text(encoding="utf-8"))):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        names.add(re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-"))
    return names


def command_line_help() -> str:
    """Return the help of every command as Markdown, from the second heading level on."""
    from segvit.cli.help.examples import EXAMPLES
    from segvit.cli.main import app

    text = app.generate_docs()
    verbs = text[text.index("\n## Table of Contents\n") + 1 :]
    verbs = verbs[verbs.index("\n## ") + 1 :]
    for name, lines in EXAMPLES.items():  # generate_docs leaves the end of the help out
        usage = re.search(rf"^#+ segvit {name}\n\n```console\n.*?^```\n", verbs, re.MULTILINE | re.DOTALL)
        if usage:
            block = "\n".join(["", "```sh", *lines, "```", ""])
            verbs = f"{verbs[: usage.end()]}{block}{verbs[usage.end() :]}"
    return verbs


def help_as_page(text: str) -> str:
    """Return help texts as Markdown for the site: flags and defaults as code, pages as links."""

    def shown(part: re.Match[str]) -> str:
        if part["flag"]:
            return f"`{part['flag']}`"
        if part["page"]:
            return f"[{part['name']}]({part['name']}.md)"
        if not part["kind"]:
            return part.group()
        value = part["value"]
        if value.startswith("(") and value not in IN_WORDS:  # a list, which is typed with spaces
            value = " ".join(each.strip("' ") for each in value.strip("(),").split(","))
        return f"({part['kind']}: {IN_WORDS.get(value, f'`{value}`')})"

    return HELP.sub(shown, text)


def _finish(problems: list[str], *, checked: str) -> None:
    """Print the problems, and exit with 1 if there are any."""
    print("\n".join([*problems, f"{checked}, {len(problems)} broken links"]))
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()

"""Check that every relative link of the pages leads to a file, and every `#anchor` to a heading.

    python docs/check_links.py

Pages are README.md, CONTRIBUTING.md, CHANGELOG.md and docs/**/*.md. Links to the web are not followed.
"""

import re
import sys
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parent.parent
FENCE = re.compile(r"^(```|~~~).*?^\1\s*$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]*`")
LINK = re.compile(r"!?\[[^\]]*\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)|<(?:img|a)\s[^>]*(?:src|href)=\"([^\"]+)\"")
HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The names that `#...` may point to, made from the headings as code hosts make them."""
    names: dict[str, int] = {}
    found = set()
    for heading in HEADING.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        name = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        found.add(f"{name}-{names[name]}" if name in names else name)
        names[name] = names.get(name, 0) + 1
    return found


def broken_links(page: Path) -> list[str]:
    """`page: link: why` of each relative link that leads nowhere; links out of the repository count as broken."""
    text = CODE.sub("", FENCE.sub("", page.read_text(encoding="utf-8")))
    problems = []
    for groups in LINK.findall(text):
        link = groups[0] or groups[1]
        if re.match(r"[a-z][a-z0-9+.-]*:", link) or link.startswith("//"):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.is_relative_to(ROOT) or not target.exists():
            problems.append(f"{page.relative_to(ROOT)}: {link}: no such file")
        elif anchor and target.suffix == ".md" and anchor not in anchors(target):
            problems.append(f"{page.relative_to(ROOT)}: {link}: no such heading")
    return problems


def pages() -> list[Path]:
    """Every page that is checked."""
    return [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(
        (ROOT / "docs").rglob("*.md")
    )


def main() -> None:
    """Print each broken link; leave with 1 when there is one."""
    checked = pages()
    missing = [page for page in checked if not page.is_file()]
    problems = [f"{page.relative_to(ROOT)}: missing" for page in missing]
    problems += [problem for page in checked if page not in missing for problem in broken_links(page)]
    for problem in problems:
        print(problem)
    print(f"{len(checked)} pages, {len(problems)} broken links")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()

"""Check a built site: no link inside it is broken, and opening a page loads nothing from the web.

    python docs/tools/check_site.py site

Links are those of the built pages, so that menus, docstrings and generated parts are checked too. Links to the web are
not followed; pictures, scripts, style sheets and fonts from the web are errors.
"""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {("script", "src"), ("img", "src"), ("source", "src"), ("video", "src"), ("iframe", "src"), ("link", "href")}
"""Attributes whose address a browser loads when the page is opened."""
NOT_LOADED = {"canonical", "prev", "next", "alternate"}
"""Relations of a <link> that a browser does not load."""
IN_STYLES = re.compile(r"url\(\s*['\"]?(https?:)?//")


class Page(HTMLParser):
    """The links and anchors of one page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[tuple[str, bool]] = []
        """Address, and whether it is loaded when the page is opened."""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Add the names and addresses of a tag."""
        for name, value in attrs:
            if value is None:
                continue
            if name == "id" or (tag == "a" and name == "name"):
                self.anchors.add(value)
            elif (tag, name) in LOADED:
                relation = dict(attrs).get("rel") or ""
                self.links.append((value, tag != "link" or not NOT_LOADED.intersection(relation.split())))
            elif name == "href":
                self.links.append((value, False))


def problems_of(site: Path) -> list[str]:
    """Return `page: address: fault` for each broken link, and for everything that is loaded from the web."""
    pages = {path: Page(path) for path in sorted(site.rglob("*.html"))}
    problems = []
    for path, page in pages.items():
        name = path.relative_to(site)
        for address, loaded in page.links:
            if fault := _fault(address, loaded=loaded, path=path, site=site, pages=pages):
                problems.append(f"{name}: {address}: {fault}")
    for style in sorted(site.rglob("*.css")):
        if IN_STYLES.search(style.read_text(encoding="utf-8")):
            problems.append(f"{style.relative_to(site)}: loads from the web")
    return problems


def _fault(address: str, *, loaded: bool, path: Path, site: Path, pages: dict[Path, Page]) -> str | None:
    """Return the fault of a link of the page at `path`, or None."""
    parts = urlsplit(address)
    if parts.scheme in ("data", "mailto", "javascript"):
        return None
    if parts.scheme or parts.netloc:
        return "loads from the web" if loaded else None
    if parts.path.startswith("/"):
        # The page for unknown addresses is shown at any depth, so its links are absolute.
        target = site / unquote(parts.path).lstrip("/") if path.name == "404.html" else None
    else:
        target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if target is not None and target.is_dir():
        target = target / "index.html"
    if target is None or not target.is_file() or not target.is_relative_to(site):
        return "no such file"
    anchor = unquote(parts.fragment)
    if anchor and target in pages and anchor not in pages[target].anchors and anchor != "__skip":
        return "no such place on that page"
    return None


if __name__ == "__main__":
    found = problems_of(Path(sys.argv[1]).resolve())
    print("\n".join([*found, f"{len(found)} broken links"]))
    sys.exit(bool(found))

"""A Chromium for the tests of pages: the one that is installed, without a window, and pages that note what goes wrong.

from tests.helpers.browser import Visit, browser, visit  # noqa: F401  (fixtures)
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome")
"""Programs that will do, the first that is found."""


def installed() -> str | None:
    """Path of the first of `NAMES` that is installed."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@dataclass(frozen=True, kw_only=True)
class Visit:
    """An open page, and what it did."""

    page: "Page"
    requests: list[str] = field(default_factory=list)
    """Addresses asked for that are not part of the page itself."""
    complaints: list[str] = field(default_factory=list)
    """Errors and warnings of the console, and exceptions."""


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """One browser for the tests of a module; they skip where there is none.

    No longer than that: while Playwright runs, it holds the thread's event loop, and neither asyncio.run nor a second
    Playwright works.
    """
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = installed()
    if program is None:
        pytest.skip(f"no browser found: none of {', '.join(NAMES)}")
    with sync_api.sync_playwright() as playwright:
        # The sandbox needs rights that a container seldom has; a GPU would make pictures depend on the machine.
        opened = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture
def visit(browser: "Browser") -> Iterator[Callable[..., Visit]]:
    """Opens a page of its own context: `visit(width=390, dark=True, touch=True)`; closed when the test ends."""
    contexts = []

    def open_page(*, width: int = 1280, height: int = 900, dark: bool = False, **options: Any) -> Visit:
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light", **options
        )
        context.set_default_timeout(10_000)
        contexts.append(context)
        visited = Visit(page=context.new_page())
        visited.page.on("request", lambda request: _note(request.url, visited.requests))
        visited.page.on("console", lambda message: visited.complaints.append(message.text))
        visited.page.on("pageerror", lambda error: visited.complaints.append(str(error)))
        return visited

    yield open_page
    for context in contexts:
        context.close()


def _note(address: str, requests: list[str]) -> None:
    if not address.startswith(("data:", "blob:", "about:")):
        requests.append(address)

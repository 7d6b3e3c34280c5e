"""The documentation site in a real browser, opened as files."""

from collections.abc import Callable

from tests.helpers.axe import serious_faults
from tests.helpers.browser import Visit, browser, visit  # noqa: F401


def test_the_accessibility_check_finds_faults_and_passes_a_sound_page(visit: Callable[..., Visit]) -> None:  # noqa: F811
    page = visit().page
    head = '<!doctype html><html lang="en"><head><title>A page</title></head><body><main><h1>A page</h1>'
    page.set_content(head + '<img src="data:," alt="A street"><p>Text.</p></main></body></html>')
    assert not serious_faults(page)
    page.set_content(head + '<img src="data:,"><p style="color:#ccc;background:#fff">Text.</p></main></body></html>')
    assert sorted(fault.split(" (")[0] for fault in serious_faults(page)) == ["color-contrast", "image-alt"]

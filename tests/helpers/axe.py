"""Accessibility of a page in a real browser, checked by axe-core.

from tests.helpers.axe import serious_faults
assert not serious_faults(visited.page)
"""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

SERIOUS = ("serious", "critical")
"""Impacts that fail a test, in axe's own words; "minor" and "moderate" pass."""


def serious_faults(page: "Page") -> list[str]:
    """Return one line per element that breaks a rule of serious or critical impact: rule, element, what to change.

    The page is checked in its present state and colour scheme. Load it fully first, and open what you want checked.
    """
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    found = axe.Axe().run(page).response["violations"]
    return [
        f"{rule['id']} ({rule['impact']}): {' '.join(map(str, node['target']))}: {node['failureSummary']}"
        for rule in found
        if rule["impact"] in SERIOUS
        for node in rule["nodes"]
    ]

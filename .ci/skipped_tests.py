"""Fail if a test was skipped although this machine has what it needs.

    python .ci/skipped_tests.py JUNIT.xml parity browser

`parity`: tests against the reference data; their name, file or reason says golden, parity or shared.
`browser`: tests of pages; the reason says browser or playwright.
"""

import sys
from xml.etree import ElementTree

WORDS = {"parity": ("golden", "parity", "shared"), "browser": ("browser", "playwright")}


def skipped_tests(report: str, kind: str) -> list[str]:
    """Return `file::test: reason` of each skipped test of this kind."""
    found = []
    for case in ElementTree.parse(report).iter("testcase"):
        for skip in case.iter("skipped"):
            reason = f"{skip.get('message')} {skip.text or ''}"
            line = f"{case.get('classname')}::{case.get('name')}: {reason}"
            if any(word in (line if kind == "parity" else reason).lower() for word in WORDS[kind]):
                found.append(line)
    return found


if __name__ == "__main__":
    if len(sys.argv) < 3 or not set(sys.argv[2:]) <= set(WORDS):
        sys.exit(__doc__)
    for kind in sys.argv[2:]:
        if skipped := skipped_tests(sys.argv[1], kind):
            sys.exit(f"These {kind} tests were skipped, but this machine can run them:\n  " + "\n  ".join(skipped))

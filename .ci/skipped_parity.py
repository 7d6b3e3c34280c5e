"""Fail when a test against the reference was skipped although the reference is there.

    python .ci/skipped_parity.py JUNIT.xml

A test counts as one against the reference when its name, its file or the reason of its skip says golden, parity
or shared.
"""

import sys
from xml.etree import ElementTree

WORDS = ("golden", "parity", "shared")


def skipped_parity_tests(report: str) -> list[str]:
    """`file::test: reason` of each skipped test that speaks of the reference."""
    found = []
    for case in ElementTree.parse(report).iter("testcase"):
        for skip in case.iter("skipped"):
            line = f"{case.get('classname')}::{case.get('name')}: {skip.get('message')}"
            if any(word in line.lower() for word in WORDS):
                found.append(line)
    return found


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    if skipped := skipped_parity_tests(sys.argv[1]):
        sys.exit("../shared is here, yet these tests were skipped:\n  " + "\n  ".join(skipped))

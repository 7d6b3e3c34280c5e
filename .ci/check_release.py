"""Check that tag, version and changelog agree, and print the changes of a version.

    python .ci/check_release.py                    # the version of pyproject.toml is ready to be tagged
    python .ci/check_release.py v0.2.0             # so is this tag, and it names that version
    python .ci/check_release.py v0.2.0 --notes     # print its section of CHANGELOG.md

The version is in pyproject.toml alone. Everything else reads it there or from the installed package.
"""

import argparse
import re
import sys
import tomllib
from datetime import UTC, date, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VERSION = re.compile(r"\d+\.\d+\.\d+(?:rc\d+)?")
"""Versions that are released: X.Y.Z, or X.Y.ZrcN to try a release."""
SECTION = re.compile(r"^## \[(?P<name>[^\]]+)\](?: - (?P<day>.*))?$", re.MULTILINE)
BULLET = re.compile(r"^- ", re.MULTILINE)
UNRELEASED = "Unreleased"


def project_version(pyproject: str) -> str:
    """Return the version of a pyproject.toml."""
    version: str = tomllib.loads(pyproject)["project"]["version"]
    return version


def sections(changelog: str) -> dict[str, tuple[str | None, str]]:
    """Return date and text of each version of a changelog, newest first; the date is None where there is none."""
    found = [*SECTION.finditer(changelog)]
    ends = [*(each.start() for each in found[1:]), len(changelog)]
    return {each["name"]: (each["day"], changelog[each.end() : end].strip()) for each, end in zip(found, ends)}


def problems(tag: str, version: str, changelog: str, *, today: date) -> list[str]:
    """List what keeps a tag from being released, each with its remedy."""
    found = []
    if not VERSION.fullmatch(version):
        found.append(f"version {version!r} of pyproject.toml is not X.Y.Z or X.Y.ZrcN")
    if tag != f"v{version}":
        found.append(f"tag {tag!r} is not v{version}: set the version in pyproject.toml, or tag that version")
    known = sections(changelog)
    if version not in known:
        return [*found, f"CHANGELOG.md has no section '## [{version}] - YYYY-MM-DD': rename [{UNRELEASED}] to it"]
    day, text = known[version]
    try:
        if date.fromisoformat(day or "") > today:
            found.append(f"CHANGELOG.md dates {version} {day}, which is after today, {today}")
    except ValueError:
        found.append(f"CHANGELOG.md dates {version} {day!r}: write '## [{version}] - {today}'")
    if not BULLET.search(text):
        found.append(f"CHANGELOG.md lists no change of {version}")
    if BULLET.search(known.get(UNRELEASED, (None, ""))[1]):
        found.append(f"CHANGELOG.md has changes under [{UNRELEASED}]: move them to [{version}]")
    newest = next(name for name in known if name != UNRELEASED)
    if newest != version:
        found.append(f"CHANGELOG.md has [{newest}] above [{version}]: the newest version comes first")
    return found


def main() -> None:
    """Check a tag; exit with 1 and the list of problems if it cannot be released."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tag", nargs="?", help="tag to check, such as v0.2.0; default: that of the version")
    parser.add_argument("--notes", action="store_true", help="print the changes of the version")
    options = parser.parse_args()
    version = project_version((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    tag = options.tag or f"v{version}"
    if found := problems(tag, version, changelog, today=datetime.now(UTC).date()):
        sys.exit(f"{tag} cannot be released:\n  " + "\n  ".join(found))
    print(sections(changelog)[version][1] if options.notes else f"{tag}: version and changelog agree")


if __name__ == "__main__":
    main()

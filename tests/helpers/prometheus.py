"""A strict reader of Prometheus' text format 0.0.4."""

import re
from typing import NamedTuple

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)')
LINE = re.compile(rf"({NAME})(?:\{{(.*)\}})? (NaN|[+-]?(?:Inf|\d+(?:\.\d+)?(?:e[+-]?\d+)?))")
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("",), "gauge": ("",)}


class Sample(NamedTuple):
    """A line of the text."""

    name: str
    labels: dict[str, str]
    value: float


def parse(text: str) -> dict[str, list[Sample]]:
    """Return the samples of each family; fail where the text breaks a rule of the format."""
    assert text.endswith("\n"), "the last line has no end"
    found: dict[str, list[Sample]] = {}
    kinds: dict[str, str] = {}
    family = ""
    for line in text.splitlines():
        if line.startswith("# HELP "):
            family = line.split()[2]
            assert re.fullmatch(NAME, family) and family not in found, f"{family} comes twice"
            found[family] = []
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            assert name == family and kind in SUFFIXES and name not in kinds
            kinds[name] = kind
        else:
            sample = _sample(line)
            assert family in kinds and sample.name in [family + end for end in SUFFIXES[kinds[family]]], line
            same = [each for each in found[family] if (each.name, each.labels) == (sample.name, sample.labels)]
            assert not same, f"comes twice: {line}"
            found[family].append(sample)
    return found


def _sample(line: str) -> Sample:
    match = LINE.fullmatch(line)
    assert match, f"no sample: {line!r}"
    name, inside, number = match.groups()
    labels, end = {}, 0
    for label in LABEL.finditer(inside or ""):
        assert label.start() == end and label[1] not in labels, line
        end = label.end()
        labels[label[1]] = re.sub(r"\\(.)", lambda found: "\n" if found[1] == "n" else found[1], label[2])
    assert end == len(inside or ""), f"no labels: {line!r}"
    return Sample(name, labels, float(number.replace("Inf", "inf")))

"""Pieces of text that many messages share: spelling hints, percentages, counts of things."""

import difflib
import re
from collections.abc import Iterable, Sequence
from itertools import islice

REPOSITORY = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>\S+))?")
"""Repository of the Hugging Face Hub: `user/repo` or `user/repo@revision`."""

MARKDOWN = re.compile(r"[\\`*\[\]<>&|~$]|(?<![^\W_])_|_(?![^\W_])")
"""Characters with a meaning inside a line of Markdown. An underscore between two letters has none."""


def nearest(word: str, known: Iterable[str], *, most: int = 1, cutoff: float = 0.6) -> list[str]:
    """Return up to `most` known words that `word` may be a misspelling of, nearest first.

    Args:
        word: what was typed.
        known: the words that are allowed.
        most: number of words to return at most.
        cutoff: least similarity, in 0..1.
    """
    return difflib.get_close_matches(word, list(known), n=most, cutoff=cutoff)


def did_you_mean(words: Sequence[str]) -> str:
    """Return " (did you mean 'a' or 'b'?)", or nothing if there are no words."""
    return f" (did you mean {' or '.join(map(repr, words))}?)" if words else ""


def suggest(word: str, known: Iterable[str], *, most: int = 1, cutoff: float = 0.6) -> str:
    """Return a hint at the known words that `word` may be a misspelling of, or nothing: see `nearest`."""
    return did_you_mean(nearest(word, known, most=most, cutoff=cutoff))


def percentage(share: float, digits: str = ".1f") -> str:
    """Return a share in 0..1 as a percentage, such as "41.7 %". `digits` is the format of the number."""
    return f"{100 * share:{digits}} %"


def percent_cell(share: float | None, *, missing: str = "") -> str:
    """Return a share in 0..1 as the percentage of a table's cell, such as "41.67", or `missing` if there is none."""
    return missing if share is None else f"{100 * share:.2f}"


def score_text(score: float | None, digits: str = ".4f") -> str:
    """Return a mean score in 0..1 as text, such as "0.4167", or why there is none."""
    return "none (every pixel of the labels is ignored)" if score is None else f"{score:{digits}}"


def counted(count: int, thing: str, digits: str = "") -> str:
    """Return a count and its noun, such as "1 video", "2 videos" or "2 boxes". `digits` is the format of the number."""
    return f"{count:{digits}} {thing}" + ("" if count == 1 else "es" if thing.endswith(("s", "x")) else "s")


def counted_are(count: int, thing: str) -> str:
    """Return a count, its noun and the verb, such as "1 image is" or "2 images are"."""
    return f"{counted(count, thing)} {'is' if count == 1 else 'are'}"


def plain_number(value: float) -> str:
    """Return a number as people write it: whole numbers in full, others with six digits."""
    return f"{value:.0f}" if value == round(value) else f"{value:g}"


def markdown_text(value: object) -> str:
    """Return any text so that Markdown shows it as it was typed, in one line, also in a cell of a table."""
    return MARKDOWN.sub(r"\\\g<0>", " ".join(str(value).split()))


def first_line(error: Exception) -> str:
    """Return the first line of an error's text, or the name of its type if it has no text."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def by_group(classes: Sequence[str], added: Sequence[int]) -> tuple[tuple[str, ...], ...]:
    """Split class names (K,) into those of the head and of each group, given the sizes of the groups."""
    names = iter(classes)
    return tuple(tuple(islice(names, size)) for size in (len(classes) - sum(added), *added))


def listed(names: Sequence[Sequence[str]]) -> str:
    """Describe groups in one line."""
    return "; ".join(f"{number} ({', '.join(each)})" for number, each in enumerate(names))

"""Check that segvit/ and docs/tools/ are in plain English: docstrings, comments, messages (CONTRIBUTING.md, "Prose").

    python tests/test_prose.py segvit/models          # list the lines that break a rule, for these files or folders

The rules that a program can check: how a docstring begins, which words are not the field's, how long a sentence is.
The pages of the documentation are checked for the words.
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LONGEST_SENTENCE = 25
"""Words."""

BEGINS = re.compile(r"(What|Of|Who|Whose|Whether|The same|How|Where|That|Which)\b")
"""First words that no docstring has: a function begins with a verb, a value with a noun."""

FOREIGN = re.compile(
    r"\b(tells?|told|telling|lies?|lay|lain|stands?|stood|go on|goes on|went on|going on|mends?|mended|mending|bears?"
    r"|forbids?|forbidden|as it is|as they are|at the moment|who has|whom|whence|amid|comes about|hangs? together"
    r"|for want of|on its own account|a wish|by themselves alone)\b",
    re.IGNORECASE,
)
"""Words and phrases that the field does not use."""

ALLOWED = re.compile(r"\bstands? for\b|\bstands? in for\b|\bstandalone\b", re.IGNORECASE)


def texts_of(source: str) -> Iterator[tuple[int, str, str]]:
    """Yield each (line, kind, text) of a module: kind is docstring, message or comment."""
    tree = ast.parse(source)
    docstrings = set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if not isinstance(body, list):
            continue
        for statement in body:
            value = statement.value if isinstance(statement, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                docstrings.add(id(value))
                yield statement.lineno, "docstring", value.value
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "X" for part in node.values]
            yield node.lineno, "message", "".join(str(part) for part in parts)
            docstrings.update(id(part) for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, "message", node.value if len(node.value.split()) > 3 else ""
    comments = [
        token for token in tokenize.generate_tokens(io.StringIO(source).readline) if token.type == tokenize.COMMENT
    ]
    block: list[tokenize.TokenInfo] = []
    for token in [*comments, None]:
        follows = block and token and token.start[0] == block[-1].start[0] + 1 and token.start[1] == block[-1].start[1]
        if block and not follows:
            yield block[0].start[0], "comment", " ".join(each.string.lstrip("#: ") for each in block)
            block = []
        if token:
            block.append(token)


def prose(text: str) -> str:
    """Return `text` without its code: indented blocks, tables, names in backticks, URLs."""
    kept = []
    for paragraph in re.split(r"\n\s*\n", text):
        lines = paragraph.split("\n")
        if any(line.strip().startswith(("|", ">>>", "$", "- ", "* ")) for line in lines) or re.match(
            r" {4}", paragraph
        ):
            continue
        if re.match(r"\s*(Args|Arguments|Returns|Raises|Yields|Shapes?|Letters?):", paragraph):
            continue
        kept.append(" ".join(line.strip() for line in lines))
    return re.sub(r"`[^`]*`|https?://\S+", "X", "\n\n".join(kept))


def sentences(text: str) -> list[str]:
    """Split prose into sentences."""
    return [each for each in re.split(r"(?<=[.!?])\s+|\n\n|;\s|:\s", prose(text)) if each.strip()]


def problems_of(source: str) -> Iterator[tuple[int, str]]:
    """Yield each (line, problem) of a module's text."""
    for line, kind, text in texts_of(source):
        if kind == "docstring" and BEGINS.match(text.strip()):
            yield line, f"begins with {text.strip().split()[0]!r}"
        for found in FOREIGN.finditer(ALLOWED.sub("", prose(text))):
            yield line, f"says {found.group()!r}"
        if kind != "message":
            for sentence in sentences(text):
                if len(sentence.split()) > LONGEST_SENTENCE:
                    yield line, f"has a sentence of {len(sentence.split())} words: {sentence[:60]}"


def problems_in(places: list[Path]) -> list[str]:
    """List `file:line: problem` for each problem of these files and folders."""
    files = [file for place in places for file in (sorted(place.rglob("*.py")) if place.is_dir() else [place])]
    return [f"{file}:{line}: {what}" for file in files for line, what in problems_of(file.read_text(encoding="utf-8"))]


def test_the_package_speaks_plain_english() -> None:
    problems = problems_in([ROOT / "segvit", ROOT / "docs" / "tools"])
    assert not problems, "\n".join(problems)


def foreign_words(page: str) -> list[str]:
    """List the words of a Markdown page that the field does not use, each with what is around it."""
    text = re.sub(r"^(```|~~~).*?^\1\s*$", "", page, flags=re.MULTILINE | re.DOTALL)
    text = ALLOWED.sub("", re.sub(r"`[^`]*`|https?://\S+|\]\([^)]*\)", "X", text))
    return [text[max(0, found.start() - 40) : found.end() + 20] for found in FOREIGN.finditer(text)]


def test_the_documentation_speaks_plain_english() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    problems = {str(page): found for page in pages if (found := foreign_words(page.read_text(encoding="utf-8")))}
    assert not problems
    (found,) = foreign_words("It `lies`\n```sh\nlies\n```\nbut [it](lies.md) stands for\nwhat lies there.")
    assert found.endswith("what lies there.")


def test_each_rule_can_fail() -> None:
    long = "word " * (LONGEST_SENTENCE + 1)
    source = f'''"""What a module is."""
# It is told
# to somebody.
X = f"{{X}} goes on"
"""{long.strip()}."""
"""Stands for `what lies`: fine."""
'''
    assert [what.split(":")[0] for _, what in sorted(problems_of(source))] == [
        "begins with 'What'",
        "says 'told'",
        "says 'goes on'",
        f"has a sentence of {LONGEST_SENTENCE + 1} words",
    ]


if __name__ == "__main__":
    print("\n".join(problems_in([Path(place) for place in sys.argv[1:] or [ROOT / "segvit"]])))

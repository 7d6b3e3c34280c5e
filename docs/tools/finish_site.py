"""Put the last touches on a built site: version, flags that do not break, output that wraps, a search index of guides.

The builder has no setting for any of the four.
"""

import json
import re
from pathlib import Path
from typing import Any

VERSION = "SEGVIT_VERSION"
"""Stands for the version in mkdocs.yml."""
CODE_IN_TEXT = re.compile(r"(?<!<pre>)(?<!</span>)<code>(?P<words>[^<\n]*)</code>")
OUTPUT = re.compile(r'<div class="language-text (?=highlight"><pre>(?:(?!</pre>)[^│┃])*</pre>)')
"""Start of a block with printed lines, but without a table of box characters, whose lines must not wrap."""
BLOCK = re.compile(r"<pre>.*?</pre>", re.DOTALL)
FLAG = re.compile(r"(?<![\w-])--\w[\w.*-]*")
LONGEST_WORD = 32
"""Characters of a word of code that may need a line of a phone for itself; longer ones break."""
LEFT_OUT = ("changelog.html", "contributing.html", "404.html")
"""Pages whose every line names something, so that they would be found for any word."""


def finish(site: Path, version: str) -> None:
    """Change the pages and the search index of a built site in place."""
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8").replace(VERSION, version)
        text = OUTPUT.sub('<div class="language-text wraps ', text)
        text = BLOCK.sub(lambda block: FLAG.sub(r'<span class="flag">\g<0></span>', block.group()), text)
        page.write_text(CODE_IN_TEXT.sub(_whole_words, text), encoding="utf-8")
    index = json.loads((site / "search.json").read_text(encoding="utf-8"))
    index["items"] = guides_first(index["items"])
    text = json.dumps(index)
    (site / "search.json").write_text(text, encoding="utf-8")
    (site / "search.js").write_text(f"var __index = {text}", encoding="utf-8")  # for pages opened as files


def guides_first(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the index with guides before the reference, where a class holds the text of its members.

    A page of settings has a hundred entries of one line each, which would be found before any guide.
    """
    guides, reference, owners = [], [], {}
    for item in items:
        page, _, anchor = item["location"].partition("#")
        if page in LEFT_OUT:
            continue
        if not page.startswith("api/"):
            guides.append(item)
        elif anchor and (owner := owners.get((page, anchor.rpartition(".")[0]))):
            owner["text"] += f" {item['title']} {item['text']}"
            owners[page, anchor] = owner
        else:
            owners[page, anchor] = item
            reference.append(item)
    return guides + reference


def _whole_words(code: re.Match[str]) -> str:
    """Return code in a sentence with each word in an element of its own, which a style keeps on one line.

    A path that is too long for that breaks after a slash.
    """
    words = (
        f"<span>{word}</span>" if word.strip() and len(word) <= LONGEST_WORD else word.replace("/", "/<wbr>")
        for word in re.split(r"(\s+)", code["words"])
    )
    return f"<code>{''.join(words)}</code>"

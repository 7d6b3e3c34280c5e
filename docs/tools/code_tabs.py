"""Turn neighbouring blocks of code into tabs, one for the command line and one for Python.

    <!-- tabs -->
    ```sh
    ```
    ```python
    ```
    <!-- end of tabs -->

A code host shows the two blocks one below the other.
"""

import re

TABS = re.compile(r"^<!-- tabs -->\n(?P<blocks>.*?)^<!-- end of tabs -->$", re.MULTILINE | re.DOTALL)
FENCED = re.compile(r"^```(?P<language>\w+)\n.*?^```$", re.MULTILINE | re.DOTALL)
NAMES = {"sh": "Command line", "python": "Python"}


def with_tabs(text: str) -> str:
    """Return Markdown with each marked group of blocks as tabs."""
    return TABS.sub(lambda group: "\n\n".join(map(_tab, FENCED.finditer(group["blocks"]))), text)


def _tab(block: re.Match[str]) -> str:
    """Return one block as a tab."""
    indented = "\n".join(f"    {line}".rstrip() for line in block.group().splitlines())
    return f'=== "{NAMES[block["language"]]}"\n\n{indented}'

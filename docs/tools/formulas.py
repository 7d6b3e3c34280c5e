"""Turn the formulas of a page into MathML, which browsers draw themselves: no script and no font is loaded.

Pages write LaTeX as code hosts do: a block fenced as `math`, or $`...`$ inside a sentence.
"""

import re

BLOCK = re.compile(r"^```math\n(?P<formula>.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"\$`(?P<formula>[^`\n]+)`\$")


def with_formulas(text: str) -> str:
    """Return Markdown with each formula as MathML; a block keeps its number of lines."""
    from latex2mathml.converter import convert

    def block(match: re.Match[str]) -> str:
        formula = " ".join(match["formula"].split())
        return f'<div class="formula">{convert(formula, display="block")}</div>' + "\n" * match.group().count("\n")

    # Markdown takes a line that begins with <math> for a block, and one that begins with <span> for text.
    return INLINE.sub(lambda match: f"<span>{convert(match['formula'])}</span>", BLOCK.sub(block, text))

"""Formulas as MathML, which browsers draw themselves: a hook of mkdocs.

`pymdownx.arithmatex` leaves LaTeX between \\( \\) or \\[ \\] in elements of its class.
"""

import re
from html import unescape

import latex2mathml.converter

_FORMULA = re.compile(
    r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', flags=re.DOTALL
)


def on_page_content(html, **_):
    """The HTML of a page with its formulas converted; mkdocs calls it for each."""
    return _FORMULA.sub(_mathml, html)


def _mathml(match):
    tag, latex = match.groups()
    display = "block" if tag == "div" else "inline"
    return latex2mathml.converter.convert(unescape(latex), display=display)

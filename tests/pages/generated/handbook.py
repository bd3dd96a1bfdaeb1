"""`handbook.html` of the gateway: docs/user.md as the part of a page, for people who read it in a browser.

Rules:
- headings keep the anchors of the page, so links within it lead where they did; links to other pages are their words;
- blocks of code and tables that are wider than the window scroll by themselves, also with the keyboard.
"""

from __future__ import annotations

import re
from html import escape
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

SOURCE = Path(__file__).resolve().parents[3] / "docs" / "user.md"


def page() -> str:
    """The text, from docs/user.md."""
    renderer = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = renderer.parse(SOURCE.read_text("utf-8"))
    _set_anchors(tokens)
    for token in tokens:
        token.children = _own_links(token.children or [])
        if token.type == "th_open":
            token.attrSet("scope", "col")
    text = _let_scroll(renderer.renderer.render(tokens, renderer.options, {}))
    title, _, rest = text.partition("</h1>\n")
    return f"{title}</h1>\n{_contents(tokens)}{rest}"


def _contents(tokens: list[Token]) -> str:
    rows = [
        f'<li><a href="#{token.attrGet("id")}">{escape(tokens[at + 1].content.replace("`", ""))}</a></li>\n'
        for at, token in enumerate(tokens)
        if token.type == "heading_open" and token.tag == "h2"
    ]
    return f'<nav aria-label="Contents">\n<ul>\n{"".join(rows)}</ul>\n</nav>\n'


def _set_anchors(tokens: list[Token]) -> None:
    for at, token in enumerate(tokens):
        if token.type == "heading_open":
            title = tokens[at + 1].content.replace("`", "")
            token.attrSet("id", re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-"))


def _own_links(children: list[Token]) -> list[Token]:
    """Without the links that lead out of the page."""
    kept, is_out = [], False
    for child in children:
        if child.type == "link_open":
            is_out = not str(child.attrGet("href")).startswith("#")
        if not (is_out and child.type in ("link_open", "link_close")):
            kept.append(child)
    return kept


def _let_scroll(html: str) -> str:
    numbers = {"Example": 0, "Table": 0}

    def wrap(found: re.Match[str]) -> str:
        kind = "Table" if found[0].startswith("<table") else "Example"
        numbers[kind] += 1
        label = f"{kind} {numbers[kind]}"
        return f'<div class="scroll" tabindex="0" role="group" aria-label="{label}">{found[0]}</div>'

    return re.sub(r"<table>.*?</table>|<pre>.*?</pre>", wrap, html, flags=re.DOTALL)

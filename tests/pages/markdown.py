"""What the tests of pages read of Markdown: links, headings with their anchors, and sentences.

Owns the little of Markdown that this repository writes. It knows no nested lists and no HTML.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tests.prose import sentences

_FENCE = re.compile(r"^```.*?^```[^\n]*$", re.MULTILINE | re.DOTALL)
_CODE_BLOCK = re.compile(r"(?:^|(?<=\n\n))(?:    [^\n]*(?:\n|$)|\n(?=    ))+")
_COMMENT = re.compile(r"<!--.*?-->\n?", re.DOTALL)
_LINK = re.compile(r"(?<!!)\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^()\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)


def without_code(text: str) -> str:
    """A page without comments, and without its fenced and indented blocks of code."""
    return _CODE_BLOCK.sub("\n", _FENCE.sub("", _COMMENT.sub("", text)))


def headings(text: str) -> list[str]:
    """The headings of a page as they are written, without the marks of code."""
    return [found.replace("`", "") for found in _HEADING.findall(_FENCE.sub("", text))]


def anchors(text: str) -> set[str]:
    """What a link to a heading may name: its letters, digits and underscores in lower case, a hyphen for each space."""
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings(text)}


def links(text: str) -> list[str]:
    """Where the links of a page lead."""
    return _LINK.findall(without_code(text))


def page_sentences(text: str) -> Iterator[str]:
    """The sentences of a page outside code, tables and headings; a link counts as the words that are shown."""
    prose = without_code(text).replace("**", "")
    prose = re.sub(r"\[((?:[^\]\[]|\[[^\]]*\])*)\]\([^()\s]*\)", r"\1", prose)
    lines = ("" if line.startswith(("#", "|")) else line.removeprefix("> ") for line in prose.splitlines())
    for block in "\n".join(lines).split("\n\n"):
        # A continued line of a list is no block of code.
        yield from sentences("\n".join(line.strip() for line in block.splitlines()))


def first_paragraph(text: str) -> str:
    """The first paragraph below the title of a page."""
    return without_code(text).partition("\n")[2].strip().partition("\n\n")[0]


def resolve(page: Path, link: str) -> Path:
    """The file or folder that a relative link of a page leads to."""
    target = link.partition("#")[0]
    return (page.parent / target).resolve() if target else page

"""Answers with a label at the left and text wrapped beside it, so that they fit 80 columns.

Owns the shape of such lines. A digest, path or address is never cut: one that is too long for a line has a line alone.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

WIDTH = 80
LABEL = 11


def labelled(label: str, texts: str | Iterable[str], column: int = LABEL) -> list[str]:
    """Format the lines of one label.

    Args:
        label: shorter than the column.
        texts: each begins on a line of its own.
        column: where the text begins.
    """
    lines = []
    for text in [texts] if isinstance(texts, str) else texts:
        lines += textwrap.wrap(
            text, WIDTH - column, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
        ) or [""]
    return [f"{label if at == 0 else '':<{column}}{line}".rstrip() for at, line in enumerate(lines)]

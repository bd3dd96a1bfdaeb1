"""`appliance docs`: show the pages of the project, which travel with the program."""

from __future__ import annotations

import difflib
import re
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from appliance.cli.console.columns import labelled
from appliance.cli.console.options import json_option, pass_terminal
from appliance.cli.console.terminal import Terminal
from appliance.resources import page_paths
from signing.errors import UsageError

_COMMENT = re.compile(r"^<!--.*?-->\n", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s")


@dataclass(frozen=True, slots=True)
class PageSummary:
    """A page in one line: its name on the command line, its title, and its first sentence without markup."""

    name: str
    title: str
    summary: str


@click.command("docs")
@click.argument("page", required=False)
@json_option
@pass_terminal
def command(terminal: Terminal, page: str | None, as_json: bool) -> None:
    """Show a page of the project, or list all pages.

    The pages travel with the program, so they can be read on a host without a network. Without PAGE they are listed,
    each in one line. On a terminal a page is shown in a pager ($PAGER, or `less`); otherwise it is printed as it is.

    \b
    Example:
      appliance docs
      appliance docs glossary
    """
    paths = page_paths()
    if page is not None:
        text = _read(paths, page)
        if as_json:
            terminal.answer_json({**asdict(_summarize(page, text)), "text": text})
        else:
            terminal.page(text.rstrip("\n"))
        return
    found = [_summarize(name, path.read_text("utf-8")) for name, path in paths.items()]
    if as_json:
        terminal.answer_json({"pages": [asdict(one) for one in found]})
        return
    column = max(map(len, paths)) + 2
    for one in found:
        for line in labelled(one.name, one.summary, column):
            terminal.answer(line)
    terminal.message("hint: to read one of them: appliance docs PAGE")


def _read(paths: dict[str, Path], page: str) -> str:
    if page not in paths:
        close = difflib.get_close_matches(page, paths, n=1)
        raise UsageError(
            "docs.unknown-page",
            page,
            expected=f"one of {', '.join(paths)}",
            found="no page of that name",
            hint=f"appliance docs {close[0]}" if close else "appliance docs",
        )
    # Comments are for the tests of the pages and for those who write them.
    return _COMMENT.sub("", paths[page].read_text("utf-8"))


def _summarize(name: str, text: str) -> PageSummary:
    blocks = [block.strip() for block in text.split("\n\n")]
    title = blocks[0].lstrip("# ")
    paragraph = next((block for block in blocks[1:] if block and block[0].isalpha()), "")
    plain = re.sub(r"[*`]", "", _LINK.sub(r"\1", " ".join(paragraph.split())))
    return PageSummary(name, title, _SENTENCE_END.split(plain, maxsplit=1)[0])

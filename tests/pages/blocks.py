"""The blocks of commands in the pages that people write, and the mark above each.

A block is an indented text, or a fenced one. An indented block holds commands, and so does a fence that names a shell.
A fence with lines that begin with `$ ` is a transcript: its other lines are output. A fence that names `python` is run.

Rules for the mark, an HTML comment in the line above the block:
- `<!-- run by: tests/… -->`: these tests type the block; several are separated by commas;
- `<!-- not run here: REASON -->`: nothing types it, for a reason from a short list;
- `<!-- exit code: N -->`: the block is run in its place, and ends so;
- without a mark it is run in its place, and ends with 0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
SHELL, PYTHON, TRANSCRIPT, OTHER = "sh", "python", "transcript", "other"
RUN_BY, NOT_RUN, EXIT_CODE = "run by", "not run here", "exit code"
MARKS = (RUN_BY, NOT_RUN, EXIT_CODE)
_FENCE = re.compile(r"```(\w*)\s*")
_MARK = re.compile(rf"<!-- ({'|'.join(MARKS)}): (.+) -->\s*")
_TYPED = re.compile(r"\s*\$ (.+)")
_REMARK = re.compile(r"\s{2,}# .*")
_SHELLS = ("sh", "bash")


@dataclass(frozen=True)
class Block:
    """One block of a page.

    Args:
        page: its path in the repository.
        number: of its first line, from 1.
        heading: the nearest `##` above it; empty where there is none.
        kind: one of `SHELL`, `PYTHON`, `TRANSCRIPT` and `OTHER`.
        text: without its indent.
        marks: what stands above it, by kind of mark.
    """

    page: str
    number: int
    heading: str
    kind: str
    text: str
    marks: dict[str, str]

    @property
    def place(self) -> str:
        """Where it stands, for messages."""
        return f"{self.page}:{self.number}"

    @property
    def commands(self) -> tuple[str, ...]:
        """The command lines without remarks; a line that ends with a backslash is joined with the next one."""
        lines = self.text.splitlines()
        if self.kind == TRANSCRIPT:
            lines = [match[1] for line in lines if (match := _TYPED.fullmatch(line))]
        joined = "\n".join(lines).replace("\\\n", " ")
        return tuple(command for line in joined.splitlines() if (command := _REMARK.sub("", line).strip()))

    @property
    def has_commands(self) -> bool:
        """Whether people type it, or a program like it."""
        return self.kind != OTHER


def people_pages() -> tuple[str, ...]:
    """The pages whose blocks are looked at: all that people read, but for those that are generated whole."""
    from tests.pages.__main__ import PAGES

    found = [path for path in sorted((TOP / "docs").glob("*.md")) if path.stem not in PAGES]
    others = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "bundles/FORMAT.md", "signing/TRUST.md")
    found += [TOP / name for name in (*others, "playbooks/README.md")]
    return tuple(str(path.relative_to(TOP)) for path in found if path.is_file())


def read_blocks(page: str, heading: str = "") -> tuple[Block, ...]:
    """The blocks of a page, or of the section below one heading."""
    blocks = parse_blocks(page, (TOP / page).read_text("utf-8"))
    return tuple(block for block in blocks if not heading or block.heading == heading)


def parse_blocks(page: str, text: str) -> tuple[Block, ...]:
    """The blocks of a page's text; `page` is its name, for messages."""
    return tuple(_parse(page, text.splitlines()))


def read_commands(page: str, heading: str = "") -> list[str]:
    """The command lines of a page, or of one section of it."""
    return [command for block in read_blocks(page, heading) if block.has_commands for command in block.commands]


def _parse(page: str, lines: list[str]) -> Iterator[Block]:
    heading, at = "", 0
    while at < len(lines):
        line = lines[at]
        if line.startswith("## "):
            heading = line.removeprefix("## ").strip()
        begin, fence = at, _FENCE.fullmatch(line)
        if fence:
            at = next((end for end in range(at + 1, len(lines)) if lines[end].startswith("```")), len(lines))
            yield _block(page, begin, heading, fence[1], lines[begin + 1 : at], lines)
        elif line.startswith("    ") and line.strip() and (at == 0 or _may_begin_after(lines[at - 1])):
            while at + 1 < len(lines) and lines[at + 1].startswith("    "):
                at += 1
            yield _block(page, begin, heading, SHELL, [one[4:] for one in lines[begin : at + 1]], lines)
        at += 1


def _may_begin_after(line: str) -> bool:
    return not line.strip() or _MARK.fullmatch(line) is not None


def _block(page: str, begin: int, heading: str, language: str, text: list[str], lines: list[str]) -> Block:
    marks = {}
    above = begin - 1
    while above >= 0 and (mark := _MARK.fullmatch(lines[above])):
        marks[mark[1]] = mark[2]
        above -= 1
    if language in _SHELLS:
        kind = SHELL
    elif language == PYTHON:
        kind = PYTHON
    elif any(_TYPED.fullmatch(line) for line in text):
        kind = TRANSCRIPT
    else:
        kind = OTHER
    return Block(page, begin + 1, heading, kind, "\n".join(text) + "\n", marks)

"""Every command that a page shows is run: in a small place here, or by the test that the page names."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from appliance.cli.main import appliance
from tests.pages.blocks import (
    EXIT_CODE,
    NOT_RUN,
    RUN_BY,
    TOP,
    TRANSCRIPT,
    Block,
    parse_blocks,
    people_pages,
    read_blocks,
)
from tests.pages.place import place_for

REASONS = (
    "needs root and a stick",
    "sets up this machine, and takes minutes",
    "needs another machine, or files and disks of a site",
)
MAX_NOT_RUN = 5
"""How many blocks nothing types. This number only falls."""
MIN_COMMANDS = 80
"""How many command lines the pages have at least: a parser that finds none would pass everything."""
PAGES = people_pages()
_SPAN = re.compile(r"`((?:appliance|make|python -m) [^`]+)`")
_PLAIN = re.compile(r"[a-z][a-z0-9_-]*")


def blocks_of(page: str) -> list[Block]:
    return [block for block in read_blocks(page) if block.has_commands]


def runs_here(block: Block) -> bool:
    return RUN_BY not in block.marks and NOT_RUN not in block.marks and block.kind != TRANSCRIPT


@pytest.mark.ci
@pytest.mark.parametrize("page", [page for page in PAGES if any(map(runs_here, blocks_of(page)))])
def test_page_can_be_typed_from_top_to_bottom(page: str, template: Path, tmp_path: Path) -> None:
    blocks = [block for block in blocks_of(page) if runs_here(block)]
    if shutil.which("curl") is None and any("curl " in block.text for block in blocks):
        pytest.skip("curl is not installed")
    with place_for(page, template, tmp_path / "place") as place:
        for block in blocks:
            done = place.type(block)
            wanted = int(block.marks.get(EXIT_CODE, "0"))
            assert done.returncode == wanted, f"{block.place}\n{block.text}\n{done.stdout}\n{done.stderr}"


def words_of(command: str) -> list[str]:
    """What names a command: its program, its subcommands and its options, up to the first thing of the person's own."""
    found = []
    words = shlex.split(command.replace("…", "x"), comments=True)
    for word in words:
        if not _PLAIN.fullmatch(word):
            break
        found.append(word)
    options = [word.partition("=")[0] for word in words if word.startswith("--")]
    return [*found, *options]


def are_typed_by(block: Block, tests: list[Path]) -> list[str]:
    """The words of a block that none of the tests has; none where a test reads the page itself."""
    texts = "\n".join(path.read_text() for path in tests)
    if f'"{block.page}"' in texts:
        return []
    words = {word for command in block.commands for word in words_of(command)} - {"appliance", "python", "make"}
    return sorted(word for word in words if not re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", texts))


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_run_here_or_by_a_test_that_types_it(page: str) -> None:
    for block in blocks_of(page):
        assert block.kind != TRANSCRIPT or block.marks, f"{block.place}: a transcript needs a mark"
        if NOT_RUN in block.marks:
            assert block.marks[NOT_RUN] in REASONS, block.place
        if RUN_BY in block.marks:
            tests = [TOP / name.strip() for name in block.marks[RUN_BY].split(",")]
            assert all(path.is_file() for path in tests), block.place
            assert are_typed_by(block, tests) == [], f"{block.place}: {block.marks[RUN_BY]} does not type this"


def test_few_blocks_are_typed_by_nobody() -> None:
    untyped = [block.place for page in PAGES for block in blocks_of(page) if NOT_RUN in block.marks]
    assert len(untyped) == MAX_NOT_RUN, untyped


def test_the_pages_have_commands_at_all() -> None:
    assert sum(len(block.commands) for page in PAGES for block in blocks_of(page)) >= MIN_COMMANDS


def mentioned(page: str) -> Iterator[str]:
    """Every command line on a page, in blocks and in sentences."""
    for block in blocks_of(page):
        yield from block.commands
    yield from _SPAN.findall((TOP / page).read_text())


def refuse_unknown(line: str) -> None:
    """Assert that the program has the command and the options that a line names."""
    command: click.Command = appliance
    words = line.split()[1:]
    while words and isinstance(command, click.Group) and not words[0].startswith("-"):
        if words[0] == "…":
            return
        found = command.get_command(click.Context(command), words.pop(0))
        assert found is not None, line
        command = found
    known = {"--help", "--version", *(one for parameter in command.params for one in parameter.opts)}
    given = {word.partition("=")[0].rstrip(",;") for word in words if word.startswith("--")}
    assert given <= known, line


@pytest.mark.parametrize("page", PAGES)
def test_every_command_that_a_page_names_exists(page: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):[^=\n]*##", (TOP / "Makefile").read_text(), re.MULTILINE))
    for line in mentioned(page):
        if line.startswith("appliance "):
            refuse_unknown(line)
        elif line.startswith("make "):
            assert line.split()[1] in targets, line
        elif line.startswith("python -m tests."):
            assert importlib.util.find_spec(line.split()[2]) is not None, line


SAMPLE = """# A page

## One

<!-- run by: tests/a.py, tests/b.py -->
    appliance verify \\
      PATH    # a remark
    echo done

Text
    that is no block.

```sh
make demo
```

```
$ appliance status
everything is as it was signed
```

```json
{"no": "command"}
```
"""


def test_blocks_are_found_with_their_marks_and_commands() -> None:
    indented, fenced, transcript, json = parse_blocks("page.md", SAMPLE)
    assert indented.commands == ("appliance verify    PATH", "echo done")
    assert (indented.heading, indented.number, indented.marks) == ("One", 6, {RUN_BY: "tests/a.py, tests/b.py"})
    assert (fenced.commands, fenced.marks) == (("make demo",), {})
    assert (transcript.kind, transcript.commands) == (TRANSCRIPT, ("appliance status",))
    assert not json.has_commands


def test_mark_that_names_a_test_which_types_something_else_is_noticed(tmp_path: Path) -> None:
    test = tmp_path / "test_x.py"
    test.write_text('appliance("verify", path, "--json")\n')
    (block,) = parse_blocks("page.md", "    appliance verify PATH --json --evidence FILE\n")
    assert are_typed_by(block, [test]) == ["--evidence"]
    (block,) = parse_blocks("page.md", "    appliance verify PATH --json\n")
    assert are_typed_by(block, [test]) == []

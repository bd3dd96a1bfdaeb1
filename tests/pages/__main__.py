"""The files that are generated from the code, the recipes and the pages: which there are, and how each is written.

Command line: `python -m tests.pages [NAME…]` writes those named, by default all; `--check` lists the stale ones.

Rules:
- a file is a function of the files of the repository: no clock, no network, nothing of the machine;
- `tests/pages/test_pages.py` fails while one is stale.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.pages.generated import api, commands, dashboard, dependencies, handbook, recipes

TOP = Path(__file__).resolve().parent.parent.parent
DOCS = TOP / "docs"
NOTICE = "\n<!-- Generated: change the code, then run `python -m tests.pages {name}`. -->\n"
PAGES: dict[str, Callable[[], str]] = {
    "api": api.page,
    "commands": commands.page,
    "dependencies": dependencies.page,
    "recipes": recipes.page,
}
"""What gives the text of `docs/NAME.md` above its notice, by NAME."""
OBSERVATION = TOP / "appliance" / "serve" / "observation"
FILES: dict[str, tuple[Path, Callable[[], str]]] = {
    "handbook": (OBSERVATION / "handbook.html", handbook.page),
    "dashboard": (OBSERVATION / "dashboard.json", dashboard.page),
}
"""Generated files that are no pages of docs/, by name: where each lies, and what gives its whole text."""


def page_path(name: str) -> Path:
    """The file of a page."""
    return FILES[name][0] if name in FILES else DOCS / f"{name}.md"


def page_text(name: str) -> str:
    """The whole text of a page, with its notice."""
    return FILES[name][1]() if name in FILES else PAGES[name]() + NOTICE.format(name=name)


def stale_pages(names: Iterable[str] = ()) -> list[str]:
    """The pages whose file is missing or has another text than the code writes now, of some pages or of all."""
    return [name for name in names or (*PAGES, *FILES) if _stored(page_path(name)) != page_text(name)]


def write_pages(names: Iterable[str] = ()) -> None:
    """Write some pages, or all."""
    DOCS.mkdir(exist_ok=True)
    for name in names or (*PAGES, *FILES):
        page_path(name).write_text(page_text(name), encoding="utf-8")


def _shown(name: str) -> str:
    return FILES[name][0].relative_to(TOP).as_posix() if name in FILES else f"docs/{name}.md"


def _stored(path: Path) -> str | None:
    return path.read_text("utf-8") if path.exists() else None


def main(arguments: list[str]) -> int:
    """Write pages, or list the stale ones and exit with 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.pages", description="Write the generated files.")
    parser.add_argument("names", metavar="NAME", nargs="*", help=f"one of: {', '.join((*PAGES, *FILES))}")
    parser.add_argument("--check", action="store_true", help="list the stale pages, write nothing")
    given = parser.parse_args(arguments)
    if unknown := [name for name in given.names if name not in {*PAGES, *FILES}]:
        parser.error(f"no such page: {', '.join(unknown)}")
    if not given.check:
        write_pages(given.names)
        return 0
    stale = stale_pages(given.names)
    sys.stdout.write("".join(f"{_shown(name)} is stale: python -m tests.pages {name}\n" for name in stale))
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

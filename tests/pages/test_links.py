"""Every link of every page leads somewhere, and so does every citation of a page or its section in the code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tests.pages.markdown import anchors, headings, links, resolve
from tests.test_repository import TOP, texts, tracked_files

PAGE = re.compile(r"\bdocs/([a-z][\w-]*)\.md\b(?:,\s+(?:#\s+)?(?P<section>[A-Z].{0,80}))?", re.DOTALL)
# In pieces, so that this file does not find itself.
OLD_CITATION = re.compile(r"\bDESIGN" r" [0-9]")


def pages() -> Iterator[tuple[Path, str]]:
    for path in tracked_files():
        if path.suffix == ".md":
            yield path, path.read_text("utf-8")


def is_section(cited: str, page: Path) -> bool:
    """Whether a text begins with a heading of a page; the code may break a line inside it."""
    words = re.sub(r"\s+(?:# )?", " ", cited)
    return any(re.match(re.escape(heading) + r"(?!\w)", words) for heading in headings(page.read_text("utf-8")))


def test_every_relative_link_and_anchor_resolves() -> None:
    broken = []
    for page, text in pages():
        for link in links(text):
            if re.match(r"[a-z]+:", link):
                continue
            target, anchor = resolve(page, link), link.partition("#")[2]
            if not target.exists() or (anchor and anchor not in anchors(target.read_text("utf-8"))):
                broken.append(f"{page.relative_to(TOP)}: {link}")
    assert broken == []


def test_every_page_and_section_that_a_file_cites_is_there() -> None:
    broken = []
    # The tests of pages speak of pages that are not there.
    for name, text in ((name, text) for name, text in texts() if not name.startswith("tests/pages/")):
        for cited in PAGE.finditer(text):
            page = TOP / "docs" / f"{cited[1]}.md"
            if not page.exists() or (cited["section"] and not is_section(cited["section"], page)):
                broken.append(f"{name}: {cited[0][:80]}")
    assert broken == []


def test_no_file_cites_the_design_by_its_old_numbers() -> None:
    assert [name for name, text in texts() if OLD_CITATION.search(text)] == []


def test_every_file_of_the_repository_that_a_page_names_is_there() -> None:
    named = [
        (page.relative_to(TOP), path)
        for page, text in pages()
        for path in re.findall(r"`((?:appliance|bundles|signing|tests|playbooks|docs)/[\w./-]*)`", text)
    ]
    assert [f"{page}: {path}" for page, path in named if not (TOP / path).exists()] == []

"""README and the pages of docs/: short, in plain words, each for somebody, and none that nobody finds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.pages.__main__ import PAGES
from tests.pages.markdown import first_paragraph, links, page_sentences, resolve, without_code
from tests.prose import MAX_SENTENCE_WORDS, WORDS

TOP = Path(__file__).resolve().parents[2]
DOCS = TOP / "docs"
README, INDEX = TOP / "README.md", DOCS / "index.md"
MAX_README_WORDS = 1200
EVERY_PAGE = sorted(DOCS.glob("*.md"))
BESIDE = [
    TOP / name for name in ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "bundles/FORMAT.md", "signing/TRUST.md")
]
WRITTEN = [page for page in (README, TOP / "playbooks" / "README.md", *BESIDE, *EVERY_PAGE) if page.stem not in PAGES]


def test_readme_is_read_in_five_minutes() -> None:
    assert len(README.read_text().split()) <= MAX_README_WORDS


def test_every_page_is_linked_from_readme_or_the_index() -> None:
    found = {resolve(page, link) for page in (README, INDEX) for link in links(page.read_text())}
    assert [page.name for page in EVERY_PAGE if page not in found and page != INDEX] == []


@pytest.mark.parametrize("page", EVERY_PAGE, ids=lambda page: str(page.relative_to(TOP)))
def test_page_begins_with_whom_it_is_for(page: Path) -> None:
    assert re.match(r"For \w", first_paragraph(page.read_text())), page.name


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: str(page.relative_to(TOP)))
def test_sentences_of_a_page_are_short(page: Path) -> None:
    long = [one for one in page_sentences(page.read_text()) if len(one.split()) > MAX_SENTENCE_WORDS]
    assert long == []


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: str(page.relative_to(TOP)))
def test_page_is_written_in_the_words_of_the_field(page: Path) -> None:
    prose = re.sub(r"`[^`]*`", "", without_code(page.read_text()))
    assert WORDS.findall(prose) == []


def test_the_tour_of_readme_shows_commands_of_the_transcript() -> None:
    transcript = (DOCS / "transcript.md").read_text()
    tour = README.read_text().partition("## A tour")[2].partition("\n## ")[0]
    typed = [line.split("  #")[0].rstrip(" …") for line in tour.splitlines() if line.startswith("$ ")]
    assert typed
    assert [line for line in typed if line not in transcript] == []

"""T129: the name of a machine or a person, a key or a canary leaves a site in the file for support."""

from __future__ import annotations

from typing import Any

import pytest

from appliance.host.maintenance.support.file import write_support
from appliance.host.maintenance.support.grammar import FACTS, FIXED_TEXT
from appliance.host.maintenance.support.private_words import PrivateWord
from signing.strictjson import load
from tests.attacks.harness import guard_off, refused, row

ROW = row(129)
WORDS = (
    PrivateWord("prodhost7", "the name of a machine"),
    PrivateWord("lovelace", "the name of a person"),
    PrivateWord("a1b2c3d4e5f6", "a part of a user's key"),
    PrivateWord("canary-77aa", "a word of /etc/appliance/private-words"),
)
CANARY = "canary-77aa"


def gathered(path: str, value: object) -> dict[str, Any]:
    """Facts with one value at one path."""
    for part in reversed(path.split(".")):
        value = {part.removesuffix("[]"): [value] if part.endswith("[]") else value}
    assert isinstance(value, dict)
    return value


def test_unattacked_facts_are_written() -> None:
    made = write_support(gathered("release.version", "1.0.0"), WORDS)
    assert load(made.data, "support") == {"release": {"version": "1.0.0"}, "withheld": []}


def test_unattacked_word_of_the_program_may_be_somebody_s_name() -> None:
    words = tuple(PrivateWord(text.lower(), "the name of a person") for text in FIXED_TEXT if len(text) >= 6)
    facts = {**gathered("machine.os", "debian-12"), **gathered("life.state", "trying")}
    assert write_support(facts, words).value["life"] == {"state": "trying"}


@pytest.mark.parametrize("word", WORDS, ids=lambda word: word.kind)
@pytest.mark.parametrize("path", ["release.version", "program.version"])
def test_attacked_by_a_word_in_a_version(word: PrivateWord, path: str) -> None:
    for text in (word.text, f"1.0.0-{word.text.upper()}.2"):
        error = refused(ROW, lambda text=text: write_support(gathered(path, text), WORDS), "support.private", path)  # type: ignore[misc]
        assert word.text not in f"{error}{error.hint}".lower()
        assert error.found == word.kind


def test_attacked_by_several_words_each_of_which_is_named() -> None:
    facts = {**gathered("release.version", "prodhost7-lovelace"), **gathered("program.version", CANARY)}
    error = refused(ROW, lambda: write_support(facts, WORDS), "support.private", "program.version")
    assert [one.subject for one in error.others] == ["release.version", "release.version"]


@pytest.mark.parametrize("path", [path for path, fact in FACTS.items() if not fact.is_version])
def test_attacked_by_a_canary_in_any_other_fact_which_is_left_out(path: str) -> None:
    # Without the search: the grammar of each fact alone keeps it in.
    assert CANARY.encode() not in write_support(gathered(path, CANARY), ()).data


@pytest.mark.parametrize("path", ["release", "models[]", "journal[]", "problems[]"])
def test_attacked_by_a_fact_that_is_not_in_the_list(path: str) -> None:
    for facts in (gathered(path, {CANARY: CANARY, "note": CANARY}), {CANARY: CANARY}):
        assert CANARY.encode() not in write_support(facts, ()).data


def test_unguarded_the_name_leaves_with_it() -> None:
    with guard_off(ROW.guard, lambda *_: None):
        assert b"prodhost7" in write_support(gathered("release.version", "1.0.0-prodhost7"), WORDS).data

"""Which regular expressions a grammar can have. The engine takes any text for the others, without a word."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.serve.requests.schema_pattern import write_pattern


@pytest.mark.parametrize(
    ("pattern", "written"),
    [
        (r"^\d{3}-\w+$", "^[0-9]{3}-[A-Za-z0-9_]+$"),
        (r"^a|b$", "^a|b$"),
        (r"^#[0-9A-Fa-f]{6}$", "^#[0-9A-Fa-f]{6}$"),
        (r"^[\w.-]+@[a-z]{2,9}\.com$", r"^[A-Za-z0-9_.\x2D]+@[a-z]{2,9}\.com$"),
        # Anything, but nothing that would end the JSON string.
        (r"^.*$", r'^[^"\x5C\x00-\x1F]*$'),
        (r"^[^/]{2}$", r'^[^/"\x5C\x00-\x1F]{2}$'),
        # The engine repeats the last byte of a letter alone, unless a class holds it.
        ("^é{3}$", "^[é]{3}$"),
        (r"^a\/b\-$", "^a/b-$"),
        ("^$", "^$"),
    ],
)
def test_pattern_is_written_with_what_a_grammar_has(pattern: str, written: str) -> None:
    found = write_pattern(pattern)
    assert found is not None
    assert found[0] == written


@pytest.mark.parametrize(
    "pattern",
    [
        *("abc", "^abc", "abc$", r"^a\$", "", "^", 5, None, "^" + "a" * 200 + "$"),
        *("^(a)$", "^(?:a)$", "^(?=a)$", r"^\p{L}$", r"^\bx$", r"^\S$", r"^[\s\S]$", r"^\x41$", r"^a\\$"),
        *('^"$', "^[ -~]$", '^["]$', r"^[\\]$", "^[z-a]$", "^[]$", "^[a$", "^a]$", "^a{$", "^a\n$", "^[\t]$"),
        *("^*$", "^a**$", "^a+?$", "^a{5,2}$", "^a{2001}$", "^[a]{1500}[b]{1500}$", "^^a$", "^a$b$"),
    ],
)
def test_pattern_that_a_grammar_has_not_is_refused(pattern: object) -> None:
    assert write_pattern(pattern) is None


@given(
    st.text(alphabet='ab09\\dws.-^$[]{}*+?|/,"é ', max_size=20).map(lambda text: f"^{text}$"),
    st.text(alphabet="ab09ws.-^$[]{}*+?|/,é ", max_size=6),
)
def test_what_is_written_admits_the_same_texts_and_has_bounded_counts(pattern: str, text: str) -> None:
    found = write_pattern(pattern)
    if found is None:
        return
    assert bool(re.fullmatch(found[0], text)) == bool(re.fullmatch(pattern, text, re.ASCII))
    assert found[1] <= 2000
    assert "(" not in found[0]

"""One text, one value."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from signing.errors import NotTrustedError
from signing.strictjson import load, load_canonical, to_file, to_signing
from tests.vectors import vectors

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abcd", max_size=3), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(VALUES)
def test_what_we_write_reads_back_equal(value: object) -> None:
    assert load_canonical(to_file(value), "x") == value


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":1,"a":2}',
        b"1.0",
        b"1e3",
        b"NaN",
        b"Infinity",
        b"-0",
        b"9223372036854775808",
        b'"\\ud800"',
        b"\xef\xbb\xbf1",
        b"1 2",
        b'"\xff"',
        b"[" * 33 + b"]" * 33,
        b"[" * 100_000,
        b"",
    ],
)
def test_ambiguous_text_is_refused(data: bytes) -> None:
    with pytest.raises(NotTrustedError):
        load(data, "x")


@pytest.mark.parametrize("data", [b'{"b":1,"a":2}', b'{ "a":1}', b'"\\u0061"', b"1\n"])
def test_another_spelling_is_not_canonical(data: bytes) -> None:
    load(data, "x")
    with pytest.raises(NotTrustedError):
        load_canonical(data, "x")


def test_signing_form_escapes_only_quote_and_backslash() -> None:
    assert to_signing({"b": 'q"\\\n', "a": [True, None, 3]}) == b'{"a":[true,null,3],"b":"q\\"\\\\\n"}'


def test_no_invalid_or_ambiguous_file_of_the_json_test_suite_is_accepted() -> None:
    refused, accepted = 0, []
    for path in sorted((vectors("json-test-suite") / "test_parsing").iterdir()):
        if path.name[0] in "ni":
            try:
                load(path.read_bytes(), path.name)
            except NotTrustedError:
                refused += 1
            else:
                accepted.append(path.name)
    assert (refused, accepted) == (188 + 35, [])


def test_valid_files_of_the_json_test_suite_are_accepted_unless_they_need_floats_or_duplicates() -> None:
    refused = []
    for path in sorted((vectors("json-test-suite") / "test_parsing").glob("y_*")):
        try:
            load(path.read_bytes(), path.name)
        except NotTrustedError:
            refused.append(path.name)
    assert all(any(word in name for word in ("number", "real", "duplicated")) for name in refused), refused

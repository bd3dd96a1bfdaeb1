"""One text, one value."""

from __future__ import annotations

import contextlib
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from signing import strictjson
from signing.errors import NotTrustedError
from signing.strictjson import MAX_DEPTH, MAX_INT, MAX_VALUES, load, load_canonical, to_file, to_signing
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


@pytest.mark.parametrize("unit", [b"[],", b"{},", b'"",', b"1,", b"[[[]]],", b'{"a":0},', b"null,"])
def test_many_tiny_values_are_refused_and_as_many_of_a_usual_size_are_read(unit: bytes) -> None:
    many = 4 * MAX_VALUES
    with pytest.raises(NotTrustedError) as caught:
        load(b"[" + unit * many + b"0]", "x")
    assert "values in" in caught.value.expected
    assert len(load(b"[" + unit * (MAX_VALUES // 8) + b"0]", "x")) == MAX_VALUES // 8 + 1
    texts = [":,[{" * 16] * (MAX_VALUES * 2)  # what stands inside a text does not count
    assert load(to_file(texts), "x") == texts


def numbers(count: int) -> bytes:
    return b"[" + b"0," * (count - 1) + b"0]"


def test_limit_of_values_counts_the_list_and_what_is_in_it() -> None:
    def limit(data: bytes) -> int:
        return MAX_VALUES + len(data) // 8

    count = next(count for count in range(1, 2 * MAX_VALUES) if 1 + count > limit(numbers(count)))
    with pytest.raises(NotTrustedError) as caught:
        load(numbers(count), "x")
    assert caught.value.expected == f"at most {limit(numbers(count))} values in {2 * count + 1} bytes"
    assert load(numbers(count - 1), "x") == [0] * (count - 1)
    pairs = {str(number): 0 for number in range(MAX_VALUES)}
    assert load(to_file(pairs), "x") == pairs  # keys count, too: 8 193 values in 35 755 bytes
    with pytest.raises(NotTrustedError):
        load(b"{" + b'"":0,' * MAX_VALUES + b'"":0}', "x")


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


def refusal(data: bytes, max_bytes: int = 1 << 20) -> NotTrustedError:
    with pytest.raises(NotTrustedError) as caught:
        load(data, "file", max_bytes)
    assert (caught.value.code, caught.value.subject) == ("json.refused", "file")
    return caught.value


def test_text_may_be_as_long_as_the_caller_says_and_a_mebibyte_otherwise() -> None:
    assert load(b'"' + b"x" * 8 + b'"', "file", 10) == "x" * 8
    assert refusal(b'"' + b"x" * 9 + b'"', 10).expected == "at most 10 bytes"
    assert len(load(b'"' + b"x" * ((1 << 20) - 2) + b'"', "file")) == (1 << 20) - 2
    assert load_canonical(b'"' + b"x" * ((1 << 20) - 2) + b'"', "file")
    for read in (load, load_canonical):
        with pytest.raises(NotTrustedError) as caught:
            read(b'"' + b"x" * ((1 << 20) - 1) + b'"', "file")
        assert caught.value.expected == "at most 1048576 bytes"
    with pytest.raises(NotTrustedError, match="json.refused"):
        load_canonical(b'"xx"', "file", 3)


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('["]}\\"",', "]")])
def test_thirty_two_levels_are_the_most(opening: str, closing: str) -> None:
    assert MAX_DEPTH == 32
    load(f"{opening * 32}1{closing * 32}".encode(), "file")
    assert refusal(f"{opening * 33}1{closing * 33}".encode()).expected == "at most 32 levels"


def test_what_was_closed_before_does_not_hide_what_is_open() -> None:
    for before in (b"[],", b"{},", b'{"a":[]},'):
        for levels, expected in ((31, ""), (32, "at most 32 levels")):
            data = b"[" + before * 40 + b"[" * levels + b"]" * levels + b"]"
            if expected:
                assert refusal(data).expected == expected
            else:
                load(data, "file")


def test_depth_is_that_of_the_nesting_and_not_of_the_text() -> None:
    load(b"[" + b"[]," * 100 + b"{}" + b',{"a":{}}' * 100 + b"]", "file")
    load(b'["' + b"[{" * 100 + b'"]', "file")
    load(b'["\\"' + b"[" * 100 + b'"]', "file")
    load(b'["\\\\",[[1]],"' + b"[" * 100 + b'"]', "file")
    load('["é\\né"]'.encode() + b"\n" * 10, "file")


@pytest.mark.parametrize("number", [0, 1, -1, MAX_INT, -MAX_INT])
def test_integers_below_two_to_the_sixty_three_are_taken(number: int) -> None:
    assert MAX_INT == 2**63 - 1
    assert load(str(number).encode(), "file") == number


@pytest.mark.parametrize(
    "text", [f"{2**63}", f"-{2**63}", "1" + "0" * 19, "-1" + "0" * 19, "1" + "0" * 20, "1" + "0" * 5000], ids=len
)
def test_larger_ones_are_refused_before_they_cost_anything(text: str) -> None:
    assert refusal(text.encode()).found == f"an integer out of range: {text[:40]}"
    assert refusal(f"[{text}]".encode()).found == f"an integer out of range: {text[:40]}"


def test_refusals_say_which_rule_was_broken() -> None:
    assert refusal(b'{"a":1,"a":1}').found == "a key stands twice in one object"
    assert refusal(b'[{"b":{"a":1,"a":1}}]').found == "a key stands twice in one object"
    assert refusal(b"[1.5]").found == "a number that is not an integer: 1.5"
    assert refusal(b"[1e400]").found == "a number that is not an integer: 1e400"
    assert refusal(b"[-Infinity]").found == "a number that is not an integer: -Infinity"
    assert refusal(b"[-0]").found == "an integer out of range: -0"
    assert refusal(b"[1,]").found == "no JSON at character 3"
    assert refusal(b'["\xc3"]').found == "the byte 0xc3 at 2"
    assert refusal(b"[1" + b"0" * 10_000 + b".5]").found == f"a number that is not an integer: 1{'0' * 39}"


@pytest.mark.parametrize(
    "data",
    [
        b'"\\udc00"',
        b'["\\ud800x"]',
        b'{"\\udfff":1}',
        b'{"a":"\\ud8ff"}',
        b'{"a":[{"b":"\\ud800"}]}',
        b'["\\udbff\\ud800"]',
    ],
)
def test_lone_surrogate_anywhere_is_refused(data: bytes) -> None:
    assert refusal(data).found == "a lone surrogate"


def test_pair_of_surrogates_is_a_character_and_so_are_its_neighbours() -> None:
    assert load(b'["\\ud83d\\ude00","\\ud7ff","\\ue000"]', "file") == ["\U0001f600", "\ud7ff", "\ue000"]


@pytest.mark.parametrize(
    ("value", "text"), [(None, b"null"), (True, b"true"), (False, b"false"), (0, b"0"), (-7, b"-7")]
)
def test_plain_values_are_spelled_alike_in_both_forms(value: object, text: bytes) -> None:
    assert (to_signing(value), to_file(value), load_canonical(text, "x")) == (text, text, value)


def test_signing_form_sorts_keys_at_every_level_and_keeps_lists() -> None:
    value = {"b": [2, 1, {"d": (), "c": {}}], "a": "é\x00", "\U0001f600": 1, "\uffff": 2}
    assert to_signing(value) == '{"a":"é\x00","b":[2,1,{"c":{},"d":[]}],"\uffff":2,"\U0001f600":1}'.encode()


def test_file_form_keeps_every_character_and_has_no_spaces() -> None:
    assert to_file({"b": ["é", '"', "\n"], "a": 1}) == '{"a":1,"b":["é","\\"","\\n"]}'.encode()
    with pytest.raises(ValueError, match="Out of range"):
        to_file(float("nan"))


@pytest.mark.parametrize("value", [1.5, b"x", {1}, object()])
def test_what_json_does_not_have_has_no_canonical_form(value: object) -> None:
    with pytest.raises(TypeError, match="no canonical form"):
        to_signing(value)


def test_other_spelling_names_its_file() -> None:
    with pytest.raises(NotTrustedError) as caught:
        load_canonical(b"[1 ]", "file")
    assert (caught.value.code, caught.value.subject) == ("json.refused", "file")


@pytest.mark.parametrize("text", [b"\\", b'"'])
def test_depth_is_counted_in_no_more_memory_than_the_text_has(text: bytes) -> None:
    data = b'"' + text * ((1 << 17) // len(text))
    tracemalloc.start()
    try:
        refused_or_read(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * len(data)


@pytest.mark.parametrize("block", [1, 2, 3, 7, strictjson._BLOCK_BYTES])
@pytest.mark.parametrize("said", ["[" * 50, "]" * 50, '{"[', '\\"[', "\\\\", ",:" * 3000, '"\\"'])
def test_what_stands_in_a_string_counts_for_nothing(monkeypatch: pytest.MonkeyPatch, block: int, said: str) -> None:
    monkeypatch.setattr(strictjson, "_BLOCK_BYTES", block)
    deep: object = said
    for _ in range(MAX_DEPTH - 1):
        deep = [deep]
    good = [said, {said: said}, deep]
    assert load(to_file(good), "file") == good
    assert refusal(to_file([said, [deep]])).found == "deeper nesting"
    values = MAX_VALUES + len(said) // 4 + 200
    assert refusal(to_file([said, *[1] * (2 * values)])).found == "more"


def refused_or_read(data: bytes) -> None:
    with contextlib.suppress(NotTrustedError):
        load(data, "file", 1 << 22)

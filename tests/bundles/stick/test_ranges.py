"""Missing blobs are named by short ranges that survive a telephone call, and a wrong one is noticed."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundles.bundle import Bundle
from bundles.stick.ranges import check_word, find_ranges, format_numbers, format_ranges, parse_ranges
from signing.digest import sha256
from signing.errors import UsageError
from tests.bundles.plain_bundle import plain_bundle

BUNDLE = plain_bundle([str(number).encode() for number in range(638)])
OTHER = plain_bundle([str(number).encode() for number in range(638)], version="1.0.1")
SETS = st.sets(st.integers(1, 640), min_size=1, max_size=60)


def ranges(numbers: set[int], bundle: Bundle = BUNDLE) -> str:
    return format_ranges(bundle, {bundle.blobs[number - 1].sha256 for number in numbers})


def test_three_of_640_blobs_fit_20_characters() -> None:
    assert len(BUNDLE.blobs) == 640
    text = ranges({223, 448, 586})
    assert text.startswith("223,448,586 ")
    assert len(text) == len("223,448,586 b318") <= 20
    # The longest numbers of all.
    assert max(len(ranges(set(random.Random(seed).sample(range(600, 641), 3)))) for seed in range(50)) <= 20


def test_nothing_missing_is_no_text() -> None:
    assert format_ranges(BUNDLE, ()) == ""
    assert format_ranges(BUNDLE, {sha256(b"of no bundle")}) == ""


@pytest.mark.parametrize(
    ("numbers", "text"),
    [({1}, "1"), ({1, 2}, "1-2"), ({5, 1, 3}, "1,3,5"), ({7, 8, 9, 11}, "7-9,11"), (set(range(1, 641)), "1-640")],
)
def test_numbers_are_written_in_one_form(numbers: set[int], text: str) -> None:
    assert format_numbers(numbers) == text


@settings(max_examples=100)
@given(SETS, st.randoms(use_true_random=False))
def test_what_one_side_shows_the_other_reads_however_it_is_typed(numbers: set[int], dice: random.Random) -> None:
    wanted = tuple(BUNDLE.blobs[number - 1] for number in sorted(numbers))
    text = ranges(numbers)
    assert parse_ranges(text, BUNDLE) == wanted
    part, word = text.split(" ")
    items = part.split(",")
    dice.shuffle(items)
    typed = dice.choice([",", ", ", " , ", " "]).join(items).replace("-", dice.choice(["-", " - "]))
    assert parse_ranges(f"  {typed}  {word.upper()}\n", BUNDLE) == wanted


@settings(max_examples=60)
@given(SETS, SETS)
def test_another_set_of_numbers_has_another_check_word_or_is_the_same(first: set[int], second: set[int]) -> None:
    words = [check_word(BUNDLE.manifest, sorted(one)) for one in (first, second)]
    if words[0] != words[1]:
        with pytest.raises(UsageError) as refused:
            parse_ranges(f"{format_numbers(first)} {words[1]}", BUNDLE)
        assert refused.value.code == "ranges.check-word"
        assert words[0] not in str(refused.value), "the right word would be typed without comparing"


def test_one_wrong_digit_is_noticed() -> None:
    text = ranges({223, 448, 586})
    with pytest.raises(UsageError) as refused:
        parse_ranges(text.replace("448", "443"), BUNDLE)
    assert (refused.value.code, refused.value.exit_code) == ("ranges.check-word", 2)
    assert "compare" in refused.value.hint


def test_ranges_of_another_bundle_are_refused_and_name_this_one() -> None:
    with pytest.raises(UsageError) as refused:
        parse_ranges(ranges({3, 4}, OTHER), BUNDLE)
    assert refused.value.code == "ranges.check-word"
    assert BUNDLE.manifest[:12] in refused.value.expected


def test_the_check_word_finds_the_bundle() -> None:
    text = ranges({3, 9}, OTHER)
    bundle, chunks = find_ranges(text, (BUNDLE, OTHER))
    assert bundle is OTHER
    assert chunks == (OTHER.blobs[2], OTHER.blobs[8])
    with pytest.raises(UsageError):
        find_ranges("1-3 0000", (BUNDLE, OTHER))


@pytest.mark.parametrize("typed", ["3\u20139 {}", "3 \u2014 9, {}", "3-9,{}", "3\u22129 {}", " 3-9 , {} "])
def test_dashes_of_mail_programs_and_a_comma_before_the_word_are_read(typed: str) -> None:
    chunks = parse_ranges(typed.format(check_word(BUNDLE.manifest, list(range(3, 10)))), BUNDLE)
    assert chunks == tuple(BUNDLE.blobs[2:9])


@pytest.mark.parametrize("numbers", ["0", "641", "9-3", "1-641", "640-9999999"])
def test_a_number_that_the_bundle_does_not_have_is_refused(numbers: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_ranges(f"{numbers} b318", BUNDLE)
    assert refused.value.code in ("ranges.number", "ranges.form")


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "b318",
        "1",
        "1 b31",
        "1 b3188",
        "1 g318",
        "1,,2 b318 b318",
        "a 1 b318",
        "-1 b318",
        "1- b318",
        "1-2-3 b318",
        "1;2 b318",
        "1 ٣٣٣٣",
        "٣ b318",
        "00000000001 b318",
        "1," * 40_000 + "1 b318",
    ],
)
def test_what_is_no_range_is_refused_with_the_form(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_ranges(text, BUNDLE)
    assert refused.value.code == "ranges.form"
    assert "223,448-450 b318" in refused.value.expected
    assert len(refused.value.subject) <= 80


@settings(max_examples=200)
@given(st.text(alphabet="0123456789,- \tabcdefABCDEF\n", max_size=40))
def test_any_text_is_read_or_refused_as_usage(text: str) -> None:
    try:
        chunks = parse_ranges(text, BUNDLE)
    except UsageError:
        return
    assert format_ranges(BUNDLE, {chunk.sha256 for chunk in chunks}).split()[1] in text.lower()

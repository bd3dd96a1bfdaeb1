"""T114: ranges of missing blobs with a wrong number, or of another bundle, so that other blobs are carried."""

from __future__ import annotations

import pytest

from bundles.stick.ranges import format_ranges, parse_ranges
from tests.attacks.harness import guard_off, refused, row
from tests.bundles.plain_bundle import plain_bundle

ROW = row(114)
BLOBS = [str(number).encode() for number in range(600)]
BUNDLE, OTHER = plain_bundle(BLOBS), plain_bundle(BLOBS, version="1.0.1")
MISSING = (BUNDLE.blobs[222], BUNDLE.blobs[447])
TEXT = format_ranges(BUNDLE, {chunk.sha256 for chunk in MISSING})


def test_unattacked_ranges_name_the_missing_blobs() -> None:
    assert parse_ranges(TEXT, BUNDLE) == MISSING


@pytest.mark.parametrize("change", [("223", "233"), ("448", "484"), (",", "-"), ("223,", "")])
def test_attacked_by_a_number_that_was_read_out_wrongly(change: tuple[str, str]) -> None:
    wrong = TEXT.replace(*change)
    refused(ROW, lambda: parse_ranges(wrong, BUNDLE), "ranges.check-word", wrong)


def test_attacked_by_the_ranges_of_another_bundle() -> None:
    refused(ROW, lambda: parse_ranges(TEXT, OTHER), "ranges.check-word", TEXT)


def test_unguarded_other_blobs_are_carried() -> None:
    wrong = TEXT.replace("223", "233")
    with guard_off(ROW.guard, lambda *_: TEXT.split()[1]):
        assert parse_ranges(wrong, BUNDLE) == (BUNDLE.blobs[232], BUNDLE.blobs[447])

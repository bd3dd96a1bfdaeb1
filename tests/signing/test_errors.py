"""Errors are data: which code a class leaves with, what it says, and which of several is told first."""

from __future__ import annotations

import pytest

from signing import errors
from signing.errors import (
    ApplianceError,
    DamagedError,
    HostUnfitError,
    NextStickError,
    NotTrustedError,
    UsageError,
    worst,
)

EXIT_CODES = {
    "ApplianceError": 1,
    "UsageError": 2,
    "DamagedError": 3,
    "NotTrustedError": 4,
    "NextStickError": 5,
    "HostUnfitError": 6,
    "ApplyRestoredError": 7,
    "ApplyBrokenError": 8,
    "DriftError": 9,
    "BusyError": 75,
}


def test_every_class_has_the_exit_code_of_the_manual() -> None:
    found = {
        name: value.exit_code
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, ApplianceError)
    }
    assert found == EXIT_CODES


def test_error_says_what_is_known_and_nothing_more() -> None:
    assert str(ApplianceError("a.b", "file")) == "a.b: file"
    assert str(ApplianceError("a.b", "file", found="two")) == "a.b: file; found two"
    assert str(ApplianceError("a.b", "file", expected="one")) == "a.b: file; expected one"
    assert (
        str(ApplianceError("a.b", "file", expected="one", found="two", hint="h"))
        == "a.b: file; expected one; found two"
    )


def test_error_keeps_its_fields_and_leaves_the_rest_empty() -> None:
    bare = ApplianceError("a.b", "file")
    assert (bare.code, bare.subject, bare.expected, bare.found, bare.hint, bare.others) == (
        "a.b",
        "file",
        "",
        "",
        "",
        (),
    )
    assert bare.args == ("a.b", "file")
    full = ApplianceError("a.b", "file", expected="1", found="2", hint="3", others=(bare,))
    assert (full.expected, full.found, full.hint, full.others) == ("1", "2", "3", (bare,))


def test_not_trusted_beats_damaged_damaged_beats_the_rest_and_the_next_stick_comes_last() -> None:
    order = [NotTrustedError, DamagedError, UsageError, NextStickError]
    for at, gravest in enumerate(order):
        for other in order[at + 1 :]:
            for kinds in ((gravest, other), (other, gravest)):
                first, second = kinds[0]("a", "1"), kinds[1]("b", "2")
                told = worst([first, second])
                assert type(told) is gravest
                assert told.others == tuple(error for error in (first, second) if error is not told)


@pytest.mark.parametrize("kind", [NotTrustedError, DamagedError, UsageError, HostUnfitError, NextStickError])
def test_of_two_alike_the_first_is_told_first(kind: type[ApplianceError]) -> None:
    first, second, third = kind("a", "1"), kind("b", "2"), kind("c", "3")
    assert worst([first, second, third]) is first
    assert first.others == (second, third)


def test_errors_of_no_rank_keep_their_order() -> None:
    first, second = UsageError("a", "1"), HostUnfitError("b", "2")
    assert worst([first, second]) is first
    assert worst([second, first]) is second

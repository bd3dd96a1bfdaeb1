"""No example of a test has a deadline."""

from __future__ import annotations

from hypothesis import settings


def test_no_example_has_a_deadline_unless_a_test_gives_it_one() -> None:
    assert settings.default is not None
    assert settings.default.deadline is None
    assert settings(max_examples=1).deadline is None

"""How tests that make their own examples run: a pytest plugin.

Rule: no example has a deadline. A loaded machine needs several times as long, and the limit of each whole test is
pytest's own.
"""

from __future__ import annotations

from hypothesis import settings


def pytest_configure() -> None:
    """Choose the profile, before the first test module takes its defaults from it."""
    settings.register_profile("house", deadline=None)
    settings.load_profile("house")

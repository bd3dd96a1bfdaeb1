"""Collecting the tests without the garbage collector: a pytest plugin.

Thousands of modules and items are made and kept; looking through them for garbage takes a third of that time. What was
collected stays until the end, so it is never looked through again.
"""

from __future__ import annotations

import gc


def pytest_configure() -> None:
    """Stop it before the first test module is loaded."""
    gc.disable()


def pytest_collection_finish() -> None:
    """From here on tests are run, and what they leave must be found."""
    gc.enable()
    gc.collect()
    gc.freeze()

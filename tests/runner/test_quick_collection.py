"""While tests run, garbage is collected: a file that a test leaves open is reported."""

from __future__ import annotations

import gc


def test_garbage_is_collected_while_tests_run() -> None:
    assert gc.isenabled()
    assert gc.get_freeze_count() > 0

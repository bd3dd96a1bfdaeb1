"""T87: JSON of many tiny values. Each needs 50 bytes and more once it is parsed: a small file would fill a memory."""

from __future__ import annotations

import tracemalloc

from signing.strictjson import load, to_file
from tests.attacks.harness import guard_off, refused, row

ROW = row(87)
BOMB = b"[" + b"[]," * 100_000 + b"0]"
ALLOWED = 4 * len(BOMB)


def cost(data: bytes) -> int:
    """How much memory it takes at most to read it, or to refuse it."""
    tracemalloc.start()
    try:
        load(data, "bomb")
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_unattacked_file_of_the_same_size_is_read() -> None:
    assert cost(to_file(["a" * 64] * (len(BOMB) // 67))) < ALLOWED


def test_attacked_by_a_file_of_empty_lists() -> None:
    refused(ROW, lambda: load(BOMB, "bomb"), "json.refused", "bomb")


def test_unguarded_it_costs_many_times_its_size() -> None:
    with guard_off(ROW.guard, lambda *_: None):
        assert cost(BOMB) > 5 * ALLOWED

"""The slots of one engine: which are free, and whose text each one holds.

Owns the choice of a slot. An engine keeps the tokens of the last piece in each slot, and need not read a text again
that begins alike. That shows in the time to the first token. So it is allowed within one owner, never across owners.

Rules:
- a slot counts as warm for the owner of its last piece alone, and only where the engine has begun to read that. A piece
  that was refused or broken off before leaves the text of another owner in the slot: it is then warm for nobody;
- a piece without a text for a slot (a count of tokens) takes a place, and changes nothing of what the slot holds;
- of the free slots, a piece gets the one of its owner that holds the longest common beginning. Where none holds any, it
  gets the one that was free for the longest;
- no text is kept here: beginnings are compared by hashes of their blocks, which hold for this process alone.
"""

from __future__ import annotations

from dataclasses import dataclass

BLOCK_BYTES = 128
MAX_BYTES = 256 << 10
"""Of a text that is compared."""


def block_hashes(text: bytes) -> tuple[int, ...]:
    """A hash for each whole block of a text, of everything up to the block's end.

    Args:
        text: a body for the engine; its first `MAX_BYTES` count.
    """
    hashes: list[int] = []
    last = 0
    for at in range(BLOCK_BYTES, min(len(text), MAX_BYTES) + 1, BLOCK_BYTES):
        last = hash((last, text[at - BLOCK_BYTES : at]))
        hashes.append(last)
    return tuple(hashes)


@dataclass(slots=True)
class _Slot:
    """What one slot holds, and what the piece that works in it leaves there once the engine reads it."""

    owner: str | None = None
    held: tuple[int, ...] = ()
    next: tuple[str, tuple[int, ...]] | None = None
    freed: int = 0
    is_free: bool = True


class Slots:
    """The slots of one engine.

    Args:
        count: of them, 1 or more.
    """

    def __init__(self, count: int) -> None:
        self._slots = [_Slot() for _ in range(count)]
        self._moment = 0

    @property
    def free(self) -> int:
        """How many are free."""
        return sum(slot.is_free for slot in self._slots)

    def take(self, owner: str, text: bytes | None) -> tuple[int, bool]:
        """Take a free slot.

        Args:
            owner: whose piece it is.
            text: that the engine will read in this slot; None where it uses none.

        Returns:
            The slot's number, and whether its last piece was of the same owner.
        """
        held = block_hashes(text or b"")

        def rank(number: int) -> tuple[int, int]:
            slot = self._slots[number]
            return (-_common(slot.held, held) if slot.owner == owner else 0, slot.freed)

        number = min((at for at, slot in enumerate(self._slots) if slot.is_free), key=rank)
        slot = self._slots[number]
        is_warm = slot.owner == owner
        slot.next, slot.is_free = None if text is None else (owner, held), False
        return number, is_warm

    def give_back(self, number: int, *, is_read: bool) -> None:
        """Make a slot free again.

        Args:
            number: of the slot.
            is_read: whether the engine has begun to read the text of the piece: it holds no other text then.
        """
        slot = self._slots[number]
        if slot.next is not None:
            slot.owner, slot.held = slot.next if is_read else (None, ())
        self._moment += 1
        slot.next, slot.is_free, slot.freed = None, True, self._moment

    def forget(self) -> None:
        """No slot is warm: the engine was started again."""
        for slot in self._slots:
            slot.owner, slot.held = None, ()


def _common(first: tuple[int, ...], second: tuple[int, ...]) -> int:
    count = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        count += 1
    return count

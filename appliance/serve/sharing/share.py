"""Whose work a piece is, and the turn that it gets: what the queue of an engine takes and gives."""

from __future__ import annotations

from dataclasses import dataclass

MAX_WEIGHT = 16


@dataclass(frozen=True, slots=True)
class Share:
    """Whose work it is, and how much of an engine that one may have.

    Args:
        owner: the id of the key; pieces of one owner share one place in the order of service.
        weight: 1 to `MAX_WEIGHT`; while others wait, an owner gets tokens in proportion to it.
        concurrency: pieces of one owner that an engine works on at once; 0 for no bound but that of the slots.
    """

    owner: str
    weight: int = 1
    concurrency: int = 0


@dataclass(slots=True)
class Turn:
    """A slot of an engine, held for one piece of work.

    Args:
        slot: its number, from 0, which the engine gets as `id_slot`.
        is_warm: whether the last piece on it was of the same owner. Only then may the engine reuse what it holds of
            that: how fast an answer begins would else show one owner another's texts.
        cost: tokens that the piece counts for; an estimate.
        spent: tokens that it has cost; None until `spend`.
        is_read: whether the engine has begun to read the piece.
    """

    slot: int
    is_warm: bool
    cost: int
    spent: int | None = None
    is_read: bool = False

    def fields(self) -> dict[str, int | bool]:
        """The fields by which the engine uses this slot, and reads a prompt anew where it may not reuse it."""
        return {"id_slot": self.slot, "cache_prompt": self.is_warm}

    def spend(self, tokens: int) -> None:
        """Correct the estimate of the cost.

        Args:
            tokens: that the engine has read and written, 0 or more.
        """
        self.spent = tokens
